"""Which epoch is this? One count for a data set in all the processes that iterate over it.

DataLoader workers are copies, made anew for each epoch unless they are persistent: a count in the
object would begin again and again. So the count lies in memory that parent and workers share, fork
or spawn: in a row of an array, of which there is one for many data sets, because each costs an open
file. Workers of one pass must agree without waiting for each other: torch gives all of them
the same base seed, and that with the number of the pass in this process is its tag. A table holds
(number of the pass, tag), a slot found by the tag. A worker that finds the tag of its pass takes
that number; if none of its siblings was there before it, the pass is the one after the last. There
is no lock: the entry is written before the number of the last pass, and that is read before the
entry, so siblings that come at the same time compute the same number and write the same entry. In
a second table, workers note the tag of a pass that gave them nothing.
"""

from __future__ import annotations

import os
import sys
from typing import Any, ClassVar, Self
from weakref import WeakSet

from .order.seeds import mix_seed
from .workers import reader_info

_SLOTS = 512
_FIRST, _GENERATION, _LAST, _TABLE = range(4)  # in the shared array; the table of empty passes follows
_SIZE = _TABLE + 2 * _SLOTS
_ROWS = 64
_TAG_BITS = 40
_TAG_MASK = (1 << _TAG_BITS) - 1

run = 0
"""In a worker of a MultiLoader: what the workers of one pass have in common, and no other pass."""


class EpochCounter:
    """Counts the passes over one data set, from 0; `share` makes the count common to all processes."""

    def __new__(cls) -> Self:
        """Known to `share_all`, also as a copy."""
        counter = super().__new__(cls)
        _all.add(counter)
        return counter

    def __init__(self) -> None:
        self._first = 0
        self._passes = 0
        self._shared: Any = None
        self._running = 0  # tag of the pass that this process is in

    def share(self) -> None:
        """Put the count into shared memory; where there is none, every process counts for itself."""
        if self._shared is not None or _worker_info() is not None:
            return
        try:
            self._shared = _SharedRow.take()
        except (ImportError, OSError):  # no shared memory here (a sandbox without /dev/shm and temporary folder)
            return
        self._shared[_FIRST] = self._first
        self._shared[_LAST] = self._passes

    def set(self, epoch: int) -> None:
        """The next pass, in whatever process, is this epoch."""
        self._first, self._passes = epoch, 0
        if self._shared is not None:
            self._shared[_GENERATION] += 1
            self._shared.clear(_LAST)
            self._shared[_FIRST] = epoch

    def peek(self) -> int:
        """The epoch that the next pass is going to be."""
        if self._shared is None:
            return self._first + self._passes
        return int(self._shared[_FIRST] + self._shared[_LAST])

    def next(self) -> int:
        """Begin a pass: its epoch."""
        passes, self._passes = self._passes, self._passes + 1
        if self._shared is None:
            return self._first + passes
        tag = self._running = self._tag(passes)
        slot = _TABLE + tag % _SLOTS
        last = self._shared[_LAST]
        number, found = divmod(self._shared[slot], 1 << _TAG_BITS)
        if found != tag:
            number = last + 1
            self._shared[slot] = number << _TAG_BITS | tag
            self._shared[_LAST] = max(number, self._shared[_LAST])
        return int(self._shared[_FIRST] + number - 1)

    def all_ended_empty(self) -> bool:
        """Note that the running pass gave nothing here; whether all workers of the loader said so (False: unknown)."""
        info = _worker_info()
        worker, num_workers = reader_info()[2:] if run or info is None else (info.id, info.num_workers)
        if self._shared is None or (info is None and not run) or num_workers > _SLOTS:
            return False
        begin = _TABLE + _SLOTS
        self._shared[begin + worker] = self._running
        return all(self._shared[begin + number] == self._running for number in range(num_workers))

    def _tag(self, passes: int) -> int:
        """What all workers of this pass, and no other pass, have in common; never 0."""
        info = _worker_info()
        if run:
            whose = run
        elif info is None:
            whose = os.getpid() if "WORKER" not in os.environ else os.getppid()
        else:
            whose = info.seed - info.id
        return mix_seed(whose, passes + 1, int(self._shared[_GENERATION]) + 1) & _TAG_MASK or 1

    def __getstate__(self) -> dict[str, Any]:
        context = sys.modules.get("multiprocessing.context")
        if context is None or context.get_spawning_popen() is None:  # a copy, not a worker that is being started
            return {**self.__dict__, "_first": self.peek(), "_passes": 0, "_shared": None}
        return dict(self.__dict__)


_all: WeakSet[EpochCounter] = WeakSet()


def share_all() -> None:
    """Share the counts of all data sets of this process: those that are inside of other objects cannot be found."""
    for counter in list(_all):
        counter.share()


class _SharedRow:
    """A row of 64-bit integers in an array of multiprocessing, given back when this object goes."""

    free: ClassVar[list[tuple[Any, int]]] = []
    process: ClassVar[int] = 0

    def __init__(self, array: Any, begin: int) -> None:
        self.array = array
        self.begin = begin
        self.owner = os.getpid()

    @classmethod
    def take(cls) -> _SharedRow:
        """A row of zeros that nobody uses."""
        if cls.process != os.getpid():
            cls.process, cls.free = os.getpid(), []  # the rows that a fork inherits belong to its parent
        if not cls.free:
            from multiprocessing.sharedctypes import RawArray

            array = RawArray("q", _ROWS * _SIZE)
            cls.free += [(array, row * _SIZE) for row in range(_ROWS)]
        row = cls(*cls.free.pop())
        row.clear()
        return row

    def clear(self, begin: int = 0) -> None:
        """Zeros from this place on."""
        self.array[self.begin + begin : self.begin + _SIZE] = [0] * (_SIZE - begin)

    def __getitem__(self, place: int) -> int:
        return int(self.array[self.begin + place])

    def __setitem__(self, place: int, value: int) -> None:
        self.array[self.begin + place] = value

    def __del__(self) -> None:
        if self.owner == os.getpid():
            type(self).free.append((self.array, self.begin))

    def __reduce__(self) -> tuple[Any, ...]:
        return (_attached_row, (self.array, self.begin))


def _attached_row(array: Any, begin: int) -> _SharedRow:
    row = _SharedRow(array, begin)
    row.owner = 0  # it belongs to the process that spawned this one
    return row


def _worker_info() -> Any:
    data = sys.modules.get("torch.utils.data")
    return None if data is None else data.get_worker_info()
