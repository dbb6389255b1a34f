"""An open shard and its index -> its samples, any of them, as dicts of bytes; the bytes of many in few reads.

What is to be read for a sample is a list of spans; spans that lie close together are read as one. Where the index knows
the members, only those that are wanted are read; where it knows offsets only, the sample is read whole, its headers are
read again, and it must be exactly one sample: what an index says is never taken for what the shard has.
"""

from __future__ import annotations

import bisect
import contextlib
import io
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple, cast

from ._types import Sample
from .errors import DataError, StaleIndexError
from .sampleindex import Members, SampleIndex, key_in_header, scan_samples
from .shardbytes import ShardBytes
from .tar.header import BLOCK
from .tar.reader import ArchiveReader, Member

LOCAL_GAP = 1 << 12
REMOTE_GAP = 1 << 16
LARGEST_SPAN = 1 << 23
"""Bytes between two spans that are read along with them; bytes from which on a span is not made larger."""


WORTH_A_SCAN = 64
"""So many samples of a local shard are read by offsets alone before all of its headers are."""


class Span(NamedTuple):
    """Bytes start (inclusive) to stop (exclusive) of a shard."""

    start: int
    stop: int


def join_spans(spans: Iterable[Span], gap: int) -> list[Span]:
    """The spans in order, those with at most `gap` bytes between them as one.

    >>> join_spans([Span(9, 12), Span(0, 4), Span(5, 8)], 1)
    [Span(start=0, stop=12)]
    """
    joined: list[Span] = []
    for span in sorted(spans):
        last = joined[-1] if joined else None
        if last is not None and span.start <= last.stop + gap and span.stop - last.start <= LARGEST_SPAN:
            joined[-1] = Span(last.start, max(last.stop, span.stop))
        elif last is None or span.stop > last.stop:
            joined.append(span)
    return joined


class ShardSamples:
    """The samples of a shard.

    Args:
        shard, index: as `open_shard` and `find_index` give them; `close` closes the shard.
        fields: keep only these, all others are not read where that can be.
    """

    def __init__(self, shard: ShardBytes, index: SampleIndex, fields: Collection[str] | None = None) -> None:
        self.shard = shard
        self.index = index
        self.fields = None if fields is None else frozenset(fields)
        self.gap = REMOTE_GAP if shard.is_remote else LOCAL_GAP
        self._parsed_so_far = 0

    def __len__(self) -> int:
        return len(self.index)

    def close(self) -> None:
        """Close the shard."""
        self.shard.close()

    def read(self, i: int) -> Sample:
        """Sample `i`, counted from 0.

        Raises:
            StaleIndexError: the index does not fit the shard.
            DataError: it cannot be read.
        """
        members = self.index.members
        if members is not None and self.fields is None and not members.wrapped:
            sample = self._read_whole(members, i)
            if sample is not None:
                return sample
        spans = join_spans(self.spans(i), self.gap)
        return self.build(i, finder(spans, [self._read(span) for span in spans]))

    def read_many(self, indices: Iterable[int]) -> list[Sample]:
        """These samples, in this order, read in the order in which they lie in the shard."""
        indices = list(indices)
        spans = join_spans([span for i in set(indices) for span in self.spans(i)], self.gap)
        find = finder(spans, [self._read(span) for span in spans])
        return [self.build(i, find) for i in indices]

    def spans(self, i: int) -> list[Span]:
        """What must be read for sample `i`."""
        members = self.index.members
        if members is None:
            start, stop = self.index.offsets[i : i + 2].tolist()
            return [Span(start, min(stop + BLOCK, self.shard.size or stop))]
        fields = self.fields
        return [
            Span(start, start + size)
            for field, start, size, _ in members.rows(i)
            if size and (fields is None or field in fields)
        ]

    def build(self, i: int, find: Callable[[int, int], bytes]) -> Sample:
        """Sample `i`, from a function that gives the bytes from a start to a stop."""
        members = self.index.members
        if members is None:
            start, stop = self.index.offsets[i : i + 2].tolist()
            return self._parsed(i, find(start, stop), find(stop, stop + BLOCK))
        sample: Sample = {"__key__": members.key(i), "__url__": self.shard.url}
        for field, start, size, wrapped in members.rows(i):
            if self.fields is None or field in self.fields:
                data = find(start, start + size) if size else b""
                sample[field] = _unwrapped(data) if wrapped else data
        return sample

    def _read_whole(self, members: Members, i: int) -> Sample | None:
        """`read` for the usual case, where all of the sample lies close together; None where it does not."""
        begin, end = members.first[i : i + 2].tolist()
        starts, sizes = members.starts[begin:end].tolist(), members.sizes[begin:end].tolist()
        if not starts or starts[-1] + sizes[-1] - starts[0] > sum(sizes) + self.gap:
            return None
        first = starts[0]
        data = self.shard.read(first, starts[-1] + sizes[-1])
        sample: Sample = {"__key__": members.key(i), "__url__": self.shard.url}
        names = members.fields
        for code, start, size in zip(members.codes[begin:end].tolist(), starts, sizes, strict=True):
            sample[names[code]] = data[start - first : start - first + size]
        return sample

    def _read(self, span: Span) -> bytes:
        return self.shard.read(*span)

    def _parsed(self, i: int, data: bytes, behind: bytes) -> Sample:
        begin = int(self.index.offsets[i])
        try:
            found = scan_samples(io.BytesIO(data), self.shard.url)
            if len(found) != 1:
                raise StaleIndexError(f"there are {len(found)} samples where the index says one")
            self._check_neighbours(i, found, behind)
        except DataError as exn:
            raise StaleIndexError(
                f"the index does not fit the shard at sample {i}: {exn.message}; remove the index, or make it anew",
                url=self.shard.url,
                offset=begin,
                stage="index",
            ) from exn
        self._parsed_so_far += 1
        if self._parsed_so_far == WORTH_A_SCAN and not self.shard.is_remote:
            self._learn_members()
        one = ShardSamples(self.shard, found, self.fields)
        return one.build(0, lambda start, stop: data[start:stop])

    def _learn_members(self) -> None:
        """Index the shard whole, which the samples that follow are read with; the offsets must say the same."""
        with contextlib.closing(self.shard.stream()) as stream:
            found = scan_samples(stream, self.shard.url)
        told, begins = self.index.offsets, found.offsets[:-1]
        assert found.members is not None
        last = found.members.first[1:] - 1
        ends = found.members.starts[last] + found.members.sizes[last]
        if len(found) != len(self.index) or (begins < told[:-1]).any() or (ends > told[1:]).any():
            raise StaleIndexError(
                f"the index does not fit the shard: it has {len(self.index)} samples, the shard {len(found)}, or they "
                "lie elsewhere; remove the index, or make it anew",
                url=self.shard.url,
                stage="index",
            )
        self.index = found

    def _check_neighbours(self, i: int, found: SampleIndex, behind: bytes) -> None:
        """The samples beside this one have other keys, else the index cuts a sample in two.

        Looking at the one before costs a request where the shard is remote, and is left out there.
        """
        assert found.members is not None
        neighbours = [behind]
        if i and not self.shard.is_remote:
            before = int(self.index.offsets[i - 1])
            neighbours.append(self.shard.read(before, before + BLOCK))
        if found.members.key(0) in map(key_in_header, neighbours):
            raise StaleIndexError("the sample goes on beyond what the index says")


def _unwrapped(data: bytes) -> bytes:
    """The content of a member in pieces, from all of its blocks."""
    ((_, content, _),) = cast(list[Member], list(ArchiveReader(io.BytesIO(data), runs=False)))
    assert content is not None
    return content


def finder(spans: list[Span], data: list[bytes]) -> Callable[[int, int], bytes]:
    """A function that cuts bytes out of what was read."""
    if len(spans) == 1:
        only, first = data[0], spans[0].start
        return lambda start, stop: only[start - first : stop - first]
    starts = [span.start for span in spans]

    def find(start: int, stop: int) -> bytes:
        number = bisect.bisect_right(starts, start) - 1
        first = starts[number]
        return data[number][start - first : stop - first]

    return find
