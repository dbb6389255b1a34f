"""A wids JSON, from a path, a url or a stream -> its shards as a list, each with a url that can be opened.

What the JSON may say, and how its urls are meant, `webdataset.indexspecs` says; here are the names for programs.
"""

from __future__ import annotations

from typing import Any

from webdataset.errors import ShardListError
from webdataset.indexspecs import IndexFile, Spec, below, check_entry, read_index, urldir, urlmerge
from webdataset.storage.options import StorageOptions

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


def rebase_shardlist(shardlist: list[Spec], base: str | None) -> list[Spec]:
    """The shards with their urls below a base; None leaves them as they are."""
    if base is None:
        return shardlist
    merge = below(base)
    return [{**shard, "url": merge(shard["url"])} for shard in shardlist]


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
    if not isinstance(l, list):
        raise ShardListError(f"shards: must be a list of shards, got {type(l).__name__}")
    for number, shard in enumerate(l):
        check_entry(shard, f"shards[{number}]", counted=True)
    return l


def load_remote_dsdesc_raw(source: Any, *, storage_options: StorageOptions | None = None) -> Spec:
    """What the JSON at a path or url, or in an open stream, says; nothing of it is checked but that it is a mapping.

    Raises:
        NotFoundError, OpenError: it cannot be read.
        ShardListError: it is no JSON, or no mapping.
    """
    return read_index(source, storage_options)


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
    return _resolved(spec, IndexFile.of(source, allow_pipe, storage_options, strict=True), base)


def resolve_dsdesc(dsdesc: Spec, *, options: Spec | None = None, base: str | None = None) -> Spec:
    """As `load_dsdesc_and_resolve`, for an index that has been read already."""
    return _resolved({**dsdesc, **(options or {})}, IndexFile("index", strict=True), base)


def base_of(spec: Spec, source: Any) -> str | None:
    """What relative urls of an index that was read from this source are below; None: of the working directory."""
    return IndexFile.of(source).base_of(spec)


def _resolved(spec: Spec, file: IndexFile, base: str | None) -> Spec:
    shards = [shard for _, shard in file.entries(spec, base)]
    if not shards:
        raise ShardListError(f"{file.where}: it names no shards, neither in shardlist nor in datasets")
    spec["shardlist"] = shards
    return spec
