"""A compressed stream as frames that can be decompressed alone: where each lies, and how much is in it. No files here.

zstd has frames (RFC 8878); its seekable format (`contrib/seekable_format` of zstd) lists them behind the last one. gzip
has members (RFC 1952); BGZF (bgzip; the SAM specification, 4.1) writes into the header of each how long it is.
Where nothing is listed, the frames are found by decompressing all (`walk`).

What a list says is believed by nobody: each frame must have the size in the list, and end where the list says so.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import CompressionError, StaleIndexError
from .compression import zstd_module
from .gzipstream import MAGIC as GZIP_MAGIC
from .gzipstream import inflate_module

FRAME_SIZE = 1 << 20
"""Bytes before compression in each frame that is written here."""
LARGEST_FRAME = 1 << 23
"""Bytes in a frame from which on it costs too much to decompress it for a single sample."""

TABLE_FOOTER = 9
"""Bytes at the end of a file that `seek_table_size` wants."""
_TABLE_HEAD, _TABLE_MAGIC = 0x184D2A5E, 0x8F92EAB1
_CHECKSUMS, _RESERVED = 0x80, 0x7C

BGZF_HEADER = 18
"""Bytes at the beginning of a member that `bgzf_size` wants."""
_BGZF_START = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0"
_BGZF_PLAIN = 0xFF00
_PIECE = 1 << 18
_NO_BYTE = 1 << 62
"""No file has so many bytes; two such numbers can be added."""


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """Where the frames of a compressed stream lie.

    Attributes:
        kind: "zstd" or "gzip".
        packed: the first byte of each frame in the compressed stream, and, last, where the last one ends.
        plain: the first byte of each frame in the decompressed stream, and, last, the length of that.
    """

    kind: str
    packed: NDArray[np.int64]
    plain: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.plain) - 1

    @property
    def largest(self) -> int:
        """Bytes in the largest one, decompressed."""
        return int(np.diff(self.plain).max(initial=0))


def of_sizes(kind: str, packed: Any, plain: Any) -> Frames:
    """The frames with these compressed and decompressed sizes, in order."""
    return Frames(kind, *(np.append(0, np.cumsum(np.asarray(sizes, np.int64))) for sizes in (packed, plain)))


def unpack(kind: str, data: Any, size: int) -> bytes:
    """What is in the bytes of a frame (or of several), which must be `size` bytes.

    Raises:
        StaleIndexError: they are not; or the bytes are more or less than whole frames.
        CompressionError: they are damaged.
    """
    parts, found, rest = [], 0, data
    while len(rest):
        one = _DECOMPRESSORS[kind]()
        try:
            part = one.decompress(rest, max(1, size - found + 1))
        except Exception as exn:
            raise CompressionError(f"damaged {kind} frame: {exn}") from exn
        parts.append(part)
        found += len(part)
        if not one.eof or found > size:
            break
        rest = _without_padding(kind, one.unused_data)
    else:
        if found == size:
            return parts[0] if len(parts) == 1 else b"".join(parts)
    raise StaleIndexError(f"a {kind} frame should hold {size} bytes, and does not: the list of frames is wrong")


def walk(stream: Any, kind: str) -> Frames | None:
    """The frames of a whole stream, found by decompressing it; None where one is larger than LARGEST_FRAME, or odd.

    Raises:
        Exception: what the decompressor says of a damaged stream; EOFError where it is cut.
    """
    packed, plain = [0], [0]
    read = count = 0
    data = b""
    while True:
        if count:
            data = _without_padding(kind, data)
            packed[-1] = read - len(data)
        if not data:
            data = stream.read(_PIECE)
            read += len(data)
            if not data:
                break
            continue
        if kind == "gzip" and not data.startswith(GZIP_MAGIC[: len(data)]):
            return None  # what follows is no gzip
        begun, one = count, _DECOMPRESSORS[kind]()
        while not one.eof:
            count += len(one.decompress(data, _PIECE))
            if count - begun > LARGEST_FRAME:
                return None
            data = b"" if kind == "zstd" else one.unconsumed_tail  # zstd keeps it inside
            if not one.eof and not data and getattr(one, "needs_input", True):
                data = stream.read(_PIECE)
                read += len(data)
                if not data:
                    raise EOFError("the compressed data is cut")
        data = one.unused_data
        if count > begun:
            packed.append(read - len(data))
            plain.append(count)
    return Frames(kind, np.array(packed, np.int64), np.array(plain, np.int64))


def _without_padding(kind: str, data: bytes) -> bytes:
    return data.lstrip(b"\0") if kind == "gzip" else data


# zstd, the seekable format


def seek_table_size(end: bytes) -> int:
    """Bytes of the seek table, all of it, that a file with these last TABLE_FOOTER bytes ends with; 0: it has none."""
    if len(end) < TABLE_FOOTER or end[-4:] != _TABLE_MAGIC.to_bytes(4, "little"):
        return 0
    count = int.from_bytes(end[-TABLE_FOOTER:-5], "little")
    return 8 + count * (12 if end[-5] & _CHECKSUMS else 8) + TABLE_FOOTER


def parse_seek_table(table: bytes, size: int) -> Frames:
    """The frames in a seek table, with which a file of `size` bytes ends.

    Raises:
        StaleIndexError: it is damaged, or not of this file.
    """
    head = struct.pack("<II", _TABLE_HEAD, len(table) - 8)
    flags = table[-5]
    if len(table) != seek_table_size(table) or not table.startswith(head) or flags & _RESERVED:
        raise StaleIndexError("the seek table at the end of the zstd file is damaged")
    rows = np.frombuffer(table[8:-TABLE_FOOTER], "<u4").reshape(-1, 3 if flags & _CHECKSUMS else 2)
    frames = of_sizes("zstd", rows[:, 0], rows[:, 1])
    if frames.packed[-1] + len(table) != size:
        raise StaleIndexError(
            f"the seek table says that the frames are {frames.packed[-1]} bytes, there are {size - len(table)}"
        )
    return frames


def format_seek_table(sizes: list[tuple[int, int]]) -> bytes:
    """The seek table of frames with these compressed and decompressed sizes."""
    rows = b"".join(struct.pack("<II", *row) for row in sizes)
    footer = struct.pack("<IBI", len(sizes), 0, _TABLE_MAGIC)
    return struct.pack("<II", _TABLE_HEAD, len(rows) + len(footer)) + rows + footer


class SeekableZstd:
    """Compresses to frames of FRAME_SIZE and a seek table, as zstd's seekable format has it; `zstd -d` reads it."""

    def __init__(self) -> None:
        zstd = zstd_module("writing zstd shards")
        self._options = {zstd.CompressionParameter.checksum_flag: 1}
        self._compress = zstd.compress
        self._cutter = _Cutter(FRAME_SIZE)
        self._sizes: list[tuple[int, int]] = []

    def compress(self, data: Any) -> bytes:
        """The frames that are full now."""
        return b"".join(map(self._frame, self._cutter.add(data)))

    def flush(self) -> bytes:
        """The last frame, and the table."""
        return b"".join(map(self._frame, self._cutter.rest())) + format_seek_table(self._sizes)

    def _frame(self, data: bytes) -> bytes:
        frame: bytes = self._compress(data, options=self._options)
        self._sizes.append((len(frame), len(data)))
        return frame


# gzip, BGZF


def bgzf_size(header: bytes) -> int:
    """Bytes of the member that begins with these BGZF_HEADER bytes, as BGZF says; 0: it is none of BGZF's."""
    if len(header) < BGZF_HEADER or header[:4] != _BGZF_START[:4] or header[10:16] != _BGZF_START[10:]:
        return 0
    return int.from_bytes(header[16:18], "little") + 1


def parse_gzi(data: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first bytes of members, compressed and decompressed, in bgzip's `.gzi`; of which it lists all but the first.

    Raises:
        StaleIndexError: it is damaged.
    """
    numbers = np.frombuffer(data[: len(data) & -8], "<u8")
    if not len(numbers) or len(data) != 8 + 16 * int(numbers[0]):
        raise StaleIndexError(f"the .gzi beside it, {len(data)} bytes, is cut, or of another kind")
    rows = np.concatenate([np.zeros(2, np.uint64), numbers[1:]]).reshape(-1, 2)
    wrong: NDArray[np.bool_] = np.any(rows >= _NO_BYTE, axis=1, keepdims=True)[:, 0]
    wrong[1:] |= (rows[1:, 0] <= rows[:-1, 0]) | (rows[1:, 1] < rows[:-1, 1])
    if wrong.any():
        row = int(wrong.argmax())
        shown = f"{rows[row, 0]} and {rows[row, 1]} at byte {16 * row - 8}"
        raise StaleIndexError(f"the numbers in the .gzi beside it do not grow, or are those of no file: {shown}")
    rows = rows.astype(np.int64)
    return rows[:, 0], rows[:, 1]


def format_gzi(frames: Frames) -> bytes:
    """bgzip's `.gzi` of these frames."""
    rows = np.stack([frames.packed, frames.plain], axis=1)[1:-1]
    return struct.pack("<Q", len(rows)) + rows.astype("<u8").tobytes()


class Bgzf:
    """Compresses to gzip members of less than 64 KiB which say how long they are, as bgzip does; `gzip -d` reads it."""

    def __init__(self) -> None:
        self._cutter = _Cutter(_BGZF_PLAIN)

    def compress(self, data: Any) -> bytes:
        """The members that are full now."""
        return b"".join(map(_bgzf_member, self._cutter.add(data)))

    def flush(self) -> bytes:
        """The last member, and the empty one that BGZF ends with."""
        return b"".join(map(_bgzf_member, [*self._cutter.rest(), b""]))


def _bgzf_member(data: bytes) -> bytes:
    deflate = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = deflate.compress(data) + deflate.flush()
    end = struct.pack("<II", zlib.crc32(data), len(data))
    return _BGZF_START + (BGZF_HEADER + len(body) + len(end) - 1).to_bytes(2, "little") + body + end


class _Cutter:
    """Chunks of any size to pieces of one size."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._held = bytearray()

    def add(self, data: Any) -> Iterator[bytes]:
        """The pieces that are full."""
        view = memoryview(data)
        while len(self._held) + len(view) >= self._size:
            wanted = self._size - len(self._held)
            self._held += view[:wanted]
            view = view[wanted:]
            yield from self.rest()
        self._held += view

    def rest(self) -> Iterator[bytes]:
        """What is left, if anything is."""
        held, self._held = self._held, bytearray()
        if held:
            yield bytes(held)


def _inflater() -> Any:
    return inflate_module().decompressobj(31)


def _zstd_decompressor() -> Any:
    return zstd_module("reading zstd shards").ZstdDecompressor()


_DECOMPRESSORS: dict[str, Callable[[], Any]] = {"gzip": _inflater, "zstd": _zstd_decompressor}

SEEKABLE: dict[str, Callable[[], Any]] = {"gz": Bgzf, "zst": SeekableZstd}
"""Name of a compression, as writers know it, to what compresses so that parts can be read alone."""
