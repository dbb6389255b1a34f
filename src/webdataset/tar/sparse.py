"""GNU sparse members: a map of (offset, length) pieces -> the whole file with its holes.

Four forms (GNU tar manual, "Storing Sparse Files"): the old one in header blocks, and PAX 0.0
(repeated records), 0.1 (one record), 1.0 (text in front of the data). Pure: no input or output.
"""

from __future__ import annotations

from ..errors import HeaderError
from .header import BLOCK, parse_number
from .pax import Records, parse_pax_size

SparseMap = list[tuple[int, int]]

FREE_HOLES = 1 << 26
HOLES_PER_BYTE = 1000
"""A sparse member may claim 64 MiB, or 1000 times what is stored of it: more is taken for an attack."""


def parse_old_sparse(block: bytes) -> tuple[SparseMap, int, bool]:
    """Map, real size, and whether an extension block follows, from an old GNU header."""
    return _entries(block[386:482]), parse_number(block[483:495], "sparse size"), block[482] != 0


def parse_sparse_extension(block: bytes) -> tuple[SparseMap, bool]:
    """Further pieces of an old GNU map, and whether yet another block follows."""
    return _entries(block[:504]), block[504] != 0


def _entries(fields: bytes) -> SparseMap:
    entries = []
    for at in range(0, len(fields), 24):
        if not fields[at : at + 12].strip(b"\0 "):
            break
        offset = parse_number(fields[at : at + 12], "sparse offset")
        entries.append((offset, parse_number(fields[at + 12 : at + 24], "sparse length")))
    return entries


def parse_pax_sparse(records: Records) -> tuple[SparseMap | None, int] | None:
    """(map, real size) of PAX 0.0 and 0.1; (None, real size) of 1.0, whose map is in the data; None if not sparse."""
    last = dict(records)
    size = last.get(b"GNU.sparse.realsize", last.get(b"GNU.sparse.size"))
    if size is None:
        return None
    real_size = parse_pax_size(size, "sparse size")
    if last.get(b"GNU.sparse.major") == b"1":
        return None, real_size
    if b"GNU.sparse.map" in last:
        numbers = [parse_pax_size(number, "sparse map") for number in last[b"GNU.sparse.map"].split(b",") if number]
    else:
        numbers = [
            parse_pax_size(value, "sparse map")
            for key, value in records
            if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
        ]
    if len(numbers) % 2:
        raise HeaderError("the sparse map has an offset without a length")
    return list(zip(numbers[::2], numbers[1::2], strict=True)), real_size


def split_sparse_data(data: bytes) -> tuple[SparseMap, bytes]:
    """The map in front of the data (PAX 1.0: a count, then numbers, a line each, padded to a block) and the rest."""
    end = 0

    def number() -> int:
        nonlocal end
        start, end = end, data.find(b"\n", end, end + 32) + 1
        if not end:
            raise HeaderError("the sparse map in front of the data has no end")
        return parse_pax_size(data[start : end - 1], "sparse map")

    entries = [(number(), number()) for _ in range(min(number(), len(data)))]
    return entries, data[end + -end % BLOCK :]


def expand_sparse(data: bytes, pieces: SparseMap, real_size: int) -> bytes:
    """The whole file: the pieces of the data at their offsets, zeros between them.

    Raises:
        HeaderError: the map goes backwards, beyond the file, does not fit the data, or claims too much.
    """
    if real_size > max(FREE_HOLES, HOLES_PER_BYTE * len(data)):
        raise HeaderError(f"a sparse member of {len(data)} bytes claims to be {real_size} bytes")
    out = []
    filled = used = 0
    for offset, length in pieces:
        if offset < filled or offset + length > real_size or used + length > len(data):
            raise HeaderError("the sparse map does not fit the member")
        out.append(bytes(offset - filled))
        out.append(data[used : used + length])
        filled, used = offset + length, used + length
    if used != len(data):
        raise HeaderError("the sparse map does not fit the member")
    out.append(bytes(real_size - filled))
    return b"".join(out)
