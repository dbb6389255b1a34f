"""The naming rule (path -> key and field) and the grouping of neighbouring members into samples. Pure.

`base_plus_ext` is the rule; `Grouper` applies it to members one by one, and to whole runs of plain
members, where numpy finds the dots and the equal keys. Both must give the same samples: the tests
hold them together.

What a sample is: neighbours with one key. A member without a field (no dot in its last path
component) belongs to no sample and ends none. Field names are lower-cased, keys are not. A field
twice is an error and costs the whole sample. A member named like metadata (`a.__key__`) never
overwrites the metadata: it is left out.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._types import Handler, Sample
from .errors import DuplicateFieldError, TornSampleError, printable, public_url
from .tar.header import BLOCK
from .tar.scan import Run

METADATA = ("__key__", "__url__", "__local_path__")
"""Fields that the reader sets."""

KeyRule = Callable[[str], tuple[str | None, str | None]]

KEYS_REMEMBERED = 200_000
"""So many keys of a shard are kept to notice a sample that was torn apart."""

_KEY_AND_FIELD = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)$")
_SKIPPED_NAME = re.compile(r"__[^/]*__($|/)")


def base_plus_ext(path: str) -> tuple[str, str] | tuple[None, None]:
    """Key and field of a member: split at the first dot of the last path component.

    >>> base_plus_ext("d.e/a.seg.png")
    ('d.e/a', 'seg.png')
    >>> base_plus_ext("d.e/README")
    (None, None)
    """
    match = _KEY_AND_FIELD.match(path)
    return match.groups() if match else (None, None)  # type: ignore[return-value]


def is_metadata_member(name: str) -> bool:
    """Whether a member is about the archive, not part of a sample: `__meta__/...` or `__info__` at the top."""
    return _SKIPPED_NAME.match(name) is not None


def decode_name(name: bytes) -> str:
    """A member name as text; bytes that are not UTF-8 become lone surrogates, as everywhere in Python."""
    return name.decode("utf-8", "surrogateescape")


def valid_sample(sample: Any) -> bool:
    """Whether this is a sample to be delivered: a non-empty dict without a true `__bad__`."""
    return isinstance(sample, dict) and bool(sample) and not sample.get("__bad__", False)


class Grouper:
    """Members of one shard in, samples out.

    Args:
        url: becomes `__url__`.
        local_path: becomes `__local_path__` where given.
        handler: asked when a sample has a field twice; true drops the sample and goes on.
        torn: "warn" or "error" when a key comes back later in the shard with a part of a sample.
        keys, lcase, suffixes: as `tariterators.group_by_keys` has them; for `add` only, runs follow
            the naming rule.

    Attributes:
        stopped: the handler wanted no more.
        failure: what the handler raised.
    """

    def __init__(
        self,
        url: str,
        local_path: str | None,
        handler: Handler,
        *,
        torn: str = "warn",
        keys: KeyRule = base_plus_ext,
        lcase: bool = True,
        suffixes: frozenset[str] | None = None,
    ) -> None:
        self.url = url
        self.local_path = local_path
        self.handler = handler
        self.stopped = False
        self.failure: Exception | None = None
        self._torn = torn
        self._keys = keys
        self._lcase = lcase
        self._suffixes = suffixes
        self._key: str | None = None
        self._sample: Sample = {}
        self._rejected = False
        self._offset: int | None = None
        self._fields = _FieldNames()
        self._seen = _SeenKeys(url, torn)

    def add(self, name: str, data: Any, offset: int | None) -> Sample | None:
        """Take one member; the sample that it completes, if any."""
        key, field = self._keys(name)
        if key is None or field is None:
            return None
        done = None
        if key != self._key:
            done = self.flush()
            self._key, self._offset = key, offset
            self._sample = {"__key__": key, "__url__": self.url}
        sample = self._sample
        if self._lcase:
            field = field.lower()
        if field in METADATA or self._rejected or (self._suffixes is not None and field not in self._suffixes):
            return done
        if field in sample:
            self._reject(name, key, field, offset)
            return done
        sample[field] = data
        self._fields.names.add(field)
        if len(sample) == 3 and self.local_path is not None:
            sample["__local_path__"] = self.local_path
        return done

    def flush(self) -> Sample | None:
        """The sample under construction, now complete, if there is one that may be delivered."""
        sample, rejected = self._sample, self._rejected
        self._key, self._sample, self._rejected = None, {}, False
        if rejected or not valid_sample(sample):
            return None
        self._seen.add([sample], [self._offset], self._fields.names)
        return sample

    def flush_before(self, damaged: str | None) -> Sample | None:
        """As `flush`, when the archive is damaged in this member (None: between members).

        The header of a member with another key proves that the sample before it is whole; otherwise
        the sample under construction is given up.
        """
        if damaged is not None and self._keys(damaged)[0] not in (None, self._key):
            return self.flush()
        return None

    def add_run(self, run: Run, start: int) -> Iterator[Sample]:
        """Take a run of members, `start` being the offset of its window; the samples that it completes."""
        split = _split_names(run)
        if split is None or len(split.first) < 3 or self._torn == "error":
            yield from self._add_each(run, start, 0, len(run.sizes))
            return
        # The first sample of the run may have begun before it and the last may go on behind it.
        second, last = split.first[1], split.first[-1]
        yield from self._add_each(run, start, 0, second)
        if self.stopped:
            return
        samples = self._build(run, split, second, last)
        if samples is None:
            yield from self._add_each(run, start, second, last)
        else:
            done = self.flush()
            if done is not None:
                yield done
            offsets = run.begins[split.first[1:-1]] + start
            self._seen.add(samples, offsets, self._fields.names)
            yield from samples
        if not self.stopped:
            yield from self._add_each(run, start, last, len(run.sizes))

    def _add_each(self, run: Run, start: int, begin: int, end: int) -> Iterator[Sample]:
        """The members `begin` to `end` (exclusive) of a run, one by one."""
        window = run.window
        for at, first, size in zip(
            run.headers[begin:end].tolist(), run.begins[begin:end].tolist(), run.sizes[begin:end].tolist(), strict=True
        ):
            name = decode_name(window[at : at + 100].partition(b"\0")[0])
            if is_metadata_member(name):
                continue
            done = self.add(name, window[at + BLOCK : at + BLOCK + size], start + first)
            if done is not None:
                yield done
            if self.stopped:
                return

    def _build(self, run: Run, split: _Split, begin: int, end: int) -> list[Sample] | None:
        """The whole samples that the members `begin` to `end` (exclusive) are; None when one is not plain."""
        first = np.array(split.first[1:])
        counts = np.diff(first)
        if (counts == counts[0]).all() and (fields := self._common_fields(run, split, begin, end, int(counts[0]))):
            samples: list[Sample] | None = self._build_alike(run, split, begin, end, fields)
        else:
            samples = self._build_mixed(run, split, begin, end)
        return None if self._fields.odd else samples

    def _common_fields(self, run: Run, split: _Split, begin: int, end: int, count: int) -> list[str] | None:
        """The fields of each sample, when all have the same ones in the same order and keys of one length."""
        key_ends = split.key_ends[begin:end] - run.headers[begin:end]
        if (key_ends != key_ends[0]).any():
            return None
        fields = run.blocks[begin:end, key_ends[0] + 1 : 100]
        if any((fields[number::count] != fields[number]).any() for number in range(count)):
            return None
        names = [self._fields[fields[number].tobytes().rstrip(b"\0")] for number in range(count)]
        return names if len(set(names)) == count else None

    def _build_alike(self, run: Run, split: _Split, begin: int, end: int, fields: list[str]) -> list[Sample]:
        window, url, local_path, count = run.window, self.url, self.local_path, len(fields)
        starts = run.headers[begin:end] + BLOCK
        ends = (starts + run.sizes[begin:end]).reshape(-1, count)
        starts = starts.reshape(-1, count)
        field = fields[0]
        samples: list[Sample] = [
            {"__key__": str(window[at:key_end], "utf-8", "surrogateescape"), "__url__": url, field: window[start:stop]}
            for at, key_end, start, stop in zip(
                run.headers[begin:end:count].tolist(),
                split.key_ends[begin:end:count].tolist(),
                starts[:, 0].tolist(),
                ends[:, 0].tolist(),
                strict=True,
            )
        ]
        if local_path is not None:
            for sample in samples:
                sample["__local_path__"] = local_path
        for number in range(1, count):
            field = fields[number]
            for sample, start, stop in zip(samples, starts[:, number].tolist(), ends[:, number].tolist(), strict=True):
                sample[field] = window[start:stop]
        return samples

    def _build_mixed(self, run: Run, split: _Split, begin: int, end: int) -> list[Sample] | None:
        window, url, local_path, field_of = run.window, self.url, self.local_path, self._fields
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
            field = field_of[window[key_end + 1 : name_end]]
            data = window[at + BLOCK : at + BLOCK + size]
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
        return samples

    def _reject(self, name: str, key: str, field: str, offset: int | None) -> None:
        self._rejected = True
        error = DuplicateFieldError(
            f"field {field!r} is there twice in one sample; the whole sample is left out. Field names are compared "
            "in lower case",
            url=self.url,
            member=name,
            key=key,
            field=field,
            offset=offset,
        )
        try:
            self.stopped = not self.handler(error)
        except Exception as exn:
            self.failure = exn
            raise


class _FieldNames(dict[bytes, str]):
    """Bytes of a field -> its lower-case name, each made once a shard.

    Attributes:
        names: all of them.
        odd: one of them needs a look at each sample (`__bad__`) or is never stored (metadata).
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.odd = False

    def __missing__(self, raw: bytes) -> str:
        field = self[raw] = decode_name(raw).lower()
        self.names.add(field)
        if field in METADATA or field == "__bad__":
            self.odd = True
        return field


class _SeenKeys:
    """Notices when a key comes back later in its shard with only a part of a sample: said once a shard.

    Keys are kept in one set, and where they were in lists, which cost least; only when a key does
    come back are the places looked up, and kept by key from then on.
    """

    def __init__(self, url: str, torn: str) -> None:
        self.url = url
        self.torn = torn
        self._keys: set[str] = set()
        self._history: list[tuple[list[str], Any]] = []
        self._places: dict[str, int | None] | None = None
        self._done = False

    def add(self, samples: list[Sample], offsets: Any, field_names: set[str]) -> None:
        """Remember the keys of samples and where they begin; look closer when one was there before."""
        if self._done:
            return
        keys = [sample["__key__"] for sample in samples]
        if self._places is None:
            expected = len(self._keys) + len(keys)
            self._keys.update(keys)
            if len(self._keys) == expected:
                self._history.append((keys, offsets))
                self._done = expected > KEYS_REMEMBERED
                return
            self._places = {key: at for keys, places in self._history for key, at in zip(keys, places, strict=True)}
            self._keys, self._history = set(), []
        for sample, offset in zip(samples, offsets, strict=True):
            first = self._places.setdefault(sample["__key__"], offset)
            if first != offset and len(sample.keys() - METADATA) < len(field_names):
                self._done = True
                self._tell(sample["__key__"], first, offset)
                return
        self._done = len(self._places) > KEYS_REMEMBERED

    def _tell(self, key: str, first: int | None, offset: int) -> None:
        message = (
            f"a sample is torn apart: key {printable(key)!r} comes back at byte {offset} (it was at byte {first}) with "
            "a part of the fields. Members of one sample must be neighbours: extract the shard and pack it in the "
            "order of names (tar --sort=name -cf fixed.tar *)"
        )
        if self.torn == "error":
            raise TornSampleError(message, url=self.url, key=key, offset=offset)
        warnings.warn(f"{public_url(self.url)}: {message}", stacklevel=2)


class _Split(NamedTuple):
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


def _split_names(run: Run) -> _Split | None:
    """The naming rule for all members of a run at once; None when a name is not plain.

    Plain: no folder or field beginning with a dot, no line break, nothing behind the NUL that ends
    the name, no `__` in front. For those the rule is: the first dot behind the last slash.
    """
    filled = run.blocks[:, :100] != 0
    lengths = np.where(filled[:, 99], 100, filled.argmin(axis=1))
    longest = int(lengths.max())
    names = run.blocks[:, :longest]
    dots, slashes = names == ord("."), names == ord("/")
    if filled.sum() != lengths.sum() or (names == ord("\n")).any() or (names[:, :2] == ord("_")).all(axis=1).any():
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
    return _Split(key_ends + run.headers, lengths + run.headers, goes_on, np.flatnonzero(~goes_on).tolist())
