"""Old home of a loader with processes of its own; it is not there yet, `WebLoader` does its work."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any, NoReturn

all_pids: set[int] = set()
"""Processes that loaders have started."""

the_protocol = pickle.HIGHEST_PROTOCOL


class EOF:
    """What a worker sends after its last sample; keyword arguments become attributes."""

    def __init__(self, **kw: Any) -> None:
        self.__dict__.update(kw)


def reader(dataset: Any, sockname: str, index: int, num_workers: int) -> NoReturn:
    """Not there yet: raises NotImplementedError."""
    raise NotImplementedError("webdataset.multi.reader is not there yet in this version")


class MultiLoader:
    """Not there yet: raises NotImplementedError."""

    def __init__(
        self,
        dataset: Any,
        workers: int = 4,
        verbose: bool = False,
        nokill: bool = False,
        prefix: str | None = None,
    ) -> None:
        raise NotImplementedError(
            "webdataset.multi.MultiLoader is not there yet in this version:"
            " use webdataset.WebLoader(dataset, batch_size=None, num_workers=...), which needs torch"
        )

    def kill(self) -> None:
        """End the workers."""

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError


__all__ = ["EOF", "MultiLoader", "all_pids", "reader", "the_protocol"]
