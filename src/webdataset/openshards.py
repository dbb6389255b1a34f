"""Shards of a data set by number -> their samples and indexes, opened when they are asked for; pickled, the names only.

At most OPEN_SHARDS are kept open. A copy in another process opens its own. What is asked about keys and members is read
from indexes, never from samples.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from . import cache
from ._forks import tell_of_forks
from ._types import Sample
from .cache import FileCache
from .countedshards import CountedShard, check_count
from .energonsets import PreparedSet
from .img2dataset import KeyedTable
from .keynumbers import KeyNumbers
from .sampleindex import Members, SampleIndex, lower_case
from .shardindex import find_index, index_folder
from .shardopening import open_shard
from .shardsamples import ShardSamples
from .spans import Pieces, Span, join_spans
from .storage.options import StorageOptions
from .subsets import Columns

OPEN_SHARDS = 64


class OpenShards:
    """See the module.

    Args:
        shards: which there are.
        fields: as `ShardSamples` has it.
        cache_dir: as `IndexedDataset` has it.
        shard_cache: the cache through which remote shards are read, if they are.
        prepared: the data set of Megatron-Energon whose shards these are, if they are of one.
        options: of `find_index`: `handler`, `sidecars`, `storage_options`.
    """

    def __init__(
        self,
        shards: Sequence[CountedShard],
        fields: frozenset[str] | None,
        cache_dir: Any,
        prepared: PreparedSet | None,
        shard_cache: FileCache | None,
        **options: Any,
    ) -> None:
        self._shards = shards
        self._fields = fields
        self._unseen = set(fields or ())
        self._prepared = prepared
        self._shard_cache = shard_cache
        self._options = options
        self._folder = index_folder(cache_dir)
        self._clear()

    def _clear(self) -> None:
        self.after_fork()
        tell_of_forks(self)
        self._opened: OrderedDict[int, ShardSamples] = OrderedDict()
        self._numbers: KeyNumbers | None = None

    def after_fork(self) -> None:
        """Have new locks."""
        self._lock = threading.RLock()
        self._counting = threading.RLock()  # held while all keys are read, which other threads need not wait for

    def __getitem__(self, number: int) -> ShardSamples:
        with self._lock:
            samples = self._opened.get(number)
            if samples is not None:
                self._opened.move_to_end(number)
                return samples
        samples = self._opening(number)
        with self._lock:
            self._opened[number] = samples
            if len(self._opened) > OPEN_SHARDS:
                self._opened.popitem(last=False)  # whoever still reads it keeps it open
        return samples

    def _opening(self, number: int, **options: Any) -> ShardSamples:
        listed = self._shards[number]
        shard = open_shard(listed.url, self._folder, self._options["storage_options"], self._shard_cache)
        try:
            index = find_index(shard, folder=self._folder, told=self._told(number), **(self._options | options))
            check_count(listed, len(index))
        except BaseException:
            shard.close()
            raise
        return ShardSamples(shard, index, self._fields, unseen=self._unseen)

    def _told(self, number: int) -> Any:
        prepared = self._prepared
        if prepared is None:
            return None
        return prepared.database, lambda shard: prepared.read_index(number, shard)

    def members(self, number: int) -> Members:
        """Keys and members of the samples of a shard, of which an index tells; where none does, headers are read."""
        index: SampleIndex = self[number].index
        if index.members is not None:
            return index.members
        told = index.told
        if told is not None and told.keys and (lowered := lower_case(replace(index, members=told))) is not None:
            assert lowered.members is not None
            return lowered.members
        samples = self._opening(number, sidecars=False)
        samples.close()
        assert samples.index.members is not None
        return samples.index.members

    def all_keys(self) -> Iterator[list[str]]:
        """The keys of the samples of each shard, in order."""
        return (self.members(number).all_keys() for number in range(len(self._shards)))

    def numbers_of(self, keys: Sequence[str]) -> list[list[int]]:
        """For each of these keys, the numbers of the samples that have it, counted over all shards."""
        with self._counting:
            if self._numbers is None:
                self._numbers = KeyNumbers(self.all_keys())
            numbers = self._numbers
        found: list[list[int]] = [[] for _ in keys]
        maybe: dict[int, list[tuple[int, int, int]]] = {}
        for at, key in enumerate(keys):
            for shard, i, number in numbers.places(key):
                maybe.setdefault(shard, []).append((at, i, number))
        for shard, places in sorted(maybe.items()):
            members = self.members(shard)
            for at, i, number in places:
                if members.key(i) == keys[at]:
                    found[at].append(number)
        return found

    def columns(self, number: int) -> Columns:
        """What is told of the samples of a shard, as columns."""
        options = self._options["storage_options"]
        return Columns(self._shards[number].url, self.members(number), lambda url: KeyedTable(url, options))

    def close(self) -> None:
        """Let go of all; one that a thread is reading is closed when that is done."""
        with self._lock:
            self._opened.clear()  # a descriptor that was closed is soon that of another file

    def __getstate__(self) -> dict[str, Any]:
        left = ("_lock", "_counting", "_opened", "_numbers")
        return {name: value for name, value in self.__dict__.items() if name not in left}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._clear()


def shard_cache(cache_dir: Any, size: float | None, storage_options: StorageOptions) -> FileCache | None:
    """The cache through which `IndexedDataset(cache_shards=True)` reads; None where it may hold nothing.

    Raises:
        ValueError: there is no folder for it.
    """
    size = cache.default_cache_size if size is None else size
    if size == 0:
        return None
    folder = index_folder(cache_dir)
    if folder is None:
        raise ValueError("IndexedDataset: cache_shards=True needs a folder, pass cache_dir or set WDS_CACHE")
    return FileCache(
        os.path.dirname(folder), cache_size=size, wait=True, revalidate=True, storage_options=storage_options
    )


def read_together(
    opened: dict[int, ShardSamples], wanted: list[tuple[int, int]], each: Callable[..., Iterable[Any]]
) -> dict[tuple[int, int], Sample]:
    """The samples (number of the shard, number in it); `each` is `map`, or one that does several at a time."""
    spans: list[tuple[int, Span]] = []
    for number, samples in opened.items():
        own = [span for shard, i in wanted if shard == number for span in samples.spans(i)]
        spans += [(number, span) for span in join_spans(own, samples.gap)]
    data = list(each(lambda place: opened[place[0]].shard.read(*place[1]), spans))
    read: dict[int, tuple[list[Span], list[bytes]]] = {number: ([], []) for number in opened}
    for (number, span), piece in zip(spans, data, strict=True):
        read[number][0].append(span)
        read[number][1].append(piece)
    pieces = {number: Pieces(*what) for number, what in read.items()}
    found = each(lambda place: opened[place[0]].build(place[1], pieces[place[0]]), wanted)
    return dict(zip(wanted, found, strict=True))
