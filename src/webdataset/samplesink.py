"""Where a writer of samples puts its bytes: opened here or given, ended well or given up, never forgotten in silence.

Rules for an editor: what was opened here is closed here, whatever happens; what was given stays open. Only the process
that began a file warns that it was forgotten.
"""

from __future__ import annotations

import os
import warnings
from typing import Any, Self

from .errors import public_url
from .gopen import gopen, path_of
from .storage.atomic import AtomicFile
from .storage.upload import Upload
from .tar.sink import Sink


class SampleSink:
    """The base of writers: `_open`, then `_sink.add`; a `close` that finishes, then `_close_own`."""

    makes = "file"

    _closed = True
    own_fileobj: Any = None

    def _open(self, fileobj: Any, compression: str, seekable: bool = False) -> None:
        """Open a path or url, or take an object with a method `write`, and begin the stream in it."""
        self._owner = os.getpid()
        self.stream, name = fileobj, getattr(fileobj, "name", None)
        if isinstance(fileobj, (str, os.PathLike)):
            name = os.fspath(fileobj)
            self.stream = self.own_fileobj = open_target(name)
        elif not callable(getattr(fileobj, "write", None)):
            where, got = type(self).__name__, type(fileobj).__name__
            raise TypeError(f"{where}: fileobj must be a path, a url or have a method write, got {got}")
        try:
            self._sink = Sink(self.stream, compression, name if isinstance(name, str) else None, seekable)
        except BaseException:  # the package of a compression is not installed
            self._close_own(failed=True)
            raise
        self._closed = False

    def close(self) -> None:
        """Finish what was begun; closing again does nothing."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Close without finishing: a file or object that was opened here is not made; what was given has no end."""
        self._closed = True
        self._close_own(failed=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> None:
        if exc_type is None or (self.own_fileobj is None and not self._sink.broken):
            self.close()
        else:
            self.abandon()

    def __del__(self) -> None:
        if not self._closed and self._owner == os.getpid():
            lost = isinstance(self.own_fileobj, (AtomicFile, Upload)) and self._sink.position > 0
            warnings.warn(
                f"{public_url(self._sink.url or repr(self))}: the writer was not closed: there is no {self.makes}; use "
                "`with`, or call close()",
                UserWarning if lost else ResourceWarning,
                stacklevel=2,
            )

    def _close_own(self, failed: bool) -> None:
        own, self.own_fileobj = self.own_fileobj, None
        close_target(own, failed)


def close_target(own: Any, failed: bool) -> None:
    """Close what `open_target` gave, if it was asked; `failed`: what was written is not all, and is given up."""
    if own is None:
        return
    if not failed:
        own.close()
        return
    try:
        getattr(own, "abort", own.close)()  # what we have opened can be told that this is not all
    except OSError:
        pass  # what went wrong is on its way already


def open_target(url: str) -> Any:
    """What to write to: a file that appears whole or not at all, or what `gopen` opens."""
    path = path_of(url)
    if path is None or (os.path.lexists(path) and not os.path.isfile(path)):
        return gopen(url, "wb")  # devices and fifos are written as they are; a folder is an error
    return AtomicFile(os.path.realpath(path), overwrite=True)
