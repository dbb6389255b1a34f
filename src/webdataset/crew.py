"""Threads that draw items from shared sources and work on them; one consumer gets what they make of them.

Each thread draws from a source of its own as long as that has items, then from those of others: what a slow one
has left, idle ones take. A source is drawn from by one thread at a time, so plain generators will do.

Rules: an item is drawn by one thread, which hands over all that it makes of it before it draws the next; so nothing
is lost and nothing comes twice. Nothing is drawn while `ahead` items, or `max_bytes` bytes of results, have not been
asked for. After an error, or when the work on a stream ends before the stream does, nothing more is drawn, but what
has been drawn is finished. Sources are closed when no thread is left, never while one runs in them.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

from ._closing import close_source, closing_source
from .order.sizes import bytes_of
from .storage.pipe import end_waiting

logger = logging.getLogger(__name__)

Work = Callable[[Iterator[Any]], Iterator[Any]]
"""From an iterator of items to an iterator of results; makes nothing of an item after it has asked for the next."""

GRACE = 5.0
"""Seconds that `close` waits for threads; one that is still busy then ends when it is done with its item."""
PATIENCE = 1.0
"""Seconds after which `close` ends the commands for whose output threads still wait."""


class Shared:
    """An iterator that several threads may draw from.

    Attributes:
        ended: whether nothing more comes, so that nobody waits for his turn to learn it.
    """

    def __init__(self, items: Iterator[Any]) -> None:
        self._items = items
        self._lock = threading.Lock()
        self.ended = False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        with self._lock:
            return next(self._items)

    def draw(self, bundle: _Bundle, tickets: Iterator[int]) -> Any:
        """The next item; the bundle gets its number. StopIteration where there is none."""
        with self._lock:
            bundle.ticket = next(tickets)
            if not self.ended:
                try:
                    return next(self._items)
                except StopIteration:
                    self.ended = True
            raise StopIteration

    def close(self) -> None:
        """Close the iterator."""
        with self._lock:
            close_source(self._items)


class _Bundle:
    """What is made of one item.

    Attributes:
        ticket: the number of the item.
        results: what was made of it.
        size: the bytes of that, where they count.
        error: what ended the work on it.
        last: whether the work ended with it, though there was more to draw.
    """

    def __init__(self) -> None:
        self.ticket = -1
        self.results: list[Any] = []
        self.size = 0
        self.error: BaseException | None = None
        self.last = False


class _Drawing:
    """The items of one thread, as an iterator.

    Attributes:
        bundle: of the item that the thread works on.
        ended: whether the thread was told that there is nothing left for it.
    """

    def __init__(self, crew: Crew, sources: list[Shared]) -> None:
        self._crew = crew
        self._sources = sources
        self.bundle: _Bundle | None = None
        self.ended = False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        done, self.bundle = self.bundle, None
        if done is not None:
            self._crew.hand_over(done)
        while self._left() and self._crew.may_draw():
            self.bundle = _Bundle()
            try:
                return self._sources[0].draw(self.bundle, self._crew.tickets)
            except StopIteration:
                self.bundle = None
                self._crew.drew_nothing()
        self.ended = True
        raise StopIteration

    def _left(self) -> bool:
        while self._sources and self._sources[0].ended:
            self._sources.pop(0)
        return bool(self._sources)


class Crew:
    """The threads of one pass.

    Args:
        sources: what they draw from, one or more.
        feed: what the sources draw from in their turn; it is closed behind them.
        work: what they do.
        num_threads: how many they are.
        ordered: results come in the order of the items; this takes a single source.
        ahead: how many items may have been drawn and not yet been asked for, at least 1.
        max_bytes: how many bytes may wait before no more is drawn; None: any number.
    """

    def __init__(
        self,
        sources: list[Shared],
        feed: Shared,
        work: Work,
        num_threads: int,
        *,
        ordered: bool = False,
        ahead: int = 100,
        max_bytes: float | None = None,
    ) -> None:
        self._sources = sources
        self._feed = feed
        self._work = work
        self._num_threads = num_threads
        self._ordered = ordered
        self._ahead = ahead
        self._max_bytes = max_bytes
        self._owner = os.getpid()
        lock = threading.RLock()  # the garbage collector may close another pass while this one is in here
        self._room = threading.Condition(lock)
        self._ready = threading.Condition(lock)
        self._threads: list[threading.Thread] = []
        self._busy = 0  # threads
        self._drawn = 0  # items that were drawn and not yet given to the consumer
        self._bytes = 0  # of what waits
        self._over = False
        self._waiting: deque[_Bundle] = deque()  # where there is no order
        self._finished: dict[int, _Bundle] = {}  # by ticket, where there is
        self._turn = 0  # the ticket that comes next
        self.tickets = count()

    def results(self) -> Iterator[Any]:
        """All results; an error of a thread comes behind what was ready before it. Closing this closes the crew."""
        atexit.register(self.close)
        try:
            for number in range(self._num_threads):
                self._start(number)
            while (bundle := self._get()) is not None:
                yield from bundle.results
                if bundle.error is not None:
                    raise bundle.error
                if bundle.last and self._ordered:
                    return
        finally:
            self.close()

    def _start(self, number: int) -> None:
        first = number % len(self._sources)
        drawing = _Drawing(self, [*self._sources[first:], *self._sources[:first]])
        thread = threading.Thread(target=self._run, args=(drawing,), name=f"webdataset thread {number}", daemon=True)
        with self._ready:
            self._busy += 1
        try:
            thread.start()
        except BaseException:
            with self._ready:
                self._busy -= 1
            raise
        self._threads.append(thread)

    def _run(self, drawing: _Drawing) -> None:
        error: BaseException | None = None
        try:
            made = self._work(drawing)
            with closing_source(made):
                for result in made:
                    assert drawing.bundle is not None
                    drawing.bundle.results.append(result)
        except BaseException as exn:
            error = exn
        with self._ready:
            if not drawing.ended:
                self.stop()
            bundle = drawing.bundle
            if bundle is None and error is not None:
                bundle = _Bundle()
                bundle.ticket = next(self.tickets)
                self._drawn += 1
            if bundle is not None:
                bundle.error, bundle.last = error, True
                self.hand_over(bundle)
            self._busy -= 1
            self._ready.notify_all()
            left = self._busy
        if not left:
            self._close_sources()

    def may_draw(self) -> bool:
        """Wait until there is room for one more item; False: nothing more is to be drawn."""
        with self._room:
            while not self._over and (
                self._drawn >= self._ahead or (self._max_bytes is not None and self._bytes >= self._max_bytes)
            ):
                self._room.wait()
            if not self._over:
                self._drawn += 1
            return not self._over

    def drew_nothing(self) -> None:
        """There was no item."""
        with self._room:
            self._drawn -= 1
            self._room.notify()

    def stop(self) -> None:
        """Let nothing more be drawn."""
        with self._room:
            self._over = True
            self._room.notify_all()

    def hand_over(self, bundle: _Bundle) -> None:
        """A thread has finished an item."""
        if self._max_bytes is not None:
            bundle.size = sum(map(bytes_of, bundle.results))
        with self._ready:
            if self._ordered:
                self._finished[bundle.ticket] = bundle
            elif bundle.results or bundle.error is not None:
                self._waiting.append(bundle)
            else:
                self._drawn -= 1
                self._room.notify()
                return
            self._bytes += bundle.size
            self._ready.notify()

    def _get(self) -> _Bundle | None:
        """What the consumer gets next; None at the end."""
        if os.getpid() != self._owner:
            raise RuntimeError("this iteration over a ThreadedLoader began in another process: begin one here")
        with self._ready:
            while (bundle := self._first()) is None:
                if not self._busy:
                    return None
                self._ready.wait()
            self._drawn -= 1
            self._bytes -= bundle.size
            self._room.notify()
            return bundle

    def _first(self) -> _Bundle | None:
        if not self._ordered:
            return self._waiting.popleft() if self._waiting else None
        if not self._busy and self._finished:
            self._turn = min(self._finished)  # some tickets were drawn when there was nothing left
        bundle = self._finished.pop(self._turn, None)
        if bundle is not None:
            self._turn += 1
        return bundle

    def close(self) -> None:
        """End the threads, then close the sources."""
        if os.getpid() != self._owner:  # a fork, where these threads are not
            return
        self.stop()
        begin = time.monotonic()
        others = [thread for thread in self._threads if thread is not threading.current_thread()]
        for patience in (min(PATIENCE, GRACE), GRACE):
            for thread in others:
                thread.join(max(0.0, begin + patience - time.monotonic()))
            others = [thread for thread in others if thread.is_alive()]
            end_waiting(thread.ident for thread in others)
        for thread in others:
            logger.warning("%s is still busy after %g seconds; it ends behind its item", thread.name, GRACE)
        with self._ready:
            left = self._busy
        if not left:
            self._close_sources()
        atexit.unregister(self.close)

    def _close_sources(self) -> None:
        for source in (*self._sources, self._feed):
            try:
                source.close()
            except Exception:
                logger.warning("what threads drew from did not close well", exc_info=True)


__all__ = ["Crew", "Shared"]
