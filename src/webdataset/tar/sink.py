"""Chunks of an archive -> few large writes on a stream, compressed on the way where asked for.

Small chunks are joined, large ones go to the stream as they lie in memory: several in one call where
the stream can do that, and in slices. A stream that failed once is written no more: what it holds
then is cut off, and must look so.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .._optional import require
from .._types import WritableStream
from ..errors import OpenError
from ..storage.atomic import cannot_write
from .compression import zstd_module
from .frames import SEEKABLE

WRITE_SIZE = 1 << 18
"""Bytes in a write; every call takes less than twice as many. Larger ones fall out of the processor's cache, and
Linux looks for larger pieces of free memory to keep them in: with 512 KiB and more, ext4 was 3 to 8 times as slow."""
LARGE = 1 << 15
"""Chunks from this size on are not copied, where the stream takes several in one call."""


class Sink:
    """The stream that an archive is written to.

    Args:
        stream: anything with `write`, and perhaps `writev(chunks)`; they may take less than they are given.
            It is never closed here.
        compression: "gz", "bz2", "xz", "zst", "lz4", or "" for none.
        url: what errors call the stream.
        seekable: compress "gz" and "zst" in frames that can be decompressed alone.

    Attributes:
        position: bytes of the archive so far, before compression.
        written: bytes that the stream took so far.
        broken: a write failed; the archive cannot be finished any more.
    """

    def __init__(
        self, stream: WritableStream, compression: str = "", url: str | None = None, seekable: bool = False
    ) -> None:
        self.stream = stream
        self.url = url
        self.position = 0
        self.broken = False
        compressors: dict[str, Callable[[], Any]] = {**_COMPRESSORS, **(SEEKABLE if seekable else {})}
        self._compressor = compressors[compression]() if compression else None
        self._writev = None if compression else getattr(stream, "writev", None)
        self._large = WRITE_SIZE if self._writev is None else LARGE
        self.written = 0
        self._held: list[Any] = []
        self._held_size = 0
        self._held_large = False

    def add(self, chunks: list[Any], size: int) -> None:
        """Append bytes-like chunks of together `size` bytes; those of WRITE_SIZE and more are written at once."""
        if self.broken:
            raise OpenError("an earlier write failed: the archive cannot go on", url=self.url)
        self._held += chunks
        self.position += size
        self._held_size += size
        if size >= self._large:
            self._held_large = True
        if self._held_size >= WRITE_SIZE:
            self.flush()

    def flush(self) -> None:
        """Write what was added.

        Raises:
            OpenError: the stream does not take it.
        """
        held, large = self._held, self._held_large
        self._held, self._held_size, self._held_large = [], 0, False
        self._write(_joined(held, self._large) if large else [b"".join(held)])

    def finish(self) -> None:
        """Write all that is left, to the end of the compressed stream."""
        self.flush()
        if self._compressor is not None:
            self._write([self._compressor.flush()], compress=False)

    def _write(self, chunks: Iterable[Any], compress: bool = True) -> None:
        self.broken = True  # also when an interrupt comes in between
        try:
            if self._writev is not None:
                chunks = self._write_together(list(chunks))
            for chunk in chunks:
                if compress and self._compressor is not None:
                    chunk = self._compressor.compress(chunk)
                self._write_all(chunk)
        except OpenError:
            raise
        except OSError as exn:
            raise cannot_write(exn, self.url) from exn
        self.broken = False

    def _write_together(self, chunks: list[Any]) -> list[Any]:
        """Write the chunks in one call, if they are not too large for that; what remains of them."""
        if len(chunks) == 1 or sum(map(len, chunks)) >= 2 * WRITE_SIZE:
            return chunks
        assert self._writev is not None
        count = self._writev(chunks)
        self.written += count
        while chunks and count >= len(chunks[0]):
            count -= len(chunks.pop(0))
        return [memoryview(chunks[0])[count:], *chunks[1:]] if count else chunks

    def _write_all(self, data: Any) -> None:
        view = memoryview(data)
        at = 0
        while at < len(view):
            piece = view[at:]
            if len(piece) >= 2 * WRITE_SIZE:  # slices end at such multiples that no page of the file is written twice
                piece = piece[: WRITE_SIZE - self.written % WRITE_SIZE]
            count = self.stream.write(piece)
            if not isinstance(count, int):
                count = len(piece)  # a stream that does not say how much it took has taken all
            elif count <= 0:
                raise OSError(f"the stream stopped taking bytes ({at} of {len(view)} written)")
            at += count
            self.written += count


def compression_for(name: Any, compress: bool | str | None) -> str:
    """The compression of an archive: what `compress` says, for None what the name ends with; "" is none.

    A `pipe:` command gets the plain archive unless `compress` says otherwise.

    Raises:
        ValueError: `compress` is no known name.
    """
    if compress is None:
        text = os.fspath(name) if isinstance(name, (str, os.PathLike)) else ""
        if text.startswith("pipe:"):
            return ""  # what the command is called says nothing of what it wants
        if "://" in text:
            text = re.sub(r"[?#].*", "", text)
        return next((kind for kind in _COMPRESSORS if re.search(rf"(\.|\.t){kind}$", text)), "")
    kind = {True: "gz", False: "", "gzip": "gz", "bzip2": "bz2", "zstd": "zst"}.get(compress, compress)
    if kind and kind not in _COMPRESSORS:
        known = ", ".join(map(repr, _COMPRESSORS))
        raise ValueError(f"compress={compress!r} is not known: use one of {known}, True (gz), False or None (by name)")
    return str(kind)


def _joined(chunks: list[Any], large: int) -> Iterator[Any]:
    small: list[Any] = []
    for chunk in chunks:
        if len(chunk) < large:
            small.append(chunk)
        else:
            yield b"".join(small)
            small = []
            yield chunk
    yield b"".join(small)


def _gz() -> Any:
    return zlib.compressobj(6, zlib.DEFLATED, 31)  # a gzip header without time and name: equal bytes every time


def _bz2() -> Any:
    import bz2

    return bz2.BZ2Compressor()


def _xz() -> Any:
    import lzma

    return lzma.LZMACompressor()


def _zst() -> Any:
    return zstd_module("writing zstd shards").ZstdCompressor()


class _Lz4:
    def __init__(self) -> None:
        self._frame = require("lz4.frame", "lz4", "writing lz4 shards").LZ4FrameCompressor(content_checksum=True)
        self._start = self._frame.begin()

    def compress(self, data: Any) -> bytes:
        start, self._start = self._start, b""
        return bytes(start + self._frame.compress(data))

    def flush(self) -> bytes:
        return self.compress(b"") + bytes(self._frame.flush())


_COMPRESSORS: dict[str, Callable[[], Any]] = {"gz": _gz, "bz2": _bz2, "xz": _xz, "zst": _zst, "lz4": _Lz4}
