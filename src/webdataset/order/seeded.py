"""Stages that draw random numbers: (seed, epoch, reader, place) -> one generator for each pass.

Before each pass the pipeline calls `start(epoch, reader)`; `reader` is 0 as long as nothing before
the stage has split the stream, so that all readers draw the same. It also sets `place`, how many
stages that draw come before this one: those without a seed of their own must not all draw the same.
A stage that nobody starts counts its passes itself. "random" is drawn once, when the stage is made,
so that all copies of the stage, in whatever process, agree.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .._arguments import shown
from .._stage import FilterFunction
from ..workers import resolve_seed
from .seeds import epoch_random


class SeededStage(FilterFunction):
    """A stage function with parameters `seed` and `rng`, called with a fresh `rng` in each pass.

    Attributes:
        place: how many stages that draw come before this one; it counts where no seed is given.
    """

    random_stages = 1

    def _set(self, f: Callable[..., Iterator[Any]], args: tuple[Any, ...], kw: dict[str, Any]) -> None:
        super()._set(f, args, kw)
        given = self._arguments(())
        if given.get("seed") is not None and given.get("rng") is not None:
            raise ValueError(f"{f.__name__.lstrip('_')}: give seed or rng, not both")
        if given.get("seed") == "random":
            data = next(iter(given))
            self.args, self.kw = (), {**given, "seed": resolve_seed("random")}
            del self.kw[data]
        self._epoch = 0
        self._reader = 0
        self.place = 0

    def start(self, epoch: int, reader: int) -> None:
        """The next pass is this epoch, counted from 0, of this reader."""
        self._epoch, self._reader = epoch, reader

    def __call__(self, data: Iterable[Any]) -> Iterator[Any]:
        arguments = self._arguments(data)
        epoch, self._epoch = self._epoch, self._epoch + 1
        if arguments.get("rng") is None:
            seed = arguments.pop("seed", None)
            place = self.place if seed is None else 0
            arguments["rng"] = epoch_random(resolve_seed(seed), epoch, self._reader, place)
        return self.f(**arguments)

    def _arguments(self, data: Any) -> dict[str, Any]:
        bound = inspect.signature(self.f).bind(data, *self.args, **self.kw)
        return bound.arguments


def random_stages_in(stage: Any) -> int:
    """How many stages that draw random numbers this one is, or holds; a loader holds those of its data set."""
    count = getattr(getattr(stage, "dataset", stage), "random_stages", 0)
    return count if type(count) is int else 0


class EpochAttribute:
    """An object whose attribute `epoch` is the epoch of the running pass, -1 before the first.

    A program may set `epoch`; then its numbers count on from there, also with a pipeline that calls `start`.
    """

    random_stages = 1

    def __init__(self, epoch: int = -1) -> None:
        self.epoch = self._left = self._first = epoch

    def start(self, epoch: int, reader: int) -> None:
        """The next pass is this epoch, counted from 0; all readers count alike."""
        if self.epoch != self._left:
            self._first = self.epoch - epoch
        self.epoch = self._left = self._first + epoch

    def _next_epoch(self) -> int:
        self.epoch += 1
        self._left = self.epoch
        return self.epoch


def seeded_random(seed: int | str | None, rng: Any = None) -> Any:
    """`rng` itself, or the generator of epoch 0 and reader 0 for this seed; ValueError for both."""
    if rng is None:
        return epoch_random(resolve_seed(seed))
    if seed is not None:
        raise ValueError("give seed or rng, not both")
    if not (hasattr(rng, "random") or hasattr(rng, "randint")):
        raise TypeError(f"rng must be a generator, such as random.Random(7), or None, got {shown(rng)}")
    return rng
