"""Lines that several processes append to one file, none of them torn."""

from __future__ import annotations

import os


def append_line(path: str | os.PathLike[str], line: str) -> None:
    """Append a line to a file, which is made when it is not there."""
    log = open_log(path)
    try:
        append_locked(log, line)
    finally:
        os.close(log)


def open_log(path: str | os.PathLike[str]) -> int:
    """A descriptor for `append_locked`; the caller closes it."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)


def append_locked(file: int, line: str) -> None:
    """Append a line while no other process does."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows: one write to a file opened for appending is all there is
        os.write(file, line.encode())
        return
    fcntl.flock(file, fcntl.LOCK_EX)  # on network file systems appending alone does not keep lines whole
    try:
        os.write(file, line.encode())
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)
