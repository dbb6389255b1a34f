"""A file -> what it is, known by its content: whether it can be a shard, and what to call it when it is none.

Only streams of records, which have no mark to know them by, are known by their names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from .errors import TarError
from .tar.compression import MAGIC_BYTES, compression_of
from .tar.header import BLOCK, ZERO_BLOCK, is_header
from .tar.source import Source

_RECORDS = re.compile(
    r"\.(?:(?P<msgpack>mp|msg|msgpack|mpk)|(?P<cbor>cbors?))(?:\.(?:gz|bz2|xz|zst|lz4))?$", re.IGNORECASE
)
_RECORD_BEGINS = range(0x80, 0xE0)  # maps, arrays and tags of both formats
_PAGE_MARKS = (b"<!doctype html", b"<html")


def check_tar_format(fname: str | os.PathLike[str]) -> bool:
    """Whether a file begins as an archive does that we can read: a tar header, plain or compressed.

    An archive without members, of zeros only, is one as well; an empty file is none.

    Raises:
        OSError: the file cannot be read.
        MissingDependencyError: the package that reads this compression is not installed.
    """
    block = _beginning(fname, BLOCK)
    return block is not None and (block == ZERO_BLOCK or is_header(block))


def check_record_format(fname: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a stream of MsgPack or CBOR maps or arrays does; an empty one does.

    Raises:
        OSError: the file cannot be read.
        MissingDependencyError: the package that reads this compression is not installed.
    """
    first = _beginning(fname, 1)
    return first is not None and (not first or first[0] in _RECORD_BEGINS)


def _beginning(fname: str | os.PathLike[str], size: int) -> bytes | None:
    """The first bytes of a file, of what is inside a compressed one; None where that is damaged so early."""
    with open(fname, "rb") as stream:
        try:
            source = Source(stream)
            try:
                source.fill(size)
                return bytes(source.window[source.pos : source.pos + size])
            finally:
                source.close()
        except TarError:
            return None


def begins_as_records(block: bytes) -> bool:
    """Whether a file that begins with these bytes can be such a stream; compressed ones are not looked into."""
    return not block or block[0] in _RECORD_BEGINS or compression_of(block[:MAGIC_BYTES]) is not None


def begins_as_tar(block: bytes) -> bool:
    """Whether a file that begins with these 512 bytes can be an archive; compressed ones are not looked into."""
    return block == ZERO_BLOCK or is_header(block) or compression_of(block[:MAGIC_BYTES]) is not None


EARLY: dict[Callable[[str], bool], Callable[[bytes], bool]] = {
    check_tar_format: begins_as_tar,
    check_record_format: begins_as_records,
}
"""Validators that can refuse a file by its first 512 bytes, and how; readers wait for the verdict of the others."""


def magic_filetype(fname: str | os.PathLike[str]) -> str:
    """The file's name and what its first bytes say: `a.tar: POSIX tar archive`, `b.tgz: gzip compressed data`."""
    with open(fname, "rb") as stream:
        block = stream.read(BLOCK)
    return f"{os.fspath(fname)}: {kind_of(block)}"


def get_filetype(fname: str | os.PathLike[str]) -> str:
    """As `magic_filetype`; no program is asked."""
    return magic_filetype(fname)


def kind_of(block: bytes) -> str:
    """What a file is that begins with these 512 bytes."""
    if block[257:262] == b"ustar":
        return "POSIX tar archive"
    if is_header(block):
        return "tar archive"
    compression = compression_of(block[:MAGIC_BYTES])
    if compression is not None:
        return f"{compression} compressed data"
    if block.lstrip().lower().startswith(_PAGE_MARKS):
        return "HTML document"
    return "data" if block else "empty"


def record_kind(name: str) -> str | None:
    """`msgpack` or `cbor` for the name or url of a stream of such records, compressed or not; None for others."""
    if "://" in name:
        name = re.sub(r"[?#].*", "", name)
    found = _RECORDS.search(name)
    return None if found is None else found.lastgroup
