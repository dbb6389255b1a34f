"""A shard -> its bytes at any offset: a local file, an object read in ranges, or the plain copy of a compressed one.

    with open_shard(url) as shard: shard.read(512, 1024)

Each read checks that the shard is still the one that was opened: a file by size and time of change, an object by its
ETag. Files are read with pread, never mapped: one that shrinks gives an error where a mapping would kill the process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
from typing import IO, Any, NamedTuple, Protocol

from .cachenames import url_to_cache_name
from .errors import CompressionError, DataError, OpenError, StaleIndexError, TruncatedError, public_url
from .gopen import rewrite_url
from .security import refuse_if_secure
from .storage import local, places
from .storage.atomic import AtomicFile
from .storage.options import StorageOptions
from .storage.options import storage_options as options_of
from .storage.urls import scheme_of
from .tar.compression import MAGIC_BYTES, compression_of, open_decompressed
from .tar.header import BLOCK, is_header

logger = logging.getLogger(__name__)

WINDOW = 1 << 16
LARGE_WINDOW = 1 << 22
WORTH_A_REQUEST = 1 << 20
"""Bytes from which on leaving them out is worth another request."""
PIECE = 1 << 20


class Version(NamedTuple):
    """Which state of a shard it is: bytes, time of change in nanoseconds (files), ETag (objects); None if unknown."""

    size: int | None
    mtime_ns: int | None = None
    etag: str | None = None


class ShardBytes(Protocol):
    """A shard that can be read anywhere.

    Attributes:
        url: what the program calls it.
        version: the state that was opened.
        size: bytes that can be read, decompressed ones of a compressed shard; None if nobody says.
        is_remote: whether each read costs a request.
        fault: what ended the decompression too early, if it did; what came before it can be read.
    """

    url: str
    version: Version
    size: int | None
    is_remote: bool
    fault: DataError | None

    def read(self, start: int, stop: int) -> bytes:
        """Bytes start (inclusive) to stop (exclusive), all of them.

        Raises:
            TruncatedError: there are fewer.
            StaleIndexError: the shard is not the one that was opened any more.
        """
        raise NotImplementedError

    def stream(self) -> Any:
        """All of it as a stream for the reader of archives; the caller closes it."""

    def close(self) -> None:
        """Let go of files; closing again does nothing."""


class LocalShard:
    """See ShardBytes; `version` is that of the shard, `file`, which is closed, may be a plain copy of it."""

    is_remote = False

    def __init__(self, url: str, file: IO[bytes], version: Version, path: str | None = None) -> None:
        self.url = url
        self.version = version
        self.fault: DataError | None = None
        self._fd = os.dup(file.fileno())  # no object that complains when a program leaves it open
        file.close()
        self._path = path
        self._lock = threading.Lock()
        self._state = _state(self._fd)
        self.size: int | None = self._state[0]

    def read(self, start: int, stop: int) -> bytes:
        """See ShardBytes."""
        if _state(self._fd) != self._state:
            raise StaleIndexError("the file was changed after it was opened; open the data set anew", url=self.url)
        data = self._pread(stop - start, start)
        while len(data) < stop - start:
            more = self._pread(stop - start - len(data), start + len(data))
            if not more:
                raise TruncatedError(f"{stop - start} bytes should be here, there are {len(data)}", url=self.url)
            data += more
        return data

    def _pread(self, size: int, start: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._fd, size, start)
        with self._lock:
            os.lseek(self._fd, start, os.SEEK_SET)
            return os.read(self._fd, size)

    def stream(self) -> Any:
        """See ShardBytes; a descriptor of its own, since forked processes share the place of the one that there is."""
        if self._path is None:
            return RangeStream(self)
        file = local.open_read(self._path, 0)
        if not os.path.samestat(os.fstat(file.fileno()), os.fstat(self._fd)):
            file.close()
            raise StaleIndexError("the file was replaced after it was opened; open the data set anew", url=self.url)
        return file

    def close(self) -> None:
        """See ShardBytes."""
        fd, self._fd = getattr(self, "_fd", -1), -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        self.close()


class RemoteShard:
    """See ShardBytes."""

    is_remote = True

    def __init__(self, url: str, options: StorageOptions) -> None:
        self.url = url
        self.fault: DataError | None = None
        self._target = rewrite_url(url)
        self._options = options
        self.size, etag = places.stat(self._target, options)
        self.version = Version(self.size, etag=etag)

    def read(self, start: int, stop: int) -> bytes:
        """See ShardBytes."""
        if stop <= start:
            return b""
        data = places.read_range(self._target, start, stop, self._options, etag=self.version.etag)
        if len(data) < stop - start:
            raise TruncatedError(f"{stop - start} bytes should be here, there are {len(data)}", url=self.url)
        return data

    def stream(self) -> RangeStream:
        """See ShardBytes."""
        return RangeStream(self)

    def close(self) -> None:
        """See ShardBytes."""


class RangeStream:
    """A shard for a reader of headers: data that are passed over are not asked for, where that is worth it."""

    def __init__(self, shard: ShardBytes) -> None:
        if shard.size is None:
            raise OpenError("the server does not say how large it is, so it cannot be read in parts", url=shard.url)
        self.shard = shard
        self.size = shard.size
        self.closed = False
        self._at = 0
        self._window = b""
        self._start = 0
        self._step = WINDOW

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most `size` of them, b"" at the end."""
        inside = self._at - self._start
        if inside >= len(self._window):
            if self._at >= self.size:
                return b""
            stop = min(self.size, self._at + max(self._step, 0 if size is None else size))
            self._window, self._start, inside = self.shard.read(self._at, stop), self._at, 0
            self._step = min(2 * self._step, LARGE_WINDOW)
        data = self._window[inside:] if size is None or size < 0 else self._window[inside : inside + size]
        self._at += len(data)
        return data

    def pass_over(self, size: int) -> None:
        """Go on behind the next `size` bytes."""
        if self._at + size > self.size:
            raise TruncatedError(f"{size} bytes should follow, there are only {self.size - self._at} left")
        self._at += size
        if self._at - (self._start + len(self._window)) >= WORTH_A_REQUEST:
            self._step = WINDOW
        elif self._at > self._start + len(self._window) and self._window:
            self._window, self._start = b"", self._at

    def close(self) -> None:
        """It holds nothing but bytes."""
        self._window, self.closed = b"", True


def open_shard(url: str, cache_dir: str | None = None, storage_options: Any = None) -> ShardBytes:
    """The shard for reading anywhere in it; a compressed one has a plain copy made, in `cache_dir` where there is one.

    Raises:
        OpenError: it cannot be had, or there is no way to read a part of it (`pipe:`, `-`).
    """
    options = options_of(storage_options)
    target = rewrite_url(url)
    path = local.local_path(target)
    if path is not None:
        refuse_if_secure(f"{public_url(url)}: a local file, which is not read while enforce_security is set")
        file = local.open_read(path, 0)
        shard: ShardBytes = LocalShard(url, file, Version(*_state(file.fileno())), path)
    elif scheme_of(target) in ("pipe", "") or target == "-":
        raise OpenError("of a command's output no part can be read alone; write it to a file first", url=url)
    else:
        shard = RemoteShard(url, options)
    try:
        start = shard.read(0, min(BLOCK, shard.size or 0))
        kind = compression_of(start[:MAGIC_BYTES])
        if kind is None or is_header(start):
            return shard
        with contextlib.closing(shard):
            return _plain_copy(shard, kind, target, options, cache_dir)
    except BaseException:
        shard.close()
        raise


def _plain_copy(
    shard: ShardBytes, kind: str, target: str, options: StorageOptions, cache_dir: str | None
) -> LocalShard:
    """The decompressed shard as a file: one in the cache that is there or is made, else one without a name."""
    import tempfile

    name = None
    if cache_dir is not None:
        size, mtime_ns, etag = shard.version
        state = f"#{size}-{mtime_ns}-{etag}"
        name = os.path.join(cache_dir, url_to_cache_name(absolute(target) + state) + ".plain")
        with contextlib.suppress(OSError):
            return LocalShard(shard.url, open(name, "rb", buffering=0), shard.version, name)
    logger.warning(
        "%s: compressed with %s, where no sample can be reached alone: it is decompressed once, to %s",
        public_url(shard.url),
        kind,
        name or "a temporary file",
    )
    out: Any = None
    if name is not None:
        with contextlib.suppress(OSError):
            os.makedirs(os.path.dirname(name), exist_ok=True)
            out = AtomicFile(name, overwrite=True)
    out = out or tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # the shard keeps it
    try:
        with contextlib.closing(places.open_read(target, options)) as stream:
            fault = _decompress(stream, kind, out)
        if fault is None and isinstance(out, AtomicFile):
            out.close()
            return LocalShard(shard.url, local.open_read(out.path, 0), shard.version, out.path)
        if isinstance(out, AtomicFile):  # what came before the fault is kept without a name
            whole, out = out, tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # the shard keeps it
            try:
                with open(whole.name, "rb") as file:
                    shutil.copyfileobj(file, out)
            finally:
                whole.abort()
    except BaseException:
        out.abort() if isinstance(out, AtomicFile) else out.close()
        raise
    copy = LocalShard(shard.url, out, shard.version)
    copy.fault = fault
    return copy


def _decompress(stream: Any, kind: str, out: Any) -> DataError | None:
    """Write what is inside of a stream; the fault that ended it too early."""
    inside = open_decompressed(stream, kind)
    while True:
        try:
            data = inside.read1(PIECE)
        except DataError as exn:
            return exn
        except EOFError as exn:
            return TruncatedError(f"the {kind} stream ends too early: {exn}")
        except Exception as exn:
            return CompressionError(f"damaged {kind} stream: {exn}")
        if not data:
            return None
        view = memoryview(data)
        while view:
            view = view[out.write(view) :]


def absolute(url: str) -> str:
    """A name that is the same for a file wherever the program runs."""
    path = local.local_path(url)
    return url if path is None else os.path.abspath(path)


def _state(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_size, found.st_mtime_ns
