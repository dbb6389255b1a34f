"""A partial as a stream: what has come is read at once, what has not is waited for.

Rules: nothing here writes. Bytes of the file are given out as they stand; when nobody writes any more, the state says
whether the copy is whole, whether to fail, or to go on alone; when it says nothing, the writer is dead, and this reader
takes the download over. Every wait looks at the lock, so none is for somebody who is gone.
"""

from __future__ import annotations

import io
import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from . import errors
from ._closing import close_stream
from .cachedownload import WAIT, Download, Job, begin, skip
from .cachelocks import Lock, ask, give_back
from .cachepartial import State, read_at, read_state, shared_name, state_of

PAUSES = (0.001, 0.03)
"""Seconds between two looks at the file: at first, and after a while without new bytes."""

BUFFER = 1 << 16


def open_growing(
    job: Job, stale: os.stat_result | None, on_full: Callable[[Exception], None]
) -> io.BufferedReader | None:
    """A copy while it is being made, by a download of our own if nobody else is at it; None: look again.

    Raises:
        OpenError: it cannot be had.
    """
    download = begin(job, stale)
    try:
        raw = GrowingCopy(job, download, on_full, stale)
    except FileNotFoundError:
        time.sleep(WAIT)
        return None
    try:
        if download is not None:
            download.start()
        if raw.begin():
            return io.BufferedReader(raw, BUFFER)
    except BaseException:
        raw.close()
        raise
    raw.close()
    return None


class GrowingCopy(io.RawIOBase):
    """The bytes of a copy that is being downloaded, by this process or by another one of this host.

    Args:
        download: the download, if it is this process's; closing the stream ends it.
        on_full: called with the error when the disk is full, and the stream goes on without the copy.
        stale: the copy that this one is to replace.

    Raises:
        FileNotFoundError: there is no partial, or it is not ready yet; look again.
    """

    def __init__(
        self,
        job: Job,
        download: Download | None,
        on_full: Callable[[Exception], None] = lambda exn: None,
        stale: os.stat_result | None = None,
    ) -> None:
        self._fd = self._state_fd = -1
        self._job, self._download, self._on_full, self._stale = job, download, on_full, stale
        self._process = os.getpid()
        self._opened = time.time()
        self._pos = 0
        self._at_end = self._pinned = False
        self._alone: Any = None
        name = shared_name(job.dest) if download is None else download.partial.name
        flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        try:
            self._fd = os.open(name, flags)
            self._state_fd = os.open(state_of(name), flags)
        except BaseException:
            self.close()
            raise

    def readable(self) -> bool:
        """True."""
        return True

    def begin(self) -> bool:
        """Wait for the first byte, or the end; false: the object was replaced, so open it anew.

        Raises:
            OpenError: it cannot be had.
        """
        return self._wait() is not None or (self._own is not None and self._own.error is not None)

    def readinto(self, buffer: Any, /) -> int:
        """Put into the buffer what has come, after waiting until something has; 0 at the end.

        Raises:
            OpenError: the download failed, or the object was replaced.
        """
        view = memoryview(buffer).cast("B")
        if not view:
            return 0
        if self._alone is None:
            ready = self._wait()
            if ready is None:
                self._go_alone()
            elif not ready:
                return 0
        if self._alone is not None:
            data = getattr(self._alone, "read1", self._alone.read)(len(view))
        else:
            self._pin()
            data = read_at(self._fd, len(view), self._pos)
        view[: len(data)] = data
        self._pos += len(data)
        return len(data)

    def close(self) -> None:
        """Let go of the file. A download of this process ends with it; what has come stays for the next reader."""
        if self.closed:
            return
        try:
            super().close()
            if self._alone is not None:
                close_stream(self._alone)
            if self._own is not None:
                self._own.close(self._at_end)
        finally:
            for fd in (self._fd, self._state_fd):
                if fd >= 0:
                    os.close(fd)

    @property
    def _own(self) -> Download | None:
        """The download, if it runs in this very process, not in the one that this was forked from."""
        return self._download if self._process == os.getpid() else None

    def _wait(self) -> bool | None:
        """True: there are bytes at the position. False: it is the end. None: go on alone, nobody continues the file."""
        pause, longest = PAUSES
        while True:
            state = read_state(self._state_fd)
            if state.trusted or self._pos:
                if os.fstat(self._fd).st_size > self._pos:
                    return True
                if state.size == self._pos > 0:
                    self._at_end = True
                    return False
            if self._is_written():
                time.sleep(pause)
                pause = min(pause * 1.5, longest)
                continue
            ended = self._ended(read_state(self._state_fd))
            if ended is not True:
                return ended
            time.sleep(pause * random.random())  # of several that want to take over, one must be first

    def _pin(self) -> None:
        """Keep cleanups away from a copy that has become whole."""
        if not self._pinned and read_state(self._state_fd).whole:
            self._pinned = ask(self._fd, exclusive=False) is not Lock.BUSY

    def _is_written(self) -> bool:
        """Whether somebody is at work on the file."""
        if self._own is not None:
            return not self._own.ended.is_set()
        return ask(self._fd, exclusive=False) is Lock.BUSY

    def _ended(self, state: State) -> bool | None:
        """What to do now that nobody writes: as `_wait`, but true means to look again."""
        if not state.whole:
            give_back(self._fd)  # while it is read on, another one may take over
        if self._own is not None and self._own.error is not None:
            if self._own.rest is None and state.end == "failed":
                raise self._own.error
            return None if os.fstat(self._fd).st_size == self._pos else True
        if (state.trusted or self._pos) and os.fstat(self._fd).st_size > self._pos:
            return True
        if state.whole:
            return False
        if state.end == "failed" and state.at >= self._opened:
            raise self._told(state)
        if state.end == "gone" or not os.fstat(self._fd).st_nlink:
            return None
        return self._take_over()

    def _take_over(self) -> bool | None:
        """Go on with the download whose writer is gone; true: look again."""
        download = begin(self._job, self._stale)
        if download is None:
            return True if self._is_current() else None
        if not self._is_current():
            download.partial.discard()
            return None
        self._download, self._process = download, os.getpid()
        download.start()
        return True

    def _is_current(self) -> bool:
        """Whether this file is still the partial, or has become the copy."""
        for name in (shared_name(self._job.dest), self._job.dest):
            with suppress(FileNotFoundError):
                if os.path.samestat(os.stat(name), os.fstat(self._fd)):
                    return True
        return False

    def _go_alone(self) -> None:
        """Continue with a stream of our own behind what was given out."""
        own = self._own
        if own is not None and own.error is not None:
            self._on_full(own.error)
            if own.rest is not None:
                first, stream = own.rest
                own.rest = None
                self._alone = _Rest(first, stream)
                return
        stream = self._job.open()
        if self._pos and not skip(stream, self._pos, read_state(self._state_fd), self._read_old):
            close_stream(stream)
            raise errors.OpenError(
                f"the object was replaced while it was read, {self._pos} bytes of the old one had come; start again",
                url=self._job.url,
            )
        self._alone = stream

    def _read_old(self, size: int, position: int) -> bytes:
        return read_at(self._fd, size, position)

    def _told(self, state: State) -> errors.OpenError:
        """The error that another process wrote down."""
        name, message = state.error or ("OpenError", "the download failed in another process")
        kind = getattr(errors, name, errors.OpenError)
        kind = kind if isinstance(kind, type) and issubclass(kind, errors.OpenError) else errors.OpenError
        return kind(message, url=self._job.url)


class _Rest:
    """Bytes in hand, then the stream behind them."""

    def __init__(self, first: bytes, stream: Any) -> None:
        self._first, self._stream = first, stream
        self._read = getattr(stream, "read1", stream.read)

    def read(self, size: int) -> bytes:
        """At most so many bytes; b"" at the end."""
        if self._first:
            data, self._first = self._first[:size], self._first[size:]
            return data
        return bytes(self._read(size))

    def close(self) -> None:
        """Close the stream."""
        close_stream(self._stream)
