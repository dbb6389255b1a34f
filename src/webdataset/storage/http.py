"""Objects on http servers as byte streams that survive: a body that breaks goes on at the byte where it broke.

Rules: bytes of two versions of an object never mix. A request that goes on names the version it wants (If-Match with
the ETag, If-Range with the date); where the server gives no ranges, or tells nothing of versions (a weak ETag is not
enough), the object is read again from its beginning, and what was given out before must have the same checksum. The
length is checked. A forked process goes on over a connection of its own.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import re
import threading
import zlib
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..errors import ConnectionLostError, OpenError, public_url
from .bytestream import PIECE, ByteStream
from .exchange import give_up, open_response, request
from .options import StorageOptions, storage_options
from .retry import Patience
from .status import connection_error, status_error, too_slow
from .target import Stat, Target

if TYPE_CHECKING:
    import urllib3

logger = logging.getLogger(__name__)

NO_HEAD = (403, 405, 501)
"""What servers answer that give objects, and not their headers alone."""
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


def read_part(
    target: Target, start: int, stop: int, options: StorageOptions | None = None, etag: str | None = None
) -> tuple[bytes, bool]:
    """Bytes start (inclusive) to stop (exclusive) of an object, fewer where it ends before; whether it came as a range.

    Args:
        etag: the version that is wanted; another one is an error.
    """
    if stop <= start:
        return b"", True
    with HttpReader(target, options or storage_options(), start, stop, etag) as reader:
        data = reader.read()
        if start and not reader.ranges:
            _tell_of_no_ranges(urlsplit(public_url(reader.url)).netloc)
    return data, reader.ranges


@functools.cache
def _tell_of_no_ranges(server: str) -> None:
    """Say it once for each server."""
    logger.warning(
        "%s: the server gives no ranges, so each read of a part begins at the first byte of the object;"
        " IndexedDataset(cache_shards=True) reads each shard once",
        server,
    )


def stat(target: Target, options: StorageOptions | None = None) -> Stat:
    """Size and ETag, from the headers alone; from a byte where a server refuses, as for links signed for GET."""
    options = options or storage_options()
    answer = request(target, "HEAD", options, accept=(200, *NO_HEAD))
    size = length_of(answer.headers)
    if answer.status in NO_HEAD or size is None:
        with HttpReader(target, options, 0, 1) as reader:
            return Stat(reader.size, reader.etag)
    return Stat(size, answer.headers.get("ETag"))


class HttpReader(ByteStream):
    """Bytes start (inclusive) to stop (exclusive) of an object; to its end without stop.

    Args:
        etag: the version that is wanted; None: the one that there is now.
        stopped: when it is set, nothing is tried again.

    Attributes:
        url: what was asked for.
        headers: headers of the first response.
        size: bytes of the whole object, None where the server does not say.
        length: bytes that this reader gives in all, None where the server does not say.
        got: bytes that were given so far.
        etag: the ETag of the object, None where the server sends none that is strong.
        ranges: whether the server gives ranges of it.
    """

    def __init__(
        self,
        target: Target,
        options: StorageOptions,
        start: int = 0,
        stop: int | None = None,
        etag: str | None = None,
        stopped: threading.Event | None = None,
    ) -> None:
        from urllib3.exceptions import HTTPError

        self.url = target.url
        self.got = 0
        self.etag = etag
        self.size: int | None = None
        self.length: int | None = None
        self.ranges = False
        self._target, self._options = target, options
        self._start, self._stop = start, stop
        self._stopped = threading.Event() if stopped is None else stopped
        self._patience = Patience(options, self._stopped)
        self._errors = (HTTPError, OSError)
        self._broken: OpenError | None = None
        self._failure: OpenError | None = None
        self._process = os.getpid()
        self._weak: str | None = None
        self._modified: str | None = None
        self._checksum: int | None = None
        self._faltered = self._dripping = False
        self._since = 0
        self._response = self._ask()
        self.headers: Mapping[str, str] = self._response.headers
        self._learn()
        self._broken = self._catch_up()

    def close(self) -> None:
        """Let go of the connection; it is kept for the next request if the body was read to its end."""
        if not self.closed:
            if hasattr(self, "_response"):
                give_up(self._response)
            super().close()

    def interrupt(self) -> None:
        """Wake a thread that waits for bytes of this reader; its read fails, and nothing is tried again."""
        self._stopped.set()
        with contextlib.suppress(ValueError, RuntimeError):  # the body has ended, and the connection is gone
            self._response.shutdown()

    def skip_to(self, position: int) -> None:
        """Leave out what comes before this byte of the object, which is within it; nothing may have been read yet."""
        assert self.got == self._start == 0
        self._start = position
        self._learn_size(self.size)
        give_up(self._response)
        self._response = self._ask()
        self._check_version()
        self._broken = self._catch_up()

    def _read(self, size: int, some: bool = False) -> bytes:
        if self.closed:
            raise ValueError(f"{self!r} is closed")
        if self._failure is not None:
            raise self._failure
        self._patience.begin()
        if self._process != os.getpid():
            self._separate()
        while True:
            if self._broken is not None:
                self._go_on(self._broken)
            data, fault = self._piece(size, some)
            self._broken = fault
            if data:
                self._account(data)
                return data
            if fault is None:
                return b""

    def _piece(self, size: int, some: bool = False) -> tuple[bytes, OpenError | None]:
        """The next bytes of the response that there is, and what broke behind them; neither at the end."""
        most = self.length if self.length is not None or self._stop is None else self._stop - self._start
        wanted = size if most is None else min(size, most - self.got)
        if not wanted:
            return b"", None
        try:
            # read loses what has come when a connection is reset in the middle; the second time that must not happen
            data = self._response.read1(wanted) if some or self._faltered else self._response.read(wanted)
        except self._errors as exn:
            return _arrived(exn), self._fault(exn)
        if not data and self.length is not None:
            return b"", OpenError("the connection was closed too early", url=self.url)
        return data, None

    def _account(self, data: bytes) -> None:
        self.got += len(data)
        self._since += len(data)
        if not self._dripping or self._since >= self._options.lowest_speed * self._options.read_timeout:
            self._dripping = False
            self._patience.progressed()
        if self._checksum is not None:
            self._checksum = zlib.crc32(data, self._checksum)
        if self.got == self.length:
            with contextlib.suppress(*self._errors):
                self._response.read(1)  # now urllib3 knows that it may keep the connection

    def _fault(self, exn: Exception) -> OpenError:
        # where bytes drip, a few of them on a new connection are no progress
        self._dripping |= too_slow(exn)
        return connection_error(self.url, exn, self._patience.timeouts())

    def _separate(self) -> None:
        """In a process that was forked since: leave the connection to the parent, and go on over one of its own."""
        self._process = os.getpid()
        give_up(self._response)
        self._response = self._ask()
        self._check_version()
        self._broken = self._catch_up()

    def _go_on(self, fault: OpenError) -> None:
        """Have a response that continues where the broken one ended."""
        again: OpenError | None = fault
        self._faltered = True
        self._since = 0
        while again is not None:
            give_up(self._response)
            try:
                self._patience.failed(again)
                self._response = self._ask()
            except OpenError as exn:
                raise self._fail(exn) from exn.__cause__
            self._check_version()
            again = self._catch_up()
        self._broken = None

    def _ask(self) -> urllib3.BaseHTTPResponse:
        """A response from where this reader is on, of the version that it reads."""
        known = self.etag is not None or self._modified is not None
        position = self._start + (self.got if known else 0)
        headers = {}
        if position or self._stop is not None:
            headers["Range"] = f"bytes={position}-{'' if self._stop is None else self._stop - 1}"
        if self.etag is not None:
            headers["If-Match"] = self.etag
        elif self._modified is not None and headers:
            headers["If-Range"] = self._modified
        accept = (200, 203, 206, 416) if headers.get("Range") else (200, 203)
        response = open_response(self._target, "GET", self._options, self._patience, headers, accept=accept)
        if response.status == 206 and _begin_of(response) != position:
            give_up(response)
            raise OpenError(f"the server gave another range than the one from byte {position} on", url=self.url)
        if response.status == 416 and (size := _size_of(response)) != position and (self.got or (size or 0) > position):
            give_up(response)
            raise status_error(self.url, response.status, response.reason)
        return response

    def _learn(self) -> None:
        """Take from the first response what is known of the object."""
        headers = self.headers
        self._learn_size(_size_of(self._response))
        self.ranges = self._response.status == 206 or headers.get("Accept-Ranges", "").strip().lower() == "bytes"
        found = headers.get("ETag", "")
        if found.startswith('"'):
            self._check_etag(found)
            self.etag = found
        elif self.etag is None:
            self._weak, self._checksum = found, 0
        self._modified = headers.get("Last-Modified")

    def _learn_size(self, size: int | None) -> None:
        self.size = size
        end = size if size is None or self._stop is None else min(size, self._stop)
        self.length = None if end is None else max(0, end - self._start)

    def _check_version(self) -> None:
        """Raise an error when the response is of another version of the object."""
        answered = self._response.headers
        if self._response.status != 416:
            self._check_etag(answered.get("ETag"))
        size, modified = _size_of(self._response), answered.get("Last-Modified")
        resized = None not in (size, self.size) and size != self.size
        # a strong ETag that is the same says more than dates, which copies on several servers may have of their own
        redated = self.etag is None and None not in (modified, self._modified) and modified != self._modified
        if resized or redated or (self._weak and answered.get("ETag", self._weak) != self._weak):
            raise self._fail(self._changed())
        if self.size is None and size is not None:
            self._learn_size(size)

    def _check_etag(self, found: str | None) -> None:
        if self.etag is not None and found != self.etag:
            raise self._fail(self._changed())

    def _catch_up(self) -> OpenError | None:
        """Read over what the response has before the position of this reader.

        What was given out already must be the same bytes again. The result is what broke on the way, if anything did.
        """
        if self._response.status == 416 or (self._start and self.length == 0):  # the object ends here, or before
            give_up(self._response)
            return None
        begin = _begin_of(self._response) or 0
        checksum = 0
        skipped = max(0, self._start - begin)
        again = self.got - max(0, begin - self._start)
        for count, given in ((skipped, False), (again, True)):
            while count:
                try:
                    data = self._response.read(min(count, PIECE))
                except self._errors as exn:
                    return self._fault(exn)
                if not data and self.length is None and not given:
                    return None  # the object ends before
                if not data:
                    return OpenError("the connection was closed too early", url=self.url)
                count -= len(data)
                checksum = zlib.crc32(data, checksum) if given else 0
        if again and self._checksum is not None and checksum != self._checksum:
            raise self._fail(self._changed())
        return None

    def _changed(self) -> OpenError:
        return OpenError(
            f"the object was replaced while it was read, {self.got} bytes of the old one had come; start again",
            url=self.url,
        )

    def _fail(self, fault: OpenError) -> OpenError:
        """The error of all reads from now on."""
        give_up(self._response)
        if not isinstance(fault, ConnectionLostError):
            whole = "an unknown number of" if self.length is None else self.length
            lost = ConnectionLostError(f"{fault.message}: got {self.got} of {whole} bytes", url=self.url)
            lost.got, lost.expected = self.got, self.length
            lost.__cause__ = fault.__cause__
            fault = lost
        self._failure = fault
        return fault


def length_of(headers: Mapping[str, str]) -> int | None:
    """Bytes of a body, None where the server does not say."""
    announced = headers.get("Content-Length", "")
    chunked = "chunked" in headers.get("Transfer-Encoding", "").lower()
    return int(announced) if announced.isdigit() and not chunked else None


def _begin_of(response: urllib3.BaseHTTPResponse) -> int | None:
    """The byte of the object that a 206 begins with; None where it does not say, and for other answers."""
    where = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "")) if response.status == 206 else None
    return None if where is None else int(where[1])


def _size_of(response: urllib3.BaseHTTPResponse) -> int | None:
    """Bytes of the whole object, None where the server does not say."""
    if response.status not in (206, 416):
        return length_of(response.headers)
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdigit() else None


def _arrived(exn: Exception) -> bytes:
    """The bytes of a chunked body that http.client had read before the body broke off, and took with its error."""
    import http.client

    partial = next((arg.partial for arg in exn.args if isinstance(arg, http.client.IncompleteRead)), b"")
    return partial if isinstance(partial, bytes) else b""  # urllib3's own error has a number there
