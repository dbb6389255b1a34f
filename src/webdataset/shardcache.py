"""Old home (releases 0.1.54 to 0.1.103) of copies of shards; see `webdataset.cache`, which does the work here.

`CacheStream` is a stream that leaves a copy of what was read of it, which appears when all of it has been read.
"""

from __future__ import annotations

import io
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ._closing import close_stream
from .cache import FileCache
from .errors import OpenError
from .storage.atomic import AtomicFile

NO_BOUND = 10**15
"""What `cache_size` was by default, in bytes: more than any disk holds."""


def guess_shard(path: str) -> str:
    """The last component of the last word of a url: a name for its copy."""
    return re.split(r"\s+", path.strip())[-1].rpartition("/")[2]


def shard_uuid(path: str) -> str:
    """A name for the copy of a url that depends on all of it: a UUID of version 3."""
    return str(uuid.uuid3(uuid.NAMESPACE_URL, path))


def cache_shards(
    urls: Iterable[Any],
    cache_dir: str = "./data",
    cache_size: float = NO_BOUND,
    cache_name: Callable[[str], str] = guess_shard,
    verbose: bool = False,
) -> Iterator[dict[str, Any]]:
    """Each url, or `{"url", ...}`, with a stream from its copy in `cache_dir`, made where there is none: `FileCache`.

    A stream that comes along is closed unread. `cache_size`: bytes that the folder may hold; from 1e15 on, no bound.
    """
    bound = int(cache_size) if cache_size < NO_BOUND else -1
    cache = FileCache(cache_dir, url_to_name=cache_name, verbose=verbose, cache_size=bound)
    return cache(_unopened(urls))


def _unopened(urls: Iterable[Any]) -> Iterator[dict[str, Any]]:
    for item in urls:
        source = dict(item) if isinstance(item, dict) else {"url": item}
        close_stream(source.pop("stream", None))
        yield source


class CacheStream(io.RawIOBase):
    """What a stream gives; the file `fname` holds it, complete, once all of it was read and this is closed."""

    def __init__(self, fname: str | os.PathLike[str], stream: Any, verbose: bool = False) -> None:
        """`verbose` is ignored; kept for old callers."""
        super().__init__()
        self.stream = stream
        self._copy: AtomicFile | None = AtomicFile(os.fspath(fname), overwrite=True)
        self._complete = False

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """The next `size` bytes, all for -1; fewer as the stream gives them, none at its end."""
        if self._copy is None:
            raise ValueError("read of a closed CacheStream")
        wanted = -1 if size is None else size
        data: bytes = self.stream.read(wanted)
        self._complete = self._complete or wanted < 0 or (not data and wanted > 0)
        try:
            self._copy.write(data)
        except OSError as exn:
            raise OpenError(f"the copy cannot be written: {exn}") from exn
        return data

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer; the number of bytes."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the stream; the copy appears if it is whole."""
        copy, self._copy = self._copy, None
        try:
            if copy is not None:
                self.stream.close()
                if self._complete:
                    copy.close()
        finally:
            if copy is not None and not copy.closed:
                copy.abort()
            super().close()


__all__ = ["CacheStream", "cache_shards", "guess_shard", "shard_uuid"]
