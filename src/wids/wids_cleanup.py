"""A folder kept small from outside: the files that were changed last stay, others are removed."""

from __future__ import annotations

import glob
import logging
import multiprocessing
import os
from contextlib import suppress

from webdataset.cachecleanup import remove_unused
from webdataset.cachelocks import Lock, ask

logger = logging.getLogger(__name__)


def keep_most_recent_files(pattern: str, maxsize: int = int(1e12), maxfiles: int = 1000, debug: bool = False) -> None:
    """Of the files that match, remove all but the newest `maxfiles` that have `maxsize` bytes together at most.

    Files that a program has open through wids or the cache of webdataset stay. `debug` logs what is removed.
    """
    facts = []
    for path in glob.glob(pattern):
        with suppress(FileNotFoundError):
            found = os.stat(path)
            facts.append((found.st_mtime_ns, path, found.st_size))
    total = 0
    for number, (_, path, size) in enumerate(sorted(facts, reverse=True)):
        total += size
        if (number >= maxfiles or total > maxsize) and remove_unused(path) and debug:
            logger.info("%s: removed, %d bytes", path, size)


class ExclusiveLock:
    """A lock that one process of a host can have; it ends with the process, at the latest."""

    def __init__(self, lockfile: str | os.PathLike[str]) -> None:
        self.lockfile = os.fspath(lockfile)
        self.lock: int | None = None

    def try_lock(self) -> bool:
        """Take the lock if nobody has it; whether we have it."""
        if self.lock is not None:
            return True
        fd = os.open(self.lockfile, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        if ask(fd, exclusive=True) is not Lock.GOT:
            os.close(fd)
            return False
        self.lock = fd
        return True

    def release_lock(self) -> None:
        """Give it back, if we have it."""
        if self.lock is not None:
            fd, self.lock = self.lock, None
            os.close(fd)


def create_cleanup_background_process(
    pattern: str, maxsize: int = int(1e12), maxfiles: int = 1000, every: float = 60
) -> multiprocessing.Process:
    """A process that calls `keep_most_recent_files` now and every so many seconds, as long as this one lives.

    Of several for one folder, one works; the others wait for its end.
    """
    process = multiprocessing.Process(target=_clean_up, args=(pattern, maxsize, maxfiles, every), daemon=True)
    process.start()
    return process


def _clean_up(pattern: str, maxsize: int, maxfiles: int, every: float) -> None:
    lock = ExclusiveLock(os.path.join(os.path.dirname(pattern) or ".", ".cleanup.lock"))
    parent = multiprocessing.parent_process()
    while parent is not None and parent.is_alive():
        if lock.try_lock():
            keep_most_recent_files(pattern, maxsize, maxfiles)
        parent.join(every)


__all__ = ["ExclusiveLock", "create_cleanup_background_process", "keep_most_recent_files"]
