"""A folder of local copies, kept below a size: what was used longest ago goes first.

Rules: a copy that is open for reading through the cache holds a shared lock (`read_locked`), one in the making an
exclusive one; neither is removed. Where there are no locks, what was used lately is taken to be in use. What is in the
making counts with the size that it will have. Whatever another process removes meanwhile is no error.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

from ._arguments import a, check_flag, check_function, check_number, check_path, checked
from .cachelocks import Lock, ask
from .cachepartial import etag_of, is_left_over, read_state, state_of

LATELY = 600.0
"""Seconds for which a file counts as in use where there are no locks."""

ABANDONED = 24 * 3600.0
"""Seconds for which the beginning of a copy, left by a stopped or killed process, is kept to be continued."""

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

    @checked(
        "LRUCleanup",
        cache_dir=a(check_path, optional=True),
        cache_size=a(check_number, "bytes"),
        keyfn=check_function,
        verbose=check_flag,
        interval=a(check_number, "seconds", optional=True),
    )
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

    def set_cache_dir(self, cache_dir: str | os.PathLike[str]) -> None:
        """Look after another folder from now on."""
        check_path("LRUCleanup.set_cache_dir", "cache_dir", cache_dir)
        self.cache_dir = cache_dir
        self.last_run = 0.0

    def cleanup(self) -> None:
        """Remove what was used longest ago, unless everything fits or the last look was less than `interval` ago."""
        if self.interval is None or not 0 <= time.time() - self.last_run < self.interval:
            self.make_room()

    def make_room(self) -> None:
        """As `cleanup`, but now, whenever the last look was: something is about to come."""
        if self.cache_dir is None or not os.path.isdir(self.cache_dir):
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

    def _oldest_first(self, sizes: dict[str, tuple[int, int]]) -> list[str]:
        keys = {}
        for path, (_, used) in sizes.items():
            with suppress(OSError):  # removed meanwhile
                keys[path] = (self.keyfn(path), used)  # some clocks of file systems have ticks of milliseconds
        return sorted(keys, key=keys.__getitem__)


def _files_in(folder: str | os.PathLike[str]) -> dict[str, tuple[int, int]]:
    """Path to (bytes, time of last use in nanoseconds) of every file below a folder."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if is_left_over(path) and name.endswith(".state"):
                continue  # it comes and goes with its partial
            with suppress(OSError):
                facts = os.lstat(path)
                if stat.S_ISREG(facts.st_mode):
                    found[path] = (max(facts.st_size, _announced(path)), facts.st_atime_ns)
    return found


def _announced(path: str) -> int:
    """Bytes that a partial will have, 0 where that is not known, and for other files."""
    if is_left_over(path):
        with suppress(OSError), open(state_of(path), "rb") as file:
            return read_state(file.fileno()).size or 0
    return 0


def sweep(folder: str | os.PathLike[str]) -> None:
    """Remove what stopped and killed processes left in a folder, and below it, and nobody has continued for a day."""
    before = time.time() - ABANDONED
    for place, _, names in os.walk(folder):
        for path in (os.path.join(place, name) for name in names):
            partial = path.removesuffix(".state") + ".partial" if path.endswith(".state") else path
            if is_left_over(path) and (partial == path or not os.path.exists(partial)):
                with suppress(OSError):
                    if os.path.getmtime(path) < before:
                        remove_unused(path)


def remove_unused(path: str) -> bool:
    """Remove a file, and what is kept beside it, unless somebody holds a lock on it; whether it is gone."""
    try:
        fd = _open_to_lock(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        lock = ask(fd, exclusive=True)
        lately = 0 <= time.time() - os.fstat(fd).st_ctime < LATELY
        if lock is Lock.BUSY or (lock is Lock.NONE and lately):
            return False
        for beside in (etag_of(path), *([state_of(path)] if is_left_over(path) else [])):
            with suppress(FileNotFoundError):
                os.unlink(beside)
        os.unlink(path)
        return True
    except OSError:  # in use, or not ours to remove
        return not os.path.lexists(path)
    finally:
        os.close(fd)


def _open_to_lock(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))  # NFS gives an exclusive lock only to writers
    except PermissionError:
        return os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))


def read_locked(file: IO[bytes]) -> IO[bytes]:
    """The open file, which no cleanup of this host removes before it is closed."""
    ask(file.fileno(), exclusive=False)  # without locks the cleanup does what it can
    return file


def touch(path: str) -> None:
    """Note that a file is used now, where that may be noted; the time of its last change stays what it is."""
    with suppress(OSError):
        os.utime(path, ns=(time.time_ns(), os.stat(path).st_mtime_ns))
