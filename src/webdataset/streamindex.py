"""A pipeline -> its samples by number (`ds[i]`), and how many there are (`len(ds)`), where its stages leave them be.

`numbered` makes an `IndexedDataset` over the same shards with the stages that treat each sample alone: its i-th sample
is the i-th one that a single reader gets. `length_of` counts, and reads no headers: what a list says, indexes that are
there.

Rules: nothing here happens before a program asks. What is found out is remembered beside the pipeline, as long as that
has these stages and these shards, and never pickled.
"""

from __future__ import annotations

import contextlib
import operator
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, cast

from ._stage import FilterFunction
from ._types import Sample
from .countedshards import CountedShard
from .errors import DataError, SecurityError, public_url
from .filetypes import record_kind
from .gopen import path_of
from .indexed import IndexedDataset
from .sampleindex import lower_case
from .security import refuse_if_secure
from .shardbytes import LocalShard, Version
from .shardindex import index_folder, known_index
from .shardlists import single_node_only
from .storage.local import open_read
from .streamplan import SPLITTING, OtherSamplesError, Plan, plan_of
from .tar.compression import MAGIC_BYTES, compression_of
from .tar.header import BLOCK, is_header
from .workers import ReaderInfo, reader_info


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
            known.raw = IndexedDataset(plan.shards, handler=plan.handler, **options)
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
        shards: Iterator[CountedShard] = iter(plan.shards)
        if known.raw is not None:
            counted = zip(known.raw.shards, known.raw.counts, strict=True)
            shards = (shard._replace(nsamples=count) for shard, count in counted)
        for splitter in plan.splitters:
            if splitter is single_node_only and info.world_size > 1:
                raise OtherSamplesError(f"single_node_only, but there are {info.world_size} nodes")
            shards = splitter(shards)
        known.length = info, sum(_count(shard, plan) for shard in shards)
    return known.length[1]


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


def _check_numbered(plan: Plan) -> None:
    """OtherSamplesError unless samples can be found by number."""
    for url in plan.source.urls:
        _refuse_records(url)
    if plan.mixing is not None:
        raise OtherSamplesError(f"{plan.mixing} gives them in another order")
    info = reader_info()
    for splitter in plan.splitters:
        if SPLITTING[splitter](info) > 1:
            raise OtherSamplesError(f"{splitter.__name__} gives each of {info.readers} readers a part of the shards")


def _refuse_records(url: str) -> None:
    if record_kind(url) is not None:
        raise OtherSamplesError(f"{public_url(url)} is a stream of records, of which there is no index")


def _add_path(data: Iterable[Sample]) -> Iterator[Sample]:
    for sample in data:
        path = path_of(sample["__url__"])
        yield sample if path is None else {**sample, "__local_path__": path}


def _count(shard: CountedShard, plan: Plan) -> int:
    """The samples of a shard, by the list or by an index that is there.

    Raises:
        OtherSamplesError: neither says it.
    """
    if shard.nsamples is not None:
        return shard.nsamples
    _refuse_records(shard.url)
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
    path = path_of(url)
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
