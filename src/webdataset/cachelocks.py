"""Locks of files of the cache: whether somebody writes a file, or reads it.

Rules: a lock belongs to an open file, and ends with the process that has it, however it ends. File systems without
locks, and systems without `flock`, are said to be so; whoever asks must then do without.
"""

from __future__ import annotations

import errno
from contextlib import suppress
from enum import Enum

NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
"""What a file system without locks answers."""


class Lock(Enum):
    """What came of asking for a lock."""

    GOT = "we have it"
    BUSY = "somebody else has one that keeps us out"
    NONE = "there are no locks here"


def ask(fd: int, exclusive: bool) -> Lock:
    """Ask for the lock of an open file without waiting; a lock that we have is changed."""
    try:
        import fcntl
    except ImportError:
        return Lock.NONE
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as exn:
        return Lock.NONE if exn.errno in NO_LOCKS else Lock.BUSY
    return Lock.GOT


def give_back(fd: int) -> None:
    """Let go of the lock at once, also where a forked process has the file open too."""
    with suppress(OSError, ImportError):
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_UN)
