"""One url -> one file that is there whole or not at all, downloaded once a host.

    claim the partial -> open the url -> go on behind what is there, if it is the same object -> look at the first bytes
    -> append what comes -> look at the whole -> sync, rename

Rules: readers follow the file while it grows, so nothing is appended that has not been looked at, and what was appended
is never changed. What goes on behind old bytes has the ETag and size that they had, or repeats them. `Download._append`
is the one place where bytes come in.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ._arguments import check_path, check_text
from ._closing import close_stream
from .cachepartial import Partial, State, claim, claim_private
from .errors import (
    DataError,
    MissingDependencyError,
    NotFoundError,
    OpenError,
    SecurityError,
    UnknownSchemeError,
    WrongContentError,
    printable,
    public_url,
)
from .filetypes import EARLY, kind_of
from .openers import open_streaming
from .storage.atomic import cannot_write
from .storage.options import StorageOptions
from .tar.header import BLOCK

logger = logging.getLogger(__name__)

Validator = Callable[[str], bool]

PAUSES = (0.1, 0.5)
"""Seconds before the second attempt and before the third, which is the last, of streams that try nothing themselves."""

WAIT = 0.02
"""Seconds between two looks at what another process is at."""

LONGEST_STOP = 1.0
"""Seconds that closing a reader may wait for its download to stop."""

PIECE = 1 << 20
ALIGNED = 1 << 18
SOON = 0.02
"""What comes fast is written in pieces of PIECE bytes, up to multiples of ALIGNED: from small pieces the system makes a
file that is slower to read ever after. What has waited for SOON seconds is written as it is."""

UNKNOWN = 32 << 20
"""Bytes after which room is made again for an object that does not say its size."""

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LASTING = (*DISK_FULL, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
_HOPELESS = (NotFoundError, UnknownSchemeError, SecurityError, MissingDependencyError, WrongContentError)


@dataclass(frozen=True)
class Job:
    """What to copy, and how.

    Attributes:
        url: where it comes from.
        dest: the name of the copy.
        options: how remote urls are read; None: as always.
        validator: called with the whole file; false refuses it. None: everything is kept.
        make_room: called when the size is known and written down, before the bytes come.
        keep_etag: write the ETag beside the copy.
        verbose: log it.
    """

    url: str
    dest: str
    options: StorageOptions | None = None
    validator: Validator | None = None
    make_room: Callable[[], None] = lambda: None
    keep_etag: bool = False
    verbose: bool = False

    def open(self) -> Any:
        """What is at the url, as a stream."""
        return open_streaming(self.url, self.options)["stream"]


class _Stopped(Exception):
    """Nobody waits for the download any more."""


class _Replaced(Exception):
    """What is at the url now is not what the partial is of."""


class Download:
    """A partial being filled, by whoever calls `run`: a thread after `start`.

    Attributes:
        error: what it failed with.
        complete: all bytes have been written; only the name may be missing.
        ended: nothing is written any more.
        rest: where the disk is full: bytes that follow those in the file, and the stream of those behind them.
    """

    def __init__(self, job: Job, partial: Partial) -> None:
        self.job = job
        self.partial = partial
        self.error: Exception | None = None
        self.complete = threading.Event()
        self.ended = threading.Event()
        self.rest: tuple[bytes, Any] | None = None
        self._stopped = threading.Event()
        self._stream: Any = None
        self._pending = bytearray()
        self._appended = 0.0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Run in a thread."""
        self._thread = threading.Thread(target=self.run, name="webdataset download", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self.partial.leave()
            raise

    def close(self, at_end: bool = True) -> None:
        """Nobody reads any more: stop, unless all has been read and only the name is missing. What has come stays."""
        if self._thread is not None and not self.ended.is_set():
            at_end = at_end or self.complete.is_set()
            if not at_end:
                self._stopped.set()
                for name in ("interrupt", "terminate"):
                    end = getattr(self._stream, name, None)
                    if end is not None:
                        end()
            self._thread.join(None if at_end else LONGEST_STOP)
        if self.ended.is_set():
            self.partial.leave()
        if self.rest is not None:
            close_stream(self.rest[1])

    def run(self) -> None:
        """Download; how it went is in the attributes."""
        try:
            if self.job.verbose:
                logger.info("downloading %s to %s", public_url(self.job.url), self.job.dest)
            self._fetch()
            self.complete.set()
            self._check()
            self.partial.commit(self.job.keep_etag)
        except _Replaced:
            self._give_up(end="gone")
        except Exception as exn:
            if not self._stopped.is_set():
                self._fail(exn)
        finally:
            try:
                if not self.partial.committed:  # a copy stays locked for who reads it, until `close`
                    self.partial.leave()
                close_stream(self._stream)
            finally:
                self.ended.set()

    def _fail(self, exn: Exception) -> None:
        self.error = exn
        full = getattr(exn, "errno", None) in DISK_FULL
        if full and self._stream is not None:
            self.rest, self._stream = (bytes(self._pending), self._stream), None
        self._give_up(end="gone" if full else "failed")

    def _give_up(self, end: str) -> None:
        """Tell the readers why nothing more comes; bytes that can be continued remain."""
        partial = self.partial
        if not partial.held:
            return
        try:
            partial.note(end=end, error=_told(self.error), at=time.time())
        except OSError:
            partial.discard()
            return
        refused = isinstance(self.error, WrongContentError)
        if end == "gone" or refused or not partial.have or partial.state.etag is None:
            partial.discard()

    def _fetch(self) -> None:
        """Bring the partial to the end of the object."""
        if self.partial.state.whole:
            return
        for pause in (*PAUSES, None):
            try:
                self._attempt()
                return
            except OSError as exn:
                # our own streams have been patient already; with commands and openers of programs we are
                own = hasattr(self._stream, "etag") or (self._stream is None and isinstance(exn, OpenError))
                if own or pause is None or isinstance(exn, _HOPELESS) or exn.errno in _LASTING:
                    raise
                logger.warning("attempt failed, the next one comes in %.1f s: %s", pause, exn)
                close_stream(self._stream)
                self._stream = None
                if self._stopped.wait(pause):
                    raise _Stopped

    def _attempt(self) -> None:
        partial = self.partial
        stream = self._stream = self.job.open()
        self._check_stopped()
        size, etag = version_of(stream)
        if partial.have and not skip(stream, partial.have, partial.state, partial.read, self._check_stopped):
            raise _Replaced
        self._note(size=size, etag=etag, trusted=True)
        self.job.make_room()
        read = getattr(stream, "read1", stream.read)
        self._pending = bytearray()
        roomy = partial.have
        while data := read(PIECE):
            self._check_stopped()
            self._pending += data
            if len(self._pending) >= PIECE:
                self._append(keep=(partial.have + len(self._pending)) % ALIGNED)
            elif len(self._pending) >= BLOCK and (partial.have < ALIGNED or time.monotonic() - self._appended > SOON):
                self._append()
            if size is None and partial.have - roomy > UNKNOWN:
                roomy = partial.have
                self.job.make_room()
        self._check_stopped()
        self._append()
        if size is not None and partial.have != size:
            raise OpenError(f"{partial.have} bytes came where {size} were announced", url=self.job.url)

    def _append(self, keep: int = 0) -> None:
        """Write what is pending, but for so many bytes at its end; the very first ones are looked at before."""
        early = EARLY.get(self.job.validator) if self.job.validator is not None else None
        start = bytes(self._pending[:BLOCK])
        if early is not None and not self.partial.have and not early(start):
            raise _wrong_content(start, self.job)
        try:
            while len(self._pending) > keep:
                with memoryview(self._pending) as view:
                    done = self.partial.write(view[: len(view) - keep])
                del self._pending[:done]
        except OSError as exn:
            raise cannot_write(exn, self.partial.name) from exn
        self._appended = time.monotonic()

    def _note(self, **changes: Any) -> None:
        try:
            self.partial.note(**changes)
        except OSError as exn:
            raise cannot_write(exn, self.partial.name) from exn

    def _check(self) -> None:
        """Raise WrongContentError if the validator refuses the file."""
        validator = self.job.validator
        if validator is not None and not validator(self.partial.name):
            raise _wrong_content(self.partial.read(BLOCK, 0), self.job)

    def _check_stopped(self) -> None:
        if self._stopped.is_set():
            raise _Stopped


def version_of(stream: Any) -> tuple[int | None, str | None]:
    """Bytes and ETag of the object behind a fresh stream, None where it does not know them."""
    size, etag = getattr(stream, "length", None), getattr(stream, "etag", None)
    return size if isinstance(size, int) else None, etag if isinstance(etag, str) else None


def skip(
    stream: Any,
    count: int,
    state: State,
    read_old: Callable[[int, int], bytes],
    check: Callable[[], None] = lambda: None,
) -> bool:
    """Bring a fresh stream behind bytes that are there already; false if it is of another object than they.

    Args:
        read_old: called with a number of bytes and a position, gives what is there.
        check: called now and then; may raise.
    """
    if state.etag is not None:
        if (state.size, state.etag) != version_of(stream):
            return False
        if count == state.size:
            return True
        if hasattr(stream, "skip_to"):
            stream.skip_to(count)
            return True
    position = 0
    while position < count:
        check()
        data = stream.read(min(PIECE, count - position))
        if not data or data != read_old(len(data), position):
            return False
        position += len(data)
    return True


def begin(job: Job, stale: os.stat_result | None = None) -> Download | None:
    """A download that is ours to run; None: the copy is there, or another process is at it.

    Args:
        stale: the copy that is to be replaced.

    Raises:
        OpenError: the copy cannot be written.
    """
    if is_there(job.dest, stale):
        return None
    try:
        os.makedirs(os.path.dirname(job.dest) or ".", exist_ok=True)
    except OSError as exn:
        raise cannot_write(exn, os.path.dirname(job.dest)) from exn
    partial = claim(job.dest)
    if partial is None:
        return None
    if is_there(job.dest, stale):  # came between the look and the lock
        partial.discard()
        return None
    return Download(job, partial)


def is_there(dest: str, stale: os.stat_result | None = None) -> bool:
    """Whether the copy is there, and is not the stale one."""
    try:
        found = os.stat(dest)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stale is None or not os.path.samestat(found, stale)


def fetch(job: Job, stale: os.stat_result | None = None) -> None:
    """Have the copy there, whole; another process that is at it is waited for.

    Raises:
        WrongContentError: the validator refused what came.
        OpenError: it cannot be downloaded, or not be written.
    """
    while not is_there(job.dest, stale):
        download = begin(job, stale)
        if download is None:
            time.sleep(WAIT)
            continue
        download.run()
        download.close()
        if download.error is not None:
            raise download.error


def download(url: str, dest: str | os.PathLike[str], chunk_size: int = 1024**2, verbose: bool = False) -> None:
    """Copy what is at a url to a file, which appears complete or not at all; one that is there is replaced.

    Args:
        chunk_size: Ignored, bytes are written as they come; kept for callers of 0.2.
        verbose: log it.

    Raises:
        OpenError: the url cannot be read to its end, or the file cannot be written.
    """
    check_text("download", "url", url)
    check_path("download", "dest", dest)
    job = Job(url, os.fspath(dest), verbose=verbose)
    done = Download(job, claim_private(job.dest))
    done.run()
    done.close()
    if done.error is not None:
        raise done.error


def _told(error: Exception | None) -> tuple[str, str] | None:
    """Class and message of an error for the readers of other processes; what is not ours may hold secrets."""
    if error is None:
        return None
    if isinstance(error, DataError):
        return type(error).__name__, error.message[:500]
    return OpenError.__name__, f"the download failed in another process with {type(error).__name__}"


def _wrong_content(start: bytes, job: Job) -> WrongContentError:
    seen = printable(repr(start[:200]), 1000)
    return WrongContentError(
        f"{job.dest} ({public_url(job.url)}) is not a tar archive, but a {kind_of(start[:BLOCK])}, contains {seen}"
    )
