"""Old home of a program that measures how fast shards are read; the program is not there yet, its counter is."""

from __future__ import annotations

from typing import Any, NoReturn

from . import pipeline
from .shardlists import SimpleShardList


class TotalSize:
    """Counts what it is called with.

    Attributes:
        count: samples.
        total: bytes in their fields.
    """

    def __init__(self) -> None:
        self.count = 0
        self.total = 0

    def __call__(self, sample: Any) -> Any:
        """Count a sample and return it."""
        self.count += 1
        self.total += sum(len(value) for value in sample.values() if isinstance(value, (bytes, bytearray, str)))
        return sample


def main(args: Any) -> NoReturn:
    """Not there yet: raises NotImplementedError."""
    raise NotImplementedError("webdataset.bench is not there yet in this version")


__all__ = ["SimpleShardList", "TotalSize", "main", "pipeline"]
