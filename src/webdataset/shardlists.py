"""Names of shards: patterns, lists -> a stream of `{"url": str}`; splitting it among readers; drawing from it.

Nothing here opens a shard. Functions and objects that give each reader another part of the shards
carry an attribute `splits_readers`, true: what follows them in a pipeline then draws its own random
numbers in each reader, while whatever comes before must draw the same in all of them. Those that may give
a shard again and again have an attribute `endless`, true.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar
from zlib import crc32

from ._arguments import a, check_flag, check_function, check_items, check_number, checked
from ._closing import close_source
from ._environment import switch_of
from ._stage import RestCurried
from ._torchdata import TorchIterable
from ._types import Shards
from .countedshards import CountedShard, counted_shards, is_counted, is_index, shards_of_index
from .errors import EmptyDatasetError, ShardListError, printable, public_url
from .order.seeded import EpochAttribute, SeededStage, seeded_random
from .order.seeds import epoch_random
from .shardfiles import is_spec, without_query
from .shardfolders import (
    DirectoryShardList,
    check_pid_is_running,
    get_pid_from_filename,
    without_last_extension,
)
from .shardpatterns import Options, Urls, envlookup, envsubst, expand_source, expand_urls
from .shardspecs import MSSource, MultiShardSample, expand, read_spec
from .storage.options import storage_options as options_of
from .workers import reader_info, resolve_seed

__all__ = [
    "DirectoryShardList",
    "MSSource",
    "MultiShardSample",
    "ResampledShardList",
    "ResampledShards",
    "SimpleShardList",
    "check_pid_is_running",
    "envlookup",
    "envsubst",
    "expand",
    "expand_source",
    "expand_urls",
    "get_pid_from_filename",
    "make_seed",
    "non_empty",
    "resampled",
    "resampled_",
    "shardspec",
    "single_node_only",
    "split_by_node",
    "split_by_worker",
    "without_last_extension",
]

logger = logging.getLogger(__name__)

Shard = dict[str, str]
F = TypeVar("F", bound=Callable[..., Any])


class SimpleShardList(TorchIterable):
    """The shards of a pattern or list, each once in a pass, as `{"url": str}`; with a seed, shuffled.

    Epoch 0 of a seed has the published order, and each further epoch another one. The order is the
    same in all readers, so that they may split the list.

    Attributes:
        urls: the shards, in the order given.
        seed: None (not shuffled) or an integer; it may be set between passes.

    Raises EmptyDatasetError (a ValueError) where there are no shards.
    """

    def __init__(
        self,
        urls: Urls,
        seed: int | str | None = None,
        *,
        allow_pipe: bool | None = None,
        storage_options: Options = None,
    ) -> None:
        """`seed`: None leaves the order as it is; True or "random" draws a seed, and logs it.

        `allow_pipe`, `storage_options`: as `expand_urls` takes them.
        """
        self.urls = expand_urls(urls, allow_pipe=allow_pipe, storage_options=storage_options)
        if not any(self.urls):
            raise EmptyDatasetError(f"no shards: {_shown(urls)} names none")
        self.seed = resolve_seed("random") if seed is True or seed == "random" else seed
        resolve_seed(self.seed)  # a wrong one is told now
        self._epoch = 0

    def __len__(self) -> int:
        return len(self.urls)

    @property
    def random_stages(self) -> int:
        """1 if the list is shuffled."""
        return int(self.seed is not None and self.seed is not False)

    def start(self, epoch: int, reader: int) -> None:
        """The next pass is this epoch, counted from 0; the order is the same for all readers."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Shard]:
        epoch, self._epoch = self._epoch, self._epoch + 1
        urls = self.urls.copy()
        if self.random_stages:
            epoch_random(resolve_seed(self.seed), epoch).shuffle(urls)
        return ({"url": url} for url in urls)


class CountedShardList(SimpleShardList):
    """Shards of which a list says how many samples they have; each `{"url": str}` has the shard as `"counted"`.

    Attributes:
        shards: the shards, in the order given.
    """

    def __init__(self, shards: list[CountedShard]) -> None:
        super().__init__([shard.url for shard in shards])
        self.shards = shards

    def __iter__(self) -> Iterator[dict[str, Any]]:
        counted = {shard.url: shard for shard in self.shards}
        return ({**item, "counted": counted.get(item["url"])} for item in super().__iter__())


class ResampledShards(EpochAttribute, TorchIterable):
    """Shards drawn with replacement, as `{"url": str}`: each reader draws its own, `nshards` in a pass.

    A pass is not an epoch: some shards come several times and some not at all. Readers need not
    split the list, and must not.

    Attributes:
        urls: the shards.
        epoch: number of the running pass, -1 before the first.
        rng: generator of the running pass.

    Raises EmptyDatasetError (a ValueError) where there are no shards, unless `empty_check` is false;
    then passes are empty.
    """

    splits_readers = True
    endless = True
    rng: random.Random

    @checked(
        "ResampledShards",
        nshards=a(check_number, "shards", whole=True),
        worker_seed=a(check_function, optional=True),
        deterministic=check_flag,
        max_urls=a(check_number, "urls", whole=True, least=0),
        empty_check=check_flag,
    )
    def __init__(
        self,
        urls: Urls,
        nshards: int = sys.maxsize,
        seed: int | str | None = 0,
        worker_seed: Callable[[], int] | None = None,
        deterministic: bool = False,
        max_urls: int = int(1e6),
        empty_check: bool = True,
        *,
        storage_options: Options = None,
    ) -> None:
        """`deterministic`: the draws depend on seed, reader and epoch only; otherwise on process and time too.

        `worker_seed` gives the number of the reader, by default 1000 times the rank plus the worker.
        `max_urls` bounds what is taken of an iterable that is not a list. WDS_SHOW_SEED=1 prints the seed
        of each pass.
        """
        super().__init__()
        given = urls if isinstance(urls, (str, os.PathLike)) else expand_source(urls, max_urls)
        self.urls = expand_urls(given, storage_options=storage_options)
        if empty_check and not any(self.urls):
            raise EmptyDatasetError(f"no shards found in ResampledShards: {_shown(urls)} names none")
        self.nshards = nshards
        self.seed = resolve_seed(seed)
        self.worker_seed = _worker_seed if worker_seed is None else worker_seed
        self.deterministic = deterministic

    def __iter__(self) -> Iterator[Shard]:
        parts = [self.worker_seed(), self._next_epoch(), self.seed]
        if not self.deterministic:
            parts += [os.getpid(), time.time_ns(), int.from_bytes(os.urandom(4), "little")]
        seed = make_seed(*parts)
        if switch_of("WDS_SHOW_SEED"):
            print(f"# ResampledShards seed {seed}")  # noqa: T201 -- what the variable asks for
        self.rng = random.Random(seed)
        return self._draws(self.rng)

    def _draws(self, rng: random.Random) -> Iterator[Shard]:
        urls = self.urls
        last = len(urls) - 1
        for _ in range(self.nshards if urls else 0):
            yield {"url": urls[rng.randint(0, last)]}


ResampledShardList = ResampledShards


def shardspec(
    spec: Shards, *, allow_pipe: bool | None = None, storage_options: Options = None
) -> SimpleShardList | MultiShardSample:
    """The shards of a spec (a dict, or a path or url ending in `.yaml`, `.yml` or `.json`), or of a pattern or list.

    A JSON file with a `shardlist`, or with `datasets` that have one or a `source_url`, is an index as wids writes it:
    its urls are relative to its `base`, or to its own folder. `allow_pipe`: whether `pipe:` urls in a file are allowed;
    None asks WDS_ALLOW_PIPE. `storage_options`: how remote places are listed and read. In a list, `{"url", "nsamples"}`
    stands for a shard, too.

    A spec or an index from elsewhere names no local files: names without a scheme lie beside it.
    """
    if isinstance(spec, dict) and is_index(spec):
        return _shards_of_index(spec, "index", None, allow_pipe)
    if isinstance(spec, dict):
        return MultiShardSample(spec, allow_pipe=allow_pipe, storage_options=storage_options)
    if is_counted(spec):
        return CountedShardList(counted_shards(spec))
    names: Any = spec
    path = os.fspath(names) if isinstance(names, (str, os.PathLike)) else ""
    if not is_spec(path):
        return SimpleShardList(names, allow_pipe=allow_pipe, storage_options=storage_options)
    options = None if storage_options is None else options_of(storage_options)
    if without_query(path).endswith(".json") and is_index(index := read_spec(path, options)):
        return _shards_of_index(index, path, options, allow_pipe)
    return MultiShardSample(path, allow_pipe=allow_pipe, storage_options=storage_options)


def _shards_of_index(index: Any, path: str, options: Any, allow_pipe: bool | None) -> CountedShardList:
    shards = list(shards_of_index(index, path, options, allow_pipe))
    if not shards:
        raise EmptyDatasetError(f"no shards: {public_url(path)} names none")
    return CountedShardList(shards)


def make_seed(*args: Any) -> int:
    """One seed of 31 bits made of several values; the same everywhere for numbers and text."""
    seed = 0
    for part in args:
        seed = (seed * 31 + _number(part)) & 0x7FFFFFFF
    return seed


def _number(part: Any) -> int:
    if isinstance(part, int):
        return part  # hash(-1) is hash(-2)
    return hash(part) if isinstance(part, float) else crc32(str(part).encode("utf-8", "surrogatepass"))


def _worker_seed() -> int:
    info = reader_info()
    return info.rank * 1000 + info.worker


@checked("resampled", n=a(check_number, "items", whole=True))
def resampled_(
    src: Iterable[Any], n: int = sys.maxsize, *, seed: int | str | None = None, rng: Any = None
) -> Iterator[Any]:
    """Draw `n` items of the source with replacement; the source is read whole and kept in memory.

    Without a seed: WDS_SEED or 0; each epoch and each reader draws its own. An empty source gives nothing.
    """
    rng = seeded_random(seed, rng)
    items = list(src)
    for _ in range(n if items else 0):
        yield rng.choice(items)


class _ResampledStage(SeededStage):
    splits_readers = True
    endless = True

    def __call__(self, data: Iterable[Any]) -> Iterator[Any]:
        self._reader = reader_info().reader  # with equal draws all readers would deliver the same
        return super().__call__(data)


resampled = RestCurried(resampled_, stage=_ResampledStage)


_a_stream = a(check_items, "the items to divide")


def _splitter(f: F) -> F:
    f.__dict__["splits_readers"] = True
    return f


def _every(src: Iterable[Any], first: int, step: int) -> Iterator[Any]:
    source = iter(src)
    try:
        yield from islice(source, first, None, step)
    finally:
        close_source(source)


@_splitter
@checked("split_by_node", src=_a_stream)
def split_by_node(src: Iterable[Any], group: Any = None) -> Iterator[Any]:
    """Every world_size-th item, beginning with the rank-th: this node's share."""
    info = reader_info(group)
    return _every(src, info.rank, info.world_size)


@_splitter
@checked("split_by_worker", src=_a_stream)
def split_by_worker(src: Iterable[Any]) -> Iterator[Any]:
    """Every num_workers-th item, beginning with the one of this worker: its share of the node's."""
    info = reader_info()
    return _every(src, info.worker, info.num_workers)


@checked("single_node_only", src=_a_stream)
def single_node_only(src: Iterable[Any], group: Any = None) -> Iterator[Any]:
    """All items on a single node; with several nodes ShardListError (a ValueError), when iteration begins."""
    info = reader_info(group)
    if info.world_size > 1:
        raise ShardListError(
            f"single_node_only, but there are {info.world_size} nodes: pass nodesplitter=webdataset.split_by_node"
            " for a share of the shards on each, or nodesplitter=None for all shards on each"
        )
    yield from src


def non_empty(src: Iterable[Any]) -> Iterator[Any]:
    """All items; EmptyDatasetError (a ValueError) at the end if there was none.

    Where there are several readers nothing is raised: one of them may have got no shard to read.
    """
    source = iter(src)
    empty = True
    try:
        for item in source:
            empty = False
            yield item
    finally:
        close_source(source)
    if empty and reader_info().readers == 1:
        raise EmptyDatasetError("this stage received no data at all, and non_empty declares that an error")


def _shown(urls: Any) -> str:
    if isinstance(urls, str):
        return f"the pattern {public_url(urls)!r}"
    return f"the {type(urls).__name__} {printable(repr(urls), 80)}"
