"""Which epoch is this? One count for a data set in all the processes that iterate over it.

DataLoader workers are copies, made anew for each epoch unless they are persistent: a count in the
object would begin again and again. So the count lies in memory that parent and workers share, fork
or spawn. Workers of one pass must agree without waiting for each other: torch gives all of them
the same base seed, and each worker has its slot, an integer of (number of the pass, tag of the
pass). A worker that finds the tag of its pass takes that number; if none of its siblings was there
before it, the pass is the one after the last. Written without a lock: of siblings that come at the
same time, each computes the same number. In a second row of slots, workers note the tag of a pass
that gave them nothing.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from .order.seeds import mix_seed

_SLOTS = 1024
_TAG_BITS = 40
_TAG_MASK = (1 << _TAG_BITS) - 1


class EpochCounter:
    """Counts the passes over one data set, from 0; `share` makes the count common to all processes."""

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
            from multiprocessing.sharedctypes import RawArray

            self._shared = RawArray("q", 2 + 2 * _SLOTS)
        except (ImportError, OSError):  # no shared memory here (a sandbox without /dev/shm and temporary folder)
            return
        self._shared[0] = self._first
        self._write(self._passes)

    def set(self, epoch: int) -> None:
        """The next pass, in whatever process, is this epoch."""
        self._first, self._passes = epoch, 0
        if self._shared is not None:
            self._shared[1] += 1
            self._shared[2:] = [0] * (2 * _SLOTS)
            self._shared[0] = epoch

    def peek(self) -> int:
        """The epoch that the next pass is going to be."""
        if self._shared is None:
            return self._first + self._passes
        return int(self._shared[0]) + max(self._slots()) // (1 << _TAG_BITS)

    def next(self) -> int:
        """Begin a pass: its epoch."""
        passes, self._passes = self._passes, self._passes + 1
        if self._shared is None:
            return self._first + passes
        tag = self._running = self._tag(passes)
        slots = self._slots()
        begun = [slot >> _TAG_BITS for slot in slots if slot & _TAG_MASK == tag]
        number = begun[0] if begun else (max(slots) >> _TAG_BITS) + 1
        self._shared[2 + self._slot()] = number << _TAG_BITS | tag
        return int(self._shared[0]) + number - 1

    def all_ended_empty(self) -> bool:
        """Note that the running pass gave nothing here; whether all workers of the loader said so (False: unknown)."""
        info = _worker_info()
        if self._shared is None or info is None or info.num_workers >= _SLOTS:
            return False
        begin = 2 + _SLOTS
        self._shared[begin + self._slot()] = self._running
        return all(tag == self._running for tag in self._shared[begin + 1 : begin + 1 + info.num_workers])

    def _write(self, number: int) -> None:
        if number:
            self._shared[2 + self._slot()] = number << _TAG_BITS

    def _slots(self) -> list[int]:
        return list(self._shared[2 : 2 + _SLOTS])

    def _slot(self) -> int:
        info = _worker_info()
        return 0 if info is None else (1 + info.id) % _SLOTS

    def _tag(self, passes: int) -> int:
        """What all workers of this pass, and no other pass, have in common; never 0."""
        info = _worker_info()
        if info is None:
            whose = os.getpid() if "WORKER" not in os.environ else os.getppid()
        else:
            whose = info.seed - info.id
        return mix_seed(whose, passes + 1, int(self._shared[1]) + 1) & _TAG_MASK or 1

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        context = sys.modules.get("multiprocessing.context")
        if context is None or context.get_spawning_popen() is None:  # a copy, not a worker that is being started
            state.update(_first=self.peek(), _passes=0, _shared=None)
        return state


def _worker_info() -> Any:
    data = sys.modules.get("torch.utils.data")
    return None if data is None else data.get_worker_info()
