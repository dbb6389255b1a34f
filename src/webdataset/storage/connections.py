"""urllib3's connections, but for one fault: an answer that breaks off within its headers is an error.

http.client takes the headers that have come for all of them. Without its Content-Length a broken answer would look
like an empty object.
"""

from __future__ import annotations

import http.client
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection


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
