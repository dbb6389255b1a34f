"""Writing to http(s) urls: one PUT whose body is sent in chunks while it is being written.

A thread sends what the writer puts into a short queue. The object counts only when `close` has seen the server's
answer. An upload that is abandoned ends without its last chunk, so that no server takes a part for the whole.
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from ..errors import OpenError
from .exchange import give_up, refusal, send
from .options import StorageOptions
from .status import connection_error
from .target import Target

CHUNK = 1 << 20
QUEUED = 4
"""Chunks that may wait to be sent."""


class _AbandonedError(Exception):
    """Raised in the sending thread, so that the body ends without its last chunk."""


def open_write(target: Target, options: StorageOptions) -> HttpWriter:
    """A stream that becomes the object at a url, when it is closed without error."""
    return HttpWriter(target, options)


class HttpWriter(io.BufferedIOBase):
    """Body of a PUT request. Errors of the server come from `write` or, at the latest, from `close`."""

    def __init__(self, target: Target, options: StorageOptions) -> None:
        self.url = target.url
        self._owner = os.getpid()
        self._buffer = bytearray()
        self._reported = False
        self._sender = _Sender(target, options)

    def writable(self) -> bool:
        """True."""
        return True

    def write(self, data: Any, /) -> int:
        """Take all of the data; the number of bytes.

        Raises:
            OpenError: the upload has failed.
        """
        if self.closed:
            raise ValueError(f"{self!r} is closed")
        if self._owner != os.getpid():
            raise OpenError("the upload was begun before this process was forked; open it here", url=self.url)
        self._check()
        view = memoryview(data).cast("B")
        self._buffer += view
        if len(self._buffer) >= CHUNK:
            self._hand_over()
        return view.nbytes

    def close(self) -> None:
        """Send the rest and wait for the server's answer.

        Raises:
            OpenError: the server did not take the object, and no write has said so before.
        """
        if self.closed:
            return
        if self._owner != os.getpid():
            super().close()  # a forked copy: the upload belongs to its parent
            return
        try:
            self._hand_over()
            self._sender.finish()
            if not self._reported:
                self._check()
        finally:
            super().close()

    def abort(self) -> None:
        """Give up, without a word: the server gets no complete object."""
        if self.closed:
            return
        if self._owner == os.getpid():
            self._sender.abandon()
        super().close()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.abort()

    def _hand_over(self) -> None:
        if self._buffer:
            self._sender.put(bytes(self._buffer))
            self._buffer.clear()

    def _check(self) -> None:
        failure = self._sender.failure
        if failure is not None:
            self._reported = True
            raise failure


class _Sender:
    """The thread that sends, and its queue; it does not know the writer, so that a forgotten writer can be noticed.

    Attributes:
        failure: why the upload has failed, None as long as it has not.
    """

    def __init__(self, target: Target, options: StorageOptions) -> None:
        self.failure: Exception | None = None
        self._target = target
        self._options = options
        self._queue: queue.Queue[bytes | None] = queue.Queue(QUEUED)
        self._abandoned = False
        self._ended = False
        self._thread = threading.Thread(target=self._send, name="webdataset upload", daemon=True)
        self._thread.start()

    def put(self, chunk: bytes | None) -> None:
        """Queue a chunk, waiting for room; after the end of the request it is thrown away."""
        if not self._ended:
            self._queue.put(chunk)

    def finish(self) -> None:
        """End the body and wait for the answer."""
        self.put(None)
        self._thread.join()

    def abandon(self) -> None:
        """Break off the body and wait for the thread."""
        self._abandoned = True
        self.finish()

    def _chunks(self) -> Iterator[bytes]:
        while (chunk := self._queue.get()) is not None and not self._abandoned:
            yield chunk
        if self._abandoned:
            raise _AbandonedError

    def _send(self) -> None:
        from urllib3.exceptions import HTTPError

        timeouts = (self._options.connect_timeout, self._options.read_timeout)
        try:
            response = send(self._target, "PUT", self._options, timeouts, body=self._chunks())
            if 200 <= response.status < 300:
                give_up(response)
            else:
                self.failure = refusal(self._target, response)
        except _AbandonedError:
            pass
        except (HTTPError, OSError) as exn:
            self.failure = connection_error(self._target.url, exn, timeouts)
        except Exception as exn:
            self.failure = exn
        finally:
            self._ended = True
            with contextlib.suppress(queue.Empty):
                while True:  # a writer may be waiting for room
                    self._queue.get_nowait()
