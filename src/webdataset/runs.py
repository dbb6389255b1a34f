"""A run of plain members -> whole samples, many at a time. Pure; the fast twin of `grouping`.

`split_names` finds the dots and the equal keys of all names at once, `build_samples` makes the
dicts. Whatever is not plain is left to `grouping`, which is the truth: the tests hold both together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._types import Sample
from .samples import METADATA, decode_name
from .tar.header import BLOCK
from .tar.scan import Run, cut

CACHED_BYTES = 1 << 16
"""So many bytes of samples are cut out of the window at once: what is consumed soon stays in the processor's cache."""


class FieldNames(dict[bytes, str]):
    """Bytes of a field -> its name (lower-case if `lcase`), each made once a shard.

    Attributes:
        names: all of them.
        odd: one of them needs a look at each sample (`__bad__`) or is never stored (metadata).
    """

    def __init__(self, lcase: bool = True) -> None:
        super().__init__()
        self.lcase = lcase
        self.names: set[str] = set()
        self.odd = False

    def __missing__(self, raw: bytes) -> str:
        field = decode_name(raw)
        field = self[raw] = field.lower() if self.lcase else field
        self.names.add(field)
        if field in METADATA or field == "__bad__":
            self.odd = True
        return field


class Split(NamedTuple):
    """Where the names of a run end and divide.

    Attributes:
        key_ends, name_ends: positions in the window, exclusive; the dot lies at key_ends.
        goes_on: whether the member has the key of the one before it.
        first: indices of the members that begin a sample.
    """

    key_ends: NDArray[np.int64]
    name_ends: NDArray[np.int64]
    goes_on: NDArray[np.bool_]
    first: list[int]


def split_names(run: Run) -> Split | None:
    """The naming rule for all members of a run at once; None when a name is not plain.

    Plain: no folder or field beginning with a dot, no line break, nothing behind the NUL that ends
    the name, no `__` in front. For those the rule is: the first dot behind the last slash.
    """
    filled = run.blocks[:, :100] != 0
    lengths = np.where(filled[:, 99], 100, filled.argmin(axis=1))
    longest = int(lengths.max())
    names = np.ascontiguousarray(run.blocks[:, :longest])
    dots, slashes = names == ord("."), names == ord("/")
    hidden = (run.blocks[:, 0] == ord("_")) & (run.blocks[:, 1] == ord("_"))
    if np.count_nonzero(filled) != lengths.sum() or (names == ord("\n")).any() or hidden.any():
        return None
    begins = np.zeros(len(names), np.int64)
    if slashes.any():
        begins = np.where(slashes.any(axis=1), longest - slashes[:, ::-1].argmax(axis=1), 0)
        dots &= np.arange(longest) >= begins[:, None]
    key_ends = dots.argmax(axis=1)
    if (key_ends <= begins).any():  # no dot at all, or one in front
        return None
    differ = names[1:] != names[:-1]
    first_difference = differ.argmax(axis=1)
    same_name = ~differ[np.arange(len(differ)), first_difference]
    goes_on = np.zeros(len(names), np.bool_)
    goes_on[1:] = (key_ends[1:] == key_ends[:-1]) & (same_name | (first_difference >= key_ends[1:]))
    return Split(key_ends + run.headers, lengths + run.headers, goes_on, np.flatnonzero(~goes_on).tolist())


Built = tuple[list[str], Iterator[Sample]]
"""Keys of whole samples, and the samples."""


def build_samples(
    run: Run, split: Split, begin: int, end: int, url: str, local_path: str | None, names: FieldNames
) -> Built | None:
    """The whole samples that the members `begin` to `end` (exclusive) are; None when one of them is odd.

    Odd: a field twice, `__bad__`, or a field named like metadata.
    """
    counts = np.diff(np.array(split.first[1:]))
    built = None
    if (counts == counts[0]).all():
        built = build_alike(run, split, begin, end, int(counts[0]), url, local_path, names)
    if built is None:
        built = build_mixed(run, split, begin, end, url, local_path, names)
    return None if names.odd else built


def build_alike(
    run: Run, split: Split, begin: int, end: int, count: int, url: str, local_path: str | None, names: FieldNames
) -> Built | None:
    """`build_samples` for samples that all have the same `count` fields in the same order, and keys of one length."""
    key_ends = split.key_ends[begin:end] - run.headers[begin:end]
    if (key_ends != key_ends[0]).any():
        return None
    raw = run.blocks[begin:end, key_ends[0] + 1 : 100]
    if any((raw[number::count] != raw[number]).any() for number in range(count)):
        return None
    fields = [names[raw[number].tobytes().rstrip(b"\0")] for number in range(count)]
    if len(set(fields)) < count:
        return None
    keys = _cut_keys(run.blocks[begin:end:count, : key_ends[0]])
    starts = run.headers[begin:end] + BLOCK
    ends = starts + run.sizes[begin:end]
    places = [(starts[number::count].tolist(), ends[number::count].tolist()) for number in range(count)]
    at_once = max(1, len(keys) * CACHED_BYTES // max(1, int(run.sizes[begin:end].sum())))
    return keys, _cut_samples(run.window, url, local_path, keys, fields, places, at_once)


def _cut_samples(
    window: bytes | bytearray,
    url: str,
    local_path: str | None,
    keys: list[str],
    fields: list[str],
    places: list[tuple[list[int], list[int]]],
    at_once: int,
) -> Iterator[Sample]:
    """Samples of the same fields, whose data lie at (starts, ends) in the window, made `at_once` at a time."""
    (first, (starts, ends)), *others = zip(fields, places, strict=True)
    for begin in range(0, len(keys), at_once):
        part = slice(begin, begin + at_once)
        samples: list[Sample] = [
            {"__key__": key, "__url__": url, first: data}
            for key, data in zip(keys[part], cut(window, starts[part], ends[part]), strict=True)
        ]
        if local_path is not None:
            for sample in samples:
                sample["__local_path__"] = local_path
        for field, (field_starts, field_ends) in others:
            for sample, data in zip(samples, cut(window, field_starts[part], field_ends[part]), strict=True):
                sample[field] = data
        yield from samples


def _cut_keys(keys: NDArray[np.uint8]) -> list[str]:
    """Keys of one length, a row each, as text."""
    length = keys.shape[1]
    raw = keys.tobytes()
    if raw.isascii():  # one call for all of them
        text = raw.decode("ascii")
        return [text[at : at + length] for at in range(0, len(text), length)]
    return [decode_name(raw[at : at + length]) for at in range(0, len(raw), length)]


def build_mixed(
    run: Run, split: Split, begin: int, end: int, url: str, local_path: str | None, names: FieldNames
) -> Built | None:
    """`build_samples` for samples of any fields."""
    window = run.window
    samples: list[Sample] = []
    sample: Sample = {}
    for at, key_end, name_end, size, goes_on in zip(
        run.headers[begin:end].tolist(),
        split.key_ends[begin:end].tolist(),
        split.name_ends[begin:end].tolist(),
        run.sizes[begin:end].tolist(),
        split.goes_on[begin:end].tolist(),
        strict=True,
    ):
        field = names[bytes(window[key_end + 1 : name_end])]
        data = bytes(window[at + BLOCK : at + BLOCK + size])
        if goes_on:
            if field in sample:
                return None
            sample[field] = data
        else:
            key = str(window[at:key_end], "utf-8", "surrogateescape")
            sample = {"__key__": key, "__url__": url, field: data}
            if local_path is not None:
                sample["__local_path__"] = local_path
            samples.append(sample)
    return [sample["__key__"] for sample in samples], iter(samples)
