"""Shard urls -> open shards, in order, the next remote ones opened by threads while this one is read.

A request that is under way while the shard before is read costs no waiting. It begins slowly: while the first shard
is read none is opened ahead, then one, then two, up to `connections`; and none while the sizes of those that wait make
more than `ahead` bytes.

Rules: behind a shard that may not be opened early no url is taken ahead: a list may mean something by being asked.
Urls are taken from their source in the caller's thread. An error of opening comes when its shard's turn comes.
What is not wanted any more is closed, by the thread that opens it if that is still at it.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ._closing import close_stream
from .storage.options import StorageOptions

Opener = Callable[[str], dict[str, Any]]
"""Called with a url; gives what is known of the open shard: `stream`, and `local_path` where there is a file."""


def opened_in_order(
    sources: Iterable[dict[str, Any]], opener: Opener, early: Callable[[str], bool] | None, options: StorageOptions
) -> Iterator[tuple[dict[str, Any], Opening]]:
    """Each source with its opening, whose `result` is to be asked for.

    Args:
        early: whether a url may be opened before its turn; None: never.
        options: at most `connections` shards wait, and no further one is opened while they announce `ahead` bytes.
    """
    waiting: deque[tuple[dict[str, Any], Opening]] = deque()
    rest = iter(sources)
    taken = 0
    failure: Exception | None = None  # of the source: comes when what it gave before is read
    try:
        while True:
            if not waiting:
                if failure is not None:
                    raise failure
                source = next(rest, None)
                if source is None:
                    return
                waiting.append((source, Opening(opener, source["url"], early=False)))
            source, opening = waiting.popleft()
            may = early is not None and failure is None and early(source["url"])
            while may and len(waiting) < min(taken, options.connections) and _announced(waiting) < options.ahead:
                try:
                    following = next(rest, None)
                except Exception as exn:
                    failure = exn
                    break
                if following is None:
                    break
                may = early is not None and early(following["url"])
                waiting.append((following, Opening(opener, following["url"], may)))
            yield source, opening
            taken += 1
    finally:
        for _, opening in waiting:
            opening.abandon()


def _announced(waiting: Iterable[tuple[dict[str, Any], Opening]]) -> int:
    return sum(opening.size() for _, opening in waiting)


class Opening:
    """A shard that is being opened, or will be when it is asked for."""

    def __init__(self, opener: Opener, url: str, early: bool) -> None:
        self._opener, self._url = opener, url
        self._found: dict[str, Any] | None = None
        self._error: Exception | None = None
        self._abandoned = False
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        if early:
            self._thread = threading.Thread(target=self._open, name="webdataset open", daemon=True)
            self._thread.start()

    def result(self) -> dict[str, Any]:
        """What the opener gave, or its error; in a process forked since then, the shard is opened anew."""
        if self._thread is None or self._process != os.getpid():
            return self._opener(self._url)
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._found is not None
        return self._found

    def size(self) -> int:
        """Bytes that the open shard announces, 1 as long as nobody knows."""
        stream = None if self._found is None else self._found.get("stream")
        return getattr(stream, "length", None) or 1

    def abandon(self) -> None:
        """The shard is not wanted."""
        if self._process != os.getpid():
            return
        with self._lock:
            self._abandoned = True
        self._close_unwanted()

    def _open(self) -> None:
        try:
            found = self._opener(self._url)
        except Exception as exn:
            self._error = exn
            return
        with self._lock:
            self._found = found
        self._close_unwanted()

    def _close_unwanted(self) -> None:
        with self._lock:
            found = self._found if self._abandoned else None
        if found is not None:
            close_stream(found["stream"])
