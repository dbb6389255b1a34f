"""Old home (git of 2021) of who this process is among all readers; see `webdataset.workers`.

A `WorkerEnvironment` is what `split_by_node` and `split_by_worker` take in place of the process they run in.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from typing import Any

from .workers import reader_info


class WorkerEnvironment:
    """Rank and worker, each with their number."""

    def __init__(self, rank: int = 0, world_size: int = 1, worker: int = 0, nworkers: int = 1) -> None:
        self.identity = worker_id()
        self.rank = rank
        self.world_size = world_size
        self.worker = worker
        self.nworkers = nworkers

    def __repr__(self) -> str:
        numbers = f"rank={self.rank}, world_size={self.world_size}, worker={self.worker}, nworkers={self.nworkers}"
        return f"{type(self).__name__}({numbers})"


class TorchWorkerEnvironment(WorkerEnvironment):
    """That of this process; `group` is a process group of torch.distributed."""

    def __init__(self, group: Any = None) -> None:
        super().__init__(*reader_info(group))


def worker_id() -> tuple[str, int]:
    """Host and process."""
    return socket.gethostname(), os.getpid()


def get_worker_environment() -> WorkerEnvironment:
    """That of this process, with torch or without."""
    return TorchWorkerEnvironment()


def split_by_node(urls: Iterable[str], env: WorkerEnvironment | None = None) -> list[str]:
    """Every world_size-th url, beginning with the rank-th."""
    env = env or get_worker_environment()
    return list(urls)[env.rank :: env.world_size]


def split_by_worker(urls: Iterable[str], env: WorkerEnvironment | None = None) -> list[str]:
    """Every nworkers-th url, beginning with the worker-th."""
    env = env or get_worker_environment()
    return list(urls)[env.worker :: env.nworkers]


__all__ = [
    "TorchWorkerEnvironment",
    "WorkerEnvironment",
    "get_worker_environment",
    "split_by_node",
    "split_by_worker",
    "worker_id",
]
