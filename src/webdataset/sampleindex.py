"""A tar stream -> where its samples lie: a SampleIndex, made from the headers alone. No files are opened here.

The samples are those that `tariterators.expand_and_group` gives, the same ones in the same order: the same reader finds
the members, the same grouper puts the odd ones together, with places in place of data. Runs of plain members are taken
all at once, as `runs` does; whatever is not plain goes to the grouper. An editor keeps that: the tests hold both equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ._types import Handler, Sample
from .grouping import Grouper
from .handlers import reraise_exception
from .runs import FieldNames, Split, split_names
from .samples import METADATA, KeyRule, base_plus_ext, decode_name, is_metadata_member, may_be_field
from .tar.header import BLOCK, padding
from .tar.reader import ArchiveReader, Member
from .tar.scan import Run
from .tariterators import locate_shard

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Members:
    """The members of the samples of a shard, in order.

    Attributes:
        first: members first[i] to first[i + 1] (exclusive) are the fields of sample i; one more than there are samples.
        starts, sizes: where the data of each member begin in the (decompressed) archive, and how many bytes they are.
        codes: number of each member's field in `fields`.
        fields: the names of fields that there are.
        keys, key_ends: the keys of all samples in a row, as the archive has them; where in the row each one ends.
        wrapped: numbers of the members that have to be put together (sparse ones): starts and sizes are then those of
            the whole member, headers too.
    """

    first: Integers
    starts: Integers
    sizes: Integers
    codes: Integers
    fields: tuple[str, ...]
    keys: bytes
    key_ends: Integers
    wrapped: frozenset[int] = frozenset()

    def key(self, i: int) -> str:
        """The key of sample `i`."""
        return decode_name(self.keys[self.key_ends[i - 1] if i else 0 : self.key_ends[i]])

    def all_keys(self) -> list[str]:
        """The keys of all samples, in order."""
        ends = [0, *self.key_ends.tolist()]
        return [decode_name(self.keys[begin:end]) for begin, end in pairwise(ends)]

    def rows(self, i: int) -> list[tuple[str, int, int, bool]]:
        """Field, first byte, number of bytes, and whether it is wrapped, of each member of sample `i`."""
        begin, end = self.first[i : i + 2].tolist()
        fields, wrapped = self.fields, self.wrapped
        return [
            (fields[code], start, size, bool(wrapped) and row in wrapped)
            for row, code, start, size in zip(
                range(begin, end),
                self.codes[begin:end].tolist(),
                self.starts[begin:end].tolist(),
                self.sizes[begin:end].tolist(),
                strict=True,
            )
        ]


@dataclass(frozen=True, slots=True, eq=False)
class SampleIndex:
    """Where the samples of a shard lie.

    Attributes:
        offsets: byte in the (decompressed) archive where each sample begins, and, last, where the last one ends: what
            lies between two of them is one sample, and perhaps members that belong to none.
        members: what the samples consist of; None where only the offsets are known.
        told: what somebody says that they consist of, who may be wrong, and keys only where all are known.
        faults: so many faults were met that a handler went on after.
    """

    offsets: Integers
    members: Members | None = None
    faults: int = 0
    told: Members | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1


def scan_samples(
    stream: Any,
    url: str = "",
    handler: Handler = reraise_exception,
    *,
    keys: KeyRule = base_plus_ext,
    lcase: bool = True,
) -> SampleIndex:
    """The index of the archive that a stream holds. Data are passed over where the stream can; it stays open.

    Args:
        url: how errors name the shard.
        handler: asked when the archive is damaged, or a sample has a field twice; true: that much less is in the index.
        keys, lcase: the naming rule, as `WebDataset` has it.

    Raises:
        DataError: what the handler lets pass.
    """
    faults = 0

    def ask(exn: Exception) -> bool:
        nonlocal faults
        faults += 1
        return handler(exn)

    grouper = Grouper(url, None, ask, torn="ignore", keys=keys, lcase=lcase)
    table = _Table(FieldNames(lcase))
    wanted = may_be_field(keys)
    reader = ArchiveReader(stream, lambda raw: False)
    end = None
    try:
        for item in reader:
            if isinstance(item, Run):
                for members in _run_in_parts(item, reader.window_start, grouper, table, keys is base_plus_ext):
                    table.add(grouper.add_raw(*members))
                    if grouper.stopped:
                        break
            else:
                name, _, offset = cast(Member, item)  # nothing is announced
                if wanted(name):
                    place: Any = _Place(
                        offset, *(reader.passed or (offset, reader.offset - offset)), reader.passed is None
                    )
                    table.add(grouper.add_raw(name, place, offset))
            if grouper.stopped:
                break
        else:
            table.add(grouper.flush())
            end = reader.offset
    except Exception as exn:
        if exn is grouper.failure:
            raise
        begun = None if reader.member_begun is None else decode_name(reader.member_begun)
        table.add(grouper.flush_before(begun))
        ask(locate_shard(exn, url, "index"))
    finally:
        reader.close()
    return table.index(end, faults)


def lower_case(index: SampleIndex) -> SampleIndex | None:
    """The index of the same samples with fields in lower case; None where that may be other samples."""
    members = index.members
    if members is None:
        return index
    fields = tuple(field.lower() for field in members.fields)
    if fields == members.fields:
        return index
    if len(set(fields)) < len(fields) or not set(fields).isdisjoint((*METADATA, "__bad__")):
        return None
    return replace(index, members=replace(members, fields=fields))


class _Place:
    """Where a member lies, in place of its data; as true as those."""

    __slots__ = ("begin", "size", "start", "wrapped")

    def __init__(self, begin: int, start: int, size: int, wrapped: bool = False) -> None:
        self.begin, self.start, self.size, self.wrapped = begin, start, size, wrapped

    def __bool__(self) -> bool:
        return self.size > 0


def _run_in_parts(
    run: Run, start: int, grouper: Grouper, table: _Table, plain_rule: bool
) -> Iterator[tuple[bytes, Any, int]]:
    """The members of a run that the grouper must see, as its arguments; the whole samples between go to the table."""
    split = split_names(run) if plain_rule else None
    if split is not None and len(split.first) > 2:
        second, last = split.first[1], split.first[-1]
        part = _Part.of(run, split, start, second, last, table.names)
        if part is not None:
            yield from _each(run, start, 0, second)
            table.add(grouper.flush())
            table.add_part(part)
            yield from _each(run, start, last, len(run.sizes))
            return
    yield from _each(run, start, 0, len(run.sizes))


def _each(run: Run, start: int, begin: int, end: int) -> Iterator[tuple[bytes, Any, int]]:
    part = slice(begin, end)
    for at, first, size in zip(
        run.headers[part].tolist(), run.begins[part].tolist(), run.sizes[part].tolist(), strict=True
    ):
        name = bytes(run.window[at : at + 100]).partition(b"\0")[0]
        if not is_metadata_member(decode_name(name)):
            yield name, _Place(start + first, start + at + BLOCK, size), start + first


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Whole samples in a row, as arrays."""

    offsets: Integers
    counts: Integers
    starts: Integers
    sizes: Integers
    fields: list[str]
    keys: bytes
    key_lengths: Integers

    @classmethod
    def of(cls, run: Run, split: Split, start: int, begin: int, end: int, names: FieldNames) -> _Part | None:
        """The samples that the members `begin` to `end` (exclusive) of a run are; None when one of them is odd."""
        headers = run.headers[begin:end]
        first = np.array(split.first[1:])
        counts = np.diff(first)
        first = first[:-1] - begin
        key_ends = split.key_ends[begin:end] - headers
        fields = _fields(run, begin, end, key_ends, counts, names)
        if fields is None:
            return None
        lengths = key_ends[first]
        keys = run.blocks[begin:end][first, : int(lengths.max())]
        return cls(
            offsets=run.begins[begin:end][first] + start,
            counts=counts,
            starts=headers + (start + BLOCK),
            sizes=run.sizes[begin:end],
            fields=fields,
            keys=keys[np.arange(keys.shape[1]) < lengths[:, None]].tobytes(),
            key_lengths=lengths,
        )


def _fields(
    run: Run, begin: int, end: int, key_ends: Integers, counts: Integers, names: FieldNames
) -> list[str] | None:
    """The fields, in an order that repeats until all members have theirs; None when one is odd or twice in a sample."""
    name_ends = (run.blocks[begin:end, :100] != 0).sum(axis=1)
    width = int((name_ends - key_ends).max()) - 1
    if not width:
        return None
    columns = np.minimum(key_ends[:, None] + 1 + np.arange(width), 99)
    raw = np.take_along_axis(run.blocks[begin:end, :100], columns, axis=1)
    raw[key_ends[:, None] + 1 + np.arange(width) >= name_ends[:, None]] = 0
    count = int(counts[0])
    if (counts == count).all() and (raw.reshape(-1, count * width) == raw[:count].reshape(-1)).all():
        some = [names[raw[number].tobytes().rstrip(b"\0")] for number in range(count)]
        return None if names.odd or len(set(some)) < count else some
    fields = [names[field] for field in raw.reshape(-1).view(f"S{width}").tolist()]
    sample = np.repeat(np.arange(len(counts)), counts)
    number_of = {field: number for number, field in enumerate(names.names)}
    numbers = np.array([number_of[field] for field in fields])
    twice = len(np.unique(sample * len(number_of) + numbers)) < len(fields)
    return None if names.odd or twice else fields


class _Table:
    """Samples in order, one at a time or many, on the way to an index."""

    def __init__(self, names: FieldNames) -> None:
        self.names = names
        self._codes: dict[str, int] = {}
        self._parts: list[tuple[Integers, ...]] = []
        self._keys: list[bytes] = []
        self._wrapped: set[int] = set()
        self._members = 0
        self._last = 0
        self._rows: list[tuple[int, int, int]] = []  # start, size, code
        self._samples: list[tuple[int, int, int]] = []  # offset, members, bytes of the key

    def add(self, sample: Sample | None) -> None:
        """Append a sample of places, as the grouper gives it, if there is one."""
        if sample is None:
            return
        places = [(field, place) for field, place in sample.items() if field not in METADATA]
        for field, place in places:
            if place.wrapped:
                self._wrapped.add(self._members)
            self._rows.append((place.start, place.size, self._codes.setdefault(field, len(self._codes))))
            self._members += 1
        key = sample["__key__"].encode("utf-8", "surrogateescape")
        self._keys.append(key)
        if places:
            self._last = places[0][1].begin
        self._samples.append((self._last, len(places), len(key)))

    def add_part(self, part: _Part) -> None:
        """Append many samples."""
        self._pack()
        codes = np.array([self._codes.setdefault(field, len(self._codes)) for field in part.fields], np.int64)
        codes = np.tile(codes, len(part.starts) // len(codes))
        self._parts.append((part.offsets, part.counts, part.key_lengths, part.starts, part.sizes, codes))
        self._keys.append(part.keys)
        self._members += len(part.starts)

    def index(self, end: int | None, faults: int) -> SampleIndex:
        """What came together; without `end`, the last sample ends behind its last member."""
        self._pack()
        columns = zip(*self._parts, strict=True) if self._parts else [[np.empty(0, np.int64)]] * 6
        offsets, counts, key_lengths, starts, sizes, codes = (np.concatenate(list(column)) for column in columns)
        if end is None:
            last = len(starts) - 1
            end = 0 if last < 0 else int(starts[last] + sizes[last]) + padding(int(sizes[last]))
        members = Members(
            first=np.append(0, np.cumsum(counts)),
            starts=starts,
            sizes=sizes,
            codes=codes,
            fields=tuple(self._codes),
            keys=b"".join(self._keys),
            key_ends=np.cumsum(key_lengths),
            wrapped=frozenset(self._wrapped),
        )
        return SampleIndex(np.append(offsets, end), members, faults)

    def _pack(self) -> None:
        if self._samples:
            samples, rows = np.array(self._samples, np.int64), np.array(self._rows, np.int64).reshape(-1, 3)
            self._parts.append((*samples.T, *rows.T))
            self._samples, self._rows = [], []
