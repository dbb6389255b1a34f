"""A compressed shard -> its bytes at any offset, without a copy, where it consists of frames (`tar.frames`).

Where the frames lie is read from the list that the format has; of a local shard without one, all is decompressed once,
and what was found is kept in the cache. A read takes the frames that it needs, with one read of the compressed shard,
and the last ones stay in memory. Each must be what the list says, else there is an error.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import weakref

import numpy as np

from ._forks import tell_of_forks
from .errors import (
    CompressionError,
    DataError,
    OpenError,
    StaleIndexError,
    TruncatedError,
    WrongContentError,
    public_url,
)
from .gopen import path_of, rewrite_url
from .sampleindex import Integers
from .shardbytes import LocalShard, Plain, RangeStream, ShardBytes, Version
from .shardnotes import read_note, write_note
from .storage import local, places
from .storage.atomic import write_file
from .storage.bytestream import read_small
from .storage.options import StorageOptions
from .tar.frames import (
    BGZF_HEADER,
    LARGEST_FRAME,
    TABLE_FOOTER,
    Frames,
    bgzf_size,
    format_gzi,
    of_sizes,
    parse_gzi,
    parse_seek_table,
    seek_table_size,
    unpack,
    walk,
)

logger = logging.getLogger(__name__)

KEPT = 1 << 22
"""Decompressed bytes that stay in memory for a shard, or the last frame if that is larger."""
HOLDERS = 16
"""So many shards, those that were read last, have such bytes in memory."""
END = 1 << 14
"""Bytes at the end of a remote shard that are read at once: most tables are smaller."""


class PiecewiseShard(Plain):
    """See ShardBytes: one of which pieces can be had, and the last ones stay in memory.

    Args:
        shard: the compressed one, which is closed with this one.
        plain: the first byte of each piece, and, last, the end of the last one.
    """

    def __init__(self, shard: ShardBytes, plain: Integers) -> None:
        self.url, self.version, self.is_remote = shard.url, shard.version, shard.is_remote
        self.fault: DataError | None = None
        self.size: int | None = int(plain[-1])
        self.unit = int(np.diff(plain).max(initial=0))
        self._shard, self._plain = shard, plain
        self._kept: dict[int, bytes] = {}
        self.after_fork()
        tell_of_forks(self)

    def after_fork(self) -> None:
        """Have a new lock."""
        self._lock = threading.Lock()

    def read(self, start: int, stop: int) -> bytes:
        """See ShardBytes.

        Raises:
            StaleIndexError: the pieces are not what is known of them, too.
            CompressionError: they are damaged.
        """
        if stop <= start:
            return b""
        if stop > self._plain[-1]:
            there = int(self._plain[-1]) - start
            raise TruncatedError(f"{stop - start} bytes should be here, there are {there}", url=self.url)
        first = int(np.searchsorted(self._plain, start, side="right")) - 1
        last = int(np.searchsorted(self._plain, stop, side="left"))
        parts = self._pieces(range(first, last))
        begin = int(self._plain[first])
        if len(parts) == 1:
            return parts[0][start - begin : stop - begin]
        parts[-1] = parts[-1][: stop - int(self._plain[last - 1])]
        parts[0] = parts[0][start - begin :]
        return b"".join(parts)

    def stream(self) -> RangeStream:
        """See ShardBytes."""
        return RangeStream(self)

    def close(self) -> None:
        """See ShardBytes."""
        self.forget()
        self._shard.close()

    def forget(self) -> None:
        """Let go of the pieces in memory."""
        with self._lock:
            self._kept.clear()

    def _pieces(self, numbers: range) -> list[bytes]:
        with self._lock:
            found = {number: self._kept[number] for number in numbers if number in self._kept}
        absent = [number for number in numbers if number not in found]
        if absent:
            try:
                found.update(self._unpacked(absent))
            except DataError as exn:
                raise exn.locate(url=self.url, stage="read")
        else:
            self._shard.read(0, 0)  # whether it is still the one that these are of
        with self._lock:
            for number in numbers:
                self._kept.pop(number, None)
                self._kept[number] = found[number]
            size = sum(map(len, self._kept.values()))
            while size > KEPT and len(self._kept) > 1:
                size -= len(self._kept.pop(next(iter(self._kept))))
        _holds(self)
        return [found[number] for number in numbers]

    def _unpacked(self, numbers: list[int]) -> dict[int, bytes]:
        """These pieces, which lie close together."""
        raise NotImplementedError


_holders: dict[int, weakref.ref[PiecewiseShard]] = {}


def _holds(shard: PiecewiseShard) -> None:
    """Note that a shard has pieces in memory; the one that was read longest ago lets go of them."""
    _holders.pop(id(shard), None)
    _holders[id(shard)] = weakref.ref(shard)
    while len(_holders) > HOLDERS:
        oldest = _holders.pop(next(iter(list(_holders)), 0), None)
        other = None if oldest is None else oldest()
        if other is not None:
            other.forget()


class FramedShard(PiecewiseShard):
    """See PiecewiseShard: one of frames."""

    def __init__(self, shard: ShardBytes, frames: Frames) -> None:
        super().__init__(shard, frames.plain)
        self._frames = frames

    def _unpacked(self, numbers: list[int]) -> dict[int, bytes]:
        frames, found = self._frames, {}
        begin = int(frames.packed[numbers[0]])
        data = memoryview(self._shard.read(begin, int(frames.packed[numbers[-1] + 1])))
        for number in numbers:
            part = data[int(frames.packed[number]) - begin : int(frames.packed[number + 1]) - begin]
            found[number] = unpack(frames.kind, part, int(frames.plain[number + 1] - frames.plain[number]))
        return found


def find_frames(shard: ShardBytes, kind: str, folder: str | None, options: StorageOptions) -> Frames | None:
    """The frames of a shard that is compressed with `kind`; None where it has none, or they are too large.

    Args:
        folder: where what was found is kept.

    Raises:
        CompressionError: the stream is damaged.
        DataError: the shard cannot be read.
    """
    try:
        if kind == "zstd":
            frames = _seek_table(shard)
        elif kind == "gzip":
            frames = _gzi(shard, options) if shard.is_remote else None
        else:
            return None
    except StaleIndexError as exn:
        logger.warning("%s: %s; it is not used", public_url(shard.url), exn.message)
        frames = None
    fewest = 2 if frames is None else 1  # one frame that a list tells of is that of a small shard
    if frames is None and not shard.is_remote:
        frames = _found_by_reading(shard, kind, folder)
    return frames if frames is not None and len(frames) >= fewest and frames.largest <= LARGEST_FRAME else None


def write_gzi(url: str) -> str:
    """Write bgzip's list of the members of a local shard beside it, `<shard>.gz.gzi`; its path.

    Raises:
        StaleIndexError: the shard is not in BGZF.
        OpenError: it is not local, or cannot be read.
    """
    path = path_of(url)
    if path is None:
        raise OpenError("a sidecar is written beside a local shard", url=url)
    with contextlib.closing(LocalShard(url, local.open_read(path, 0), Version(None))) as shard:
        frames = _bgzf(shard)
    if frames is None:
        raise StaleIndexError("only of gzip files in BGZF (bgzip, ShardWriter(seekable=True)) there is a .gzi", url=url)
    write_file(path + ".gzi", format_gzi(frames))
    return path + ".gzi"


def _seek_table(shard: ShardBytes) -> Frames | None:
    size = shard.size or 0
    length = min(size, END if shard.is_remote else TABLE_FOOTER)
    end = shard.read(size - length, size)
    table = seek_table_size(end[-TABLE_FOOTER:])
    if not table:
        return None
    if table > size:
        raise StaleIndexError(f"the seek table should have {table} bytes, the file has {size}")
    if table > length:
        end = shard.read(size - table, size)
    return parse_seek_table(end[-table:], size)


def _gzi(shard: ShardBytes, options: StorageOptions) -> Frames | None:
    """The frames that the `.gzi` of a BGZF shard lists; behind its last entry the members are looked at."""
    if "?" in shard.url or not bgzf_size(shard.read(0, min(BGZF_HEADER, shard.size or 0))):
        return None
    try:
        with contextlib.closing(places.open_read(rewrite_url(shard.url + ".gzi"), options)) as stream:
            data = read_small(stream, shard.size or 0, shard.url + ".gzi")  # a member is larger than its entry
    except WrongContentError as exn:
        raise StaleIndexError(f"the .gzi beside it: {exn.message}") from None
    except OSError:
        return None
    packed, plain = parse_gzi(data)
    rest = _bgzf(shard, int(packed[-1]))
    if rest is None:
        raise StaleIndexError("the .gzi beside it ends where no member of the gzip file begins")
    packed, plain = (
        np.append(ours[:-1], ours[-1] + theirs) for ours, theirs in ((packed, rest.packed), (plain, rest.plain))
    )
    return Frames("gzip", packed, plain)


def _bgzf(shard: ShardBytes, start: int = 0) -> Frames | None:
    """The frames from `start` on, from what BGZF writes into their headers; None where one is another gzip member."""
    packed, plain = [], []
    at, size = start, shard.size or 0
    header = shard.read(at, min(at + BGZF_HEADER, size))
    while at < size:
        length = bgzf_size(header)
        if not length or at + length > size:
            return None
        at += length
        ends = shard.read(at - 4, min(at + BGZF_HEADER, size))
        packed.append(length)
        plain.append(int.from_bytes(ends[:4], "little"))
        header = ends[4:]
    return of_sizes("gzip", packed, plain)


def _found_by_reading(shard: ShardBytes, kind: str, folder: str | None) -> Frames | None:
    """The frames of a local shard that lists none; None where it is in one piece."""
    note = read_note(folder, shard, ".frames")
    if note is not None:
        rows = np.frombuffer(note, "<i8").astype(np.int64).reshape(2, -1)
        return Frames(kind, rows[0], rows[1])
    try:
        frames = _bgzf(shard) if kind == "gzip" else None
        if frames is None:
            with contextlib.closing(shard.stream()) as stream:
                frames = walk(stream, kind)
    except Exception as exn:  # whatever a damaged stream brings about: the whole one will tell
        raise CompressionError(f"damaged {kind} stream: {exn}", url=shard.url) from exn
    if frames is not None:
        rows = np.stack([frames.packed, frames.plain])
        write_note(folder, shard, ".frames", rows.astype("<i8").tobytes())
    return frames
