"""What every stage keeps to, as checks that the tests of all stages run.

`@stage_contract(CASES)` parametrises a test with each case and each check; the test calls
`check(case)`.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest


@dataclass
class StageCase:
    """A stage and samples that it takes; `failing` is a sample that it cannot take."""

    make: Callable[..., Any]
    samples: list[Any]
    failing: list[Any] = field(default_factory=list)
    buffers: int = 2


class Source:
    """A generator over samples that counts what was taken and sees when it is closed."""

    def __init__(self, samples: Iterable[Any]) -> None:
        self.taken = 0
        self.closed = False
        self.stream = self._generate(samples)

    def _generate(self, samples: Iterable[Any]) -> Iterator[Any]:
        try:
            for sample in samples:
                self.taken += 1
                yield sample
        finally:
            self.closed = True


class OnlyIterable:
    """Has `__iter__` and nothing else."""

    def __init__(self, samples: list[Any]) -> None:
        self.samples = samples

    def __iter__(self) -> Iterator[Any]:
        return iter(self.samples)


def run(stage: Any, data: Iterable[Any]) -> Iterator[Any]:
    """One pass, as the pipeline does it."""
    return stage.run(data) if hasattr(stage, "run") else stage(data)


def same(left: Any, right: Any) -> bool:
    """Equal values and types, arrays by content."""
    if type(left) is not type(right):
        return False
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[name], right[name]) for name in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def is_lazy(case: StageCase) -> None:
    """Nothing is read before the first item is asked for, and then only so much as the stage must hold."""
    source = Source(case.samples * 50)
    stream = run(case.make(), source.stream)
    assert source.taken == 0
    next(stream)
    assert source.taken <= case.buffers


def closes_its_source(case: StageCase) -> None:
    """Closing the stage closes the source at once, though others still hold it."""
    source = Source(case.samples * 50)
    stream = run(case.make(), source.stream)
    next(stream)
    assert not source.closed
    stream.close()
    assert source.closed


def is_picklable(case: StageCase) -> None:
    """A copy that went through pickle gives the same."""
    stage = case.make()
    twin = pickle.loads(pickle.dumps(stage))
    assert same(list(run(twin, list(case.samples))), list(run(stage, list(case.samples))))


def accepts_any_iterable(case: StageCase) -> None:
    """Lists, tuples, generators and plain iterables give the same; an empty one gives nothing."""
    expected = list(run(case.make(), list(case.samples)))
    assert expected
    for data in (tuple(case.samples), (sample for sample in case.samples), OnlyIterable(case.samples)):
        assert same(list(run(case.make(), data)), expected)
    assert list(run(case.make(), [])) == []


def repeats_itself(case: StageCase) -> None:
    """Two stages made alike give the same, epoch by epoch, counted or told."""
    counted, told = case.make(), case.make()
    for epoch in range(3):
        if hasattr(told, "start"):
            told.start(epoch, 0)
        expected = list(run(counted, list(case.samples)))
        assert same(list(run(told, list(case.samples))), expected)


def leaves_samples_alone(case: StageCase) -> None:
    """The samples that come in are the same afterwards."""
    before = copy.deepcopy(case.samples)
    list(run(case.make(), case.samples))
    assert same(case.samples, before)


def honours_its_handler(case: StageCase) -> None:
    """True skips the sample, false ends the stage quietly and closes the source, raising raises."""
    if not case.failing:
        return
    good = list(run(case.make(), case.samples))
    mixed = [*case.samples, *case.failing, *case.samples]
    seen: list[Exception] = []

    def skip(exn: Exception) -> bool:
        seen.append(exn)
        return True

    assert same(list(run(case.make(handler=skip), mixed)), good + good)
    assert len(seen) == len(case.failing)
    source = Source(mixed)
    assert same(list(run(case.make(handler=lambda exn: False), source.stream)), good)
    assert source.closed
    with pytest.raises(type(seen[0])) as info:
        list(run(case.make(), mixed))
    place = str(info.value) + "".join(getattr(info.value, "__notes__", []))
    for sample in case.failing[:1]:
        if isinstance(sample, dict):
            assert sample["__key__"] in place
            assert sample["__url__"] in place


CHECKS = (
    is_lazy,
    closes_its_source,
    is_picklable,
    accepts_any_iterable,
    repeats_itself,
    leaves_samples_alone,
    honours_its_handler,
)


def stage_contract(cases: dict[str, StageCase]) -> Any:
    """Parametrise a test with `case` and `check`."""
    return pytest.mark.parametrize(
        ("case", "check"),
        [
            pytest.param(case, check, id=f"{name}-{check.__name__}")
            for name, case in cases.items()
            for check in CHECKS
            if check is not honours_its_handler or case.failing
        ],
    )
