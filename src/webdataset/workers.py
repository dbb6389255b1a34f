"""Who am I: rank, world size, worker; and the seed that the program or the environment gives.

A reader is one worker process of one rank. Explicit environment variables win over torch, and torch
is asked only when the program has imported it.
"""

from __future__ import annotations

import logging
import operator
import os
import sys
from typing import Any, NamedTuple

from ._environment import number_of

logger = logging.getLogger(__name__)


class ReaderInfo(NamedTuple):
    """Position of this process among all readers; all four count from 0 or are at least 1."""

    rank: int
    world_size: int
    worker: int
    num_workers: int

    @property
    def reader(self) -> int:
        """Number of this reader, from 0 to `readers`, exclusive."""
        return self.rank * self.num_workers + self.worker

    @property
    def readers(self) -> int:
        """How many readers there are in all."""
        return self.world_size * self.num_workers


def _environment_pair(index_name: str, count_name: str) -> tuple[int, int] | None:
    index, count = os.environ.get(index_name), os.environ.get(count_name)
    if index is None or count is None:
        return None
    try:
        pair = int(index), int(count)
    except ValueError:
        raise ValueError(f"{index_name}={index!r} and {count_name}={count!r} must be integers") from None
    if not 0 <= pair[0] < pair[1]:
        raise ValueError(f"{index_name}={index} must be at least 0 and less than {count_name}={count}")
    return pair


def reader_info(group: Any = None) -> ReaderInfo:
    """Rank and worker of this process.

    RANK and WORLD_SIZE win, then torch.distributed when it is initialised (`group` is its process
    group), then 0 of 1. WORKER and NUM_WORKERS win, then torch's DataLoader worker, then 0 of 1.
    """
    nodes = _environment_pair("RANK", "WORLD_SIZE")
    distributed = sys.modules.get("torch.distributed")
    if nodes is None and distributed is not None and distributed.is_available() and distributed.is_initialized():
        nodes = distributed.get_rank(group=group), distributed.get_world_size(group=group)
    workers = _environment_pair("WORKER", "NUM_WORKERS")
    torch_data = sys.modules.get("torch.utils.data")
    if workers is None and torch_data is not None:
        info = torch_data.get_worker_info()
        if info is not None:
            workers = info.id, info.num_workers
    return ReaderInfo(*(nodes or (0, 1)), *(workers or (0, 1)))


def resolve_seed(seed: Any) -> int:
    """The seed as an integer: None means WDS_SEED or 0, "random" draws one and logs it."""
    if seed is None:
        return number_of("WDS_SEED", 0)
    if seed == "random":
        drawn = int.from_bytes(os.urandom(6), "little")
        logger.warning('seed="random" drew %d; pass seed=%d to repeat this order', drawn, drawn)
        return drawn
    try:
        return int(seed) if isinstance(seed, float) else operator.index(seed)  # floats such as time.time()
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f'seed must be an integer, None or "random", got {seed!r}') from None
