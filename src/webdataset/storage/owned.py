"""Streams that end something when they end, a command or an upload: well, or not at all.

`close` ends it well. `abort`, an exception in the `with` block and a stream that is forgotten give it up, without a
word. Both are done only in the process that began it; a copy in a forked process merely lets go of what it holds.
"""

from __future__ import annotations

import contextlib
import io
import os
from types import TracebackType


class OwnedStream(io.BufferedIOBase):
    """A stream with `close` and `abort`; what these do is said by `_finish`, `_give_up` and `_let_go`."""

    def __init__(self) -> None:
        self._owner = os.getpid()

    def close(self) -> None:
        """End well; closing again does nothing.

        Raises:
            OpenError: it did not end well, and no read or write has said so before.
        """
        if self.closed:
            return
        try:
            if self._is_mine():
                self._finish()
            else:
                self._let_go()
        finally:
            super().close()

    def abort(self) -> None:
        """Give up: what was written is not to count."""
        if self.closed:
            return
        try:
            if self._is_mine():
                self._give_up()
            else:
                self._let_go()
        finally:
            super().close()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()  # what went wrong is on its way already

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.abort()  # what came so far must not be taken for all

    def _is_mine(self) -> bool:
        return self._owner == os.getpid()

    def _finish(self) -> None:
        raise NotImplementedError

    def _give_up(self) -> None:
        raise NotImplementedError

    def _let_go(self) -> None:
        """What a copy in a forked process does."""
