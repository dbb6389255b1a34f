"""A wids JSON, from a path, a url or a stream -> its shards as a list, each with a url that can be opened.

    {"wids_version": 1, "name", "base", "shardlist": [{"url", "nsamples", "filesize", "md5sum", ...}],
     "datasets": [{"source_url", "weight"} or {"name", "base", "weight", "shardlist"}]}

Rules: relative urls are below the `base` that is nearest: the argument, the one in the file (itself below the folder of
the file), the folder of the file. Keys that nobody knows stay. Commands that come from a file do not run unless that is
allowed. A list may have 100,000 shards: nothing here is slow for each.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from webdataset.errors import ShardListError, printable, public_url
from webdataset.shardfiles import is_elsewhere, read_shard_file, refuse_pipes, url_beside
from webdataset.shardjson import VERSION
from webdataset.storage.options import StorageOptions
from webdataset.storage.urls import scheme_of

from .wids_dl import download_and_open

__all__ = [
    "check_shards",
    "download_and_open",
    "load_dsdesc_and_resolve",
    "load_remote_dsdesc_raw",
    "rebase_shardlist",
    "resolve_dsdesc",
    "set_all",
    "urldir",
    "urlmerge",
]

Spec = dict[str, Any]


def urldir(url: str) -> str:
    """The folder of what a url names; a query stays.

    >>> urldir("http://host/a/b.json"), urldir("a/b.json"), urldir("b.json")
    ('http://host/a', 'a', '')
    """
    scheme = scheme_of(url)
    if scheme in ("", "pipe"):
        return posixpath.dirname(url)
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(path=posixpath.dirname(parts.path)))


def urlmerge(base: str, url: str) -> str:
    """A url as it is meant below a base: whole urls stay, an absolute path replaces the path of the base.

    >>> urlmerge("http://host/a", "b.tar"), urlmerge("http://host/a", "/b.tar"), urlmerge("data", "../b.tar")
    ('http://host/a/b.tar', 'http://host/b.tar', 'b.tar')
    """
    return _below(base)(url)


def _below(base: str) -> Callable[[str], str]:
    """`urlmerge` for many urls and one base."""
    if scheme_of(base) == "pipe":
        raise ShardListError(f"{public_url(base)}: a command is no folder; give base=")
    if not scheme_of(base):
        return lambda url: url if scheme_of(url) else posixpath.normpath(posixpath.join(base, url))
    parts = urllib.parse.urlsplit(base)
    start = f"{parts.scheme}://{parts.netloc}"
    folder = parts.path if parts.path.startswith("/") else f"/{parts.path}"

    def merged(url: str) -> str:
        if scheme_of(url):
            return url
        path, mark, rest = _split_query(url)
        return start + posixpath.normpath(posixpath.join(folder, path)) + mark + rest

    return merged


def _split_query(url: str) -> tuple[str, str, str]:
    found = re.search(r"[?#]", url)
    return (url, "", "") if found is None else (url[: found.start()], found[0], url[found.end() :])


def rebase_shardlist(shardlist: list[Spec], base: str | None) -> list[Spec]:
    """The shards with their urls below a base; None leaves them as they are."""
    if base is None:
        return shardlist
    below = _below(base)
    return [{**shard, "url": below(shard["url"])} for shard in shardlist]


def set_all(l: list[Spec], k: str, v: Any) -> None:  # noqa: E741 - a public name of old
    """Set a key in all shards that lack it; None sets nothing."""
    if v is not None:
        for shard in l:
            shard.setdefault(k, v)


def check_shards(l: list[Spec]) -> list[Spec]:  # noqa: E741 - a public name of old
    """The shards, if they are such.

    Raises:
        ShardListError: one lacks its url or its number of samples.
    """
    return _checked(l, "shards")


def _checked(shards: Any, where: str) -> list[Spec]:
    if not isinstance(shards, list):
        raise ShardListError(f"{where}: must be a list of shards, got {type(shards).__name__}")
    for number, shard in enumerate(shards):
        if not isinstance(shard, dict):
            raise ShardListError(
                f"{where}[{number}]: a shard is a mapping such as {{'url': 'a.tar', 'nsamples': 3}}, got"
                f" {printable(repr(shard))}"
            )
        url, nsamples = shard.get("url"), shard.get("nsamples")
        if not isinstance(url, str) or not url:
            raise ShardListError(f"{where}[{number}]: url must be text, got {printable(repr(url))}")
        if type(nsamples) is not int or nsamples < 0:
            raise ShardListError(
                f"{where}[{number}] ({public_url(url)}): nsamples must be a number of samples,"
                f" got {printable(repr(nsamples))}"
            )
    return shards


def load_remote_dsdesc_raw(source: Any, *, storage_options: StorageOptions | None = None) -> Spec:
    """What the JSON at a path or url, or in an open stream, says; nothing of it is checked but that it is a mapping.

    Raises:
        NotFoundError, OpenError: it cannot be read.
        ShardListError: it is no JSON, or no mapping.
    """
    if isinstance(source, (str, os.PathLike)):
        text: Any = read_shard_file(os.fspath(source), storage_options)
    else:
        text = source.read()
    where = _File.of(source).where
    try:
        spec = json.loads(text)
    except (ValueError, RecursionError) as exn:
        raise ShardListError(f"{where}: not a wids index, it cannot be read as JSON: {exn}") from exn
    if not isinstance(spec, dict):
        raise ShardListError(f"{where}: a wids index is a mapping with the key shardlist, got {type(spec).__name__}")
    return spec


def load_dsdesc_and_resolve(
    source: Any,
    *,
    options: Spec | None = None,
    base: str | None = None,
    allow_pipe: bool | None = None,
    storage_options: StorageOptions | None = None,
) -> Spec:
    """The wids index at a path or url, or in a stream, with all shards in its `shardlist`, their urls whole.

    Args:
        options: keys that replace those of the file.
        base: what relative urls are below; None: the `base` of the file, else the folder it lies in.
        allow_pipe: let commands (`pipe:`) of the file run; None: WDS_ALLOW_PIPE=1 says so.
        storage_options: how remote files are read.

    Raises:
        ShardListError: something in it is not as it must be; the message names file and field.
        SecurityError: it has commands that are not allowed.
    """
    spec = {**load_remote_dsdesc_raw(source, storage_options=storage_options), **(options or {})}
    return _resolved(spec, _File.of(source, allow_pipe, storage_options), base)


def resolve_dsdesc(dsdesc: Spec, *, options: Spec | None = None, base: str | None = None) -> Spec:
    """As `load_dsdesc_and_resolve`, for an index that has been read already."""
    return _resolved({**dsdesc, **(options or {})}, _File("index"), base)


@dataclass(frozen=True)
class _File:
    """Where an index comes from.

    Attributes:
        where: what messages call it.
        folder: what lies beside it is in here; None: not known.
        remote: its url, where it is from elsewhere.
        allow_pipe: whether its commands may run; options: how what it names is read.
    """

    where: str
    folder: str | None = None
    remote: str | None = None
    allow_pipe: bool | None = None
    options: StorageOptions | None = None

    @classmethod
    def of(cls, source: Any, allow_pipe: bool | None = None, options: StorageOptions | None = None) -> _File:
        if not isinstance(source, (str, os.PathLike)):
            return cls(str(getattr(source, "name", "JSON stream")), None, None, allow_pipe, options)
        url = os.fspath(source)
        folder = urldir(url) if scheme_of(url) != "pipe" else None
        return cls(public_url(url), folder, url if is_elsewhere(url) else None, allow_pipe, options)

    def check(self, urls: list[str], field: str) -> None:
        """Raise SecurityError or ShardListError if the file may not name one of these."""
        refuse_pipes(urls, f"{self.where}: {field}", self.allow_pipe)
        if self.remote is not None:
            for url in urls:
                if scheme_of(url):
                    url_beside(self.remote, url)


def base_of(spec: Spec, source: Any) -> str | None:
    """What relative urls of an index that was read from this source are below; None: of the working directory."""
    file = _File.of(source)
    return _base_of(spec, file, file.folder)


def _resolved(spec: Spec, file: _File, base: str | None) -> Spec:
    _check_version(spec, file)
    base = _base_of(spec, file, file.folder) if base is None else base
    shards = _shards_of(spec, file, "shardlist", base, weight=spec.get("weight"), name=spec.get("name"))
    components = spec.get("datasets") or []
    if not isinstance(components, list) or not all(isinstance(component, dict) for component in components):
        raise ShardListError(f"{file.where}: datasets must be a list of mappings, each with source_url or shardlist")
    for number, component in enumerate(components):
        shards += _component(component, file, f"datasets[{number}]", base)
    if not shards:
        raise ShardListError(f"{file.where}: it names no shards, neither in shardlist nor in datasets")
    spec["shardlist"] = shards
    return spec


def _component(component: Spec, file: _File, field: str, base: str | None) -> list[Spec]:
    """The shards of one of several data sets."""
    source = component.get("source_url")
    weight = component.get("weight")
    if source is None:
        own, name = _base_of(component, file, base), component.get("name")
        return _shards_of(component, file, f"{field}: shardlist", own, weight=weight, name=name, dataset=name)
    if not isinstance(source, str):
        raise ShardListError(f"{file.where}: {field}: source_url must be text, got {printable(repr(source))}")
    file.check([source], f"{field}: source_url")
    url = source if file.folder is None else urlmerge(file.folder, source)
    if not scheme_of(url) and not os.path.exists(url) and os.path.exists(source):
        url = source  # as published: below the working directory
    there = _File.of(url, file.allow_pipe, file.options)
    loaded = load_remote_dsdesc_raw(url, storage_options=file.options)
    _check_version(loaded, there)
    if loaded.get("datasets"):
        raise ShardListError(f"{there.where}: an index that {file.where} names must have a shardlist, not datasets")
    name = component.get("name", loaded.get("name"))
    own = _base_of({**loaded, **component}, there, there.folder)
    return _shards_of(loaded, there, "shardlist", own, weight=weight, source_url=source, name=name, dataset=name)


def _shards_of(spec: Spec, file: _File, field: str, base: str | None, **defaults: Any) -> list[Spec]:
    """Copies of the shards in `shardlist`, checked, below a base, with what they lack."""
    found = _checked(spec.get("shardlist", []), f"{file.where}: {field}")
    file.check([shard["url"] for shard in found], field)
    shards = [dict(shard) for shard in rebase_shardlist(found, base)]
    for key, value in defaults.items():
        set_all(shards, key, value)
    return shards


def _base_of(spec: Spec, file: _File, folder: str | None) -> str | None:
    base = spec.get("base")
    if base is None:
        return folder
    if not isinstance(base, str) or scheme_of(base) == "pipe":
        raise ShardListError(f"{file.where}: base must be a folder, a path or a url, got {printable(repr(base))}")
    file.check([base], "base")
    return base if folder is None else urlmerge(folder, base)


def _check_version(spec: Spec, file: _File) -> None:
    version = spec.get("wids_version")
    if version != VERSION:
        raise ShardListError(f"{file.where}: wids_version must be {VERSION}, got {printable(repr(version))}")
