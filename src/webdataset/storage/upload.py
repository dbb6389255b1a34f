"""Bytes as they are written -> one object, which is there when `close` has returned, and not before.

What fits into one part is sent whole. More of it is sent in parts, several at a time, while the next ones are being
written; where a place takes objects in one piece only, a temporary file collects them. How a kind of place takes parts
is said by its `Steps`. A part stays in memory until the server has it, so that it can be sent again; all parts that are
under way take no more than the option `ahead`. An upload that is given up, by an exception, the garbage collector or
the end of the program, is taken back at the server.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import IO, Any

from ..errors import OpenError
from .atomic import cannot_write
from .exchange import Answer, request
from .options import StorageOptions
from .owned import OwnedStream
from .target import Target

logger = logging.getLogger(__name__)

PART = 8 << 20
"""Bytes of a part; S3 wants 5 MiB at least, GCS multiples of 256 KiB, both no more than 10 000 parts."""
GROWTH = 1500
"""After so many parts they are twice as large, so that 10 000 of them hold a terabyte."""
PIECE = 1 << 18
"""Bytes that are sent before the sender looks whether it is still wanted."""
SLOWEST = 1e6
"""Bytes a second: a body that is sent more slowly than that may run into the deadline."""
GRACE = 5.0
"""Seconds to wait for parts that are under way when an upload is given up."""


class AbandonedError(Exception):
    """The upload was given up while this was being sent."""


class Steps:
    """How one kind of place takes an object: whole by `put`, or by `begin`, `part` for each part, `complete`.

    Attributes:
        target: the object; its `sign` is asked for every request.
        options: `overwrite=False` means that an object that is there stays; that was asked at the beginning, and has
            to hold at the end.
        part_size: bytes of a part; 0: the place takes objects in one piece only.
        parallel: parts that may be sent at a time.
        stopped: when it is set, nothing is sent or tried again.
        progress: called with the number of bytes of the object that were sent, each time that more of them were; with
            a negative number for those that will be sent again.
    """

    part_size = 0
    parallel = 1

    def __init__(self, target: Target, options: StorageOptions) -> None:
        self.target = target
        self.options = options
        self.stopped = threading.Event()
        self.progress: Callable[[int], Any] | None = None

    def put(self, body: Any) -> None:
        """Send the whole object."""
        raise NotImplementedError

    def begin(self) -> None:
        """Begin an upload in parts."""
        raise NotImplementedError

    def part(self, number: int, offset: int, data: Any, last: bool) -> Any:
        """Send a part; what `complete` needs to know of it.

        Args:
            number: 0 for the first part.
            offset: where in the object it begins.
            last: no more parts follow.
        """
        raise NotImplementedError

    def complete(self, parts: list[Any]) -> None:
        """Let the parts be the object; `parts` are the results of `part`, in order."""
        raise NotImplementedError

    def abort(self) -> None:
        """Take back what `begin` and `part` have left at the server, as far as there is a way."""

    def ask(
        self,
        method: str,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        body: Any = b"",
        accept: Collection[int] = (200,),
        target: Target | None = None,
        counts: bool = False,
    ) -> Answer:
        """One request of this upload, tried again as a whole as long as there is hope.

        Args:
            query: what stands behind the question mark.
            body: a buffer, or a file.
            counts: it is a part of the object, whose progress is told.
        """
        target = target or self.target
        if query:
            target = dataclasses.replace(target, address=f"{target.address}?{query}")
        size = _size_of(body)
        sent = {**(headers or {}), "Content-Length": str(size)}
        options = dataclasses.replace(self.options, deadline=self.options.deadline + size / SLOWEST)
        sent_before = 0

        def content() -> Iterator[Any]:
            nonlocal sent_before
            if sent_before and self.progress is not None:
                self.progress(-sent_before)
            sent_before = 0
            for piece in self.pieces(body, counts):
                yield piece
                sent_before += len(piece) if counts else 0

        return request(target, method, options, sent, content, accept, self.stopped)

    def pieces(self, body: Any, counts: bool = True) -> Iterator[Any]:
        """The bytes of a body, from its beginning, as long as the upload is not given up.

        Args:
            counts: their progress is told.
        """
        if isinstance(body, (bytes, bytearray, memoryview)):
            view = memoryview(body)
            pieces: Iterator[Any] = (view[start : start + PIECE] for start in range(0, view.nbytes, PIECE))
        else:
            body.seek(0)
            pieces = iter(lambda: body.read(PIECE), b"")
        for piece in pieces:
            if self.stopped.is_set():
                raise AbandonedError
            yield piece
            if counts and self.progress is not None:
                self.progress(len(piece))

    def made_by(self, attempt: Callable[[], Any], is_ours: Callable[[], bool]) -> None:
        """Make the object; if that fails and the object is there and ours, only the answer was lost."""
        try:
            attempt()
        except OpenError as fault:
            if self.stopped.is_set():
                raise
            try:
                ours = is_ours()
            except OpenError:
                ours = False
            if not ours:
                raise fault from fault.__cause__

    def refuse_existing(self) -> None:
        """Raise an error if the object is there, and the server says so.

        Raises:
            OpenError: it is there, or the server cannot be asked.
        """
        if self.ask("HEAD", accept=(200, 403, 404, 405, 410, 501)).status == 200:
            raise self.exists()

    def exists(self) -> OpenError:
        """The error for an object that is there already."""
        return OpenError("it exists; remove it, choose another name, or pass overwrite=True", url=self.target.url)


def md5(body: Any) -> bytes:
    """The MD5 of a buffer, with which a place checks what has come."""
    return hashlib.md5(body, usedforsecurity=False).digest()


def md5_header(body: Any) -> dict[str, str]:
    """The header Content-MD5 of a buffer."""
    return {"Content-MD5": base64.b64encode(md5(body)).decode()}


def _size_of(body: Any) -> int:
    if isinstance(body, (bytes, bytearray, memoryview)):
        return memoryview(body).nbytes
    return int(body.seek(0, os.SEEK_END))


class Upload(OwnedStream):
    """A stream that becomes an object. What the server says against it comes out of `write` or, at the latest, `close`.

    Attributes:
        url: the object's url.
        name: the same.
    """

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        if not steps.options.overwrite:
            steps.refuse_existing()
        self.url = self.name = steps.target.url
        self._steps = steps
        self._buffer = bytearray()
        self._parts: _Parts | None = None
        self._spool: IO[bytes] | None = None
        self._reported = False
        # the end of the program: while threads still run, so that the server can be told
        self._forgotten = weakref.finalize(self, _take_back, steps, self._owner)

    def writable(self) -> bool:
        """True."""
        return True

    @property
    def progress(self) -> Callable[[int], Any] | None:
        """Called with the number of bytes, in the thread that sends them, each time that more were sent; with a
        negative number for those that will be sent again."""
        return self._steps.progress

    @progress.setter
    def progress(self, called: Callable[[int], Any] | None) -> None:
        self._steps.progress = called

    def stop(self) -> None:
        """Send nothing more, and do not wait: what is to come fails, as the beginning of `abort`, from any thread."""
        if self._is_mine():
            self._steps.stopped.set()

    def write(self, data: Any, /) -> int:
        """Take all of the data; the number of bytes.

        Raises:
            OpenError: the upload has failed.
        """
        if self.closed:
            raise ValueError(f"{self!r} is closed")
        if not self._is_mine():
            raise OpenError("the upload was begun before this process was forked; open it here", url=self.url)
        if self._reported:
            raise OpenError("an earlier write failed: there will be no object", url=self.url)
        view = memoryview(data).cast("B")
        total = view.nbytes
        while view.nbytes:
            if len(self._buffer) == self._room():
                self._hand_over()
            room = self._room() - len(self._buffer)
            self._buffer += view[:room]
            view = view[room:]
        return total

    def _room(self) -> int:
        """Bytes that the buffer may hold."""
        begun = 0 if self._parts is None else self._parts.count
        return (self._steps.part_size or PART) << (begun // GROWTH)

    def _hand_over(self, last: bool = False) -> None:
        try:
            if not self._steps.part_size:
                self._keep()
                return
            if self._parts is None:
                self._steps.begin()
                self._parts = _Parts(self._steps)
            self._parts.add(self._buffer, last)
            self._buffer = bytearray()
        except BaseException:
            self._reported = True
            raise

    def _keep(self) -> None:
        """Put the buffer into the temporary file."""
        import tempfile

        try:
            if self._spool is None:
                self._spool = tempfile.TemporaryFile(prefix="webdataset-upload-")  # noqa: SIM115  closed with the stream
            self._spool.write(self._buffer)
        except OSError as exn:
            error = cannot_write(exn, self.url)
            error.message += f" (in {tempfile.gettempdir()}, where it waits to be sent; let TMPDIR name a roomy folder)"
            raise error from exn
        self._buffer.clear()

    def _finish(self) -> None:
        if self._reported:
            self._give_up()  # a write has said so
            return
        try:
            if self._parts is not None:
                self._hand_over(last=True)
                self._steps.complete(self._parts.results())
            elif self._spool is not None:
                self._keep()
                self._steps.put(self._spool)
            else:
                self._steps.put(self._buffer)
        except BaseException:
            self._give_up()
            raise
        self._clear()

    def _give_up(self) -> None:
        self._forgotten()
        self._clear()

    def _clear(self) -> None:
        self._forgotten.detach()
        self._buffer = bytearray()
        self._parts = None
        self._let_go()

    def _let_go(self) -> None:
        spool, self._spool = self._spool, None
        if spool is not None:
            spool.close()


def _take_back(steps: Steps, owner: int) -> None:
    """Stop an upload and have the server forget it. It does not know the stream, so that a dropped one is noticed."""
    if owner != os.getpid():
        return
    steps.stopped.set()
    shorter = {name: min(GRACE, getattr(steps.options, name)) for name in ("connect_timeout", "read_timeout")}
    steps.options = dataclasses.replace(steps.options, **shorter)
    end = time.monotonic() + GRACE
    for thread in threading.enumerate():
        if isinstance(thread, _Sender) and thread.steps is steps:
            thread.join(max(0.0, end - time.monotonic()))
    try:
        steps.abort()
    except OpenError as exn:
        logger.warning("%s; parts of the upload may still lie there and cost money", exn)


class _Sender(threading.Thread):
    """The thread that sends one part."""

    def __init__(self, steps: Steps, parts: _Parts, *job: Any) -> None:
        super().__init__(target=parts.send, args=job, name="webdataset upload", daemon=True)
        self.steps = steps


class _Parts:
    """The parts of one upload: sent in threads, as many at a time as place and memory allow.

    Attributes:
        count: parts that were begun.
    """

    def __init__(self, steps: Steps) -> None:
        self.count = 0
        self._steps = steps
        self._offset = 0
        self._under_way = 0
        self._results: dict[int, Any] = {}
        self._failure: BaseException | None = None
        self._changed = threading.Condition()

    def add(self, data: Any, last: bool) -> None:
        """Send a part, waiting for room.

        Raises:
            OpenError: a part before it could not be sent.
        """
        options = self._steps.options
        most = max(1, min(self._steps.parallel, options.connections, options.ahead // len(data)))
        self._wait(most - 1)
        job = (self.count, self._offset, data, last)
        self._under_way += 1
        self.count += 1
        self._offset += len(data)
        _Sender(self._steps, self, *job).start()

    def results(self) -> list[Any]:
        """What the server said of each part, when it has all of them."""
        self._wait(0)
        return [self._results[number] for number in range(self.count)]

    def send(self, number: int, offset: int, data: Any, last: bool) -> None:
        """Send one part, in its thread."""
        try:
            self._results[number] = self._steps.part(number, offset, data, last)
        except BaseException as exn:
            self._failure = self._failure or exn
        with self._changed:
            self._under_way -= 1
            self._changed.notify_all()

    def _wait(self, most: int) -> None:
        """Wait until no more than so many parts are under way."""
        with self._changed:
            self._changed.wait_for(lambda: self._failure is not None or self._under_way <= most)
        if self._failure is not None:
            raise self._failure
