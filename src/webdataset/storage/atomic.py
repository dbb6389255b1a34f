"""Local files that appear complete or not at all: written as `<path>.partial`, renamed when done."""

from __future__ import annotations

import errno
import gc
import os
from typing import Any

from ..errors import OpenError


class AtomicFile:
    """A binary file in the making, with the methods `write` and `writev`; a copy in a forked process does nothing.

    Attributes:
        path: its name once it is complete.
        name: its name until then.

    Raises:
        OpenError: it cannot be created; another writer is at work on it; or, without `overwrite`, the file is there.
    """

    def __init__(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        self.path = os.fspath(path)
        self.name = self.path + ".partial"
        self.overwrite = overwrite
        if not overwrite:
            refuse_existing(self.path)
        self._fd: int | None = None
        self._owner = os.getpid()
        try:
            self._fd = _open_alone(self.name)
        except (OSError, ValueError) as exn:
            raise cannot_write(exn, self.name) from exn

    def write(self, data: Any) -> int:
        """Append bytes, as many as the system takes at once; the result is how many it were."""
        return os.write(self._open_fd(), data)

    def writev(self, chunks: list[Any]) -> int:
        """Append chunks, as many of their bytes as the system takes at once; the result is how many it were."""
        if hasattr(os, "writev"):
            return os.writev(self._open_fd(), chunks)
        return os.write(self._open_fd(), chunks[0])

    @property
    def closed(self) -> bool:
        """Whether it has been given its name, or was given up."""
        return self._fd is None

    def close(self) -> None:
        """Close the file and give it its name; closing again does nothing."""
        if self.closed:
            return
        try:
            self._open_fd()
            if not self.overwrite:
                refuse_existing(self.path)
            if os.name == "nt":  # there, a file that is open cannot be renamed, nor can another writer have it
                self._close()
            else:  # some file systems say only when a descriptor is closed what could not be written
                os.close(os.dup(self._open_fd()))
            os.replace(self.name, self.path)  # while the lock still keeps other writers away
        except OpenError:
            raise
        except OSError as exn:
            raise cannot_write(exn, self.path) from exn
        finally:
            self._close()

    def abort(self) -> None:
        """Close the file and remove it."""
        if os.name == "nt":
            self._close()
        try:
            if self._owner == os.getpid():
                os.unlink(self.name)
        except FileNotFoundError:
            pass
        finally:
            self._close()

    def __del__(self) -> None:
        self._close()  # without a word: whoever was writing here has one

    def _open_fd(self) -> int:
        if self._fd is None:
            raise ValueError(f"{self.name} is closed")
        if self._owner != os.getpid():
            raise OpenError("the file was begun before this process was forked; open it here", url=self.path)
        return self._fd

    def _close(self) -> None:
        fd, self._fd = getattr(self, "_fd", None), None
        if fd is not None:
            os.close(fd)


def write_file(path: str | os.PathLike[str], data: bytes | bytearray) -> None:
    """Write a whole file, in place of one that is there.

    Raises:
        OpenError: it cannot be written.
    """
    file = AtomicFile(path, overwrite=True)
    try:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        file.close()
    except OSError as exn:
        file.abort()
        raise cannot_write(exn, file.path) from exn
    except BaseException:
        file.abort()
        raise


def _open_alone(path: str) -> int:
    """A descriptor of the file, empty, for this writer alone; what a killed writer left is taken over.

    Raises:
        BlockingIOError: another writer has it open.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        import fcntl
    except ImportError:  # Windows: no two writers can have it open for replacing
        return os.open(path, flags | os.O_TRUNC, 0o666)
    collected = False
    while True:
        fd = os.open(path, flags, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return _emptied(fd)
        except FileNotFoundError:
            pass  # another writer has just completed it, or given it up
        except BlockingIOError:
            os.close(fd)
            if not collected:  # it may be a writer of this program that was dropped without a close
                collected = True
                gc.collect()
                continue
            raise BlockingIOError(
                errno.EWOULDBLOCK, "another writer is at work on it, or one in this program was never closed"
            ) from None
        except OSError as exn:
            if exn.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                return _emptied(fd)  # a file system without locks
            os.close(fd)
            raise
        os.close(fd)


def _emptied(fd: int) -> int:
    if os.fstat(fd).st_size:
        os.ftruncate(fd, 0)
    return fd


def refuse_existing(path: str) -> None:
    """Raise OpenError when there is something under this path."""
    if os.path.lexists(path):
        raise OpenError("it exists; remove it, choose another name, or pass overwrite=True", url=path)


def cannot_write(exn: OSError | ValueError, url: str | None) -> OpenError:
    """An OpenError that says what cannot be written and why, with the errno."""
    fact = f"cannot be written: {getattr(exn, 'strerror', None) or exn}"
    if isinstance(exn, FileNotFoundError):
        fact += "; create the folder first"
    error = OpenError(fact, url=url)
    error.errno, error.strerror = getattr(exn, "errno", None), getattr(exn, "strerror", None)
    return error
