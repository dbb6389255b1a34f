"""DataPipeline: a list of stages, run one after the other; epochs, repetition, length.

The first stage is a source (anything iterable, or a callable without arguments); every later one
is called with the iterator before it. The list may be edited. What happens at each pass:

1. every stage that has a method `start(epoch, reader)` is told the epoch, and which reader this is
   (0 as long as nothing before it divides the stream among readers); those that draw random numbers are
   told how many others do so before them;
2. the stages that expand and group tar files run fused where they stand unedited side by side;
3. each stage whose handler is an ErrorPolicy gets a handler of this pass, and what it gives is counted;
4. the iterators are chained. Where there are several readers, errors that come out are told which one.
"""

from __future__ import annotations

import inspect
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from ._arguments import check_number
from ._closing import close_source
from ._empty import CheckEmpty, Drought
from ._epochs import EpochCounter
from ._stage import FilterFunction, PipelineStage, RestCurried, public_name, single_stages
from ._torchdata import TorchIterable, register_with_torch
from ._types import AnyStage
from .linking import endless_reading, fuse_stages, linked
from .order.seeded import SeededStage, random_stages_in
from .places import add_reader, in_torch_worker
from .policy import PassPolicies
from .shardlists import SimpleShardList, split_by_node, split_by_worker
from .streamindex import length_of, numbered
from .streamplan import OtherSamplesError
from .workers import ReaderInfo, reader_info

logger = logging.getLogger(__name__)


class _NoLengthError(TypeError, AttributeError):
    """What both `len(ds)` and `hasattr(ds, "__len__")` take for "there is none"."""


class _Length:
    """The attribute `__len__`: there only where the length is set or known, which programs ask with hasattr."""

    def __get__(self, dataset: Any, kind: type[Any] | None = None) -> Any:
        if dataset is None:
            return self
        size = dataset.__dict__.get("size")
        if size is None:
            try:
                size = length_of(dataset)
            except OtherSamplesError as exn:
                raise _NoLengthError(
                    f"this {type(dataset).__name__} is a stream of unknown length: {exn}; with_length(n) sets one"
                ) from None
        return lambda: size


class DataPipeline(TorchIterable, PipelineStage):
    """Iterate over what a list of stages makes of its source.

    Args:
        args: the stages; None is left out, a list stands for its items.
        kwargs: ignored; kept for programs written for the published package.

    Attributes:
        pipeline: the stages; may be edited.
        repetitions, nsamples: set by `with_epoch` and `repeat`.
    """

    def __init__(self, *args: AnyStage, **kwargs: Any) -> None:
        self.pipeline: list[Any] = []
        self.length = -1
        self.repetitions = 1
        self.nsamples = -1
        self._epochs = EpochCounter()
        self._prepare_for_workers()
        self.size: int | None = None
        for stage in args:
            self.append(stage)

    def append(self, f: AnyStage) -> None:
        """Add a stage (or a list of stages) at the end of this pipeline."""
        if isinstance(f, list):
            self.pipeline.extend(f)
        elif f is not None:
            self.pipeline.append(f)

    def compose(self, *args: AnyStage) -> Self:
        """A new pipeline with further stages; the stage objects are shared with this one."""
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.pipeline = list(self.pipeline)
        copy._epochs = EpochCounter()
        copy._epochs.set(self._epochs.peek())
        copy._prepare_for_workers()
        for stage in args:
            copy.append(stage)
        return copy

    def stage(self, i: int) -> Any:
        """The i-th stage."""
        return self.pipeline[i]

    def invoke(self, f: Any, *args: Any) -> Any:
        """Run one stage on its source, or without one when it is the source itself."""
        if isinstance(f, (str, bytes)):
            raise TypeError(f"{f!r} is no pipeline stage: names of shards go into SimpleShardList(...)")
        if not args and hasattr(f, "__iter__"):
            return iter(f)
        if isinstance(f, PipelineStage):
            return f.run(*args)
        if isinstance(f, RestCurried):
            name = public_name(f)
            raise TypeError(f"stage {name} was not called: write {name}(...)")
        if callable(f):
            try:
                result = f(*args)
            except (TypeError, AttributeError) as exn:
                if args and not isinstance(f, FilterFunction):
                    exn.add_note(
                        f"in stage {f!r}, called with the whole stream; a function of one sample goes into map()"
                    )
                raise
            if not hasattr(result, "__iter__") and not hasattr(result, "__next__"):
                raise TypeError(f"stage {f!r} must return an iterator, got {type(result).__name__}")
            return result
        raise ValueError(f"{f!r}: not a valid pipeline stage (an iterable first, then callables)")

    def iterator1(self) -> Iterator[Any]:
        """One pass over the source; the next epoch."""
        if not self.pipeline:
            raise IndexError("this pipeline has no stages, not even a source")
        info, epoch = reader_info(), self._epochs.next()
        self._start_stages(epoch, info)
        passes = PassPolicies()
        data: Any = None
        stages = fuse_stages(self.pipeline)
        begin, end, spare = endless_reading(stages)
        drought = Drought(spare)
        for i, stage in enumerate(stages):
            if i == begin:
                data = drought.watched(data)
            stage, handlers = passes.bind(stage)
            data = linked(self.invoke, stage, handlers, *([data] if i else []))
            if i == end:
                data = drought.noted(data)
        if info.readers == 1 and not passes and not in_torch_worker():
            return iter(data)
        return _watched(data, passes, epoch)

    def _start_stages(self, epoch: int, info: ReaderInfo) -> None:
        if epoch == 0 and info.reader == 0 and info.readers > 1:
            tell_idle_readers(self.pipeline, info)
        # A source that is a pipeline or a loader has divided the stream itself, by rank at least.
        divided = info.reader if hasattr(self.pipeline[0], "dataset") or _is_pipeline(self.pipeline[0]) else 0
        drawing = 0
        for stage in single_stages(self.pipeline):
            if isinstance(stage, SeededStage):
                stage.place = drawing
            drawing += random_stages_in(stage)
            start = getattr(stage, "start", None)
            if callable(start) and _takes_epoch(start):
                start(epoch, divided)
            if isinstance(stage, CheckEmpty):
                stage.epochs = self._epochs
            if getattr(stage, "splits_readers", False):
                divided = info.reader

    @property
    def random_stages(self) -> int:
        """How many stages that draw random numbers there are."""
        return sum(random_stages_in(stage) for stage in self.pipeline)

    def iterator(self) -> Iterator[Any]:
        """All passes; ends when a pass gives nothing."""
        for _ in range(self.repetitions):
            empty = True
            for sample in self.iterator1():
                yield sample
                empty = False
            if empty:
                return

    def __iter__(self) -> Iterator[Any]:
        if self.nsamples > 0:
            return self._first(self.nsamples)
        if self.repetitions == 1 and type(self).iterator is DataPipeline.iterator:
            return self.iterator1()
        return self.iterator()

    def _first(self, count: int) -> Iterator[Any]:
        with closing(self.iterator()) as data:  # type: ignore[type-var]  # a generator
            yield from islice(data, count)

    def with_epoch(self, nsamples: int = -1, nbatches: int = -1) -> Self:
        """Let an epoch be this many items, whatever the source has: repeated or cut. Sets it on this object.

        Every iteration begins with a new pass over the source. 0 or less: without end.
        """
        check_number("with_epoch", "nsamples", nsamples, "samples", whole=True)
        check_number("with_epoch", "nbatches", nbatches, "batches", whole=True)
        self.repetitions = sys.maxsize
        self.nsamples = max(nsamples, nbatches)
        return self

    def repeat(self, nepochs: int = -1, nbatches: int = -1) -> Self:
        """Pass over the source `nepochs` times (default: without end), giving `nbatches` items at most.

        Sets it on this object.
        """
        check_number("repeat", "nepochs", nepochs, "passes", whole=True)
        check_number("repeat", "nbatches", nbatches, "batches", whole=True)
        self.repetitions = nepochs if nepochs > 0 else sys.maxsize
        self.nsamples = nbatches
        return self

    def with_length(self, n: int, silent: bool = True) -> Self:
        """Let `len()` of this object be `n`; nothing else changes, which a warning says unless `silent`."""
        check_number("with_length", "n", n, "items", least=0, optional=True)
        if not silent:
            warnings.warn(f"with_length({n}) sets len() only; it changes nothing in what comes", stacklevel=2)
        self.size = n
        return self

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass this epoch, in all workers; later passes count up from it."""
        check_number("set_epoch", "epoch", epoch, whole=True)
        self._epochs.set(epoch)

    @property
    def epoch(self) -> int:
        """The epoch of the next pass, counted from 0. Workers of a DataLoader count along."""
        return self._epochs.peek()

    def _prepare_for_workers(self) -> None:
        """Share the count of epochs before any worker is made, which another data set around this one may do unseen."""
        if register_with_torch():
            self._epochs.share()

    def _torch_looks(self) -> None:
        if "_epochs" in self.__dict__:  # subclasses that only iterate may not have called our __init__
            self._epochs.share()

    if TYPE_CHECKING:

        def __len__(self) -> int: ...

    else:
        __len__ = _Length()

    def _last_stages(self) -> tuple[Any, ...]:
        """What the class does behind the stages of `pipeline`."""
        return ()

    def __getitem__(self, index: Any) -> Any:
        """The sample that comes `index`-th to a single reader (negative: from the end), or that has this key.

        Of a slice, an `IndexedDataset` of those. The first call finds or makes the indexes of all shards.

        Raises:
            IndexError, KeyError: there is none.
            NotImplementedError: a stage changes which samples come, or their order.
            DataError: a shard cannot be had, or is damaged.
        """
        return numbered(self)[index]

    def __bool__(self) -> bool:
        return True

    def run(self, *args: Any) -> Iterator[Any]:
        """A pipeline as the first stage of another."""
        if args:
            raise TypeError("a DataPipeline can only be the first stage of another one")
        return iter(self)

    def close(self) -> None:
        """Close the stages that can be closed. The pipeline cannot be used any more."""
        for stage in self.pipeline:
            close = getattr(stage, "close", None)
            if callable(close):
                close()
        self.pipeline = []
        known = self.__dict__.pop("_known", None)
        if known is not None and known.raw is not None:
            known.raw.close()


def add_length_method(obj: Any) -> Any:
    """The same object, whose `len()` is its attribute `size` from now on; a DataPipeline, which has that, as it is."""
    if not isinstance(obj, DataPipeline):
        kind = type(obj)
        obj.__class__ = type(f"{kind.__name__}_Length", (kind,), {"__len__": lambda self: self.size})
    return obj


def _takes_epoch(start: Callable[..., Any]) -> bool:
    """Whether a method `start` is the one described above, and not the program's own."""
    try:
        return {"epoch", "reader"} <= inspect.signature(start).parameters.keys()
    except (TypeError, ValueError):  # some builtins have no signature
        return False


def _is_pipeline(stage: Any) -> bool:
    return isinstance(stage, DataPipeline)


def _watched(data: Iterable[Any], passes: PassPolicies, epoch: int) -> Iterator[Any]:
    """The same items; errors are told the reader, and in the end the policies report."""
    try:
        yield from data
    except Exception as exn:
        add_reader(exn)
        raise
    finally:
        close_source(data)
        passes.end(epoch)


def tell_idle_readers(stages: list[Any], info: ReaderInfo) -> None:
    """Log that some readers get no shard, where the number of shards is known and our splitters divide them."""
    shards = len(stages[0]) if isinstance(stages[0], SimpleShardList) else None
    readers = info.world_size if any(stage is split_by_node for stage in stages) else 1
    readers *= info.num_workers if any(stage is split_by_worker for stage in stages) else 1
    if shards is not None and shards < readers:
        logger.warning(
            "%d shards for %d readers (%d ranks with %d workers each): %d readers have nothing to do",
            *(shards, readers, info.world_size, info.num_workers, readers - shards),
        )


__all__ = ["DataPipeline", "PipelineStage", "add_length_method"]
