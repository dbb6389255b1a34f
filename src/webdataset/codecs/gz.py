"""gzip data <-> bytes, in memory.

Reading accepts several members one after another, checks length and CRC of each, and stops at
`max_bytes`; writing gives the same bytes for the same data.
"""

from __future__ import annotations

import re
import zlib

max_bytes: int = 1 << 32
"""The most that one `.gz` field may hold when it is expanded, in bytes; a program may assign another limit."""

_PIECE = 1 << 17  # bounds what zlib copies when a member ends in the middle

_ZEROS = re.compile(rb"\0+")


def gunzip(data: bytes) -> bytes:
    """The expanded data; ValueError when it is damaged or longer than `max_bytes`, EOFError when it is cut."""
    view = memoryview(data)
    parts: list[bytes] = []
    left = max_bytes
    position = 0
    while position < len(view):
        member = zlib.decompressobj(wbits=31)
        while not member.eof:
            piece = view[position : position + _PIECE]
            if not piece:
                raise EOFError(f"gzip data ends too early, after {len(view)} bytes")
            try:
                part = member.decompress(piece, left + 1)
            except zlib.error as exn:
                raise ValueError(f"gzip data is damaged near byte {position}: {exn}") from exn
            left -= len(part)
            if left < 0:
                raise ValueError(
                    f"gzip data expands to more than {max_bytes} bytes;"
                    " if that is right, raise webdataset.codecs.gz.max_bytes"
                )
            parts.append(part)
            position += len(piece) - len(member.unused_data)
        padding = _ZEROS.match(data, position)  # between and after members
        position = padding.end() if padding else position
    return b"".join(parts)


def gzipped(data: bytes, level: int = 9) -> bytes:
    """One gzip member with neither time nor name in its header."""
    member = zlib.compressobj(level, wbits=31)
    return member.compress(data) + member.flush()
