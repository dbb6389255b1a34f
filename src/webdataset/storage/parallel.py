"""An object over several connections at once, where a single one is slow; its bytes come in order.

    one connection, read as it comes  --slow?-->  the rest in pieces, each a range, fetched by threads ahead

Rules: nothing is spread before a single connection has shown that the reader waits for it, so a fast server sees one
request, and the first bytes come as soon as ever. Pieces name the version by its ETag; without one nothing is spread.
Memory is bounded by `options.ahead`. A piece that fails goes to another thread, and only what the last one cannot have
is an error: a server may take fewer connections than are asked for. A process forked in the middle, which has no
threads, goes on over one connection.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from urllib.parse import urlsplit

from ..errors import OpenError
from .bytestream import PIECE, ByteStream
from .http import HttpReader
from .options import StorageOptions
from .target import Target

LOOK = 0.1
"""Seconds after which a connection is judged, again and again."""

WAITING = 0.5
"""Share of the time that the reader must have waited for the connection before a second one can help."""

FAST = 150e6
"""Bytes a second at which one connection is enough."""

REMEMBERED = 60.0
"""Seconds for which a server that was slow once is taken for slow: the next objects are spread from their beginning."""

_slow: dict[str, tuple[float, float]] = {}
"""Server -> bytes a second of one connection, and when that was measured; 0: more of them have not helped."""

HELP = 1.25
"""So many times as fast as one connection, several must be, or one goes on alone."""
HELP_SECONDS = 0.5
"""Seconds after which that is judged."""

SMALLEST, LARGEST, SECONDS = 256 << 10, 8 << 20, 0.25
"""Bytes of a piece; between them, what one connection brings in so many seconds."""


def open_read(target: Target, options: StorageOptions) -> HttpReader | ParallelReader:
    """The object as a stream; over several connections as soon as that helps, if the options allow it."""
    return ParallelReader(target, options) if options.connections > 1 else HttpReader(target, options)


LONGEST_STOP = 1.0
"""Seconds that closing a stream may wait for its threads."""


class ParallelReader(ByteStream):
    """Bytes of an object, in order.

    Attributes:
        url: what was asked for.
        headers: headers of the first response.
        length: bytes of the whole object, None where the server does not say.
        got: bytes that were read so far.
        etag: the version that is read, None where the server does not say.
    """

    _first: HttpReader | None = None  # when opening fails, what closes finds nothing
    _fetcher: Fetcher | None = None

    def __init__(self, target: Target, options: StorageOptions) -> None:
        self._first = HttpReader(target, options)
        self._target, self._options = target, options
        self.url = target.url
        self.headers: Mapping[str, str] = self._first.headers
        self.length, self.etag = self._first.length, self._first.etag
        self.got = 0
        self._server = "://".join(urlsplit(target.address)[:2])
        self._process = os.getpid()
        self._fetched_from = 0
        self._block = memoryview(b"")
        self._waited = 0.0
        self._judged_at, self._judged_when = 0, time.perf_counter()
        can = self._first.ranges and self.etag is not None and self.length is not None
        self._may_spread = can and (self.length or 0) > 2 * SMALLEST

    def close(self) -> None:
        """Let go of all connections, and wait for the threads."""
        if not self.closed:
            if self._first is not None:
                self._first.close()
            if self._fetcher is not None and self._process == os.getpid():
                self._fetcher.stop()
            super().close()

    def interrupt(self) -> None:
        """Wake a thread that waits for bytes of this reader; its read fails, and nothing is tried again."""
        first, fetcher = self._first, self._fetcher
        if first is not None:
            first.interrupt()
        if fetcher is not None:
            fetcher.stop()

    def skip_to(self, position: int) -> None:
        """Leave out what comes before this byte of the object, which is within it; nothing may have been read yet."""
        assert self._first is not None
        self._first.skip_to(position)
        self.got = self._judged_at = position

    def _read(self, size: int, some: bool = False) -> bytes:
        if self.closed:
            raise ValueError(f"{self!r} is closed")
        if self._fetcher is not None and self._process != os.getpid():
            self._separate()
        if self._first is not None:
            data = self._read_first(self._first, size, some)
            if data or self._fetcher is None:
                return data
        return self._read_fetched(size)

    def _read_first(self, first: HttpReader, size: int, some: bool) -> bytes:
        if self._may_spread and not self.got and self._fetcher is None:
            rate, when = _slow.get(self._server, (0.0, -REMEMBERED))
            if time.perf_counter() - when < REMEMBERED:
                self._may_spread = rate > 0
                if rate:
                    self._spread(rate)
        if self._fetcher is not None:
            size = min(size, self._fetched_from - self.got)
            if not size:
                first.close()
                self._first = None
                return b""
        if not self._may_spread:
            data = first._read(size, some)
        else:
            before = time.perf_counter()
            data = first._read(size, some)
            now = time.perf_counter()
            if self._fetcher is not None:
                self._fetcher.beside(len(data), now - before)
            else:
                self._waited += now - before
                if now - self._judged_when >= LOOK:
                    self._judge(now, self.got + len(data))
        self.got += len(data)
        return data

    def _separate(self) -> None:
        """In a process that was forked since, which has no threads: go on over one connection of its own."""
        self._first = HttpReader(self._target, self._options, self.got, None, self.etag)
        self._fetcher, self._may_spread, self._block = None, False, memoryview(b"")

    def _judge(self, now: float, got: int) -> None:
        """Spread the rest over more connections if this one is what the reader waits for."""
        elapsed = now - self._judged_when
        rate = (got - self._judged_at) / elapsed
        slow = self._waited > WAITING * elapsed and rate < FAST
        self._judged_at, self._judged_when, self._waited = got, now, 0.0
        if slow:
            _slow[self._server] = rate, now
            self._spread(rate, got)

    def _spread(self, rate: float, got: int = 0) -> None:
        """Have the bytes behind the next piece fetched by others; nothing happens when few are left."""
        assert self.length is not None
        rest = self.length - got
        if rest > 2 * SMALLEST:
            piece = int(min(max(rate * SECONDS, SMALLEST), LARGEST, rest // 2, max(self._options.ahead // 4, 1)))
            self._fetched_from = got + piece
            self._fetcher = Fetcher(
                self._target, self._options, self._fetched_from, self.length, piece, self.etag, rate
            )

    def _read_fetched(self, size: int) -> bytes:
        assert self._fetcher is not None
        if not size:
            return b""
        if not self._block:
            whole = self._fetcher.next_block()
            if self._fetcher.useless:
                _slow[self._server] = 0.0, time.perf_counter()
            if len(whole) <= size:
                self.got += len(whole)
                return whole  # the usual case: nothing is copied
            self._block = memoryview(whole)
        data, self._block = bytes(self._block[:size]), self._block[size:]
        self.got += len(data)
        return data


class _Piece:
    """Bytes up to stop (exclusive); those from `at` on have not come yet."""

    def __init__(self, start: int, stop: int) -> None:
        self.at, self.stop = start, stop
        self.blocks: deque[bytes] = deque()
        self.taken = True
        self.complete = False
        self.error: Exception | None = None


class Fetcher:
    """Threads that fetch the pieces of an object, those that are needed first, first.

    Threads hold the fetcher and not the reader, so that a forgotten reader can be noticed.

    Attributes:
        useless: more connections have not brought more bytes; one goes on.
    """

    def __init__(
        self, target: Target, options: StorageOptions, start: int, stop: int, piece: int, etag: str | None, rate: float
    ) -> None:
        self.useless = False
        self._rate = rate
        self._arrived = 0
        self._began = time.perf_counter()
        self._waited = 0.0
        self._target, self._options, self._etag = target, options, etag
        self._next, self._end, self._size = start, stop, piece
        self._window = max(1, options.ahead // piece)
        self._pieces: deque[_Piece] = deque()
        self._readers: set[HttpReader] = set()
        self._stopped = threading.Event()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._most = min(options.connections, self._window)
        self._working = 0
        self._beside = True  # the first connection is open
        for _ in range(min(4, options.connections, self._window)):
            self._add_thread()

    def next_block(self) -> bytes:
        """The next bytes; b"" at the end. One more connection is opened each time that this has to wait.

        When this is first called, the first connection is closed: where the server takes only one, there is room now.
        """
        with self._changed:
            if self._beside:
                self._beside = False
                if not self._working and any(left.error is not None for left in self._pieces):
                    for left in self._pieces:
                        left.error = None
                    self._add_thread()
            while True:
                if self._stopped.is_set():
                    raise OpenError("the read was broken off", url=self._target.url)
                piece = self._pieces[0] if self._pieces else None
                if piece is not None and piece.blocks:
                    return piece.blocks.popleft()
                if piece is not None and piece.error is not None:
                    raise piece.error
                if piece is not None and piece.complete:
                    self._pieces.popleft()
                    self._changed.notify_all()
                    continue
                if piece is None and self._next >= self._end:
                    return b""
                if len(self._threads) < self._most:
                    self._add_thread()
                before = time.perf_counter()
                self._changed.wait()
                self._waited += time.perf_counter() - before
                self._judge()

    def beside(self, arrived: int, waited: float) -> None:
        """So many bytes have come over the first connection, for which the reader waited so many seconds."""
        with self._changed:
            self._arrived += arrived
            self._waited += waited
            self._judge()

    def _judge(self) -> None:
        """Whether all these connections are better than the first one was alone, if the reader waits at all."""
        elapsed = time.perf_counter() - self._began
        if elapsed > HELP_SECONDS and not self.useless and self._most:
            slow = self._waited > WAITING * elapsed and self._arrived < HELP * self._rate * elapsed
            self.useless, self._most = slow, 0 if slow else self._most
            self._began, self._waited, self._arrived = time.perf_counter(), 0.0, 0

    def stop(self) -> None:
        """End all threads; one that still waits for a server's first word ends when that comes, or times out."""
        self._stopped.set()
        with self._changed:
            for reader in self._readers:
                reader.interrupt()
            self._changed.notify_all()
        end = time.monotonic() + LONGEST_STOP
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _add_thread(self) -> None:
        thread = threading.Thread(target=self._work, name="webdataset range", daemon=True)
        self._threads.append(thread)
        self._working += 1
        thread.start()

    def _work(self) -> None:
        while (piece := self._take()) is not None:
            try:
                self._fetch(piece)
            except Exception as exn:
                self._leave(piece, exn)
                return
            with self._changed:
                piece.complete = True
                self._changed.notify_all()

    def _leave(self, piece: _Piece, exn: Exception) -> None:
        """End this thread; another one takes the piece, or if there is none, the error is the reader's."""
        with self._changed:
            self._working -= 1
            self._most = 0
            piece.taken = False
            if not self._working:
                for other in self._pieces:
                    if not other.taken:
                        other.error = exn
            self._changed.notify_all()

    def _take(self) -> _Piece | None:
        """The next piece to fetch, waiting for room; None when there is none any more, and the thread ends."""
        with self._changed:
            while not self._stopped.is_set():
                left = next((piece for piece in self._pieces if not piece.taken), None)
                if self.useless and self._working > 1:
                    break
                if left is not None:
                    left.taken = True
                    return left
                if self._next >= self._end:
                    break
                if len(self._pieces) < self._window:
                    piece = _Piece(self._next, min(self._next + self._size, self._end))
                    self._next = piece.stop
                    self._pieces.append(piece)
                    return piece
                self._changed.wait()
            self._working -= 1
        return None

    def _fetch(self, piece: _Piece) -> None:
        reader = HttpReader(self._target, self._options, piece.at, piece.stop, self._etag, self._stopped)
        with reader:
            with self._changed:
                self._readers.add(reader)
            try:
                while (missing := piece.stop - piece.at) and not self._stopped.is_set():
                    block = reader._read(min(PIECE, missing))
                    if not block:
                        raise OpenError(f"the object ended {missing} bytes too early", url=self._target.url)
                    with self._changed:
                        piece.at += len(block)
                        self._arrived += len(block)
                        piece.blocks.append(block)
                        self._changed.notify_all()
            finally:
                with self._changed:
                    self._readers.discard(reader)
