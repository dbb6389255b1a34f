"""A folder of local copies, kept below a size: what was used longest ago goes first.

Rules: a copy that is open for reading through the cache holds a shared lock (`read_locked`), one in the making an
exclusive one; neither is removed. Whatever another process removes meanwhile is no error.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
"""What a file system without locks answers."""

logger = logging.getLogger(__name__)


class LRUCleanup:
    """Removes files of a folder, and of those in it, until what remains fits.

    Args:
        cache_dir: the folder; None, or one that is missing, is nothing to clean.
        cache_size: bytes that may remain.
        keyfn: called with a path, gives its last use; the smallest goes first. The default is the time of the last
            change of a file's status, which `FileCache` brings about whenever it uses a file.
        verbose: log what is removed.
        interval: seconds between two looks at the folder; None: look each time.
    """

    def __init__(
        self,
        cache_dir: str | os.PathLike[str] | None = None,
        cache_size: float = int(1e12),
        keyfn: Callable[[str], Any] = os.path.getctime,
        verbose: bool = False,
        interval: float | None = 30,
    ) -> None:
        self.cache_dir = cache_dir
        self.cache_size = cache_size
        self.keyfn = keyfn
        self.verbose = verbose
        self.interval = interval
        self.last_run = 0.0
        self._room = 0.0

    def set_cache_dir(self, cache_dir: str | os.PathLike[str]) -> None:
        """Look after another folder from now on."""
        self.cache_dir = cache_dir
        self.last_run = 0.0

    def added(self, size: int) -> None:
        """Say that a file came: when there is no room left for it, the next `cleanup` does not wait for its time."""
        self._room -= size
        if self._room < 0:
            self.last_run = 0.0

    def cleanup(self) -> None:
        """Remove what was used longest ago, unless everything fits or the last look was less than `interval` ago."""
        if self.cache_dir is None or not os.path.isdir(self.cache_dir):
            return
        if self.interval is not None and 0 <= time.time() - self.last_run < self.interval:
            return
        sizes = _files_in(self.cache_dir)
        total = sum(size for size, _ in sizes.values())
        for path in self._oldest_first(sizes) if total > self.cache_size else ():
            if total <= self.cache_size:
                break
            if remove_unused(path):
                total -= sizes[path][0]
                if self.verbose:
                    logger.info("%s: removed from the cache, %d bytes", path, sizes[path][0])
        self.last_run = time.time()
        self._room = self.cache_size - total

    def _oldest_first(self, sizes: dict[str, tuple[int, int]]) -> list[str]:
        keys = {}
        for path, (_, changed) in sizes.items():
            with suppress(OSError):  # removed meanwhile
                keys[path] = (self.keyfn(path), changed)  # some clocks of file systems have ticks of milliseconds
        return sorted(keys, key=keys.__getitem__)


def _files_in(folder: str | os.PathLike[str]) -> dict[str, tuple[int, int]]:
    """Path to (bytes, time of change in nanoseconds) of every file below a folder."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            with suppress(OSError):
                facts = os.lstat(path)
                if stat.S_ISREG(facts.st_mode):
                    found[path] = (facts.st_size, facts.st_mtime_ns)
    return found


def remove_unused(path: str) -> bool:
    """Remove a file unless somebody holds a lock on it; whether it is gone."""
    try:
        import fcntl
    except ImportError:  # Windows removes no file that is open
        with suppress(OSError):
            os.unlink(path)
            return True
        return False
    try:
        with open(path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exn:
                if exn.errno not in NO_LOCKS:
                    return False
            os.unlink(path)
            return True
    except FileNotFoundError:
        return True
    except OSError:  # in use, or not ours to remove
        return False


def read_locked(file: IO[bytes]) -> IO[bytes]:
    """The open file, which no cleanup of this host removes before it is closed, and whose last use is now."""
    with suppress(OSError, ImportError):  # no locks here; then the cleanup does what it can
        import fcntl

        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return file


def touch(path: str) -> None:
    """Note that a file is used now, where that may be noted."""
    now = time.time_ns()
    with suppress(OSError):
        os.utime(path, ns=(now, now))
