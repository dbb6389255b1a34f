"""A byte stream seen through one window that knows its offset; compressed streams are opened on the way.

The window is a `bytes` object that always begins at or before `pos`; readers look at
`window[pos:]` and move `pos`. It starts small, so that the first sample of a slow stream comes
early, doubles while members are small, and shrinks again when large ones come: those are read
straight into their own bytes object.

A local file is read without a buffer of its own and never mapped: one that shrinks while it is
read ends early, where a mapping would kill the process.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import time
from typing import Any

from ..errors import CompressionError, DataError, StreamError, TruncatedError
from ..storage.bytestream import ByteStream
from .compression import MAGIC_BYTES, compression_of, open_decompressed
from .header import BLOCK, is_header

_ZEROS = re.compile(rb"\0*")

SMALLEST_READ = 1 << 13
FIRST_LOCAL_READ = 1 << 18
LARGEST_READ = 1 << 20
LARGEST_STREAM_READ = 1 << 18
QUICK = 50e6
"""Bytes a second from which on a stream may be waited for: few large reads are faster than many small ones."""
BULK_READ = 1 << 22
SPARE_BUFFERS = 4
_spare_buffers: list[bytearray] = []
"""Buffers for bulk reads, kept from shard to shard: fresh memory costs more than reading."""
LARGE_MEMBER = 1 << 15
"""From this size on a member that is not in the window yet is read into its own bytes object."""
LARGEST_PIECE = 1 << 24
"""No more is asked of a stream of unknown length at once: a header may claim anything."""


class Source:
    """See the module.

    Attributes:
        window, pos: bytes that were read, and the first of them that is not used yet.
        start: offset of `window[0]` in the (decompressed) stream.
    """

    def __init__(self, stream: Any) -> None:
        self.window = b""
        self.pos = 0
        self.start = 0
        self.step = SMALLEST_READ
        self.compression: str | None = None
        self._quick = False
        self._largest_step = LARGEST_READ
        self._decompressed: Any = None
        self._bulk: bytearray | None = None
        self._bulk_start = self._bulk_end = 0
        self._set_stream(stream)
        self._size = 0  # of a local file, as far as it has been asked for
        self._origin = self._file.tell() if self._file is not None else 0
        if self._file is not None:
            self.step = FIRST_LOCAL_READ
        self._open_compressed(stream)

    def _set_stream(self, stream: Any) -> None:
        self._file = _regular_file(stream)
        self._pass_over = getattr(stream, "pass_over", None)  # of `shardbytes.RangeStream`
        stream = self._file or stream
        # read1 gives what is there; read of a buffered stream would wait for all that was asked for
        self._read = stream.read if self._file is not None else getattr(stream, "read1", stream.read)
        self._read_whole = self._read
        if isinstance(stream, ByteStream):
            self._read_whole, self._largest_step = stream.read, LARGEST_STREAM_READ

    def _open_compressed(self, stream: Any) -> None:
        self.fill(BLOCK)
        kind = compression_of(self.window[:MAGIC_BYTES])
        if kind is None or is_header(self.window[:BLOCK]):
            return
        if self._file is not None:
            self._file.seek(self._origin)
            self._decompressed = open_decompressed(self._file, kind)
        else:
            self._decompressed = open_decompressed(_Joined(self.window, self._read), kind)
        self._file = self._pass_over = None
        self._read = self._read_whole = self._decompressed.read1
        self.compression = kind
        self.window, self.pos = b"", 0

    def close(self) -> None:
        """Give up what was made for reading; the stream belongs to who opened it."""
        if self._bulk is not None and len(_spare_buffers) < SPARE_BUFFERS:
            _spare_buffers.append(self._bulk)
        self._bulk = None
        if self._decompressed is not None:
            with contextlib.suppress(Exception):  # closing after a damaged stream may fail again
                self._decompressed.close()

    @property
    def offset(self) -> int:
        """Offset of `window[pos]` in the (decompressed) stream."""
        return self.start + self.pos

    @property
    def available(self) -> int:
        """Bytes in the window that are not used yet."""
        return len(self.window) - self.pos

    def fill(self, need: int) -> bool:
        """Read until `need` bytes are in the window; False when the stream ends before."""
        if self._file is not None and self.available < need:
            # Read the rest of the window again rather than join it with what follows: a local file has it
            # at hand, and memory that is given back first is taken again as it is, without page faults.
            self.start += self.pos
            self.window, self.pos = b"", 0
            self._file.seek(self._origin + self.start)
            self.window = self.read_some(max(need, self.step))
            if self.step < LARGEST_READ:
                self.step *= 2
        while self.available < need:
            before, wanted = time.perf_counter(), max(need - self.available, self.step)
            data = self.read_some(wanted, whole=self._quick)
            if not data:
                return False
            self._quick = len(data) == wanted > QUICK * (time.perf_counter() - before)
            if self.step < self._largest_step:
                self.step *= 2
            self.start += self.pos
            self.window = self.window[self.pos :] + data if self.available else data
            self.pos = 0
        return True

    def read_into(self, view: memoryview) -> int:
        """Bytes from the window, or else from the stream, into memory of the caller: how many, 0 at the end."""
        if self.available:
            data = self.window[self.pos : self.pos + len(view)]
            view[: len(data)] = data
            self.pos += len(data)
            return len(data)
        self.jump(0)
        if self._file is None:
            data = self.read_some(len(view))
            view[: len(data)] = data
            self.start += len(data)
            return len(data)
        try:
            self._file.seek(self._origin + self.start)
            count = self._file.readinto(view) or 0
        except OSError as exn:
            raise StreamError(f"reading failed: {type(exn).__name__}: {exn}") from exn
        self.start += count
        return count

    @property
    def slow(self) -> bool:
        """Whether what follows may have to be waited for."""
        return self._file is None and not self._quick

    @property
    def has_bulk(self) -> bool:
        """Whether `read_bulk` works: for local files."""
        return self._file is not None

    def read_bulk(self) -> tuple[bytearray, int, int]:
        """A buffer that is used again, with a good part of BULK_READ bytes from `offset` on: where they begin, and end.

        They are not used up: the window stays, and `jump` goes on behind what was taken from the buffer.
        """
        assert self._file is not None
        if self._bulk is not None and self._bulk_start <= self.offset <= self._bulk_end - BULK_READ // 4:
            return self._bulk, self.offset - self._bulk_start, self._bulk_end - self._bulk_start
        if self._bulk is None:
            self._bulk = _spare_buffers.pop() if _spare_buffers else bytearray(BULK_READ)
        got = 0
        with memoryview(self._bulk) as view:
            try:
                self._file.seek(self._origin + self.offset)
                while got < BULK_READ and (count := self._file.readinto(view[got:])):
                    got += count
            except OSError as exn:
                raise StreamError(f"reading failed: {type(exn).__name__}: {exn}") from exn
        self._bulk_start, self._bulk_end = self.offset, self.offset + got
        return self._bulk, 0, got

    def jump(self, size: int) -> None:
        """Go on `size` bytes behind `offset`, in a local file, with an empty window."""
        self.start += self.pos + size
        self.window, self.pos = b"", 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes.

        Raises:
            TruncatedError: there are fewer.
        """
        if size <= self.available or (size < LARGE_MEMBER and self.fill(size)):
            data = self.window[self.pos : self.pos + size]
            self.pos += size
            return data
        if self._file is not None:
            self._check_left(size)
            self._file.seek(self._origin + self.offset)
            pieces = []
            missing = size
        else:
            pieces = [self.window[self.pos :]]
            missing = size - self.available
        self.start += self.pos + size
        self.window, self.pos = b"", 0
        if not self._quick or size > LARGEST_READ:
            self.step = SMALLEST_READ
        while missing:
            data = self.read_some(missing if self._file is not None else min(missing, LARGEST_PIECE), whole=True)
            if not data:
                raise TruncatedError(f"{size} bytes should follow, {missing} of them are missing")
            pieces.append(data)
            missing -= len(data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def skip(self, size: int) -> None:
        """Pass over the next `size` bytes, without reading them where the stream can seek."""
        if size <= self.available:
            self.pos += size
            return
        if self._file is not None:
            self._check_left(size)
            self._file.seek(self._origin + self.offset + size)
            self.start += self.pos + size
            self.window, self.pos = b"", 0
            self.step = SMALLEST_READ
            return
        missing = size
        if self._pass_over is not None:
            self._pass_over(size - self.available)
            self.start += self.pos + size
            self.window, self.pos = b"", 0
            return
        while missing > self.available:
            missing -= self.available
            self.pos = len(self.window)
            if not self.fill(1):
                raise TruncatedError(f"{size} bytes should follow, {missing} of them are missing")
        self.pos += missing

    def _check_left(self, size: int) -> None:
        """Whether a local file has so many more bytes: before memory is taken for what a header claims."""
        end = self._origin + self.offset + size
        if self._file is not None and end > self._size:
            self._size = os.fstat(self._file.fileno()).st_size
            if end > self._size:
                left = max(self._size - self._origin - self.offset, 0)
                raise TruncatedError(f"{size} bytes should follow, the file has only {left} left")

    def read_some(self, size: int, whole: bool = False) -> bytes:
        """At most `size` bytes straight from the stream, b"" at its end; faults become our errors.

        With `whole`, a stream that keeps its bytes through an error may wait for all of them.
        """
        try:
            data = self._read_whole(size) if whole else self._read(size)
        except DataError as exn:
            raise exn.locate(offset=self.start + len(self.window))
        except EOFError as exn:
            raise TruncatedError(f"the {self.compression or 'byte'} stream ends too early: {exn}") from exn
        except Exception as exn:
            if self.compression is not None:
                raise CompressionError(f"damaged {self.compression} stream: {exn}") from exn
            if isinstance(exn, OSError):
                raise StreamError(f"reading failed: {type(exn).__name__}: {exn}") from exn
            raise
        if type(data) is bytes:
            return data
        if isinstance(data, str):
            raise TypeError("the stream gives text: open it in binary mode")
        if data is None:
            raise StreamError("reading failed: the stream is not ready (it is non-blocking); wait for it, or block")
        return bytes(data)

    def skip_zeros(self) -> bool:
        """Pass over zero blocks; whether anything follows them."""
        while self.fill(1):
            zeros = _ZEROS.match(self.window, self.pos)
            assert zeros is not None
            end = zeros.end()
            if end < len(self.window):
                self.pos += (end - self.pos) // BLOCK * BLOCK
                return True
            self.pos += self.available // BLOCK * BLOCK
            if self.available and not self.fill(BLOCK):
                return False
        return False

    def drain(self) -> None:
        """Read to the end, so that lengths, sums and exit codes are checked; not needed for plain files."""
        if self._file is None:
            self.window, self.pos = b"", 0
            while self.read_some(LARGEST_READ):
                pass


def _regular_file(stream: Any) -> io.FileIO | None:
    """The unbuffered file behind a stream of a local file whose buffer is still empty, else None."""
    raw = stream.raw if isinstance(stream, io.BufferedReader) else stream
    if not isinstance(raw, io.FileIO):
        return None
    try:
        if stat.S_ISREG(os.fstat(raw.fileno()).st_mode) and raw.tell() == stream.tell():
            return raw
    except OSError:  # it cannot tell where it is: a pipe, a terminal
        pass
    return None


class _Joined:
    """Bytes that were read already, then the stream they came from: what decompressors read from."""

    def __init__(self, first: bytes, read: Any) -> None:
        self.first = first
        self.rest = read

    def read(self, size: int = -1) -> bytes:
        if self.first:
            size = len(self.first) if size < 0 else size
            data, self.first = self.first[:size], self.first[size:]
            return data
        data = self.rest(size)
        return data if data is not None else b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    @property
    def closed(self) -> bool:
        return False
