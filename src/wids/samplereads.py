"""An open local shard whose members are known -> its samples, each field decoded as it is read.

It is the fast twin of `IndexedTarSamples[i]` with a default decoder behind it: it gives the same sample, or nothing
where the usual way is to be taken, which then also raises what there is to raise. The tests hold both equal.

Rules: what is done for each sample is counted in tenths of a microsecond. All that is known of a sample lies in one row
of a table, because memory is what it waits for. Whether the file is still the one that was opened is looked at once a
millisecond, as that takes longer than to read it; the clock that file systems note changes with is no finer.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from itertools import pairwise
from struct import Struct
from time import monotonic
from typing import Any, NamedTuple

import numpy as np

from webdataset.sampleindex import Members
from webdataset.shardbytes import LocalShard

from .decoding import DefaultDecoder, reader_of

SMALL = 1 << 16
"""Bytes from the first field of a sample to the end of the last up to which they are read at once."""
LARGE = 1 << 32
WIDE = 512
"""A shard is not read quickly when a sample has so many bytes, or a row of the table."""
LOOK = 0.001
"""Seconds for which a file that has not changed is not looked at again."""


class QuickReads:
    """What reads the samples of a shard.

    Attributes:
        read: called with the number of a sample, gives it as a dict of values and "__key__", or None.
        first: the transformation that the values are made for; `done` is 1 if it is a default decoder, else 0.
        used: when it was used last, counted in uses of all shards.
    """

    __slots__ = ("done", "first", "read", "used")

    def __init__(self, shard: LocalShard, table: Table, first: Any, dots: bool) -> None:
        self.first, self.used = first, 0
        self.done = int(isinstance(first, DefaultDecoder))
        names = [f".{field}" if dots else field for field in table.fields]
        readers = [reader_of(name, first.format) if self.done else io.BytesIO for name in names]
        self.read = _reader(shard, table, names, readers)


class Table(NamedTuple):
    """Rows of samples.

    Attributes:
        rows: one behind the other.
        row: begin and end of each field in what is read; where that begins, and how many bytes it is; the number of
            the order of fields; how long the key is, and the key.
        orders: the orders of fields that there are, as numbers of fields.
        fields: the names of fields.
        small: whether all samples are.
    """

    rows: bytes
    row: Struct
    orders: list[tuple[int, ...]]
    fields: tuple[str, ...]
    small: bool


def _reader(
    shard: LocalShard, table: Table, all_names: list[str], all_readers: list[Callable[[bytes], Any]]
) -> Callable[[int], dict[str, Any] | None]:
    kinds = [([all_names[code] for code in order], [all_readers[code] for code in order]) for order in table.orders]
    rows, unpack, width = table.rows, table.row.unpack_from, table.row.size
    fd, pread = shard.fileno(), os.pread
    look = 0.0

    def read(number: int) -> dict[str, Any] | None:
        nonlocal look
        row = unpack(rows, width * number)
        size = row[-4]
        names, readers = kinds[row[-3]]
        now = monotonic()
        if now > look:
            shard.check()
            look = now + LOOK
        sample: dict[str, Any] = {}
        place = iter(row)
        if size <= SMALL:
            data = pread(fd, size, row[-5])
            if len(data) != size:
                return None
            for name, reader, low, high in zip(names, readers, place, place):  # noqa: B905  # a row is longer
                sample[name] = reader(data[low:high])
        else:
            for name, reader, low, high in zip(names, readers, place, place):  # noqa: B905  # a row is longer
                data = pread(fd, high - low, row[-5] + low)
                if len(data) != high - low:
                    return None
                sample[name] = reader(data)
        sample["__key__"] = row[-1][: row[-2]].decode()
        return sample

    if len(kinds) != 1 or len(kinds[0][0]) != 2 or not table.small:
        return read
    (one, two), (read_one, read_two) = kinds[0]

    def read_pair(number: int) -> dict[str, Any] | None:
        nonlocal look
        low, high, low_two, high_two, start, size, _, length, key = unpack(rows, width * number)
        now = monotonic()
        if now > look:
            shard.check()
            look = now + LOOK
        data = pread(fd, size, start)
        if len(data) != size:
            return None
        return {one: read_one(data[low:high]), two: read_two(data[low_two:high_two]), "__key__": key[:length].decode()}

    return read_pair


def table_of(members: Members) -> Table | None:
    """The table of all samples of a shard; None where it is too wide, or a sample is too large for it, or empty."""
    first, starts, ends = members.first, members.starts, members.starts + members.sizes
    counts, lengths = np.diff(first), np.diff(members.key_ends, prepend=0)
    most, longest = int(counts.max(initial=0)), int(lengths.max(initial=0))
    kind = [("places", "u4", (2 * most,)), ("start", "i8"), ("size", "u4"), ("order", "u4"), ("key_length", "u4")]
    rows = np.zeros(len(counts), [*kind, ("key", f"S{max(longest, 1)}")])
    if not counts.all():
        return None
    begins = starts[first[:-1]]
    sizes = ends[first[1:] - 1] - begins
    if members.wrapped or rows.itemsize > WIDE or sizes.max(initial=0) >= LARGE:
        return None
    rows["start"], rows["size"], rows["key_length"] = begins, sizes, lengths
    key_ends = members.key_ends.tolist()
    rows["key"] = [members.keys[begin:end] for begin, end in pairwise([0, *key_ends])]
    sample = np.repeat(np.arange(len(counts)), counts)
    at = 2 * (np.arange(len(starts)) - first[sample])
    rows["places"][sample, at] = starts - begins[sample]
    rows["places"][sample, at + 1] = ends - begins[sample]
    orders: list[tuple[int, ...]] = []
    for count in np.unique(counts).tolist():
        codes = members.codes[np.repeat(counts == count, counts)].reshape(-1, count)
        if (codes == codes[:1]).all():
            found, which = codes[:1], np.zeros(len(codes), np.int64)
        else:
            found, which = np.unique(codes, axis=0, return_inverse=True)
        rows["order"][counts == count] = which.reshape(-1) + len(orders)
        orders += map(tuple, found.tolist())
    row = Struct(f"={2 * most}IqIII{max(longest, 1)}s")
    return Table(rows.tobytes(), row, orders, members.fields, bool(sizes.max(initial=0) <= SMALL))
