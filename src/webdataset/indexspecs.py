"""A wids JSON, read -> its shards as it lists them, each with a url that can be opened.

    {"wids_version": 1, "name", "base", "shardlist": [{"url", "nsamples", "filesize", "md5sum", ...}],
     "datasets": [{"source_url", "weight"} or {"name", "base", "weight", "shardlist"}]}

Rules: such a file is data and not trusted. Relative urls are below the `base` that is nearest: the program's, the one
in the file (itself below the folder of the file), the folder of the file. One from elsewhere names no files of this
machine, unless the program gives a base here, and then only such below it. Commands do not run unless that is allowed.
Keys that nobody knows stay. A list may have 100,000 shards: nothing here is slow for each.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .errors import ShardListError, printable, public_url
from .shardfiles import is_elsewhere, read_shard_file, refuse_pipes, url_beside, without_query
from .storage.options import StorageOptions
from .storage.urls import scheme_of

VERSION = 1
_OPTIONAL = (("filesize", (int, float), "a number of bytes"), ("md5sum", str, "text, 32 hexadecimal digits"))
"""Field that a shard may have, what it is, and how messages say that."""
MOST_SAMPLES = 1 << 40
"""So many samples a shard may have, as a list says; a number above is no count."""
Spec = dict[str, Any]
Entry = tuple[str, Spec]
"""The place of a shard in a file, for messages, and what is said about it."""


def urldir(url: str) -> str:
    """The folder of what a url names; a query stays.

    >>> urldir("http://host/a/b.json"), urldir("a/b.json"), urldir("b.json")
    ('http://host/a', 'a', '')
    """
    if scheme_of(url) in ("", "pipe"):
        return posixpath.dirname(url)
    place, path, query = _parts(url)
    return place + posixpath.dirname(path) + query


def urlmerge(base: str, url: str) -> str:
    """A url as it is meant below a base: whole urls stay, an absolute path replaces the path of the base.

    >>> urlmerge("http://host/a", "b.tar"), urlmerge("http://host/a", "/b.tar"), urlmerge("data", "../b.tar")
    ('http://host/a/b.tar', 'http://host/b.tar', 'b.tar')
    """
    return below(base)(url)


def below(base: str) -> Callable[[str], str]:
    """`urlmerge` for many urls and one base."""
    if scheme_of(base) == "pipe":
        raise ShardListError(f"{public_url(base)}: a command is no folder; give base=")
    if not scheme_of(base):
        return lambda url: url if scheme_of(url) else posixpath.normpath(posixpath.join(base, url))
    place, folder, _ = _parts(base)
    folder = folder if folder.startswith("/") else f"/{folder}"

    def merged(url: str) -> str:
        if scheme_of(url):
            return url
        found = re.search(r"[?#]", url)
        path, rest = (url, "") if found is None else (url[: found.start()], url[found.start() :])
        return place + posixpath.normpath(posixpath.join(folder, path)) + rest

    return merged


def _parts(url: str) -> tuple[str, str, str]:
    """Scheme and host, path, and query of a url; only those of http have a query."""
    found = re.match(r"([^:/]+:)(//[^/?#]*)?", url)
    assert found is not None
    path = without_query(url)[found.end() :]
    return found[1] + (found[2] or "//"), path, url[found.end() + len(path) :]


def check_entry(entry: Any, where: str, *, counted: bool = False) -> Spec:
    """What a list says about a shard, if it is such; `where` is its place, and `counted` asks for its count.

    Raises:
        ShardListError: it lacks its url, its number of samples is none, or filesize or md5sum are of a wrong type.
    """
    if not isinstance(entry, dict):
        raise ShardListError(
            f"{where}: a shard is a mapping such as {{'url': 'a.tar', 'nsamples': 3}}, got {printable(repr(entry)):.80}"
        )
    url, nsamples = entry.get("url"), entry.get("nsamples")
    if not isinstance(url, str) or not url:
        raise ShardListError(f"{where}: url must be text, got {printable(repr(url)):.80}")
    is_count = type(nsamples) is int and 0 <= nsamples <= MOST_SAMPLES
    if not is_count and (counted or nsamples is not None):
        raise ShardListError(f"{where}: nsamples must be a number of samples, got {printable(repr(nsamples)):.80}")
    for field, kinds, wanted in _OPTIONAL:
        value = entry.get(field)
        if value is not None and (not isinstance(value, kinds) or value is True or value is False):
            raise ShardListError(f"{where}: {field} must be {wanted}, got {printable(repr(value)):.80}")
    return entry


def read_index(source: Any, options: StorageOptions | None = None) -> Spec:
    """The mapping in the JSON at a path or url, or in an open stream; nothing else of it is checked.

    Raises:
        NotFoundError, OpenError: it cannot be read.
        ShardListError: it is no JSON, or no mapping.
    """
    if isinstance(source, (str, os.PathLike)):
        text: Any = read_shard_file(os.fspath(source), options)
    else:
        text = source.read()
    where = IndexFile.of(source).where
    try:
        spec = json.loads(text)
    except (ValueError, RecursionError) as exn:
        fact = f"{where}: cannot be read as JSON: {exn}"
        raise ShardListError(f"{fact}; widsindex and ShardWriter(index=True) write what is wanted") from exn
    if not isinstance(spec, dict):
        raise ShardListError(f"{where}: a wids index is a mapping with the key shardlist, got {type(spec).__name__}")
    return spec


@dataclass(frozen=True)
class IndexFile:
    """Where an index comes from.

    Attributes:
        where: what messages call it.
        folder: what lies beside it is in here; None: not known.
        remote: its url, where it is from elsewhere.
        allow_pipe: whether its commands may run; options: how what it names is read.
        strict: whether wids reads it: it must have a version, and the number of samples of each shard; absolute paths
            in one on a server are paths there, while they are refused for streams, which may mean files of this host.
    """

    where: str
    folder: str | None = None
    remote: str | None = None
    allow_pipe: bool | None = None
    options: StorageOptions | None = None
    strict: bool = False

    @classmethod
    def of(
        cls,
        source: Any,
        allow_pipe: bool | None = None,
        options: StorageOptions | None = None,
        strict: bool = False,
    ) -> IndexFile:
        """The file that an index was read from: a path or url, or an open stream."""
        if not isinstance(source, (str, os.PathLike)):
            return cls(str(getattr(source, "name", "JSON stream")), None, None, allow_pipe, options, strict)
        url = os.fspath(source)
        folder = urldir(url) if scheme_of(url) != "pipe" else None
        return cls(public_url(url), folder, url if is_elsewhere(url) else None, allow_pipe, options, strict)

    def entries(self, spec: Spec, base: str | None = None) -> Iterator[Entry]:
        """The shards that it lists, those of its components too; what is below `base`, and not its own, if given."""
        self._check_version(spec)
        given = base is not None
        base = self.base_of(spec) if base is None else base
        for place, entry in self.listed(spec, "shardlist", base, given):
            yield place, _completed(entry, weight=spec.get("weight"), name=spec.get("name"))
        components = spec.get("datasets") or []
        if not isinstance(components, list) or not all(isinstance(component, dict) for component in components):
            raise ShardListError(
                f"{self.where}: datasets must be a list of mappings, each with source_url or shardlist"
            )
        for number, component in enumerate(components):
            yield from self._component(component, f"datasets[{number}]", base, given)

    def base_of(self, spec: Spec, folder: str | None = None) -> str | None:
        """What relative urls of it are below; None: of the working directory."""
        folder = self.folder if folder is None else folder
        base = spec.get("base")
        if base is None:
            return folder
        if not isinstance(base, str) or scheme_of(base) == "pipe":
            raise ShardListError(
                f"{self.where}: base must be a folder, a path or a url, got {printable(repr(base)):.80}"
            )
        merged = base if folder is None else urlmerge(folder, base)
        self._check(base, merged, f"{self.where}: base")
        return merged

    def listed(
        self, spec: Spec, field: str, base: str | None, given: bool = False, names: list[str] | None = None
    ) -> Iterator[Entry]:
        """The shards in `shardlist`, their urls below a base, which the program may have given.

        Args:
            names: what messages call the places of the shards; None: they are numbered.
        """
        shards = spec.get("shardlist", [])
        if not isinstance(shards, list):
            raise ShardListError(f"{self.where}: {field}: must be a list of shards, got {type(shards).__name__}")
        merge = (lambda url: url) if base is None else below(base)
        for number, entry in enumerate(shards):
            place = f"{self.where}: {field}[{number}]" if names is None else names[number]
            url = check_entry(entry, place, counted=self.strict)["url"]
            merged = merge(url)
            self._check(url, merged, place, given)
            yield place, {**entry, "url": merged}

    def _check(self, name: str, merged: str, place: str, given: bool = False) -> None:
        """Raise SecurityError or ShardListError if the file may not name this."""
        if name[:5].lower() == "pipe:":
            refuse_pipes([name], place, self.allow_pipe)
        if self.remote is None:
            return
        if scheme_of(name) or not (self.strict or given):
            url_beside(self.remote, name)
        elif not scheme_of(merged) and (not given or name.startswith("/") or posixpath.normpath(name).startswith("..")):
            url_beside(self.remote, f"/{merged.lstrip('/')}")

    def _component(self, component: Spec, field: str, base: str | None, given: bool) -> Iterator[Entry]:
        """The shards of one of several data sets."""
        source, weight = component.get("source_url"), component.get("weight")
        if source is None:
            name = component.get("name")
            own = self.base_of(component, base)
            for place, entry in self.listed(
                component, f"{field}: shardlist", own, given and component.get("base") is None
            ):
                yield place, _completed(entry, weight=weight, name=name, dataset=name)
            return
        if not isinstance(source, str):
            raise ShardListError(f"{self.where}: {field}: source_url must be text, got {printable(repr(source)):.80}")
        url = source if self.folder is None else urlmerge(self.folder, source)
        self._check(source, url, f"{self.where}: {field}: source_url")
        if not scheme_of(url) and not os.path.exists(url) and os.path.exists(source):
            url = source  # as published: below the working directory
        there = IndexFile.of(url, self.allow_pipe, self.options, self.strict)
        loaded = read_index(url, self.options)
        there._check_version(loaded)
        if loaded.get("datasets"):
            raise ShardListError(
                f"{there.where}: a JSON that {self.where} names must have a shardlist, it names no further one"
            )
        name = component.get("name", loaded.get("name"))
        for place, entry in there.listed(loaded, "shardlist", there.base_of({**loaded, **component})):
            yield place, _completed(entry, weight=weight, source_url=source, name=name, dataset=name)

    def _check_version(self, spec: Spec) -> None:
        version = spec.get("wids_version", None if self.strict else VERSION)
        if version != VERSION:
            raise ShardListError(f"{self.where}: wids_version must be {VERSION}, got {printable(repr(version)):.80}")


def _completed(entry: Spec, **defaults: Any) -> Spec:
    for key, value in defaults.items():
        if value is not None:
            entry.setdefault(key, value)
    return entry
