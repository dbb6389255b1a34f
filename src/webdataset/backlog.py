"""Streams that are written and not there yet: closed in the background, a few at a time, and reported in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from .errors import DataError, OpenError
from .storage.upload import GRACE, Upload


class Backlog:
    """What is on its way, oldest first. It is true while there is something."""

    def __init__(self) -> None:
        self._closing: deque[_Closing] = deque()

    def __bool__(self) -> bool:
        return bool(self._closing)

    def add(self, name: str, stream: Upload, note: Any, then: Callable[[], None] | None = None) -> None:
        """Close a stream in the background, and do there what is to follow."""
        closing = _Closing(name, stream, note, then)
        self._closing.append(closing)
        closing.start()

    def arrived(self, most: int | None = None) -> Iterator[Any]:
        """The notes of streams that were closed well, in order.

        Args:
            most: wait until no more than so many are on their way; None: do not wait.

        Raises:
            OpenError: the next one was not; its name is in the error.
        """
        while self._closing:
            first = self._closing[0]
            if first.is_alive():
                if most is None or len(self._closing) <= most:
                    return
                first.join()
            self._closing.popleft()
            if first.failure is not None:
                raise first.failure
            yield first.note

    def abandon(self) -> None:
        """Give up all that is on its way."""
        closing, self._closing = self._closing, deque()
        for one in closing:
            one.stream.stop()
        for one in closing:
            one.stream.abort()
        for one in closing:
            one.join(GRACE)


class _Closing(threading.Thread):
    """The thread that closes one stream, and does what is to follow.

    Attributes:
        failure: why that failed.
    """

    def __init__(self, name: str, stream: Upload, note: Any, then: Callable[[], None] | None) -> None:
        super().__init__(name="webdataset upload", daemon=True)
        self.url, self.stream, self.note, self.then = name, stream, note, then
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            self.stream.close()
            if self.then is not None:
                self.then()
        except DataError as exn:
            self.failure = exn.locate(url=self.url)
        except BaseException as exn:
            self.failure = OpenError(f"not written: {type(exn).__name__}: {exn}", url=self.url)
            self.failure.__cause__ = exn
