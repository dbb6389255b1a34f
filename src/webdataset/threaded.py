"""`ThreadedLoader`: a pipeline whose reading and whose work on single samples is done by threads.

The stages of the data set stay in their order; those that can run in threads are put together, and the others see the
whole stream as they do without threads: one shuffle buffer, full batches, exact slices.

    list of shards, splitting  |  opening, expanding, grouping, decoding, ...  |  shuffle  |  map, ...  |  batched
         in turn               |  num_threads, each with shards of its own     |  in turn  |  num_threads  |  in turn

Rules for an editor: a stage runs in threads only if it makes something of each sample by itself, and nothing
of it later (`EACH`), or reads shards. Threads share the stage objects, never an iterator without a lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from itertools import takewhile
from typing import Any, Self
from weakref import WeakSet

from . import filters
from ._arguments import check_count, check_flag, check_number, explained, shown
from ._closing import closing_source
from ._empty import CheckEmpty
from ._stage import PipelineStage
from .cache import cached_tarfile_samples
from .cborsiterators import cbors2_samples, cbors_samples
from .crew import Crew, Shared
from .fluid import FluidInterface
from .linking import EACH, READING, fuse_stages, is_each, linked
from .msgpackiterators import msgpack_samples
from .pipeline import DataPipeline
from .tariterators import tarfile_samples, url_opener

FROM_URLS = (url_opener, tarfile_samples, cached_tarfile_samples, cbors_samples, cbors2_samples, msgpack_samples)
"""Stages with which reading begins; before others that read stands an opener."""

BEHIND_URLS = (*READING, filters._require_fields)
"""Stages that may go on with it."""


class InThreads(PipelineStage):
    """Stages of a pipeline that run in threads, together, as one stage.

    Attributes:
        reading: stages from shards to samples; none: samples come in.
        check: the stage behind them that tells of a data set without a sample, if there is one.
        each: stages for single samples.
    """

    def __init__(self, reading: list[Any], check: list[CheckEmpty], each: list[Any], options: dict[str, Any]) -> None:
        """`options` are those of a Crew."""
        self.reading = reading
        self.check = check
        self.each = each
        self._options = options
        self._handlers: list[list[Any]] = [[] for _ in (*reading, *each)]
        self._running: WeakSet[Crew] = WeakSet()

    @property
    def kept_back(self) -> int:
        """Samples that may have been drawn, or be drawn at the moment, and not yet asked for."""
        return int(self._options["ahead"] + 2 * self._options["num_threads"])

    @property
    def inner_stages(self) -> list[Any]:
        """The stages, in their order."""
        return [*self.reading, *self.check, *self.each]

    def bind_policies(self, bind: Callable[[Any], tuple[Any, list[Any]]]) -> Self:
        """The same, each stage with the handlers of one pass."""
        bound = copy(self)
        bound._running = self._running
        bound.reading = fuse_stages(self.reading)
        pairs = [bind(stage) for stage in (*bound.reading, *self.each)]
        bound._handlers = [handlers for _, handlers in pairs]
        stages = [stage for stage, _ in pairs]
        bound.reading, bound.each = stages[: len(bound.reading)], stages[len(bound.reading) :]
        return bound

    def run(self, data: Any, /) -> Iterator[Any]:
        """What becomes of the stream."""
        feed = Shared(iter(data))
        seen: list[bool] = []
        if self.reading:
            chains = 1 if self._options["ordered"] else self._options["num_threads"]
            sources = [Shared(self._samples(feed, seen)) for _ in range(chains)]
        else:
            sources = [feed]
        crew = Crew(sources, feed, self._work, **self._options)
        self._running.add(crew)
        with closing_source(results := crew.results()):
            yield from results
            for check in self.check if not seen else ():
                yield from check(())

    def _samples(self, feed: Shared, seen: list[bool]) -> Iterator[Any]:
        """The samples of the shards that one thread draws."""
        data: Any = feed
        for stage, handlers in zip(self.reading, self._handlers, strict=False):
            data = linked(_run, stage, handlers, data)
        data = iter(data)
        with closing_source(data):
            for sample in data:
                seen.append(True)
                yield sample
                break
            yield from data

    def _work(self, samples: Iterator[Any]) -> Iterator[Any]:
        for stage, handlers in zip(self.each, self._handlers[len(self.reading) :], strict=True):
            samples = linked(_run, stage, handlers, samples)
        return samples

    def close(self) -> None:
        """End the threads of all passes."""
        for crew in list(self._running):
            crew.close()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_running"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _running=WeakSet())

    def __repr__(self) -> str:
        return f"<in {self._options['num_threads']} threads {self.inner_stages}>"


class ThreadedLoader(DataPipeline, FluidInterface):
    """The samples of a data set, as they come from threads; with `num_threads=0`, as they come without.

    Threads read shards and do what the data set does with single samples (`decode`, `map`, `select`, `to_tuple`, ...).
    Each takes the next shard when it has done with one, and when there are no more, samples of the shards that others
    are still reading; so every sample comes once, and a slow shard or thread holds nobody up. All other stages
    (`shuffle`, `batched`, `slice`, your own) see the one stream that the threads make. Those that lie between two that
    run in threads divide them: each such stretch has `num_threads` threads.

    It has the methods of a data set; stages that they add are not run in threads. Errors come as without threads, with
    their place, behind the samples that were ready. Leaving an iteration, `close` and the end of the program end the
    threads.

    Args:
        dataset: a `WebDataset` or another `DataPipeline`; the loader counts epochs with it.
        num_threads: how many; 0: none, everything runs where the samples are asked for, which is the way to debug.
        ordered: the samples come in the order that they have without threads. One shard is read at a time then.
        ahead: samples that may be read or ready and not yet asked for, in each stretch.
        max_bytes: bytes of finished samples that may wait in each stretch; one more for each thread may come.

    Raises:
        TypeError, ValueError: an argument is not what it must be.
    """

    @explained("ThreadedLoader")
    def __init__(
        self,
        dataset: DataPipeline,
        num_threads: int = 4,
        *,
        ordered: bool = False,
        ahead: int = 100,
        max_bytes: float | None = None,
    ) -> None:
        if not isinstance(dataset, DataPipeline):
            raise TypeError(
                f"ThreadedLoader: dataset must be a WebDataset or another DataPipeline, got {shown(dataset)};"
                " FluidWrapper(source).map(f) makes one of anything that can be iterated over"
            )
        for name in ("__iter__", "iterator", "iterator1"):
            if not getattr(type(dataset), name).__module__.startswith("webdataset."):
                raise TypeError(
                    f"ThreadedLoader: {type(dataset).__name__} has an {name} of its own, which threads would pass by;"
                    " FluidWrapper(dataset) keeps it, and stages that follow run in threads"
                )
        check_count("ThreadedLoader", "num_threads", num_threads, 0, "threads")
        check_flag("ThreadedLoader", "ordered", ordered)
        check_count("ThreadedLoader", "ahead", ahead, 1, "samples")
        check_number("ThreadedLoader", "max_bytes", max_bytes, "bytes", more_than=0, optional=True)
        super().__init__()
        self.repetitions, self.nsamples, self.size = dataset.repetitions, dataset.nsamples, dataset.size
        self._epochs = dataset._epochs
        options = {"num_threads": num_threads, "ordered": ordered, "ahead": ahead, "max_bytes": max_bytes}
        stages = [*dataset.pipeline, *dataset._last_stages()]
        self.pipeline = divided(stages, options) if num_threads else stages

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def divided(stages: list[Any], options: dict[str, Any]) -> list[Any]:
    """The same stages, those that can run in threads put together; `options` are those of a Crew."""
    begin, end = _reading(stages)
    result: list[Any] = []
    i = 0
    while i < len(stages):
        reading = stages[begin:end] if i == begin else []
        check = [stage for stage in stages[end : end + 1] if reading and isinstance(stage, CheckEmpty)]
        behind = i + len(reading) + len(check)
        each = list(takewhile(is_each, stages[behind:])) if i else []
        if reading or each:
            result.append(InThreads(reading, check, each, options))
            i = behind + len(each)
        else:
            result.append(stages[i])
            i += 1
    return result


def _reading(stages: list[Any]) -> tuple[int, int]:
    """Where the stages from shards to samples begin and end; (-1, -1) where there are none behind the source."""
    for i, stage in enumerate(stages):
        if any(_f(stage) is one for one in (*READING, *FROM_URLS)):
            begin = i if any(_f(stage) is one for one in FROM_URLS) else i - 1  # before an expander stands an opener
            reading = takewhile(lambda stage: any(_f(stage) is one for one in BEHIND_URLS), stages[i + 1 :])
            return (begin, i + 1 + len(list(reading))) if begin > 0 else (-1, -1)
    return -1, -1


def _f(stage: Any) -> Any:
    return getattr(stage, "f", stage)


def _run(stage: Any, data: Any) -> Iterator[Any]:
    return stage.run(data) if isinstance(stage, PipelineStage) else stage(data)


__all__ = ["EACH", "InThreads", "ThreadedLoader"]
