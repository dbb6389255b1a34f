"""An open shard and its index -> its samples, any of them, as dicts of bytes. `openshards` reads many at once.

Where the index knows the members, only those that are wanted are read. Where it knows offsets only, somebody else says
so, and `shardoffsets` looks whether the shard agrees, sample by sample; after many of them, all headers are read.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Collection
from typing import cast

from ._types import Sample
from .errors import DataError, StaleIndexError, printable, public_url
from .sampleindex import Members, SampleIndex, scan_samples
from .shardbytes import ShardBytes
from .shardoffsets import ShardOffsets
from .spans import Pieces, Span, join_spans
from .tar.reader import ArchiveReader, Member

logger = logging.getLogger(__name__)

LOCAL_GAP = 1 << 12
REMOTE_GAP = 1 << 16
"""Bytes between two spans that are read along with them."""
WORTH_A_SCAN = 64
"""So many samples of a local shard are read by offsets alone before all of its headers are."""


class ShardSamples:
    """The samples of a shard.

    Args:
        shard, index: as `open_shard` and `find_index` give them; `close` closes the shard.
        fields: keep only these, all others are not read where that can be.
        lcase: whether the index is one with fields in lower case.
        unseen: those of `fields` that were in no shard yet; one that is not in this one either is told, and taken out.
    """

    def __init__(
        self,
        shard: ShardBytes,
        index: SampleIndex,
        fields: Collection[str] | None = None,
        *,
        lcase: bool = True,
        unseen: set[str] | None = None,
    ) -> None:
        self.shard = shard
        self.index = index
        self.fields = None if fields is None else frozenset(fields)
        self.gap = max(REMOTE_GAP if shard.is_remote else LOCAL_GAP, shard.unit)
        self._offsets = ShardOffsets(shard, index, lcase)
        self._parsed_so_far = 0
        self._lcase = lcase
        self._unseen = unseen
        self._look_for_fields(index)

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
        return self.build(i, self._pieces(spans))

    def spans(self, i: int) -> list[Span]:
        """What must be read for sample `i`."""
        members = self.index.members
        if members is None:
            return [self._offsets.span(i)]
        fields = self.fields
        return [
            Span(start, start + size)
            for field, start, size, _ in members.rows(i)
            if size and (fields is None or field in fields)
        ]

    def build(self, i: int, pieces: Pieces) -> Sample:
        """Sample `i`, from what was read for it, perhaps together with others."""
        members = self.index.members
        if members is None:
            return self._parsed(i, pieces)
        sample: Sample = {"__key__": members.key(i), "__url__": self.shard.url}
        for field, start, size, wrapped in members.rows(i):
            if self.fields is None or field in self.fields:
                data = pieces.cut(start, start + size) if size else b""
                if len(data) < size:  # read before it was known where it is
                    data = self.shard.read(start, start + size)
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

    def _pieces(self, spans: list[Span]) -> Pieces:
        return Pieces(spans, [self.shard.read(*span) for span in spans])

    def _parsed(self, i: int, pieces: Pieces) -> Sample:
        try:
            found, data = self._offsets.sample(i, pieces)
        except StaleIndexError as exn:
            if self.shard.is_remote or not self._agrees_in_number():
                raise
            logger.warning("%s; its headers were read instead", exn)
            return self.build(i, pieces)
        self._look_for_fields(found)
        self._parsed_so_far += 1
        if self._parsed_so_far == WORTH_A_SCAN and not self.shard.is_remote:
            self._learn_members()
        one = ShardSamples(self.shard, found, self.fields)
        return one.build(0, Pieces([Span(0, len(data))], [data]))

    def _look_for_fields(self, index: SampleIndex) -> None:
        """Tell of fields that are asked for, and are not there, perhaps for a slip of the pen."""
        if self._unseen and index.members is not None:
            there = set(index.members.fields)
            for field in sorted(self._unseen - there) if there else ():
                where = printable(public_url(self.shard.url))
                logger.warning("%s: no field %r here, only %s", where, field, printable(", ".join(sorted(there))))
            if there:
                self._unseen.clear()

    def _learn_members(self) -> None:
        """Index the shard whole, which the samples that follow are read with; the offsets must say the same."""
        found = self._scanned()
        self._offsets.check_all(found)
        self.index = found

    def _agrees_in_number(self) -> bool:
        """Whether the shard has the samples that its index counts and names; that is then replaced."""
        try:
            found = self._scanned()
        except DataError:
            return False
        told = self.index.told
        assert found.members is not None
        if len(found) != len(self.index) or (told is not None and told.keys not in (b"", found.members.keys)):
            return False
        self.index = found
        return True

    def _scanned(self) -> SampleIndex:
        self.shard.read(0, 0)  # fails where the shard is another one by now
        with contextlib.closing(self.shard.stream()) as stream:
            return scan_samples(stream, self.shard.url, lcase=self._lcase)


def _unwrapped(data: bytes) -> bytes:
    """The content of a member in pieces, from all of its blocks."""
    ((_, content, _),) = cast(list[Member], list(ArchiveReader(io.BytesIO(data), runs=False)))
    assert content is not None
    return content
