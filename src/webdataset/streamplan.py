"""The stages of a pipeline -> what they come to: which shards are read how, and what becomes of each sample.

Rules: what a stage does to a stream is looked up in the tables below. What is not in them may do anything, and is told
by name: then nobody knows without a pass which items there are.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from . import filters, tariterators
from ._empty import CheckEmpty
from ._stage import FilterFunction, public_name, single_stages
from .cache import FileCache
from .countedshards import CountedShard
from .handlers import reraise_exception
from .openers import StreamingOpen
from .order.seeded import SeededStage
from .shardlists import CountedShardList, SimpleShardList, single_node_only, split_by_node, split_by_worker
from .workers import ReaderInfo

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


class OtherSamplesError(Exception):
    """Items of a pass are not the samples of its shards, or nobody can know."""


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

    @property
    def shards(self) -> list[CountedShard]:
        """The shards, with what a list says of them; a program may have changed `urls` since."""
        listed = self.source.shards if isinstance(self.source, CountedShardList) else []
        counted = {shard.url: shard for shard in listed}
        return [counted.get(url) or CountedShard(url) for url in self.source.urls]


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
    for stage in single_stages(pipeline.pipeline[1:]):
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
    if _is(stage, MIXING) and _arguments(stage).get("bufsize", 2) <= 1:
        return plan  # `shardshuffle=False`
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
