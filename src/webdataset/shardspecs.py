"""Specs: a YAML or JSON file, or a dict, that says which shards of which sources an epoch has -> their urls.

    prefix: https://example.com/
    datasets:
      - name: books
        buckets: books
        shards: books-{000..999}.tar
        choose: 100

A file, local or anywhere that `gopen` reads, is data and not trusted: it is read without making objects, unknown keys
are errors, and what it may name `shardfiles` says. Nothing is looked up before that is known.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import posixpath
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from reprlib import repr as shown_short  # YAML can say a value of any size in few bytes
from typing import Any

from ._arguments import shown
from ._optional import require
from ._torchdata import TorchIterable
from .braces import braceexpand
from .errors import EmptyDatasetError, NotFoundError, SecurityError, ShardListError, printable, public_url
from .order.seeds import epoch_random
from .security import refuse_if_secure
from .shardfiles import is_elsewhere, read_shard_file, refuse_pipes, url_beside, without_query
from .shardglobs import expand_stars
from .storage.local import local_path
from .storage.options import StorageOptions
from .storage.options import storage_options as options_of
from .storage.urls import scheme_of
from .workers import resolve_seed

logger = logging.getLogger(__name__)

SPEC_KEYS = ("prefix", "datasets", "buckets")
SOURCE_KEYS = ("buckets", "name", "shards", "resample", "choose")


@dataclass
class MSSource:
    """One source of a spec.

    Attributes:
        name: what the spec calls it.
        perepoch: shards of it in an epoch, -1 for all of them.
        resample: whether they are drawn with replacement.
        urls: all its shards.
    """

    name: str = ""
    perepoch: int = -1
    resample: bool = False
    urls: list[str] = field(default_factory=list)


class MultiShardSample(TorchIterable):
    """The shards of several sources as `{"url": str}`, so many of each as a spec says, shuffled anew in each epoch.

    A spec has the keys `datasets`, `prefix` (in front of every url) and `buckets` (the folder of all
    sources). A source has `shards` (a pattern or a list of patterns, where `~` and `$NAME` mean what
    they mean in a shell, except in a file from elsewhere), `name`, `buckets`, and one of `resample: n`
    (n drawn with replacement) and `choose: n` (n different ones); with neither, all are used.
    The order is the same in all readers, so that they may split it.

    Attributes:
        sources: the sources, as MSSource.
        rng: the generator that `set_epoch` made, None before.

    Raises:
        ShardListError: the spec is not as it must be, or one from elsewhere names a local file (a ValueError).
        SecurityError: a file has `pipe:` urls that are not allowed.
    """

    random_stages = 1

    def __init__(
        self,
        fname: Any,
        *,
        allow_pipe: bool | None = None,
        storage_options: StorageOptions | Mapping[str, Any] | None = None,
    ) -> None:
        """`fname`: path or url of a YAML or JSON file, or the dict itself. `allow_pipe`: None asks WDS_ALLOW_PIPE.

        `storage_options`: how remote places are listed and read.
        """
        self.allow_pipe = allow_pipe
        self.storage_options = None if storage_options is None else options_of(storage_options)
        self.sources: list[MSSource] = []
        self.rng: random.Random | None = None
        self._epoch = 0
        self.parse_spec(fname)

    def parse_spec(self, fname: Any) -> None:
        """Take the sources of this spec, a path, a url or a dict."""
        if not isinstance(fname, (dict, str, os.PathLike)):
            raise TypeError(f"MultiShardSample: fname must be a dict or the path of a spec, got {shown(fname)}")
        file = None if isinstance(fname, dict) else os.fspath(fname)
        where = "spec" if file is None else public_url(file)
        spec = fname if isinstance(fname, dict) else read_spec(fname, self.storage_options)
        _check_keys(spec, SPEC_KEYS, where)
        datasets = spec.get("datasets")
        if not isinstance(datasets, list) or not datasets:
            raise ShardListError(f"{where}: datasets must be a list of sources, got {shown_short(datasets):.200}")
        prefix = _text(spec.get("prefix", ""), f"{where}: prefix")
        self.sources = []
        for i, source in enumerate(datasets):
            place = f"{where}: datasets[{i}]"
            found = _parse_source(source, place)
            patterns = _patterns(source, prefix, spec.get("buckets", ""), place, file)
            if file is not None:
                refuse_pipes(patterns, place, self.allow_pipe)
            found.urls = [url for pattern in patterns for url in expand_stars(pattern, self.storage_options)]
            _check_counts(found, place)
            self.sources.append(found)
            logger.info("%s: %d shards, %d an epoch", found.name, *_counts(found))

    def set_epoch(self, seed: int) -> None:
        """Draw from `random.Random(seed)` from now on."""
        self.rng = random.Random(seed)

    def start(self, epoch: int, reader: int) -> None:
        """The next pass is this epoch, counted from 0; all readers draw alike."""
        self._epoch = epoch

    def get_shards_for_epoch(self) -> list[str]:
        """The urls of the next epoch, in its order."""
        epoch, self._epoch = self._epoch, self._epoch + 1
        rng = epoch_random(resolve_seed(None), epoch) if self.rng is None else self.rng
        shards: list[str] = []
        for source in self.sources:
            if source.perepoch < 0:
                shards += source.urls
            elif source.resample:
                shards += rng.choices(source.urls, k=source.perepoch)
            else:
                shards += rng.sample(source.urls, source.perepoch)
        rng.shuffle(shards)
        return shards

    def __iter__(self) -> Iterator[dict[str, str]]:
        return ({"url": url} for url in self.get_shards_for_epoch())


def read_spec(path: Any, options: StorageOptions | None = None) -> dict[str, Any]:
    """The mapping in a YAML or JSON file, wherever it is; plain values only, never objects."""
    return read_mapping(path, options, "spec", "a spec is a mapping with the key datasets")


def read_mapping(
    path: Any, options: StorageOptions | None = None, what: str = "file", expected: str = "it must be a mapping"
) -> dict[str, Any]:
    """The mapping in a YAML or JSON file, wherever it is; plain values only, never objects.

    Raises:
        NotFoundError: there is no such file.
        ShardListError: it is neither, or no mapping. `what` and `expected` are words for the messages.
    """
    url = os.fspath(path)
    name, is_json = public_url(url), without_query(url).endswith(".json")
    if not is_elsewhere(url):
        refuse_if_secure(f"{name}: specs are local files, which are not read while enforce_security is set")
        if not os.path.exists(local_path(url) or url):
            raise NotFoundError(f"no such {what}", url=name)
    data = read_shard_file(url, options)
    try:
        text = data.decode("utf-8-sig")
        mapping = json.loads(text) if is_json else _parse_yaml(text)
    except (ValueError, RecursionError) as exn:
        raise ShardListError(f"{name}: cannot be read as {'JSON' if is_json else 'YAML'}: {exn}") from exn
    if not isinstance(mapping, dict):
        raise ShardListError(f"{name}: {expected}, got {type(mapping).__name__}")
    return mapping


def _parse_yaml(text: str) -> Any:
    yaml = require("yaml", "pyyaml", "reading YAML")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as exn:
        raise ValueError(" ".join(str(exn).split())) from None


def expand(s: str) -> str:
    """The text with `~`, `$NAME` and `${NAME}` replaced as a shell does; names that are not set stay."""
    return os.path.expanduser(os.path.expandvars(s))


def _parse_source(source: Any, where: str) -> MSSource:
    """A source without its urls."""
    _check_keys(source, SOURCE_KEYS, where)
    found = MSSource(name=str(source.get("name", "")))
    wanted = {key: source[key] for key in ("resample", "choose") if source.get(key) is not None}
    if len(wanted) > 1:
        raise ShardListError(f"{where}: give resample or choose, not both")
    for key, count in wanted.items():
        if type(count) is not int or count < 0:
            raise ShardListError(f"{where}: {key} must be a number of shards, got {shown_short(count):.200}")
        found.perepoch, found.resample = count, key == "resample"
    return found


def _patterns(source: dict[str, Any], prefix: str, buckets: Any, where: str, file: str | None) -> list[str]:
    """The urls of a source, whose stars stand for what is there; `file` is where the spec was read."""
    bucket = source.get("buckets", buckets)
    if isinstance(bucket, list):
        if len(bucket) != 1:
            raise ShardListError(f"{where}: buckets must be one folder, got {len(bucket)}: write a source for each")
        bucket = bucket[0]
    bucket = _text(bucket, f"{where}: buckets")
    shards = source.get("shards")
    texts = [_text(text, f"{where}: shards") for text in (shards if isinstance(shards, list) else [shards])]
    elsewhere = file is not None and is_elsewhere(file)
    names = [name for text in texts for name in braceexpand(text if elsewhere else expand(text))]
    urls = [prefix + posixpath.join(bucket, name) for name in names]
    if file is not None and any("$" in text for text in texts) and (elsewhere or any(map(scheme_of, urls))):
        # A file could have the environment's secrets sent to a server of its choice.
        raise SecurityError(f"{where}: shards: variables in a file stand for parts of local paths only, not of urls")
    return [url_beside(file, url) if file is not None and elsewhere else url for url in urls]


def _check_counts(source: MSSource, where: str) -> None:
    if not source.urls:
        raise EmptyDatasetError(f"{where}: shards names none")
    count = source.perepoch
    if not source.resample and count > len(source.urls):
        raise ShardListError(f"{where}: choose: {count} of {len(source.urls)} shards; resample: {count} repeats some")


def _counts(source: MSSource) -> tuple[int, int]:
    return len(source.urls), len(source.urls) if source.perepoch < 0 else source.perepoch


def _check_keys(spec: Any, known: tuple[str, ...], where: str) -> None:
    if not isinstance(spec, dict):
        raise ShardListError(f"{where}: must be a mapping with the keys {', '.join(known)}, got {type(spec).__name__}")
    for key in spec:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise ShardListError(f"{where}: unknown key {printable(str(key))!r}; {hint}")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ShardListError(f"{where} must be text, got {shown_short(value):.200}")
    return value
