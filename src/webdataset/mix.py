"""Several data sets -> one stream: in turn, or drawn at random.

Sources are anything that can be iterated over. The draws depend on (seed, epoch, reader).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeVar

from ._arguments import a, check_flag, check_items, check_number, checked, shown
from ._closing import close_source
from ._epochs import EpochCounter
from ._lazy import names_of
from ._torchdata import TorchIterable
from .errors import EmptyDatasetError
from .order.seeded import random_stages_in, seeded_random
from .order.seeds import epoch_random
from .workers import reader_info, resolve_seed

if TYPE_CHECKING:
    from .pytorch import IterableDataset

T = TypeVar("T")


def round_robin_shortest(*sources: Iterable[T]) -> Iterator[T]:
    """One item of each source in turn; ends where a source has no more.

    >>> list(round_robin_shortest([1, 2], [3], [4, 5, 6]))
    [1, 3, 4, 2]
    """
    return _in_turn(sources, longest=False)


def round_robin_longest(*sources: Iterable[T]) -> Iterator[T]:
    """One item of each source in turn, until all have come to their end.

    >>> list(round_robin_longest([1, 2], [3], [4, 5, 6]))
    [1, 3, 4, 2, 5, 6]
    """
    return _in_turn(sources, longest=True)


def _in_turn(sources: Iterable[Iterable[T]], longest: bool) -> Iterator[T]:
    opened = [iter(source) for source in sources]
    try:
        left = list(opened)
        i = 0
        while left:
            try:
                item = next(left[i])
            except StopIteration:
                if not longest:
                    return
                del left[i]
            else:
                yield item
                i += 1
            if i >= len(left):
                i = 0
    finally:
        for source in opened:
            close_source(source)


@checked("random_samples", sources=a(check_items, "a list of data sets"), longest=check_flag)
def random_samples(
    sources: Iterable[Iterable[T]],
    probs: Sequence[float] | None = None,
    longest: bool = False,
    *,
    seed: int | str | None = None,
    rng: Any = None,
) -> Iterator[T]:
    """Items of sources drawn at random; ends where a drawn source has no more, or with `longest` when all have none.

    Args:
        sources: what to draw from.
        probs: how likely each is, in any unit; equal ones by default; one of 0 is never drawn, also with `longest`.
        longest: a source at its end is left out, and the others go on.
        seed: None means WDS_SEED or 0, "random" draws one, and logs it.
        rng: generator to use instead of a seed; needs `random()`.

    Raises:
        ValueError: `probs` do not fit the sources.
    """
    opened = list(sources)
    weights = _checked_weights("random_samples", probs, len(opened))
    return _drawn([iter(source) for source in opened], weights, longest, seeded_random(seed, rng))


def _drawn(opened: list[Iterator[T]], weights: list[float], longest: bool, rng: Any) -> Iterator[T]:
    left = list(opened)
    try:
        while left and any(weights):
            total = sum(weights)
            bounds = list(accumulate(weight / total for weight in weights))
            bounds[-1] = 1.0  # rounding must not leave a gap
            while True:
                i = bisect_right(bounds, rng.random())
                try:
                    item = next(left[i])
                except StopIteration:
                    break
                yield item
            if not longest:
                return
            del left[i], weights[i]
    finally:
        for source in opened:
            close_source(source)


def _checked_weights(where: str, probs: Sequence[float] | None, count: int) -> list[float]:
    check_items(where, "probs", probs, "numbers, one for each data set,", optional=True)
    try:
        weights = [1.0] * count if probs is None else [float(p) for p in probs]
    except (TypeError, ValueError):
        raise TypeError(f"{where}: probs must be numbers, one for each data set, got {shown(probs)}") from None
    if len(weights) != count:
        raise ValueError(f"{where}: probs must have one entry for each of the {count} data sets, got {len(weights)}")
    if any(not 0 <= p < math.inf for p in weights) or (count and not any(weights)):
        raise ValueError(f"{where}: probs must be 0 or more and not all 0, got {probs!r}")
    return weights


class _Mixed(TorchIterable):
    """What both classes share: the data sets, and a count of passes that all their processes have in common."""

    splits_readers = True  # the data sets divide themselves; what follows draws by reader

    def __init__(self, datasets: Iterable[Any], longest: bool) -> None:
        where = type(self).__name__
        check_items(where, "datasets", datasets, "a list of data sets")
        check_flag(where, "longest", longest)
        self.datasets = list(datasets)
        for i, dataset in enumerate(self.datasets):
            check_items(where, f"datasets[{i}]", dataset, "a data set")
        if not self.datasets:
            raise EmptyDatasetError(f"{type(self).__name__}: there are no data sets to mix")
        self.longest = longest
        self._epochs = EpochCounter()

    @property
    def random_stages(self) -> int:
        """How many stages that draw random numbers the data sets have."""
        return sum(random_stages_in(dataset) for dataset in self.datasets)

    def set_epoch(self, epoch: int) -> None:
        """Make the next pass this epoch, here and in every data set that counts epochs."""
        check_number("set_epoch", "epoch", epoch, whole=True)
        self._epochs.set(epoch)
        for dataset in self.datasets:
            if callable(getattr(dataset, "set_epoch", None)):
                dataset.set_epoch(epoch)

    def _torch_looks(self) -> None:
        self._epochs.share()
        for dataset in self.datasets:
            if isinstance(dataset, TorchIterable):
                dataset._torch_looks()


class RoundRobin(_Mixed):
    """One item of each data set in turn; ends with the shortest one, or goes on with those that have more.

    Args:
        datasets: anything that can be iterated over, at least one.
        longest: go on until all have come to their end.
    """

    def __init__(self, datasets: Iterable[Any], longest: bool = False) -> None:
        super().__init__(datasets, longest)

    def __iter__(self) -> Iterator[Any]:
        return _in_turn(self.datasets, self.longest)


class RandomMix(_Mixed):
    """Items of data sets drawn at random, with other draws in each epoch and in each reader.

    Args:
        datasets: anything that can be iterated over, at least one.
        probs: how likely each is, in any unit; equal ones by default.
        longest: a data set at its end is left out, and the others go on; otherwise the first such draw ends the pass.
        seed: None means WDS_SEED or 0, "random" draws one, and logs it.
    """

    def __init__(
        self,
        datasets: Iterable[Any],
        probs: Sequence[float] | None = None,
        longest: bool = False,
        *,
        seed: int | str | None = None,
    ) -> None:
        super().__init__(datasets, longest)
        self.probs = probs
        self.seed = resolve_seed(seed) if seed is not None else None
        _checked_weights("RandomMix", probs, len(self.datasets))

    @property
    def random_stages(self) -> int:
        """Those of the data sets, and this one."""
        return super().random_stages + 1

    def __iter__(self) -> Iterator[Any]:
        weights = _checked_weights("RandomMix", self.probs, len(self.datasets))
        place = super().random_stages if self.seed is None else 0
        rng = epoch_random(resolve_seed(self.seed), self._epochs.next(), reader_info().reader, place)
        return _drawn([iter(dataset) for dataset in self.datasets], weights, self.longest, rng)


__getattr__ = names_of(__name__, IterableDataset="pytorch")


__all__ = [
    "IterableDataset",
    "RandomMix",
    "RoundRobin",
    "random_samples",
    "round_robin_longest",
    "round_robin_shortest",
]
