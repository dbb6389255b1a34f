"""A member's name and size -> the header blocks in front of its data. Pure: no input or output.

The writing half of `header` and `pax`. Headers are ustar, as POSIX lays them down under pax,
"ustar Interchange Format". What ustar cannot say goes into records of a "pax Extended Header", or
into GNU tar's own extensions ("././@LongLink" members, base-256 numbers) where that format is asked
for. Names are bytes and go in raw, UTF-8 or not, as GNU tar writes them: that is what all readers
list alike in any locale. Equal arguments give equal bytes.
"""

from __future__ import annotations

import math
import tarfile
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..errors import EncodingError
from .header import BLOCK, padding
from .pax import PAX_LIMIT

RECORD = 20 * BLOCK
"""An archive's length is a multiple of this, the record that tape drives of old were written in."""

NAME_SIZE = 100
PREFIX_SIZE = 155
OWNER_SIZE = 31  # 32 with the NUL that ends it
OCTAL_LIMIT = 8**11
"""Sizes and times from here on (8 GiB; the year 2242) need more than the octal digits of their field."""

USTAR_MAGIC = b"ustar\x0000"
GNU_MAGIC = b"ustar  \0"
END_OF_ARCHIVE = bytes(2 * BLOCK)
_FORMATS = {tarfile.USTAR_FORMAT: "USTAR", tarfile.GNU_FORMAT: "GNU", tarfile.PAX_FORMAT: "PAX"}


class MemberStyle(NamedTuple):
    """What the headers of all members of an archive share.

    Attributes:
        mode: permission bits.
        mtime: seconds since 1970; a fraction needs a PAX record, other formats drop it.
        user: owner's name, at most 31 bytes.
        group: group's name, at most 31 bytes.
        format: "USTAR", "GNU" or "PAX": what members are written as that ustar cannot express.
    """

    mode: int = 0o444
    mtime: float = 0
    user: bytes = b""
    group: bytes = b""
    format: str = "PAX"


def member_style(user: str, group: str, mode: int, mtime: float | None, format: Any) -> MemberStyle:
    """A style from arguments as users give them; `format` is None, a name or a constant of tarfile.

    Raises:
        ValueError: one of them has no place in a header.
    """
    owners = {"user": user.encode(), "group": group.encode()}
    for what, owner in owners.items():
        if len(owner) > OWNER_SIZE or b"\0" in owner:
            raise ValueError(f"{what} must have at most {OWNER_SIZE} bytes and no NUL, got {owner!r}")
    if not 0 <= mode <= 0o7777:
        raise ValueError(f"mode must be permission bits from 0 to 0o7777, got {mode:#o}")
    seconds = 0 if mtime is None else mtime
    if not -(2.0**80) < seconds < 2.0**80:
        raise ValueError(f"mtime must be seconds since 1970, got {mtime!r}")
    style = "PAX" if format is None else _FORMATS.get(format) or str(format).upper().removesuffix("_FORMAT")
    if style not in _FORMATS.values():
        raise ValueError(f"format must be one of {', '.join(_FORMATS.values())} or tarfile's constants, got {format!r}")
    if style == "USTAR" and not 0 <= seconds < OCTAL_LIMIT:
        raise ValueError(f"format USTAR has no place for mtime={mtime!r}")
    return MemberStyle(mode, seconds, owners["user"], owners["group"], style)


def checked_align(align: int, style: MemberStyle) -> int:
    """The alignment, if it can be had: ValueError unless it is a power of two, and PAX records may be written."""
    if not (isinstance(align, int) and BLOCK <= align <= PAX_LIMIT // 2 and align & (align - 1) == 0):
        raise ValueError(f"align must be a power of two from {BLOCK} to {PAX_LIMIT // 2}, got {align!r}")
    if align > BLOCK and style.format != "PAX":
        raise ValueError(f"align={align} is done with PAX records: leave out format={style.format!r}")
    return align


def format_number(number: int, width: int) -> bytes:
    """A header field: zero-filled octal digits and a NUL, or base-256 (GNU) for numbers too large or negative.

    Raises:
        ValueError: not even base-256 holds it.
    """
    if 0 <= number < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, number)
    if not -(1 << (8 * width - 8)) <= number < 1 << (8 * width - 8):
        raise ValueError(f"{number} does not fit into a header field of {width} bytes")
    digits = number.to_bytes(width, "big", signed=True)
    return bytes([digits[0] | 0x80]) + digits[1:]


def split_name(name: bytes) -> tuple[bytes, bytes] | None:
    """(prefix, name) as ustar stores them, joined by a slash when read; None when they do not fit."""
    if len(name) <= NAME_SIZE:
        return b"", name
    slash = name.find(b"/", max(1, len(name) - NAME_SIZE - 1), PREFIX_SIZE + 1)
    return None if slash < 0 else (name[:slash], name[slash + 1 :])


def format_header(
    name: bytes,
    size: int,
    style: MemberStyle,
    type: bytes = b"0",
    prefix: bytes = b"",
) -> bytes:
    """One header block; what its fields cannot hold must be said by an extended header before it."""
    fields = (
        name[:NAME_SIZE].ljust(NAME_SIZE, b"\0"),
        format_number(style.mode, 8),
        format_number(0, 8),
        format_number(0, 8),
        format_number(size, 12),
        format_number(math.floor(style.mtime), 12),
        b" " * 8,
        type,
        bytes(100),
        GNU_MAGIC if style.format == "GNU" else USTAR_MAGIC,
        style.user.ljust(32, b"\0"),
        style.group.ljust(32, b"\0"),
        bytes(16),
        prefix.ljust(PREFIX_SIZE, b"\0"),
        bytes(12),
    )
    block = b"".join(fields)
    return block[:148] + format_checksum(sum(block)) + block[156:]


def format_checksum(checksum: int) -> bytes:
    """The checksum field: six octal digits, a NUL and a space."""
    return b"%06o\0 " % checksum


def format_pax_records(records: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Records as they stand in an extended header, `length key=value newline`, the length counting itself."""
    formatted = []
    for key, value in records:
        rest = b" %b=%b\n" % (key, value)
        length = len(rest) + len(str(len(rest)))
        if len(rest) + len(str(length)) != length:
            length += 1
        formatted.append(b"%d%b" % (length, rest))
    return b"".join(formatted)


def format_member(name: bytes, size: int, style: MemberStyle, position: int = 0, align: int = BLOCK) -> bytes:
    """All the blocks in front of a member's data: its header, and an extended header where it needs one.

    Args:
        position: where these blocks begin in the archive.
        align: the data begins at a multiple of this many bytes (a power of two, at least 512); beyond 512
            a PAX comment, which all readers pass over, fills the gap. Only for the format "PAX".

    Raises:
        EncodingError: ustar cannot express name or size, and the format is "USTAR".
    """
    if style.format == "GNU":
        long_name = b"" if len(name) <= NAME_SIZE else _format_extended(b"././@LongLink", b"L", name + b"\0", style)
        return long_name + format_header(name, size, style)
    split = split_name(name)
    prefix, short = split or (b"", name)
    header = format_header(short, size, style, prefix=prefix)
    if style.format == "USTAR":
        if split is None:
            raise EncodingError(f"format USTAR has no place for a name of {len(name)} bytes; use format='PAX'")
        if size >= OCTAL_LIMIT:
            raise EncodingError(f"format USTAR has no place for a size of {size} bytes; use format='PAX'")
        return header
    records = _time_records(style)
    if split is None:
        records += _path_records(name)
    if size >= OCTAL_LIMIT:
        records.append((b"size", b"%d" % size))
    body = format_pax_records(records)
    if align > BLOCK:
        body += _format_gap(body, position, align)
    return (_format_extended(b"././@PaxHeader", b"x", body, style) if body else b"") + header


def format_time(style: MemberStyle) -> bytes:
    """The extended header that every member needs because of its mtime; empty where the header can say it."""
    records = _time_records(style)
    return _format_extended(b"././@PaxHeader", b"x", format_pax_records(records), style) if records else b""


def _time_records(style: MemberStyle) -> list[tuple[bytes, bytes]]:
    whole = style.mtime == math.floor(style.mtime)
    if style.format != "PAX" or (whole and 0 <= style.mtime < OCTAL_LIMIT):
        return []
    return [(b"mtime", b"%d" % style.mtime if whole else b"%.9f" % style.mtime)]


def _path_records(name: bytes) -> list[tuple[bytes, bytes]]:
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return [(b"hdrcharset", b"BINARY"), (b"path", name)]
    return [(b"path", name)]


def _format_gap(body: bytes, position: int, align: int) -> bytes:
    """A comment record behind the records of `body` that brings the data to its place; empty when it is there."""
    extended = BLOCK + len(body) + padding(len(body)) if body else 0
    if (position + extended + BLOCK) % align == 0:
        return b""
    shortest = len(body) + len(b"99 comment=\n")
    filled = shortest + padding(shortest)
    filled += -(position + 2 * BLOCK + filled) % align
    length = filled - len(body)
    start = b"%d comment=" % length
    return start.ljust(length - 1) + b"\n"


def _format_extended(name: bytes, type: bytes, body: bytes, style: MemberStyle) -> bytes:
    header = format_header(name, len(body), MemberStyle(mode=0o644, format=style.format), type)
    return header + body + bytes(padding(len(body)))
