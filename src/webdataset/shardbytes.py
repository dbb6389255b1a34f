"""A shard -> its bytes at any offset: a local file, or an object that is read in ranges. `shardopening` opens them.

Each read checks that the shard is still the one that was opened: a file by size and time of change, an object by its
ETag. Files are read with pread, never mapped: one that shrinks gives an error where a mapping would kill the process.
"""

from __future__ import annotations

import os
import threading
from typing import IO, Any, NamedTuple, Protocol

from .errors import DataError, OpenError, StaleIndexError, TruncatedError
from .gopen import rewrite_url
from .storage import local, places
from .storage.options import StorageOptions

WINDOW = 1 << 16
LARGE_WINDOW = 1 << 22
WORTH_A_REQUEST = 1 << 20
"""Bytes from which on leaving them out is worth another request."""


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
        unit: so many bytes come along with each read, whether asked for or not.
        doubtful: whether a fault may be one of a list of frames, and not of the shard; see `fall_back`.
        fault: what ended the decompression too early, if it did; what came before it can be read.
        in_parts: whether a part of it comes alone, as far as that is known, and not with all that is before it.
    """

    url: str
    version: Version
    size: int | None
    is_remote: bool
    unit: int
    doubtful: bool
    fault: DataError | None
    in_parts: bool

    def read(self, start: int, stop: int) -> bytes:
        """Bytes start (inclusive) to stop (exclusive), all of them.

        Raises:
            TruncatedError: there are fewer.
            StaleIndexError: the shard is not the one that was opened any more.
        """
        raise NotImplementedError

    def stream(self) -> Any:
        """All of it as a stream for the reader of archives; the caller closes it."""

    def fall_back(self) -> None:
        """Be what a stream of the shard gives, where that is in doubt; what was read before counts no more."""

    def close(self) -> None:
        """Let go of files; closing again does nothing."""


class Plain:
    """What is the same for shards that are read as they lie there."""

    unit = 0
    doubtful = False
    in_parts = True

    def fall_back(self) -> None:
        """See ShardBytes; nothing is in doubt."""


class LocalShard(Plain):
    """See ShardBytes; `version` is that of the shard, `file`, which is closed, may be a plain copy of it.

    `touched` files are those whose time of change is noted anew whenever they are used; nobody changes what is in them.
    """

    is_remote = False

    def __init__(
        self, url: str, file: IO[bytes], version: Version, path: str | None = None, *, touched: bool = False
    ) -> None:
        self.url = url
        self.version = version
        self.fault: DataError | None = None
        self._fd = os.dup(file.fileno())  # no object that complains when a program leaves it open
        file.close()
        self._path = path
        self._lock = threading.Lock()
        self._size, mtime_ns = state_of(self._fd)
        self._mtime_ns = None if touched else mtime_ns
        self.size: int | None = self._size

    def read(self, start: int, stop: int) -> bytes:
        """See ShardBytes."""
        self.check()
        data = self._pread(stop - start, start)
        while len(data) < stop - start:
            more = self._pread(stop - start - len(data), start + len(data))
            if not more:
                raise TruncatedError(f"{stop - start} bytes should be here, there are {len(data)}", url=self.url)
            data += more
        return data

    def check(self) -> None:
        """Raise StaleIndexError if the file is not as it was when it was opened."""
        size, mtime_ns = state_of(self._fd)
        if size != self._size or self._mtime_ns not in (mtime_ns, None):
            raise StaleIndexError("the file was changed after it was opened; open the data set anew", url=self.url)

    def fileno(self) -> int:
        """The open file, for as long as this object is there and not closed."""
        return self._fd

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


class RemoteShard(Plain):
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
        data, self.in_parts = places.read_part(self._target, start, stop, self._options, etag=self.version.etag)
        if len(data) < stop - start:
            raise TruncatedError(f"{stop - start} bytes should be here, there are {len(data)}", url=self.url)
        return data

    def stream(self) -> RangeStream:
        """See ShardBytes."""
        return RangeStream(self, self)

    def whole(self) -> Any:
        """The object in one piece.

        Raises:
            StaleIndexError: it is not the one that was opened any more.
        """
        stream = places.open_read(self._target, self._options)
        if getattr(stream, "etag", None) in (None, self.version.etag):
            return stream
        stream.close()
        raise StaleIndexError("the object was replaced just now; open the data set anew", url=self.url)

    def close(self) -> None:
        """See ShardBytes."""


class RangeStream:
    """A shard for a reader of headers: data that are passed over are not asked for, where that is worth it.

    Args:
        remote: the same one, if it is remote: where it is not sent in parts, all of it is read, once.
    """

    def __init__(self, shard: ShardBytes, remote: RemoteShard | None = None) -> None:
        if shard.size is None:
            raise OpenError("the server does not say how large it is, so it cannot be read in parts", url=shard.url)
        self.shard = shard
        self.size = shard.size
        self.closed = False
        self._at = 0
        self._window = b""
        self._start = 0
        self._step = WINDOW
        self._remote = remote
        self._whole: Any = None
        self._read_of_whole = 0

    def read(self, size: int = -1) -> bytes:
        """The next bytes, at most `size` of them, b"" at the end."""
        inside = self._at - self._start
        if inside >= len(self._window):
            if self._at >= self.size:
                return b""
            stop = min(self.size, self._at + self._step)
            in_parts = self._remote is None or self._remote.in_parts
            read = self.shard.read if in_parts else self._next
            self._window, self._start, inside = read(self._at, stop), self._at, 0
            self._step = min(2 * self._step, LARGE_WINDOW)
        data = self._window[inside:] if size is None or size < 0 else self._window[inside : inside + size]
        self._at += len(data)
        return data

    def _next(self, start: int, stop: int) -> bytes:
        """These bytes, which lie behind those that were read before, from a stream of all."""
        if self._whole is None:
            assert self._remote is not None
            self._whole = self._remote.whole()
        while self._read_of_whole < start and (passed := self._whole.read(min(start - self._read_of_whole, WINDOW))):
            self._read_of_whole += len(passed)
        data: bytes = self._whole.read(stop - start)
        self._read_of_whole += len(data)
        if self._read_of_whole < stop:  # it broke off
            data += self.shard.read(self._read_of_whole, stop)
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
        """Let go of bytes, and of the stream that they come from."""
        self._window, self.closed = b"", True
        if self._whole is not None:
            self._whole.close()


def absolute(url: str) -> str:
    """A name that is the same for a file wherever the program runs."""
    path = local.local_path(url)
    return url if path is None else os.path.abspath(path)


def state_of(fd: int) -> tuple[int, int]:
    """Size, and time of change in nanoseconds, of an open file."""
    found = os.fstat(fd)
    return found.st_size, found.st_mtime_ns
