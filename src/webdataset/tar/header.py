"""A 512-byte header block -> Header. Pure: no input or output, errors know no place.

One table of field positions serves ustar, GNU and v7; what differs is said where it is read. A
block is believed only when its checksum is right; numbers must be numbers, whatever else a lenient
reader would make of them.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from zlib import adler32

from ..errors import HeaderError

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)

NAME = slice(0, 100)
SIZE = slice(124, 136)
CHECKSUM = slice(148, 156)
TYPE = slice(156, 157)
MAGIC = slice(257, 263)
PREFIX = slice(345, 500)
STAR_PREFIX = slice(345, 476)  # star keeps times behind a shorter prefix and signs with "tar\0"
STAR_SIGNATURE = slice(508, 512)

REGULAR_TYPES = frozenset((b"0", b"\0", b"7"))
"""Ordinary files: POSIX, v7, and contiguous files, which nothing treats differently any more."""
OLD_GNU_SPARSE = b"S"
TYPES_WITHOUT_DATA = frozenset((b"1", b"2", b"3", b"4", b"5", b"6"))
"""Links, devices, folders, fifos: whatever their size says, no data follows (as GNU tar and tarfile read them)."""

_OCTAL = re.compile(rb"[0-7]+")


class Header(NamedTuple):
    """What a header block says, before any extended header changes it."""

    name: bytes
    size: int
    type: bytes


def parse_number(field: bytes, what: str) -> int:
    """The number in a header field: octal digits, or base-256 when the first bit is set (GNU).

    Raises:
        HeaderError: it is no number, or negative.
    """
    if field[0] & 0x80:
        number = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        if field[0] & 0x40:
            raise HeaderError(f"the {what} in the header is negative")
        return number
    digits = field.partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    if _OCTAL.fullmatch(digits) is None:
        raise HeaderError(f"the {what} in the header is not a number: {field!r}")
    return int(digits, 8)


def checksum_is_right(block: bytes) -> bool:
    """Whether the block sums to its checksum field, which itself counts as eight spaces.

    The sum is of unsigned bytes; old Sun and BSD writers summed signed ones.
    """
    try:
        stored = parse_number(block[CHECKSUM], "checksum")
    except HeaderError:
        return False
    summed = sum(block) - sum(block[CHECKSUM]) + 8 * ord(" ")
    if stored == summed:
        return True
    negative = sum(1 for byte in block[:148] + block[156:] if byte > 127)
    return stored == summed - 256 * negative


class _ExpectedAdler(dict[bytes, int]):
    """Checksum field -> low 16 bits of the adler32 of a block that it is right for.

    Those bits are 1 + the sum of all bytes, modulo 65521 (RFC 1950), and adler32 is the fastest sum
    at hand. -1 for fields that are not plain octal; those blocks are summed the slow way.
    """

    def __missing__(self, field: bytes) -> int:
        digits = field.rstrip(b"\0 ")
        expected = -1
        if _OCTAL.fullmatch(digits):
            expected = (1 + int(digits, 8) - 8 * ord(" ") + sum(field)) % 65521
        if len(self) < 65536:
            self[field] = expected
        return expected


_expected_adler = _ExpectedAdler()


def is_summed(block: bytes) -> bool:
    """`checksum_is_right`, fast for the usual case: unsigned sums in plain octal, of bytes below 128.

    The sum of so many of those is below 65521, so that nothing is lost by taking it modulo that.
    """
    return block.isascii() and adler32(block) & 0xFFFF == _expected_adler[block[148:156]]


def parse_header(block: bytes) -> Header:
    """The header in a block of 512 bytes.

    Raises:
        HeaderError: the checksum is wrong or the size is no number.
    """
    if not is_summed(block) and not checksum_is_right(block):
        raise HeaderError("wrong header checksum")
    name = block[NAME].partition(b"\0")[0]
    kind = block[TYPE]
    magic = block[MAGIC]
    # GNU ("ustar  ") and v7 use the prefix field for other things or not at all
    if block[345] and magic == b"ustar\0":
        star = block[STAR_SIGNATURE] == b"tar\0"
        prefix = block[STAR_PREFIX if star else PREFIX].partition(b"\0")[0]
        if prefix:
            name = prefix + b"/" + name
    size = block[124:135]
    if block[135] in b"\0 " and size.isdigit() and b"8" not in size and b"9" not in size:
        return Header(name, int(size, 8), kind)
    return Header(name, parse_number(block[SIZE], "size"), kind)


def is_header(block: bytes) -> bool:
    """Whether this is a whole block that can be believed to be a header."""
    try:
        return len(block) == BLOCK and parse_header(block) is not None
    except HeaderError:
        return False


def padding(size: int) -> int:
    """Bytes between the end of `size` bytes of data and the next block."""
    return -size % BLOCK
