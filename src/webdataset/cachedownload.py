"""One url -> one file that is there whole or not at all, downloaded once a host.

Rules: who downloads holds the lock of `<file>.partial`; others wait for it, and then find the file. What a killed
process left is taken over by the next one. `_copy` is the one place where bytes come in.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable

from ._closing import close_stream
from .errors import (
    MissingDependencyError,
    NotFoundError,
    OpenError,
    SecurityError,
    UnknownSchemeError,
    WrongContentError,
    printable,
    public_url,
)
from .filetypes import kind_of
from .storage.atomic import AtomicFile, cannot_write

logger = logging.getLogger(__name__)

Validator = Callable[[str], bool]

PAUSES = (0.1, 0.5)
"""Seconds before the second attempt and before the third, which is the last."""

WAIT = 0.05
"""Seconds between two looks at a download that another process is at."""

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_BUSY = (errno.EWOULDBLOCK,)
_LASTING = (*DISK_FULL, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
_HOPELESS = (NotFoundError, UnknownSchemeError, SecurityError, MissingDependencyError, WrongContentError)


def download(url: str, dest: str | os.PathLike[str], chunk_size: int = 1024**2, verbose: bool = False) -> None:
    """Copy what is at a url to a file, which appears complete or not at all; one that is there is replaced.

    Args:
        chunk_size: bytes that are read at once.
        verbose: log it.

    Raises:
        OpenError: the url cannot be read to its end, or the file cannot be written.
    """
    _copy(url, os.fspath(dest), chunk_size, verbose, replace=True)


def _copy(
    url: str,
    dest: str,
    chunk_size: int = 1024**2,
    verbose: bool = False,
    validator: Validator | None = None,
    replace: bool = False,
) -> bool:
    """Whether the file was downloaded; False: it was there, or came while another process had the lock."""
    while True:
        if not replace and os.path.exists(dest):
            return False
        try:
            file = AtomicFile(dest, overwrite=True)
        except OpenError as exn:
            if exn.errno not in _BUSY:
                raise
            time.sleep(WAIT)
            continue
        try:
            if not replace and os.path.exists(dest):  # came between the look and the lock
                return False
            if verbose:
                logger.info("downloading %s to %s", public_url(url), dest)
            _fill(file, url, chunk_size)
            if validator is not None and not validator(file.name):
                raise _wrong_content(file.name, dest, url)
            file.commit()
            return True
        finally:
            if not file.closed:
                file.discard()


def _fill(file: AtomicFile, url: str, chunk_size: int) -> None:
    from .gopen import gopen

    stream = gopen(url)
    try:
        while chunk := stream.read(chunk_size):
            view = memoryview(chunk)
            while view:
                try:
                    view = view[file.write(view) :]
                except OSError as exn:
                    raise cannot_write(exn, file.name) from exn
    finally:
        close_stream(stream)


def _wrong_content(path: str, dest: str, url: str) -> WrongContentError:
    with open(path, "rb") as stream:
        start = stream.read(512)
    seen = printable(repr(start[:200]), 1000)
    return WrongContentError(
        f"{dest} ({public_url(url)}) is not a tar archive, but a {kind_of(start)}, contains {seen}"
    )


def copy_shard(url: str, dest: str, verbose: bool, validator: Validator | None) -> bool:
    """Download a shard, in three attempts at most; False: it was there, or another process has just fetched it.

    Raises:
        WrongContentError: the validator refused what came.
        OpenError: it cannot be downloaded, or not be written.
    """
    for attempt, pause in enumerate(PAUSES, 1):
        try:
            return _copy(url, dest, verbose=verbose, validator=validator)
        except OSError as exn:
            if isinstance(exn, _HOPELESS) or exn.errno in _LASTING:
                raise
            logger.warning("attempt %d of %d failed: %s", attempt, len(PAUSES) + 1, exn)
            time.sleep(pause)
    return _copy(url, dest, verbose=verbose, validator=validator)
