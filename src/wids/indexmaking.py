"""Shards -> the entries of a wids JSON: url, md5sum, nsamples, filesize; each shard is read once, nothing is stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from webdataset.gopen import gopen
from webdataset.sampleindex import scan_samples
from webdataset.shardjson import shard_entry as _entry
from webdataset.shardpatterns import expand_urls


class _Counted:
    """A stream that hashes and counts what is read from it."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.digest = hashlib.md5(usedforsecurity=False)
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        data: bytes = self.stream.read(size)
        self.digest.update(data)
        self.size += len(data)
        return data


def shard_entry(url: str) -> dict[str, Any]:
    """What a wids JSON says about a shard.

    Raises:
        OpenError: it cannot be read.
        DataError: it is no archive, or a damaged one.
    """
    with gopen(url) as stream:
        counted = _Counted(stream)
        nsamples = len(scan_samples(counted, url, lcase=False))
        while counted.read(1 << 20):
            pass
    return _entry(url, nsamples, counted.size, counted.digest.hexdigest())


def shard_names(files: Iterable[str]) -> list[str]:
    """The shards that names and patterns stand for, as `WebDataset` reads those, sorted, each once."""
    return sorted({name for pattern in files for name in expand_urls(pattern)})
