"""PAX extended headers -> records. Pure: no input or output, errors know no place.

A record is `length key=value newline`, the length in decimal and counting itself (POSIX pax,
"pax Extended Header"). Records stay a list: GNU sparse 0.0 repeats its keys in order.
"""

from __future__ import annotations

import re

from ..errors import HeaderError

PAX_LIMIT = 1 << 20
"""Largest extended header or long name that is read, in bytes: the limit of libarchive and Go."""

Records = list[tuple[bytes, bytes]]

_LENGTH = re.compile(rb"([1-9][0-9]{0,9}) ")


def parse_pax_records(data: bytes) -> Records:
    """All records, in order.

    Raises:
        HeaderError: a record has no length, or one that does not fit.
    """
    records: Records = []
    at = 0
    while at < len(data):
        length = _LENGTH.match(data, at)
        if length is None:
            if not data[at:].strip(b"\0"):
                break  # some writers count the padding
            raise HeaderError(f"PAX record without a length: {data[at : at + 20]!r}")
        end = at + int(length[1])
        if end > len(data) or end <= length.end() or data[end - 1 : end] != b"\n":
            raise HeaderError(f"PAX record with a wrong length: {data[at : at + 20]!r}")
        key, equals, value = data[length.end() : end - 1].partition(b"=")
        if not equals or not key:
            raise HeaderError(f"PAX record without a key: {data[at : at + 20]!r}")
        records.append((key, value))
        at = end
    return records


def parse_pax_size(value: bytes, what: str) -> int:
    """A size in a record: decimal, not negative."""
    if not re.fullmatch(rb"[0-9]{1,20}", value):
        raise HeaderError(f"the {what} in a PAX record is not a size: {value[:40]!r}")
    return int(value)
