"""urllib3's connections, but for two faults: an answer that breaks off within its headers is an error, and so is one
that comes too slowly.

http.client takes the headers that have come for all of them. Without its Content-Length a broken answer would look
like an empty object. Timeouts of sockets know no drip: one byte now and then would do for ever.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

_limit: ContextVar[tuple[float, float] | None] = ContextVar("lowest speed of answers", default=None)


class TooSlowError(TimeoutError):
    """Less came than must come."""


@contextlib.contextmanager
def at_least(speed: float, seconds: float) -> Iterator[None]:
    """Answers that begin in this block give so many bytes a second, measured over so many seconds of waiting."""
    token = _limit.set((speed, seconds) if speed else None)
    try:
        yield
    finally:
        _limit.reset(token)


class _Paced(io.RawIOBase):
    """The raw stream of an answer, which raises TooSlowError. The wait for the first bytes does not count."""

    def __init__(self, raw: Any, speed: float, seconds: float) -> None:
        self._raw, self._speed, self._seconds = raw, speed, seconds
        self._begun = False
        self._waited, self._came = 0.0, 0

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        number: int = self._raw.fileno()
        return number

    def readinto(self, buffer: Any, /) -> int:
        before = time.perf_counter()
        count: int = self._raw.readinto(buffer)
        if not self._begun:
            self._begun = True
            return count
        self._waited += time.perf_counter() - before
        self._came += count
        if self._waited >= self._seconds:
            if count and self._came < self._speed * self._waited:
                raise TooSlowError(f"less than {self._speed:g} bytes a second")
            self._waited, self._came = 0.0, 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Lines:
    """The lines of a stream, none of them cut."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._begun = False

    def readline(self, limit: int = -1) -> bytes:
        line: bytes = self._stream.readline(limit)
        if not line.endswith(b"\n") and len(line) != limit and (line or self._begun):
            raise http.client.RemoteDisconnected("the answer ended within its headers")
        self._begun = True
        return line

    def close(self) -> None:
        self._stream.close()


class _Response(http.client.HTTPResponse):
    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        limit = _limit.get()
        if limit is not None:
            stream: Any = self.fp
            self.fp = io.BufferedReader(_Paced(stream.detach(), *limit))

    def begin(self) -> None:
        stream: Any = self.fp
        self.fp = _Lines(stream)  # type: ignore[assignment]  # nothing but lines is read here
        try:
            super().begin()
        finally:
            if self.fp is not None:
                self.fp = stream


class _Connection(HTTPConnection):
    response_class = _Response


class _SecureConnection(HTTPSConnection):
    response_class = _Response


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection  # pyright: ignore[reportAssignmentType]


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection  # pyright: ignore[reportAssignmentType]


POOLS = {"http": _Pool, "https": _SecurePool}
"""Scheme to the class of pools for one host, as `PoolManager.pool_classes_by_scheme` takes it."""
