"""What a program names as shards -> urls, and how many samples each has, where that is known: from a wids JSON.

A JSON is data and not trusted: counts must be counts, a `pipe:` url is refused unless it is allowed. Urls in it are
relative to its `base`, or to its own folder; one from elsewhere names no local files. `datasets` may hold further
lists, or name further JSONs, one level deep.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterator
from typing import Any, NamedTuple

from .errors import EmptyDatasetError, ShardListError, StaleIndexError, public_url
from .shardfiles import is_elsewhere, read_shard_file, refuse_pipes, url_beside, without_query
from .shardpatterns import expand_urls
from .storage.options import StorageOptions
from .storage.urls import scheme_of


class CountedShard(NamedTuple):
    """A shard, and its samples as a list says; `where` is the place in the list, for messages."""

    url: str
    nsamples: int | None = None
    where: str = ""


def counted_shards(
    source: Any, options: StorageOptions | None = None, allow_pipe: bool | None = None
) -> list[CountedShard]:
    """The shards of a pattern, a path or url of a wids JSON, or a list of urls or of `{"url": ..., "nsamples": ...}`.

    Raises:
        ShardListError: it is none of these, or the JSON is not as it must be.
        EmptyDatasetError: there are no shards.
    """
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if without_query(path).endswith(".json"):
            found = list(_shards_of_json(path, options, allow_pipe))
        else:
            found = [CountedShard(url) for url in expand_urls(path)]
    elif isinstance(source, (list, tuple)):
        found = [_shard(item, f"shards[{i}]") for i, item in enumerate(source)]
    else:
        raise ShardListError(f"shards are a pattern, the path of a JSON, or a list of urls, got {type(source)}")
    if not found:
        raise EmptyDatasetError("there are no shards")
    return found


def check_count(shard: CountedShard, found: int) -> None:
    """StaleIndexError if the list says another number of samples than were found in the shard."""
    if shard.nsamples is not None and shard.nsamples != found:
        raise StaleIndexError(f"{shard.where} says nsamples {shard.nsamples}, the shard has {found}", url=shard.url)


def read_json(path: str, options: StorageOptions | None = None) -> Any:
    """The value in a JSON file, local or remote.

    Raises:
        OpenError: it cannot be had.
        ShardListError: it is no JSON.
    """
    data = read_shard_file(path, options)
    try:
        return json.loads(data)
    except ValueError as exn:
        raise ShardListError(f"{public_url(path)}: cannot be read as JSON: {exn}") from exn


def _shards_of_json(
    path: str, options: StorageOptions | None, allow_pipe: bool | None, nested: bool = False
) -> Iterator[CountedShard]:
    yield from shards_of_index(read_json(path, options), path, options, allow_pipe, nested)


def is_index(value: Any) -> bool:
    """Whether what a JSON file holds is meant as an index, as wids and Energon write it, and not as a spec."""
    if not isinstance(value, dict):
        return False
    if any(key in value for key in ("shardlist", "wids_version", "shard_counts")):
        return True
    parts = value.get("datasets")
    if not isinstance(parts, list):
        return False
    return any(isinstance(part, dict) and ("shardlist" in part or "source_url" in part) for part in parts)


def is_counted(shards: Any) -> bool:
    """Whether this is a list in which a shard may be told with its count."""
    return isinstance(shards, (list, tuple)) and any(isinstance(item, dict) for item in shards)


def shards_of_index(
    index: Any,
    path: str,
    options: StorageOptions | None = None,
    allow_pipe: bool | None = None,
    nested: bool = False,
) -> Iterator[CountedShard]:
    """The shards of an index that was read from this path or url; `nested`: because another index names it.

    Raises:
        ShardListError: it is not as it must be.
        SecurityError: it has commands that are not allowed.
    """
    where = public_url(path)
    if isinstance(index, dict) and isinstance(index.get("shard_counts"), dict):  # Energon's .nv-meta/.info.json
        yield from _shards_of_counts(index["shard_counts"], path, allow_pipe)
        return
    if not isinstance(index, dict) or not ("shardlist" in index or "datasets" in index):
        raise ShardListError(f"{where}: an index has the key shardlist or datasets")
    elsewhere = path if is_elsewhere(path) else None
    folder = "" if elsewhere else posixpath.dirname(path)
    base = _base(index, folder, where)
    yield from _shards_of_list(index, base, where, allow_pipe, elsewhere)
    for i, part in enumerate(index.get("datasets") or ()):
        place = f"{where}: datasets[{i}]"
        if not isinstance(part, dict) or not ("shardlist" in part or "source_url" in part):
            raise ShardListError(f"{place}: must have the key shardlist or source_url")
        if "source_url" in part:
            if nested:
                raise ShardListError(f"{place}: a JSON that is named in a JSON names no further one")
            further = _joined(folder, str(part["source_url"]), elsewhere)
            refuse_pipes([further], place, False)
            yield from _shards_of_json(further, options, allow_pipe, nested=True)
        else:
            yield from _shards_of_list(part, _base(part, base, place), place, allow_pipe, elsewhere)


def _shards_of_counts(counts: dict[Any, Any], path: str, allow_pipe: bool | None) -> Iterator[CountedShard]:
    """The shards that Energon counted; they lie below the folder above that of its file."""
    folder, _, name = without_query(path).rpartition("/")
    above = posixpath.dirname(folder)
    elsewhere = f"{above}/{name}" if is_elsewhere(path) else None
    base = posixpath.normpath(posixpath.join(folder, ".."))
    base = "" if elsewhere or base == "." else base
    for url, count in counts.items():
        place = f"{public_url(path)}: shard_counts: {public_url(str(url))}"
        shard = _shard({"url": url, "nsamples": count}, place, base, elsewhere)
        refuse_pipes([shard.url], place, allow_pipe)
        yield shard


def _shards_of_list(
    index: dict[str, Any], base: str, where: str, allow_pipe: bool | None, elsewhere: str | None
) -> Iterator[CountedShard]:
    shards = index.get("shardlist", [])
    if not isinstance(shards, list):
        raise ShardListError(f"{where}: shardlist must be a list, got {type(shards).__name__}")
    for i, item in enumerate(shards):
        place = f"{where}: shardlist[{i}]"
        if not isinstance(item, dict):
            raise ShardListError(f"{place}: must be a mapping with the keys url and nsamples, got {item!r:.80}")
        shard = _shard(item, place, base, elsewhere)
        refuse_pipes([shard.url], place, allow_pipe)
        yield shard


def _shard(item: Any, where: str, base: str = "", elsewhere: str | None = None) -> CountedShard:
    if isinstance(item, CountedShard):
        return item
    if isinstance(item, (str, os.PathLike)):
        return CountedShard(os.fspath(item))
    url = item.get("url") if isinstance(item, dict) else None
    if not isinstance(url, str):
        raise ShardListError(f"{where}: a shard is a url, or a mapping with the key url, got {item!r:.80}")
    count = item.get("nsamples")
    if count is not None and (type(count) is not int or count < 0):
        raise ShardListError(f"{where}: nsamples must be a number of samples, got {count!r:.80}")
    return CountedShard(_joined(base, url, elsewhere), count, where)


def _base(index: dict[str, Any], folder: str, where: str) -> str:
    base = index.get("base")
    if base is not None and not isinstance(base, str):
        raise ShardListError(f"{where}: base must be text, got {base!r:.80}")
    return _joined(folder, base) if base else folder


def _joined(base: str, url: str, elsewhere: str | None = None) -> str:
    """A url below the base; `elsewhere` is the file that names it, where that is not of this machine."""
    joined = url if scheme_of(url) or not base else posixpath.join(base, url)
    return joined if elsewhere is None else url_beside(elsewhere, joined)
