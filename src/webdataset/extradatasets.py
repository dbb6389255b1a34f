"""Small data sets: one sample again and again; epochs and lengths of another size than the source has.

Each can be iterated over by itself. Each can also stand as a stage behind others; what comes from
there is one pass that cannot be begun again, so it is cut where asked, and not repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from . import utils
from ._arguments import a, check_count, check_items, check_number, checked
from ._closing import close_source
from ._lazy import names_of
from ._stage import PipelineStage
from ._torchdata import TorchIterable

if TYPE_CHECKING:
    from .pytorch import IterableDataset


class MockDataset(TorchIterable):
    """The same sample, the very object, `length` times: for trying out what comes behind a data set."""

    @checked("MockDataset", length=a(check_count, 0, "samples"))
    def __init__(self, sample: Any, length: int) -> None:
        self.sample = sample
        self.length = length

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.length):
            yield self.sample


class repeatedly(TorchIterable, PipelineStage):  # noqa: N801 -- the published name
    """The items of a source, pass after pass.

    Args:
        source: anything that can be iterated over several times.
        nepochs: passes over the source; None: without end.
        nbatches: items in all; None: no limit.
        length: what `len()` says; None: unknown.
    """

    @checked(
        "repeatedly",
        source=a(check_items, "a data set", optional=True),
        nepochs=a(check_number, "passes", optional=True),
        nbatches=a(check_number, "items", optional=True),
        length=a(check_number, "items", whole=True, optional=True),
    )
    def __init__(
        self, source: Any, nepochs: int | None = None, nbatches: int | None = None, length: int | None = None
    ) -> None:
        self.source = source
        self.nepochs = nepochs
        self.nbatches = nbatches
        self.length = length

    def invoke(self, source: Iterable[Any]) -> Iterator[Any]:
        """The items of this source instead."""
        return utils.repeatedly(source, nepochs=self.nepochs, nbatches=self.nbatches)

    def __iter__(self) -> Iterator[Any]:
        return self.invoke(self.source)

    def __len__(self) -> int:
        return _known(self, self.length)


class with_epoch(TorchIterable, PipelineStage):  # noqa: N801 -- the published name
    """Epochs of `length` items, whatever the source has: each goes on where the one before ended.

    The method `with_epoch` of a pipeline begins each epoch with a new pass; this does not.
    """

    @checked("with_epoch", length=a(check_count, 0, "items"))
    def __init__(self, dataset: Any, length: int) -> None:
        self.dataset = dataset
        self.length = length
        self._running: Iterator[Any] | None = None

    def invoke(self, dataset: Iterable[Any]) -> Iterator[Any]:
        """One epoch from this source, which is passed over again when it ends."""
        return islice(utils.repeatedly(dataset), self.length)

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.length):
            if self._running is None:
                self._running = utils.repeatedly(self.dataset)
            try:
                item = next(self._running)
            except StopIteration:  # the source is empty
                self._running = None
                return
            except BaseException:
                self._running = None
                raise
            yield item

    def __len__(self) -> int:
        return self.length

    def close(self) -> None:
        """Let the source go; the next epoch begins with a new pass."""
        running, self._running = self._running, None
        close_source(running)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_running": None}


class with_length(TorchIterable, PipelineStage):  # noqa: N801 -- the published name
    """The data set, with `length` as its `len()`; nothing else changes."""

    @checked("with_length", length=a(check_number, "items", least=0, whole=True, optional=True))
    def __init__(self, dataset: Any, length: int) -> None:
        self.dataset = dataset
        self.length = length

    def invoke(self, dataset: Iterable[Any]) -> Iterator[Any]:
        """The items of this source instead."""
        return iter(dataset)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.dataset)

    def __len__(self) -> int:
        return _known(self, self.length)


def _known(dataset: Any, length: int | None) -> int:
    if length is None:
        raise TypeError(f"this {type(dataset).__name__} was given no length")
    return length


__getattr__ = names_of(__name__, IterableDataset="pytorch")


__all__ = ["IterableDataset", "MockDataset", "PipelineStage", "repeatedly", "utils", "with_epoch", "with_length"]
