"""Members, one by one or in runs -> samples: neighbours with one key. Pure.

`Grouper` follows the rule in `samples` for one shard. For whole runs of plain members it has `runs`
build all samples but the first and the last, which may reach out of the run.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ._types import Handler, Sample
from .errors import DuplicateFieldError, TornSampleError, printable, public_url
from .places import add_place
from .runs import FieldNames, build_samples, split_names
from .samples import METADATA, KeyRule, base_plus_ext, decode_name, is_metadata_member, valid_sample
from .tar.header import BLOCK
from .tar.scan import Run

FIELDS_REMEMBERED = 1000
"""So many names of fields are kept for quick recognition."""
KEYS_REMEMBERED = 200_000
"""So many keys of a shard are kept to notice a sample that was torn apart."""


class Grouper:
    """Members of one shard in, samples out.

    Args:
        url: becomes `__url__`.
        local_path: becomes `__local_path__` where given.
        handler: asked when a sample has a field twice; true drops the sample and goes on.
        torn: "warn" or "error" when a key comes back later in the shard with a part of a sample; "ignore": nothing.
        keys, lcase, suffixes: as `tariterators.group_by_keys` has them.

    Attributes:
        stopped: the handler wanted no more.
        failure: what the handler raised.
        faults: how often the handler was asked.
        count: samples given so far.
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
        self.faults = self.count = 0
        self._torn = torn
        self._keys = keys
        self._lcase = lcase
        self._suffixes = suffixes
        self._key: str | None = None
        self._sample: Sample = {}
        self._rejected = False
        self._spoiled: str | None = None
        self._offset: int | None = None
        self._fields = FieldNames(lcase)
        self._in_runs = torn != "error" and keys is base_plus_ext and suffixes is None
        self._seen = _SeenKeys(url, torn)
        self._simple = keys is base_plus_ext and suffixes is None
        self._prefix = b"\0"  # begins no name
        self._usual: dict[bytes, str] = {}

    def add_raw(self, raw: bytes, data: bytes, offset: int) -> Sample | None:
        """As `add`, for a name as the archive has it; quick where a sample goes on with fields seen before."""
        prefix = self._prefix
        if raw.startswith(prefix):
            field = self._usual.get(raw[len(prefix) :])
            if field is not None and field not in self._sample and not self._rejected:
                self._sample[field] = data
                return None
        done = self.add(decode_name(raw), data, offset)
        if self._key is not None and self._simple:
            prefix = self._key.encode("utf-8", "surrogateescape") + b"."
            raw_field = raw[len(prefix) :]
            field = decode_name(raw_field).lower() if self._lcase else decode_name(raw_field)
            if raw.startswith(prefix) and self._sample.get(field) is data:
                self._prefix = prefix
                if len(self._usual) < FIELDS_REMEMBERED:
                    self._usual[raw_field] = field
        return done

    def add(self, name: str, data: Any, offset: int | None) -> Sample | None:
        """Take one member; the sample that it completes, if any."""
        try:
            key, field = self._keys(name)
        except Exception as exn:
            add_place(exn, stage="keys", member=name, url=self.url)
            self._ask(exn)
            return None
        if key is None or field is None:
            return None
        done = None
        if key != self._key:
            done = self.flush()
            self._key, self._offset = key, offset
            self._sample = {"__key__": key, "__url__": self.url}
            self._rejected = key == self._spoiled
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
        self._prefix = b"\0"
        if rejected or not valid_sample(sample):
            return None
        fields = [len(sample.keys() - METADATA)]
        try:
            self._seen.add([sample["__key__"]], [self._offset], fields, len(self._fields.names))
        except TornSampleError as error:
            self._ask(error)
            return None
        self.count += 1
        return sample

    def spoil(self, names: list[str]) -> None:
        """These members could not be had: the samples that they belong to are given up. Empties the list."""
        for name in names:
            key = self._keys(name)[0]
            self._spoiled = key
            if key == self._key:
                self._rejected = True
        names.clear()

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
        split = split_names(run) if self._in_runs else None
        if split is None or len(split.first) < 3:
            yield from self._add_each(run, start, 0, len(run.sizes))
            return
        # The first sample of the run may have begun before it and the last may go on behind it.
        second, last = split.first[1], split.first[-1]
        yield from self._add_each(run, start, 0, second)
        if self.stopped:
            return
        built = build_samples(run, split, second, last, self.url, self.local_path, self._fields)
        if built is None:
            yield from self._add_each(run, start, second, last)
        else:
            done = self.flush()
            if done is not None:
                yield done
            keys, samples = built
            first = np.array(split.first[1:])
            offsets = run.begins[first[:-1]] + start
            self._seen.add(keys, offsets.tolist(), np.diff(first), len(self._fields.names))
            self.count += len(keys)
            yield from samples
        if not self.stopped:
            yield from self._add_each(run, start, last, len(run.sizes))

    def _add_each(self, run: Run, start: int, begin: int, end: int) -> Iterator[Sample]:
        """The members `begin` to `end` (exclusive) of a run, one by one."""
        window = run.window
        for at, first, size in zip(
            run.headers[begin:end].tolist(), run.begins[begin:end].tolist(), run.sizes[begin:end].tolist(), strict=True
        ):
            name = decode_name(bytes(window[at : at + 100]).partition(b"\0")[0])
            if is_metadata_member(name):
                continue
            done = self.add(name, bytes(window[at + BLOCK : at + BLOCK + size]), start + first)
            if done is not None:
                yield done
            if self.stopped:
                return

    def _reject(self, name: str, key: str, field: str, offset: int | None) -> None:
        self._rejected = True
        error = DuplicateFieldError(
            f"field {field!r} is there twice in one sample; the whole sample is left out"
            + (". Field names are compared in lower case" if self._lcase else ""),
            url=self.url,
            member=name,
            key=key,
            field=field,
            offset=offset,
            stage="group",
        )
        self._ask(error)

    def _ask(self, error: Exception) -> None:
        """Whether the handler goes on without this sample."""
        self.faults += 1
        try:
            self.stopped = not self.handler(error)
        except Exception as exn:
            self.failure = exn
            raise


class _SeenKeys:
    """Notices when a key comes back later in its shard with only a part of a sample: said once a shard.

    Keys are kept in one set, and where they were in lists, which cost least; only when a key does
    come back are the places looked up, and kept by key from then on.
    """

    def __init__(self, url: str, torn: str) -> None:
        self.url = url
        self.torn = torn
        self._keys: set[str] = set()
        self._all: list[str] = []
        self._offsets: list[int | None] = []
        self._places: dict[str, int | None] | None = None
        self._done = torn == "ignore"

    def add(self, keys: list[str], offsets: list[int | None], fields: Iterable[int], all_fields: int) -> None:
        """Remember the keys of samples and where they begin; look closer when one was there before.

        `fields` says how many fields each sample has, `all_fields` how many there are in the shard so far.
        """
        if self._done:
            return
        if self._places is None:
            expected = len(self._keys) + len(keys)
            self._keys.update(keys)
            if len(self._keys) == expected:
                self._all += keys
                self._offsets += offsets
                self._done = expected > KEYS_REMEMBERED
                return
            self._places = dict(zip(self._all, self._offsets, strict=True))
            self._keys, self._all, self._offsets = set(), [], []
        for key, offset, count in zip(keys, offsets, fields, strict=True):
            first = self._places.setdefault(key, offset)
            if first != offset and count < all_fields:
                self._done = self.torn != "error"  # a warning is given once a shard
                self._tell(key, first, offset)
                return
        self._done = self._done or len(self._places) > KEYS_REMEMBERED

    def _tell(self, key: str, first: int | None, offset: int | None) -> None:
        message = (
            f"a sample is torn apart: key {printable(key)!r} comes back at byte {offset} (it was at byte {first}) with "
            "a part of the fields. Members of one sample must be neighbours: extract the shard and pack its files in "
            "the order of their names (find . -type f -printf '%P\\n' | LC_ALL=C sort | tar -cf ../fixed.tar -T -)"
        )
        if self.torn == "error":
            raise TornSampleError(message, url=self.url, key=key, offset=offset, stage="group")
        warnings.warn(f"{public_url(self.url)}: {message}", stacklevel=2)
