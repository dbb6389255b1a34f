"""A compressed stream -> the bytes inside, the kind found by its first bytes, never by a name.

The formats are libraries' work: zlib, or isal when it is installed (4 times as fast), the standard
bz2 and lzma, zstd from the standard library (3.14) or backports.zstd, lz4. All of them read several
members or frames in a row and check what the format can check.
"""

from __future__ import annotations

import sys
from typing import Any

from .._optional import require
from .gzipstream import GzipStream

MAGIC_BYTES = 6
"""How many first bytes `compression_of` wants."""

_MAGIC = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
}


def compression_of(start: bytes) -> str | None:
    """The kind of compression that a stream beginning with these bytes has, None for none that is known."""
    for magic, kind in _MAGIC.items():
        if start.startswith(magic):
            return kind
    if len(start) >= 4 and start[0] & 0xF0 == 0x50 and start[1:4] == b"*M\x18":
        return "zstd"  # a skippable frame (RFC 8878, 3.1.2): pzstd and seekable files begin with one
    return None


def open_decompressed(stream: Any, kind: str) -> Any:
    """A stream of the decompressed bytes, with `read1` and `close` (which leaves `stream` open).

    Raises:
        MissingDependencyError: zstd before Python 3.14, or lz4, without the package that reads it.
    """
    return _OPENERS[kind](stream)


def _open_bzip2(stream: Any) -> Any:
    import bz2

    return bz2.BZ2File(stream)


def _open_xz(stream: Any) -> Any:
    import lzma

    return lzma.LZMAFile(stream)


def zstd_module(purpose: str) -> Any:
    """The module for zstd.

    Raises:
        MissingDependencyError: there is none, before Python 3.14, without backports.zstd.
    """
    return require("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd", "backports.zstd", purpose)


def _open_zstd(stream: Any) -> Any:
    return zstd_module("reading zstd shards").ZstdFile(stream)


def _open_lz4(stream: Any) -> Any:
    return require("lz4.frame", "lz4", "reading lz4 shards").LZ4FrameFile(stream)


_OPENERS = {"gzip": GzipStream, "bzip2": _open_bzip2, "xz": _open_xz, "zstd": _open_zstd, "lz4": _open_lz4}
