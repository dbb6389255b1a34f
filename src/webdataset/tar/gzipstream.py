"""A gzip stream -> the bytes inside, member after member (RFC 1952).

The standard GzipFile checks what this one checks, but a reader that also wants isal's inflater (4
times as fast) has only isal's own GzipFile, which throws away what it has inflated when an error
follows. Here all bytes in front of a fault come first, then the error. As gzip(1) does: zeros
behind the last member are padding, anything else there is ignored with a warning.
"""

from __future__ import annotations

import warnings
import zlib
from typing import Any

MAGIC = b"\x1f\x8b"
_HEADER_CRC, _EXTRA, _NAME, _COMMENT = 2, 4, 8, 16
_COMPRESSED_READ = 1 << 17


def inflate_module() -> Any:
    """isal's zlib, or the standard one."""
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib
    return isal_zlib


class GzipStream:
    """Inflated bytes of a stream with `read(n)`; raises EOFError where it is cut and OSError where it is damaged."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._zlib = inflate_module()
        self._input = b""
        self._inflate: Any = None
        self._crc = 0
        self._size = 0
        self._members = 0
        self._ended = False

    def read1(self, size: int) -> bytes:
        """At least one and at most `size` bytes; b"" at the end."""
        while not self._ended:
            inflate = self._inflate or self._begin_member()
            if inflate is None:
                break
            if inflate.eof:
                self._end_member()
                continue
            if not self._input:
                self._input = self._stream.read(_COMPRESSED_READ)
                if not self._input:
                    raise EOFError("the compressed data is cut")
            data: bytes = inflate.decompress(self._input, size)
            self._input = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
            self._crc = self._zlib.crc32(data, self._crc)
            self._size += len(data)
            if data:
                return data
        return b""

    def close(self) -> None:
        """Let go of the inflater; the stream stays open."""
        self._ended, self._inflate, self._input = True, None, b""

    def _begin_member(self) -> Any:
        """The inflater of the next member, None at the end."""
        while self._members and not self._input.lstrip(b"\0"):
            self._input = self._stream.read(_COMPRESSED_READ)
            if not self._input:
                self._ended = True
                return None
        if self._members:
            self._input = self._input.lstrip(b"\0")
        if not self._have(2) or not self._input.startswith(MAGIC):
            if self._members:
                warnings.warn("ignored what follows the end of a gzip stream", stacklevel=2)
                self._ended = True
                return None
            raise OSError("not a gzip stream")
        _, _, method, flags, *_ = self._take(10)
        if method != zlib.DEFLATED:
            raise OSError(f"unknown gzip method {method}")
        if flags & _EXTRA:
            self._take(int.from_bytes(self._take(2), "little"))
        for flag in (_NAME, _COMMENT):
            if flags & flag:
                self._skip_text()
        if flags & _HEADER_CRC:
            self._take(2)
        self._inflate = self._zlib.decompressobj(-zlib.MAX_WBITS)
        self._crc = self._size = 0
        return self._inflate

    def _end_member(self) -> None:
        crc, size = int.from_bytes(self._take(4), "little"), int.from_bytes(self._take(4), "little")
        if crc != self._crc:
            raise OSError(f"wrong checksum: the data sums to {self._crc:#010x}, the stream says {crc:#010x}")
        if size != self._size & 0xFFFFFFFF:
            raise OSError(f"wrong length: {self._size} bytes, the stream says {size}")
        self._inflate = None
        self._members += 1

    def _skip_text(self) -> None:
        while b"\0" not in self._input:
            self._input = b""
            if not self._have(1):
                raise EOFError("the compressed data is cut inside its header")
        self._input = self._input.partition(b"\0")[2]

    def _have(self, count: int) -> bool:
        while len(self._input) < count:
            data = self._stream.read(_COMPRESSED_READ)
            if not data:
                return False
            self._input += data
        return True

    def _take(self, count: int) -> bytes:
        if not self._have(count):
            raise EOFError("the compressed data is cut in front of or behind the data")
        data, self._input = self._input[:count], self._input[count:]
        return data
