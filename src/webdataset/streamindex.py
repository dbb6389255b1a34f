"""A pipeline -> its samples by number (`ds[i]`), and how many there are (`len(ds)`), where its stages leave them be.

`numbered` makes an `IndexedDataset` over the same shards with the stages that treat each sample alone: its i-th sample
is the i-th one that a single reader gets. `length_of` counts, and reads no headers: what a list says, indexes that are
there.

Rules: what a stage does to a stream is looked up in the tables below; what is not in them may do anything, and is told
by name. Nothing here happens before a program asks. What is found out is remembered beside the pipeline, as long as
that has these stages and these shards, and never pickled.
"""

from __future__ import annotations

import contextlib
import inspect
import operator
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, cast

from . import filters, tariterators
from ._empty import CheckEmpty
from ._stage import FilterFunction, public_name
from ._types import Sample
from .cache import FileCache
from .countedshards import CountedShard
from .errors import DataError, SecurityError, public_url
from .filetypes import record_kind
from .gopen import rewrite_url
from .handlers import reraise_exception
from .indexed import IndexedDataset
from .openers import StreamingOpen
from .order.seeded import SeededStage
from .sampleindex import lower_case
from .security import refuse_if_secure
from .shardbytes import LocalShard, Version
from .shardindex import index_folder, known_index
from .shardlists import CountedShardList, SimpleShardList, single_node_only, split_by_node, split_by_worker
from .storage.local import local_path, open_read
from .tar.compression import MAGIC_BYTES, compression_of
from .tar.header import BLOCK, is_header
from .workers import ReaderInfo, reader_info

ALONE = (
    filters.map,
    filters.map_dict,
    filters.map_tuple,
    filters.decode,
    filters.xdecode,
    filters.associate,
    filters.to_tuple,
    filters.extract_keys,
    filters.rename,
    filters.rename_keys,
    filters.require_fields,
)
"""Stages that make one item of each sample, whatever comes before it."""

WATCHING = (filters.info, filters.log_keys)
"""Stages that give what they get."""

MIXING = (filters.shuffle,)
"""Stages that give all that they get in another order."""

READERS = (
    (tariterators.tarfile_samples,),
    (tariterators.url_opener, tariterators.expand_and_group),
    (tariterators.url_opener, tariterators.tar_file_expander, tariterators.group_by_keys),
)
"""Stages that lead from shards to samples; for `url_opener`, `StreamingOpen` and `FileCache` may stand."""

READING = [f for stages in READERS for f in stages]
HANDLERS = ("handler", "group_handler")
USUAL = [("torn", "warn"), ("ignore_zeros", False), ("lcase", True)]
"""Arguments of theirs with which samples are those of an index."""

SPLITTING: dict[Any, Callable[[ReaderInfo], int]] = {
    split_by_node: lambda info: info.world_size,
    split_by_worker: lambda info: info.num_workers,
    single_node_only: lambda info: info.world_size,
}
"""Stages that divide shards among readers, and among how many."""


class Plan(NamedTuple):
    """What the stages of a pipeline come to.

    Attributes:
        source: where the shards come from; `splitters` are applied to those.
        handler, cache_dir, storage_options: how they are read, and by which stages: `reading`.
        with_path: whether samples of local files have their `__local_path__`.
        stages: what is applied to each sample.
        mixing: the stage, if there is one, after which the order is another one.
    """

    source: SimpleShardList
    splitters: tuple[Any, ...] = ()
    handler: Any = reraise_exception
    cache_dir: str | None = None
    storage_options: Any = None
    reading: tuple[Any, ...] = ()
    with_path: bool = False
    stages: tuple[Any, ...] = ()
    mixing: str | None = None


def numbered(pipeline: Any) -> IndexedDataset:
    """The data set by number. The first call finds the indexes of all shards, or makes them.

    Raises:
        NotImplementedError: a stage, or the source, does more than one index can tell; the message names it.
        DataError: a shard cannot be had.
    """
    try:
        known = _known(pipeline)
        if known.dataset is None:
            _check_numbered(known.plan)
    except OtherSamplesError as exn:
        raise NotImplementedError(
            f"this {type(pipeline).__name__} is a stream without numbers: {exn}; iterate over it, ask the"
            " data set before that, or use webdataset.IndexedDataset(shards), which samplers and loaders shuffle"
        ) from None
    if known.dataset is None:
        plan = known.plan
        if known.raw is None:
            options = {"cache_dir": plan.cache_dir, "storage_options": plan.storage_options}
            known.raw = IndexedDataset(_shards_of(plan.source), handler=plan.handler, **options)
        stages = (FilterFunction(_add_path), *plan.stages) if plan.with_path else plan.stages
        known.dataset = known.raw.compose(*stages)
    return known.dataset


def length_of(pipeline: Any) -> int:
    """How many items a pass gives to this reader and, where it has workers, to them together.

    Raises:
        OtherSamplesError: that is not known without reading the shards; the message says why.
    """
    known = _known(pipeline)
    plan, info = known.plan, reader_info()
    if known.length is None or known.length[0] != info:
        shards: Iterator[CountedShard] = iter(_shards_of(plan.source))
        if known.raw is not None:
            counted = zip(known.raw.shards, known.raw.counts, strict=True)
            shards = (shard._replace(nsamples=count) for shard, count in counted)
        for splitter in plan.splitters:
            if splitter is single_node_only and info.world_size > 1:
                raise OtherSamplesError(f"single_node_only, but there are {info.world_size} nodes")
            shards = splitter(shards)
        known.length = info, sum(_count(shard, plan) for shard in shards)
    return known.length[1]


class OtherSamplesError(Exception):
    """Items of a pass are not the samples of its shards, or nobody can know."""


class _Known:
    """What was found out about a pipeline, while its stages are these. A copy in another process begins anew."""

    def __init__(self, state: _State, plan: Plan) -> None:
        self.state = state
        self.plan = plan
        self.raw: IndexedDataset | None = None
        self.dataset: IndexedDataset | None = None
        self.length: tuple[ReaderInfo, int] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(None), ())


class _State(NamedTuple):
    """What a pipeline is now: numbers that are compared, and objects that must be the same ones."""

    numbers: tuple[Any, ...]
    urls: Any
    stages: list[Any]

    @classmethod
    def of(cls, pipeline: Any) -> _State:
        stages = list(pipeline.pipeline)
        urls = getattr(stages[0], "urls", None) if stages else None
        count = len(urls) if isinstance(urls, list) else None
        return cls((count, pipeline.repetitions, pipeline.nsamples), urls, stages)

    def has_shards_of(self, other: _State) -> bool:
        return self.urls is other.urls and self.numbers[0] == other.numbers[0]

    def is_that_of(self, other: _State) -> bool:
        same = self.numbers == other.numbers and self.urls is other.urls and len(self.stages) == len(other.stages)
        return same and all(map(operator.is_, self.stages, other.stages))


def _known(pipeline: Any) -> _Known:
    """What is remembered of a pipeline, if it is still the same; else, to be found out, what its stages come to."""
    if "pipeline" not in pipeline.__dict__:  # subclasses that only iterate may not have called __init__
        raise OtherSamplesError("it has no stages")
    state, before = _State.of(pipeline), pipeline.__dict__.get("_known")
    if before is not None and before.state.is_that_of(state):
        return cast(_Known, before)
    known = _Known(state, plan_of(pipeline))
    if before is not None and state.has_shards_of(before.state) and before.plan[:5] == known.plan[:5]:
        known.raw = before.raw  # other stages behind the same shards
    pipeline._known = known
    return known


def plan_of(pipeline: Any) -> Plan:
    """What the stages of a pipeline come to.

    Raises:
        OtherSamplesError: one of them changes which items there are, or may do so.
    """
    from .pipeline import DataPipeline

    for name in ("__iter__", "iterator", "iterator1"):
        if getattr(type(pipeline), name) is not getattr(DataPipeline, name):
            raise OtherSamplesError(f"its class has an {name} of its own")
    if pipeline.repetitions != 1 or pipeline.nsamples > 0:
        raise OtherSamplesError("with_epoch or repeat make other passes than one over the shards")
    if not pipeline.pipeline:
        raise OtherSamplesError("it has no stages")
    plan = _source_plan(pipeline.pipeline[0])
    for stage in pipeline.pipeline[1:]:
        plan = _after(plan, stage)
    if plan.reading not in READERS:
        raise OtherSamplesError("it has no stages that read archives")
    return plan


def _source_plan(source: Any) -> Plan:
    if type(source) not in (SimpleShardList, CountedShardList):
        raise OtherSamplesError(
            f"it reads from a {type(source).__name__}, not from a list of shards, each of them once"
        )
    return Plan(source, mixing="that shuffles the list of shards" if source.random_stages else None)


def _after(plan: Plan, stage: Any) -> Plan:
    """The plan with one more stage."""
    if isinstance(stage, (CheckEmpty, filters.Cached)) or _is(stage, WATCHING):
        return plan
    if _is(stage, READING) or isinstance(stage, (StreamingOpen, FileCache)):
        return _reading(plan, stage)
    begun, read = bool(plan.reading), plan.reading in READERS
    if (read or not begun) and (isinstance(stage, filters.detshuffle) or _is(stage, MIXING)):
        return plan._replace(mixing=plan.mixing or f"the stage {_name(stage)}")
    if not begun and any(stage is splitter for splitter in SPLITTING):
        return plan._replace(splitters=(*plan.splitters, stage))
    if read and _is(stage, ALONE) and _arguments(stage).get("on_missing") != "skip":
        return plan._replace(stages=(*plan.stages, stage))
    raise OtherSamplesError(f"the stage {_name(stage)} may change which samples there are")


def _reading(plan: Plan, stage: Any) -> Plan:
    """The plan with one more stage that leads from shards to samples."""
    if isinstance(stage, (StreamingOpen, FileCache)):
        plan = plan._replace(reading=(*plan.reading, tariterators.url_opener), with_path=True)
        cache_dir = stage.cache_dir if isinstance(stage, FileCache) else None
        return plan._replace(cache_dir=cache_dir, storage_options=stage.storage_options)
    given = _arguments(stage)
    other = sorted(
        name
        for name, value in given.items()
        if value is not None and (name, value) not in USUAL and name not in HANDLERS
    )
    if other:
        raise OtherSamplesError(f"{', '.join(other)} makes other samples than an index has")
    return plan._replace(reading=(*plan.reading, _function(stage)), handler=given.get("handler", plan.handler))


def _check_numbered(plan: Plan) -> None:
    """OtherSamplesError unless samples can be found by number."""
    records = [url for url in plan.source.urls if record_kind(url) is not None]
    if records:
        raise OtherSamplesError(f"{public_url(records[0])} is a stream of records, of which there is no index")
    if plan.mixing is not None:
        raise OtherSamplesError(f"{plan.mixing} gives them in another order")
    info = reader_info()
    for splitter in plan.splitters:
        if SPLITTING[splitter](info) > 1:
            raise OtherSamplesError(f"{splitter.__name__} gives each of {info.readers} readers a part of the shards")


def _function(stage: Any) -> Any:
    """The function that a stage is, with or without arguments; of other objects, and of subclasses, themselves."""
    plain = type(stage) in (FilterFunction, SeededStage, filters.ShuffleStage)
    return stage.f if plain else stage


def _is(stage: Any, table: Iterable[Any]) -> bool:
    """Whether a stage is one of these functions."""
    return any(_function(stage) is getattr(f, "f", f) for f in table)


def _arguments(stage: Any) -> dict[str, Any]:
    """The arguments that were given, by name, without the stream."""
    if not isinstance(stage, FilterFunction):
        return {}
    given = inspect.signature(stage.f).bind(None, *stage.args, **stage.kw).arguments
    return dict(list(given.items())[1:])


def _name(stage: Any) -> str:
    f = getattr(stage, "f", None)
    for curried in vars(filters).values():
        if f is not None and getattr(curried, "f", None) is f:
            return public_name(curried)
    return str(getattr(f or stage, "__name__", type(stage).__name__))


def _shards_of(source: SimpleShardList) -> list[CountedShard]:
    """The shards, with what a list says of them; a program may have changed `urls` since."""
    listed = source.shards if isinstance(source, CountedShardList) else []
    counted = {shard.url: shard for shard in listed}
    return [counted.get(url) or CountedShard(url) for url in source.urls]


def _add_path(data: Iterable[Sample]) -> Iterator[Sample]:
    for sample in data:
        path = local_path(rewrite_url(sample["__url__"]))
        yield sample if path is None else {**sample, "__local_path__": path}


def _count(shard: CountedShard, plan: Plan) -> int:
    """The samples of a shard, by the list or by an index that is there.

    Raises:
        OtherSamplesError: neither says it.
    """
    if shard.nsamples is not None:
        return shard.nsamples
    with contextlib.suppress(OSError, DataError, SecurityError):
        found = _plain_file(shard.url)
        if found is not None:
            with contextlib.closing(found):
                index = known_index(found, folder=index_folder(plan.cache_dir))
                if index is not None and lower_case(index) is not None:
                    return len(index)
    raise OtherSamplesError(
        "not all of its shards have an index; ds[0] makes them, and the JSON of ShardWriter(index=True) has counts"
    )


def _plain_file(url: str) -> LocalShard | None:
    """A shard that is a local file, and not compressed; None for others: they cost a request, or a copy."""
    path = local_path(rewrite_url(url))
    if path is None or not os.path.isfile(path):  # a fifo gives its bytes once
        return None
    refuse_if_secure("a local file is not read while enforce_security is set")
    file = open_read(path, 0)
    state = os.fstat(file.fileno())
    shard = LocalShard(url, file, Version(state.st_size, state.st_mtime_ns), path)
    start = shard.read(0, min(BLOCK, state.st_size))
    if compression_of(start[:MAGIC_BYTES]) is not None and not is_header(start):
        shard.close()
        return None
    return shard
