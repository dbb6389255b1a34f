"""Shards and how they are opened, as the classic 0.1 API takes them: names, a share for each worker, an opener.

No shard is divided among nodes here: programs of that time do it themselves, by what they pass as `urls`, or in a
function that they pass as `prepare_for_worker`.
"""

from __future__ import annotations

import io
import logging
import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

from ._arguments import shown
from ._closing import close_stream
from ._empty import CheckEmpty
from ._types import Handler
from .errors import EmptyDatasetError, OpenError, public_url
from .gopen import reader
from .io import command_pipe
from .openers import StreamingOpen, open_each
from .order.seeds import epoch_random
from .shardpatterns import Urls, expand_urls
from .workers import reader_info, resolve_seed

logger = logging.getLogger(__name__)

Opener = Callable[[str], Any]


class ClassicShards:
    """The shards of a pattern or list, as `{"url": str}`, `epochs` times in a pass.

    Attributes:
        full_urls: all shards.
        urls: those that this reader reads; set before each pass by `prepare`.
        subset: (index, total) for each total-th shard, beginning with the index-th; None: the share of the worker.
        epochs: passes over the shards in one.
        shuffle: whether each epoch has an order of its own: that of WDS_SEED or 0.
        prepare: called before each pass.
    """

    def __init__(self, urls: Urls, epochs: int, shuffle: bool, prepare: Callable[[], Any]) -> None:
        self.full_urls = expand_urls(urls)
        if not any(self.full_urls):
            raise EmptyDatasetError(f"no shards: {shown(urls)} names none")
        self.urls = self.full_urls
        self.subset: tuple[int, int] | None = None
        self.epochs = epochs
        self.shuffle = shuffle
        self.prepare = prepare
        self._epoch = 0
        self._told = 0  # number of workers that were said to be too many

    @property
    def splits_readers(self) -> bool:
        """Whether readers get different shards."""
        return self.prepare is not all_shards

    @property
    def random_stages(self) -> int:
        """1 if the shards are shuffled."""
        return int(self.shuffle)

    def select(self) -> None:
        """Set `urls` to the share of the subset, or else of the DataLoader worker."""
        index, total = self.share
        self.urls = self.full_urls[index::total]
        if index == 0 and total > max(len(self.full_urls), self._told):
            self._told = total
            logger.warning("%d shards for %d workers: some have nothing to do", len(self.full_urls), total)

    @property
    def share(self) -> tuple[int, int]:
        """(index, total) of this reader."""
        if self.subset is None:
            info = reader_info()
            return info.worker, info.num_workers
        try:
            index, total = map(operator.index, self.subset)
        except (TypeError, ValueError):
            index = total = 0
        if not 0 <= index < total:
            raise ValueError(f"subset must be (index, total), the index below the total, got {shown(self.subset)}")
        return index, total

    @property
    def chosen(self) -> tuple[int, int] | None:
        """The share, where it is less than all shards or the program has chosen it."""
        return self.share if self.subset is not None or (self.splits_readers and self.share[1] > 1) else None

    def start(self, epoch: int, reader: int) -> None:
        """The next pass is this one, counted from 0."""
        self._epoch = epoch
        self.prepare()

    def __iter__(self) -> Iterator[dict[str, str]]:
        for epoch in range(self._epoch * self.epochs, (self._epoch + 1) * self.epochs):
            urls = list(self.urls)
            if self.shuffle:
                epoch_random(resolve_seed(None), epoch).shuffle(urls)
            yield from ({"url": url} for url in urls)


def all_shards() -> None:
    """What stands for `shard_selection` where every worker reads all shards."""


class CheckRead(CheckEmpty):
    """EmptyDatasetError where shards hold no sample at all; a reader that was given no shards is none."""

    def __init__(self, shards: ClassicShards) -> None:
        super().__init__(public_url(shards.full_urls[0]))
        self.shards = shards

    def __call__(self, data: Iterable[Any]) -> Iterator[Any]:
        return super().__call__(data) if self.shards.urls and self.shards.epochs else iter(data)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "shards": self.shards}


def opener_of(where: str, opener: Opener | str) -> Opener:
    """The function from url to stream; a text is a command, as `io.command_pipe` says."""
    if isinstance(opener, str):
        return command_pipe(opener)
    if not callable(opener):
        raise TypeError(f"{where}: opener must be a function from url to stream or a command, got {shown(opener)}")
    return opener


def opening_stage(opener: Opener, verbose: bool, handler: Handler) -> StreamingOpen:
    """The stage that opens shards with this function."""
    return StreamingOpen(verbose, handler) if opener is reader else _OpenWith(opener, verbose, handler)


class _OpenWith(StreamingOpen):
    """StreamingOpen with another opener, which may also give a context manager around the stream."""

    def __init__(self, opener: Opener, verbose: bool, handler: Handler) -> None:
        super().__init__(verbose, handler)
        self.opener = opener

    def __call__(self, urls: Iterable[Any]) -> Iterator[dict[str, Any]]:
        return open_each(urls, self._open, self.handler)

    def _open(self, url: str) -> dict[str, Any]:
        if self.verbose:
            logger.info("opening %s", public_url(url))
        opened = stream = self.opener(url)
        if not hasattr(stream, "read") and hasattr(stream, "__enter__"):
            opened = _Entered(stream)
            stream = opened.stream
        if hasattr(stream, "read") and not isinstance(stream, io.TextIOBase):
            return {"stream": opened}
        close_stream(opened)
        if hasattr(stream, "read"):
            raise OpenError('the opener gave a stream of text: let it open the shard with "rb"', url=url)
        raise OpenError(f"the opener must give a binary stream, got {shown(stream)}", url=url)


class _Entered:
    """The stream inside a context manager, which is left, once, when the stream is closed."""

    def __init__(self, manager: Any) -> None:
        self._left = ExitStack()
        self.stream = self._left.enter_context(manager)
        self.read = getattr(self.stream, "read", None)

    def close(self) -> None:
        self._left.close()
