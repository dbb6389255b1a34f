"""What a program names as shards -> urls, and how many samples each has, where that is known: from a wids JSON.

What a JSON may say, and how its urls are meant, `indexspecs` says; Energon's counts are taken as such a list.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from .errors import EmptyDatasetError, ShardListError, StaleIndexError, public_url
from .indexspecs import IndexFile, check_entry, read_index
from .shardfiles import without_query
from .shardglobs import is_folder, shards_in_folder
from .shardpatterns import expand_urls
from .storage.options import StorageOptions


class CountedShard(NamedTuple):
    """A shard, and its samples as a list says; `where` is the place in the list, for messages."""

    url: str
    nsamples: int | None = None
    where: str = ""


def counted_shards(
    source: Any, options: StorageOptions | None = None, allow_pipe: bool | None = None
) -> list[CountedShard]:
    """The shards of a pattern, a folder, a path or url of a wids JSON, or a list of urls or of
    `{"url": ..., "nsamples": ...}`.

    Raises:
        ShardListError: it is none of these, or the JSON is not as it must be.
        EmptyDatasetError: there are no shards.
    """
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if without_query(path).endswith(".json"):
            found = list(shards_of_index(read_index(path, options), path, options, allow_pipe))
        else:
            if is_folder(path):
                urls = shards_in_folder(path, options)
            else:
                urls = expand_urls(path, allow_pipe=allow_pipe, storage_options=options)
            found = [CountedShard(url) for url in urls]
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
    index: Any, path: str, options: StorageOptions | None = None, allow_pipe: bool | None = None
) -> Iterator[CountedShard]:
    """The shards of an index that was read from this path or url.

    Raises:
        ShardListError: it is not as it must be.
        SecurityError: it has commands that are not allowed.
    """
    file = IndexFile.of(path, allow_pipe, options)
    if not isinstance(index, dict) or not any(key in index for key in ("shardlist", "datasets", "shard_counts")):
        raise ShardListError(f"{file.where}: an index has the key shardlist or datasets")
    if isinstance(index.get("shard_counts"), dict):  # Energon's .nv-meta/.info.json; they lie below the folder above it
        counts = index["shard_counts"]
        listed = {"shardlist": [{"url": url, "nsamples": count} for url, count in counts.items()], "base": ".."}
        names = [f"{file.where}: shard_counts: {public_url(str(url))}" for url in counts]
        entries = file.listed(listed, "shard_counts", file.base_of(listed), names=names)
    else:
        entries = file.entries(index)
    return (CountedShard(entry["url"], entry.get("nsamples"), place) for place, entry in entries)


def _shard(item: Any, where: str) -> CountedShard:
    if isinstance(item, CountedShard):
        return item
    if isinstance(item, (str, os.PathLike)):
        return CountedShard(os.fspath(item))
    entry = check_entry(item, where)
    return CountedShard(entry["url"], entry.get("nsamples"), where)
