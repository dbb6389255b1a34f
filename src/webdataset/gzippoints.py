"""A local gzip shard in one piece -> its bytes at any offset, without a copy, by the package indexed_gzip.

It inflates the shard once and remembers the state of the inflater every SPACING bytes; that is kept in the cache. A
read inflates from the nearest such point. Bytes of the shard come through `LocalShard`, which sees when it changes.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import logging
import threading
from typing import Any

import numpy as np

from ._optional import require
from .errors import CompressionError, DataError, MissingDependencyError, StaleIndexError, TruncatedError, public_url
from .shardbytes import ShardBytes
from .shardframes import PiecewiseShard
from .shardnotes import read_note, write_note

logger = logging.getLogger(__name__)

SPACING = 1 << 21
"""Bytes, inflated, between two points, each of which takes 32 KiB of memory; so many are inflated for a sample."""
MARK = b"\xf1webdataset\xf2"
_MARK_MEMBER = gzip.compress(MARK, mtime=0)
"""A member that the package sees behind the shard: where MARK does not come out of it, the shard is cut."""


class GzipPoints(PiecewiseShard):
    """See PiecewiseShard.

    Args:
        shard: the compressed one, which is closed with this one.
        inside: an `IndexedGzipFile` over its bytes, with the index built.
        size: bytes inside.
        folder: where the points are kept.
    """

    def __init__(self, shard: ShardBytes, inside: Any, size: int, folder: str | None = None) -> None:
        self._turn = threading.Lock()
        self._inside: Any = inside
        super().__init__(shard, np.append(np.arange(0, size, SPACING), size))
        self._folder = folder

    def after_fork(self) -> None:
        """Have new locks; what a thread was in the middle of using is made anew when it is needed."""
        super().after_fork()
        if self._turn.locked():
            self._inside = None
        self._turn = threading.Lock()

    def _unpacked(self, numbers: list[int]) -> dict[int, bytes]:
        self._shard.read(0, 0)  # that it changed is said before that it is damaged
        with self._turn:
            if self._inside is None:
                anew = open_points(self._shard, self._folder)
                if anew is None or anew.size != self.size:
                    raise StaleIndexError("the gzip stream is not the one that was opened any more")
                self._inside = anew._inside
            return {number: self._inflated(*self._plain[number : number + 2].tolist()) for number in numbers}

    def _inflated(self, start: int, stop: int) -> bytes:
        try:
            self._inside.seek(start)
            data: bytes = self._inside.read(stop - start)
        except DataError:
            raise
        except Exception as exn:
            raise CompressionError(f"damaged gzip stream: {exn}") from exn
        if len(data) < stop - start:
            raise TruncatedError(f"{stop - start} bytes should be here, there are {len(data)}")
        return data


def open_points(shard: ShardBytes, folder: str | None) -> GzipPoints | None:
    """The shard for reading anywhere inside; None where it is damaged, or indexed_gzip is not installed.

    Args:
        folder: where the points are kept.
    """
    try:
        package = require("indexed_gzip", "indexed_gzip", "reading in gzip shards")
    except MissingDependencyError:
        return None
    inside = package.indexed_gzip._IndexedGzipFile(fileobj=_ByPosition(shard), spacing=SPACING)
    note = read_note(folder, shard, ".points")
    try:
        if note is not None:
            with contextlib.suppress(Exception):  # of another release
                inside.import_index(fileobj=io.BytesIO(note[8:]))
                return GzipPoints(shard, inside, int.from_bytes(note[:8], "little"), folder)
        inside.build_full_index()
        size = inside.seek(0, io.SEEK_END) - len(MARK)
        inside.seek(max(size, 0))
        if inside.read(len(MARK)) != MARK:  # the package passes over a cut in silence
            raise EOFError("the compressed data is cut")
        index = io.BytesIO()
        inside.export_index(fileobj=index)
    except Exception as exn:  # whatever a damaged stream brings about: the whole one will tell
        logger.debug("%s: %s", public_url(shard.url), exn)
        return None
    write_note(folder, shard, ".points", size.to_bytes(8, "little") + index.getvalue())
    return GzipPoints(shard, inside, size, folder)


class _ByPosition(io.RawIOBase):
    """A shard, and the mark behind it, as a file with a position of its own, which forked processes do not share."""

    def __init__(self, shard: ShardBytes) -> None:
        self._shard = shard
        self._end = shard.size or 0
        self._at = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """The next bytes."""
        view = memoryview(buffer).cast("B")
        stop = min(self._end, self._at + len(view))
        data = self._shard.read(self._at, stop) if stop > self._at else b""
        behind = max(self._at - self._end, 0)
        data += _MARK_MEMBER[behind : behind + len(view) - len(data)]
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a position; the new one."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._end + len(_MARK_MEMBER)}[whence]
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """The position."""
        return self._at
