"""Random access: `IndexedDataset(shards)[i]` is the i-th sample that a stream over these shards gives.

Shards are opened when they are needed, and the last OPEN_SHARDS stay open. Where a list says how many samples each has,
nothing is opened before a sample is asked for; else their indexes are found or made at once (`shardindex`). A sample
costs one read (of a remote shard one request), many samples few. Processes that are forked or spawned share nothing
but files; each opens shards of its own, and a pickled data set holds names and counts only.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from . import filters
from ._arguments import (
    check_flag,
    check_function,
    check_handler,
    check_items,
    check_number,
    check_path,
    explained,
    shown,
)
from ._closing import close_source
from ._types import Alternatives, FieldDecoder, Handler, Sample
from .countedshards import counted_shards
from .energonsets import prepared_set
from .errors import SampleError
from .handlers import reraise_exception
from .img2dataset import stats_count
from .openshards import OPEN_SHARDS, OpenShards, read_together, shard_cache
from .sampleindex import Integers
from .storage.options import storage_options as options_of
from .subsets import Condition, chosen, parts_of, places_of

AT_ONCE = 16
"""So many requests are under way together."""
IN_ORDER = 32
"""So many samples are read together when all are iterated over."""


class IndexedDataset:
    """A map-style data set: `ds[i]`, `len(ds)`, slices, and the same samples as a stream over the shards.

    Samples are dicts of bytes, `{"__key__", "__url__", field: bytes}`, or what `map`, `decode` and the like make of
    them. torch's samplers and DataLoader take it as it is.

    Args:
        urls: a pattern, a list of urls, a folder, the path or url of a wids JSON, a list of `{"url", "nsamples"}`, or
            the folder of a data set prepared by Megatron-Energon.
        fields: keep only these fields; the bytes of others are not read. The log tells of those that the first shard
            lacks.
        split: of a data set prepared by Megatron-Energon, the part: "train", "val", "test", as its `split.yaml` says;
            `urls` is then its folder. Samples that are excluded there are left out. None: all of its shards.
        handler: asked when a shard cannot be read whole, or a sample has a field twice; true: the rest counts.
        cache_dir: folder for indexes (below `index/`) and for plain copies of compressed shards; None: WDS_CACHE, else
            the user's cache; "": none, indexes are kept in memory.
        sidecars: whether index files beside shards are used.
        allow_pipe: as in `WebDataset`.
        storage_options: how remote places are read.
        cache_shards: copy each remote shard to `cache_dir` when it is first needed, as `WebDataset(cache_dir=)` does,
            and read the copy.
        cache_size: bytes that the folder may hold then, besides those that are open; 0: nothing is copied, less: no
            bound, None: WDS_CACHE_SIZE says so.

    Raises:
        ShardListError: `urls` is not as it must be.
        DataError: a shard cannot be had.
        ValueError: there is no folder for copies of shards.
    """

    @explained("IndexedDataset", {"shuffle": "a sampler shuffles, or DataLoader(ds, shuffle=True)"})
    def __init__(
        self,
        urls: Any,
        fields: Collection[str] | None = None,
        *,
        split: str | None = None,
        handler: Handler = reraise_exception,
        cache_dir: Any = None,
        sidecars: bool = True,
        allow_pipe: bool | None = None,
        storage_options: Any = None,
        cache_shards: bool = False,
        cache_size: float | None = None,
    ) -> None:
        if isinstance(fields, (str, bytes)):
            raise TypeError(f"IndexedDataset: fields must be a list of names, got {fields!r}; write {fields.split()!r}")
        check_items("IndexedDataset", "fields", fields, "a list of names", optional=True)
        check_handler("IndexedDataset", handler)
        check_path("IndexedDataset", "cache_dir", cache_dir, optional=True)
        check_flag("IndexedDataset", "sidecars", sidecars)
        check_number("IndexedDataset", "cache_size", cache_size, "bytes", optional=True)
        self.fields = None if fields is None else frozenset(fields)
        self.handler = handler
        self.cache_dir = cache_dir
        self.sidecars = sidecars
        self.storage_options = options_of(storage_options)
        self.shard_cache = shard_cache(cache_dir, cache_size, self.storage_options) if cache_shards else None
        prepared = prepared_set(urls, split, self.storage_options, allow_pipe)
        self.shards = counted_shards(urls, self.storage_options, allow_pipe) if prepared is None else prepared.shards
        self._stages: tuple[Any, ...] = ()
        self._picked: Integers | None = None
        self._open = OpenShards(
            self.shards,
            self.fields,
            cache_dir,
            prepared,
            self.shard_cache,
            handler=handler,
            sidecars=sidecars,
            storage_options=self.storage_options,
        )
        counts = [shard.nsamples for shard in self.shards]
        unknown = [number for number, count in enumerate(counts) if count is None]
        with ThreadPoolExecutor(min(AT_ONCE, len(unknown) or 1)) as pool:
            for number, count in zip(unknown, pool.map(self._count, unknown), strict=True):
                counts[number] = count
        self._ends: Integers = np.cumsum(np.array(counts, np.int64))
        if prepared is not None and prepared.excluded:
            self._picked = self._all_but(prepared.excluded)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._picked is None else len(self._picked)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self)} samples of {len(self.shards)} shards>"

    def __contains__(self, key: object) -> bool:
        """Whether there is a sample with this key; anything but a str is compared with all samples."""
        if not isinstance(key, str):
            return any(key == sample for sample in self)
        try:
            self.index_of(key)
        except KeyError:
            return False
        except SampleError:  # there are several
            return True
        return True

    @property
    def counts(self) -> list[int]:
        """How many samples each of `shards` has."""
        return [int(count) for count in np.diff(self._ends, prepend=0)]

    @overload
    def __getitem__(self, index: slice, /) -> Self: ...
    @overload
    def __getitem__(self, index: int | str, /) -> Any: ...
    def __getitem__(self, index: Any, /) -> Any:
        """The sample with this number (negative: from the end) or this key; of a slice, a data set of those.

        Raises:
            IndexError: there is no sample with this number.
            KeyError: there is none with this key.
            StaleIndexError: a list or an index says what the shard has not.
        """
        if isinstance(index, slice):
            return self.subset(range(len(self))[index])
        if isinstance(index, str):
            index = self.index_of(index)
        shard, i = self._locate(index)
        return self._finished(self._open[shard].read(i))

    def fetch(self, indices: Iterable[int]) -> list[Any]:
        """The samples with these numbers, in this order; bytes that lie close together are read together."""
        wanted = [self._locate(index) for index in indices]
        inside: dict[int, set[int]] = {}
        for shard, i in wanted:
            inside.setdefault(shard, set()).add(i)
        raw: dict[tuple[int, int], Sample] = {}
        for numbers in _in_groups(list(inside), OPEN_SHARDS):
            raw.update(self._fetch_raw({number: inside[number] for number in numbers}))
        return [self._finished(dict(raw[place])) for place in wanted]

    __getitems__ = fetch

    def __iter__(self) -> Iterator[Any]:
        for numbers in _in_groups(range(len(self)), IN_ORDER):
            yield from self.fetch(numbers)

    def index_of(self, key: str) -> int:
        """The number of the sample with this key. The first call reads the keys of all shards; 16 bytes of each
        are kept.

        Raises:
            KeyError: there is none.
            SampleError: there are several.
        """
        return self._indices_of([key])[0]

    def _indices_of(self, keys: list[str]) -> list[int]:
        """The number of the sample with each of these keys."""
        found = self._open.numbers_of(keys)
        if self._picked is not None:
            order = np.argsort(self._picked, kind="stable")
            ordered = self._picked[order]
            cuts = [[np.searchsorted(ordered, (number, number + 1)) for number in numbers] for numbers in found]
            found = [[at for cut in several for at in order[slice(*cut)].tolist()] for several in cuts]
        for key, numbers in zip(keys, found, strict=True):
            if not numbers:
                raise KeyError(key)
            if len(numbers) > 1:
                raise SampleError(f"the samples {numbers[0]} and {numbers[1]} have one key; ask by number", key=key)
        return [numbers[0] for numbers in found]

    def all_keys(self) -> list[str]:
        """The keys of all samples, in order, read from the indexes."""
        keys = [key for each in self._open.all_keys() for key in each]
        return keys if self._picked is None else [keys[number] for number in self._picked.tolist()]

    def subset(self, indices: Iterable[int] | range) -> Self:
        """A data set of the samples with these numbers, in this order; nothing is read."""
        check_items("IndexedDataset.subset", "indices", indices, "numbers of samples")
        if isinstance(indices, range) and len(indices) and indices[0] >= 0 <= indices[-1]:
            chosen = np.arange(indices.start, indices.stop, indices.step)
            self._checked(int(chosen.max()))
        else:
            chosen = np.fromiter((self._checked(index) for index in indices), np.int64)
        return self._picking(chosen)

    def with_keys(self, keys: Iterable[str]) -> Self:
        """A data set of the samples with these keys, in this order; KeyError and SampleError as for `index_of`."""
        if isinstance(keys, str):
            raise TypeError(f"IndexedDataset.with_keys: keys must be a list of keys, got {keys!r}; write [{keys!r}]")
        check_items("IndexedDataset.with_keys", "keys", keys, "a list of keys")
        return self._picking(np.array(self._indices_of(list(keys)), np.int64))

    def where(self, condition: Condition) -> Self:
        """A data set of the samples for which a condition is true: `where(lambda row: row["jpg.size"] < 1_000_000)`.

        It is asked with columns of a shard, numpy arrays with a value for each sample, and gives an array of booleans;
        one that cannot deal with arrays (`and`, `in`, methods of text) is asked for each sample. Only indexes and
        tables are read for it.

        Args:
            condition: of a mapping with `__key__`, `__url__`, `__fields__` (a tuple of names); `jpg.size`, bytes of any
                field, NaN where it is not there; all else is a column of the Parquet table beside the shard, as
                img2dataset writes it, found by its column `key`; NaN or None where it has no value.

        Raises:
            MissingFieldError: there is no such column.
            NotFoundError: there is no table.
            StaleIndexError: the table is damaged.
            MissingDependencyError: pyarrow is not installed.
        """
        check_function("IndexedDataset.where", "condition", condition)
        found = self._by_shard(lambda number: chosen(self._open.columns(number), condition), np.bool_)
        return self._picking(np.flatnonzero(found))

    def split(self, *, salt: str = "", **shares: float) -> dict[str, Self]:
        """Parts by a hash of the key, `split(train=0.9, val=0.1)`: a sample stays in its part whatever else is there.

        Args:
            salt: another one, another split.
            shares: of each part, as fractions; what they leave is in no part.

        Raises:
            ValueError: they are negative, or more than the whole.
        """
        for name, share in shares.items():
            check_number("IndexedDataset.split", name, share)
        if not shares or not min(shares.values()) >= 0 or not sum(shares.values()) <= 1 + 1e-9:
            raise ValueError(f"IndexedDataset.split: shares must be fractions that sum to at most 1, got {shares}")
        places = self._by_shard(lambda number: places_of(self._open.members(number).all_keys(), salt), np.float64)
        parts = parts_of(places, shares)
        return {name: self._picking(np.flatnonzero(parts == part)) for part, name in enumerate(shares)}

    def map(self, f: Callable[[Any], Any]) -> Self:
        """The same samples with a function applied to each, when it is asked for."""
        return self.compose(filters.map(f))

    def decode(self, *args: str | FieldDecoder, only: Any = None) -> Self:
        """The same samples, decoded as `WebDataset.decode` does."""
        return self.compose(filters.decode(*args, only=only))

    def to_tuple(self, *args: Alternatives) -> Self:
        """The same samples as tuples of these fields."""
        return self.compose(filters.to_tuple(*args))

    def compose(self, *stages: Callable[[Iterable[Any]], Iterator[Any]]) -> Self:
        """The same samples with further stages, each applied to one sample; one that leaves it out is an error."""
        return self._copy(_stages=(*self._stages, *stages))

    def close(self) -> None:
        """Close the shards that are open; they are opened again when they are needed."""
        self._open.close()

    def _all_but(self, excluded: set[tuple[int, str]]) -> Integers:
        """The numbers of all samples but those with these numbers of their shard, and keys."""
        left_out = []
        for shard in sorted({number for number, _ in excluded}):
            begin = int(self._ends[shard - 1]) if shard else 0
            keys = enumerate(self._open.members(shard).all_keys(), begin)
            left_out += [number for number, key in keys if (shard, key) in excluded]
        return np.delete(np.arange(len(self)), left_out)

    def _by_shard(self, values: Callable[[int], NDArray[Any]], kind: type) -> NDArray[Any]:
        """The values of the samples of this data set, from a function that gives those of all samples of a shard."""
        numbers = np.arange(len(self)) if self._picked is None else self._picked
        found: NDArray[Any] = np.empty(len(numbers), kind)
        order = np.argsort(numbers, kind="stable")
        cuts = np.searchsorted(numbers[order], self._ends)
        for shard, (begin, end) in enumerate(pairwise([0, *cuts.tolist()])):
            if begin < end:
                mine = order[begin:end]
                found[mine] = values(shard)[numbers[mine] - (int(self._ends[shard - 1]) if shard else 0)]
        return found

    def _picking(self, chosen: Integers) -> Self:
        """A data set of the samples with these numbers, which are right."""
        return self._copy(_picked=chosen if self._picked is None else self._picked[chosen])

    def _copy(self, **changes: Any) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, **changes)
        return other

    def _count(self, number: int) -> int:
        try:
            counted = stats_count(self.shards[number].url, self.storage_options) if self.sidecars else None
            if counted is not None and counted.nsamples is not None:
                self.shards[number] = counted
                return counted.nsamples
            return len(self._open[number])
        except Exception as exn:
            if self.handler(exn):
                return 0
            raise

    def _checked(self, index: Any) -> int:
        try:
            i = operator.index(index)
        except TypeError as exn:
            several = "; several: ds.subset(numbers), ds.fetch(numbers)" if hasattr(index, "__len__") else ""
            raise TypeError(
                f"IndexedDataset: a sample is asked for by number or key, got {shown(index)}{several}"
            ) from exn
        count = len(self)
        if not -count <= i < count:
            raise IndexError(f"sample {i} of a data set that has {count}")
        return i % count

    def _locate(self, index: Any) -> tuple[int, int]:
        """Number of the shard, and of the sample in it."""
        i = self._checked(index)
        if self._picked is not None:
            i = int(self._picked[i])
        shard = int(np.searchsorted(self._ends, i, side="right"))
        return shard, i - (int(self._ends[shard - 1]) if shard else 0)

    def _finished(self, sample: Sample) -> Any:
        if not self._stages:
            return sample
        items: Any = iter([sample])
        for stage in self._stages:
            items = iter(stage(items))
        try:
            for item in items:
                return item
        finally:
            close_source(items)
        raise SampleError("a stage gave nothing for this sample", key=sample["__key__"], url=sample["__url__"])

    def _fetch_raw(self, inside: dict[int, set[int]]) -> dict[tuple[int, int], Sample]:
        """The samples with these numbers in these shards."""
        opened = {number: self._open[number] for number in inside}
        wanted = [(number, i) for number, numbers in inside.items() for i in numbers]
        if len(wanted) > 1 and any(samples.shard.is_remote for samples in opened.values()):
            with ThreadPoolExecutor(min(AT_ONCE, len(wanted))) as pool:
                return read_together(opened, wanted, pool.map)
        return read_together(opened, wanted, map)


def _in_groups(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]
