"""Files with the index of a shard, as bytes, and back: Energon's `.tar.idx`, DALI's `.idx`, and our own. Pure.

Energon: N + 1 little-endian unsigned 64-bit numbers, `SampleIndex.offsets`. DALI: a line of text a sample with suffix,
offset, size and (v1.2) name of each member. Ours is a cache and no format: a line of JSON with a checksum, then arrays.
Parsers believe nothing: what they give is in order and within bounds, whether it fits a shard is for others to see.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from .errors import StaleIndexError, printable
from .sampleindex import Integers, Members, SampleIndex
from .samples import key_of
from .shardbytes import Version
from .tar.header import BLOCK, padding

DALI_VERSIONS = {"v1.1": 3, "v1.2": 4}
"""Version of a DALI index to the number of words for each member."""

OUR_KIND = "webdataset-index-1"
_ARRAYS = ("offsets", "first", "starts", "sizes", "codes", "key_ends", "wrapped")


def format_offsets(index: SampleIndex) -> bytes:
    """Energon's `.tar.idx`."""
    return index.offsets.astype("<u8").tobytes()


def parse_offsets(data: bytes) -> SampleIndex:
    """The index in an Energon `.tar.idx`.

    Raises:
        StaleIndexError: it is cut, or no such index.
    """
    if len(data) % 8 or not data:
        raise StaleIndexError(f"{len(data)} bytes are no list of 64-bit offsets: the index is cut, or of another kind")
    return _checked(np.frombuffer(data, "<u8").astype(np.int64))


def parse_dali(data: bytes) -> SampleIndex:
    """The index in a DALI `.idx`, version v1.1 or v1.2: where each sample ends, and what it tells of the members.

    Raises:
        StaleIndexError: it is cut, or no such index.
    """
    lines = data.decode("utf-8", "surrogateescape").splitlines()
    version, _, count = (lines[0] if lines else "").partition(" ")
    words = DALI_VERSIONS.get(version)
    if words is None or not _is_number(count):
        raise StaleIndexError(f"a DALI index begins with v1.1 or v1.2 and a count, this one with {data[:20]!r}")
    if len(lines) - 1 != int(count):
        raise StaleIndexError(f"the index says {count} samples, and has {len(lines) - 1}: it is cut")
    offsets: list[int] = [0]
    told = ToldMembers()
    for number, line in enumerate(lines[1:]):
        parts = line.split(" ")
        numbers = [*parts[1::words], *parts[2::words]]
        if len(parts) % words or not parts or not all(map(_is_number, numbers)):
            raise StaleIndexError(f"line {number + 2} of the index is no list of members: {line[:60]!r}")
        rows = list(zip(parts[::words], map(int, parts[1::words]), map(int, parts[2::words]), strict=True))
        behind = max(at + size + padding(size) for _, at, size in rows)
        key = None
        if words == 4:
            fields = [number for number, name in enumerate(parts[3::words]) if key_of(name) is not None]
            if not fields:
                continue
            rows = [rows[number] for number in fields]
            key = key_of(parts[3::words][fields[0]])
        if len({field.lower() for field, _, _ in rows}) < len(rows):
            raise StaleIndexError(f"line {number + 2} of the index has a field twice: {line[:60]!r}")
        offsets.append(behind)
        told.add(key, rows)
    return told_index(offsets, told)


def _is_number(text: str) -> bool:
    """Whether it is a number of bytes, or of samples."""
    return text.isdecimal() and len(text) < 20


def told_index(offsets: list[int], told: ToldMembers) -> SampleIndex:
    """The index of samples that begin at these bytes, the last one being where the last of them ends.

    Raises:
        StaleIndexError: this cannot be.
    """
    try:
        return _checked(np.array(offsets, np.int64), told.members())
    except OverflowError:
        raise StaleIndexError("a number is larger than that of any byte") from None


def format_dali(index: SampleIndex) -> bytes:
    """A DALI `.idx` v1.2; the index must have been made with `lcase=False`, as DALI looks at capital letters.

    Raises:
        StaleIndexError: it has offsets only, no sample, a member in pieces, or a name with a space.
    """
    members = index.members
    if members is None or not len(index):
        raise StaleIndexError("a DALI index needs at least one sample, and to know its members")
    lines = [f"v1.2 {len(index)}"]
    for i, key in enumerate(members.all_keys()):
        words = []
        for field, start, size, wrapped in members.rows(i):
            if wrapped or any(mark.isspace() for mark in key + field):
                raise StaleIndexError(
                    f"{printable(f'{key}.{field}')}: DALI knows no sparse members and no spaces in names"
                )
            words.append(f"{field} {start} {size} {key}.{field}")
        lines.append(" ".join(words))
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")


def format_ours(index: SampleIndex, version: Version) -> bytes:
    """Our own file: everything that is in the index, and of which state of the shard it is."""
    members = index.members
    assert members is not None
    arrays: list[Integers] = [index.offsets, members.first, members.starts, members.sizes, members.codes]
    arrays += [members.key_ends, np.array(sorted(members.wrapped), np.int64)]
    body = b"".join([*(array.astype("<i8").tobytes() for array in arrays), members.keys])
    head = {
        "kind": OUR_KIND,
        "version": version,
        "lengths": [len(array) for array in arrays],
        "fields": members.fields,
        "bytes": len(body),
    }
    text = json.dumps({**head, "crc32": _checksum(head, body)}).encode("ascii")
    return text + b" " * (-(len(text) + 1) % 8) + b"\n" + body


def parse_ours(data: bytes) -> tuple[SampleIndex, Version]:
    """What `format_ours` was given.

    Raises:
        StaleIndexError: it is cut, damaged, or none of ours.
    """
    text, _, _ = data.partition(b"\n")
    try:
        head = json.loads(text)
        body = memoryview(data)[len(text) + 1 :]
        checksum = head.pop("crc32")
        if head["kind"] != OUR_KIND or head["bytes"] != len(body) or checksum != _checksum(head, body):
            raise ValueError("another kind, length or checksum")
        columns = {}
        at = 0
        for name, length in zip(_ARRAYS, head["lengths"], strict=True):
            columns[name] = np.frombuffer(body, "<i8", length, at).astype(np.int64, copy=False)
            at += 8 * length
        offsets, wrapped = columns.pop("offsets"), columns.pop("wrapped")
        members = Members(
            fields=tuple(head["fields"]), keys=bytes(body[at:]), wrapped=frozenset(wrapped.tolist()), **columns
        )
        return SampleIndex(offsets, members), Version(*head["version"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exn:
        raise StaleIndexError(f"the cached index is damaged: {exn}") from exn


def _checksum(head: dict[str, Any], body: bytes | memoryview) -> int:
    return zlib.crc32(body, zlib.crc32(json.dumps(head).encode("ascii")))


class ToldMembers:
    """What a file tells of samples, one after the other, on its way to `SampleIndex.told`."""

    def __init__(self) -> None:
        self._keys: list[bytes] = []
        self._counts: list[int] = [0]
        self._rows: list[tuple[int, int, int]] = []
        self._codes: dict[str, int] = {}

    def add(self, key: str | None, rows: Iterable[tuple[str, int, int]]) -> None:
        """A sample with its key, if that is told, and field, first byte and size of each of its members."""
        before = len(self._rows)
        self._rows += [(self._codes.setdefault(field, len(self._codes)), at, size) for field, at, size in rows]
        self._counts.append(len(self._rows) - before)
        self._keys.append((key or "").encode("utf-8", "surrogateescape"))

    def members(self) -> Members:
        """All of them; without keys where one is not known. OverflowError where a number is larger than any file."""
        keys = self._keys if all(self._keys) else [b""] * len(self._keys)
        codes, starts, sizes = np.array(self._rows, np.int64).reshape(-1, 3).T
        return Members(
            first=np.cumsum(self._counts),
            starts=starts,
            sizes=sizes,
            codes=codes,
            fields=tuple(self._codes),
            keys=b"".join(keys),
            key_ends=np.cumsum([len(key) for key in keys], dtype=np.int64),
        )


def _checked(offsets: Integers, told: Members | None = None) -> SampleIndex:
    if (offsets < 0).any() or (offsets % BLOCK).any() or (offsets[1:] <= offsets[:-1]).any():
        raise StaleIndexError("the offsets do not grow in steps of 512: the index is damaged, or of another kind")
    return SampleIndex(offsets, told=told)
