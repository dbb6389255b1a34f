"""An open shard, and where its samples begin as somebody else says -> samples that are surely those of the shard.

A sidecar cannot say what shard it is of, so it is believed nothing: a sample is read whole, headers too, and the
members beside it are looked at. It must be exactly one sample, the members before it must end where it begins and
have another key, as must the one behind it. Headers that did not come with the sample are read alone; what was found
out once about a place is not read again.
Where the index also tells keys and members, they must be the same.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import cast

from .errors import DataError, StaleIndexError, TruncatedError
from .sampleindex import Members, SampleIndex, scan_samples
from .samples import decode_name, key_of
from .shardbytes import ShardBytes
from .spans import Pieces, Span
from .tar.header import BLOCK, is_header
from .tar.reader import ArchiveReader, Member

LOOK_BACK = 2 * BLOCK
"""Bytes before a remote sample that come along, since the member before may be a small one."""
SMALL = 4 * BLOCK
"""Bytes up to which all of the sample before comes along."""
EXTENDED = 3 * BLOCK
"""Bytes of a header with PAX records, in most archives."""


class ShardOffsets:
    """See the module; `index` has the offsets, and perhaps more that somebody tells. `lcase` lower-cases the fields."""

    def __init__(self, shard: ShardBytes, index: SampleIndex, lcase: bool = True) -> None:
        self._lcase = lcase
        self.shard = shard
        self.index = index
        self._begins: set[int] = set()  # numbers of samples that are known to begin where the index says
        self._behind = BLOCK
        self._probe = BLOCK

    def span(self, i: int) -> Span:
        """What should be read for sample `i`: the sample, and what is likely to tell of its neighbours."""
        start, stop = self.index.offsets[i : i + 2].tolist()
        size = self.shard.size or stop
        if i not in self._begins:
            before = self._before(i)
            if start - before <= SMALL:
                start = before
            elif self.shard.is_remote:
                start -= LOOK_BACK
        return Span(start, max(stop, min(stop + self._behind, size)))

    def sample(self, i: int, pieces: Pieces) -> tuple[SampleIndex, bytes]:
        """Sample `i` alone: bytes of the shard, and an index of them that has one sample.

        Raises:
            StaleIndexError: the index does not fit the shard.
        """
        begin, end = self.index.offsets[i : i + 2].tolist()
        data = pieces.cut(begin, end)
        try:
            if not is_header(data[:BLOCK]):
                raise StaleIndexError("no member begins there")
            found = scan_samples(io.BytesIO(data), self.shard.url, lcase=self._lcase)
            if len(found) != 1:
                raise StaleIndexError(f"there are {len(found)} samples where the index says one")
            if found.offsets[-1] != len(data):
                raise StaleIndexError("the archive ends before the sample does")
            self._check_told(i, begin, found)
            key = _members(found).key(0)
            if i not in self._begins:
                self._check_before(i, key, begin + int(found.offsets[0]), pieces)
                self._begins.add(i)
            if i + 1 not in self._begins:
                self._check_behind(key, end, pieces)
                if i + 1 < len(self.index):
                    self._begins.add(i + 1)
        except DataError as exn:
            raise StaleIndexError(
                f"the index does not fit the shard at sample {i}: {exn.message}; remove the index, or make it anew",
                url=self.shard.url,
                offset=begin,
                stage="index",
            ) from exn
        return found, data

    def check_all(self, found: SampleIndex) -> None:
        """Whether the offsets are those of this index, which was made of the whole shard.

        Raises:
            StaleIndexError: they are not.
        """
        told, begins = self.index.offsets, found.offsets[:-1]
        members = _members(found)
        last = members.first[1:] - 1
        ends = members.starts[last] + members.sizes[last]
        if len(found) != len(self.index) or (begins < told[:-1]).any() or (ends > told[1:]).any():
            raise StaleIndexError(
                f"the index does not fit the shard: it has {len(self.index)} samples, the shard {len(found)}, or they "
                "lie elsewhere; remove the index, or make it anew",
                url=self.shard.url,
                stage="index",
            )

    def _before(self, i: int) -> int:
        return int(self.index.offsets[i - 1]) if i else 0

    def _check_before(self, i: int, key: str, begin: int, pieces: Pieces) -> None:
        """The members from the sample before on end where this one begins, and the last of them has another key."""
        last = None
        for name, start, end in self._walk(self._before(i), pieces):
            if start >= begin:
                if start > begin:
                    break
                if last == key or (last is None) == (i > 0):
                    raise StaleIndexError("it does not begin where the index says")
                return
            if end > begin:
                break
            last = name or last
        raise StaleIndexError("it begins inside of another member")

    def _check_behind(self, key: str, end: int, pieces: Pieces) -> None:
        """The next member that belongs to a sample has another key."""
        behind = next((name for name, _, _ in self._walk(end, pieces, behind=True) if name is not None), None)
        if behind == key:
            raise StaleIndexError("the sample goes on beyond what the index says")

    def _walk(self, at: int, pieces: Pieces, behind: bool = False) -> Iterator[tuple[str | None, int, int]]:
        headers = _Headers(self.shard, at, pieces, self._probe)
        try:
            yield from _members_from(headers, at)
        finally:
            if headers.missed and behind:
                self._behind = EXTENDED
            elif headers.missed:
                self._probe = min(max(self._probe, headers.missed), SMALL)

    def _check_told(self, i: int, begin: int, found: SampleIndex) -> None:
        """What else the index tells of this sample is so."""
        told, members = self.index.told, _members(found)
        if told is None:
            return
        if told.keys and told.key(i) != members.key(0):
            raise StaleIndexError(f"the index has the key {told.key(i)!r}, the shard {members.key(0)!r}")
        parts = {(field.lower(), start - begin, size) for field, start, size, _ in told.rows(i)}
        there = {(field.lower(), start, size) for field, start, size, wrapped in members.rows(0) if not wrapped}
        if parts != there and not members.wrapped:
            field, start, size = min(parts ^ there)
            where = "the index only" if (field, start, size) in parts else "the shard only"
            raise StaleIndexError(f"field {field} with {size} bytes at byte {begin + start} is in {where}")


def walk_members(shard: ShardBytes, at: int) -> Iterator[tuple[str | None, int, int]]:
    """Key (None: of no sample), first and last byte (exclusive) of each member from a byte on, data passed over.

    Raises:
        DataError: no archive goes on there, or a damaged one.
    """
    return _members_from(_Headers(shard, at, Pieces([], []), BLOCK), at)


def _members_from(headers: _Headers, at: int) -> Iterator[tuple[str | None, int, int]]:
    if headers.at_end:
        return
    reader = ArchiveReader(headers, lambda raw: False, runs=False)
    try:
        for item in reader:
            name, _, offset = cast(Member, item)  # no runs, and nothing is announced
            yield key_of(decode_name(name)), at + offset, at + reader.offset
    finally:
        reader.close()


class _Headers:
    """A shard from a byte on, for a reader of headers: from what is at hand, else in small reads."""

    def __init__(self, shard: ShardBytes, at: int, pieces: Pieces, step: int) -> None:
        self._shard, self._at, self._pieces, self._step = shard, at, pieces, step
        self._window, self._start = b"", at
        self._first: int | None = None
        self.missed = 0
        """Bytes from the first one that was not at hand to the end of those that were read close to it."""

    @property
    def at_end(self) -> bool:
        """Whether nothing follows."""
        return self._at >= (self._shard.size or 0)

    def read(self, size: int = -1) -> bytes:
        """Bytes that are at hand, else some that are read; b"" at the end."""
        at, size = self._at, size if size > 0 else BLOCK
        data = self._window[at - self._start : at - self._start + size] or self._pieces.cut(at, at + size)
        if not data:
            stop = min(at + self._step, self._shard.size or 0)
            self._window, self._start = self._shard.read(at, stop) if stop > at else b"", at
            self._first = at if self._first is None else self._first
            if stop - self._first <= SMALL:
                self.missed = stop - self._first
            self._step, data = BLOCK, self._window[:size]
        self._at += len(data)
        return data

    def pass_over(self, size: int) -> None:
        """Go on behind the next `size` bytes."""
        if self._at + size > (self._shard.size or 0):
            raise TruncatedError(f"a member goes on for {size} bytes, beyond the end of the shard")
        self._at += size


def _members(index: SampleIndex) -> Members:
    assert index.members is not None
    return index.members
