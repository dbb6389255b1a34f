"""http(s) urls as byte streams, on urllib3: one request, one body, its length checked."""

from __future__ import annotations

import http.client
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from .._arguments import checked
from ..errors import ConnectionLostError, OpenError
from .pool import pool_for
from .status import connection_error, status_error

if TYPE_CHECKING:
    import urllib3

TIMEOUTS = (30.0, 60.0)
"""Seconds to wait for a connection, and for the next bytes."""
REDIRECTS = 10
PIECE = 1 << 18
"""Bytes read at once where the caller does not say how many; larger pieces fall out of the processor's cache."""

SOME = 1 << 16
"""Most bytes of one `read1`: memory for more would be taken from the system and given back each time."""


@checked("http.open_read")
def open_read(
    url: str, headers: Mapping[str, str] | None = None, timeout: float | tuple[float, float] = TIMEOUTS
) -> HttpReader:
    """The body of a url as a stream of the object's own bytes; redirections are followed.

    Args:
        headers: sent besides ours, and instead of ours where names are equal.
        timeout: seconds to wait for a connection and for the next bytes, one number or a pair.

    Raises:
        NotFoundError: status 404 or 410.
        OpenError: another status, or no connection.
    """
    from urllib3.exceptions import HTTPError, ProtocolError
    from urllib3.util import Retry

    timeouts = timeout_pair(timeout)
    retries = Retry(
        total=None,
        connect=False,
        read=False,
        redirect=REDIRECTS,
        status=False,
        other=False,
        # Headers of the program are meant for the host that it named.
        remove_headers_on_redirect=Retry.DEFAULT_REMOVE_HEADERS_ON_REDIRECT | set(headers or ()),
    )
    tried = False
    while True:
        try:
            response = send("GET", url, headers, timeouts, retries=retries)
            break
        except ProtocolError as exn:
            if tried:  # once may be an idle connection that the server has just closed
                raise connection_error(url, exn, timeouts)
            tried = True
        except (HTTPError, OSError) as exn:
            raise connection_error(url, exn, timeouts)
    if response.status not in (200, 203):
        status, reason, answered = response.status, response.reason, response.headers
        give_up(response)
        raise status_error(url, status, reason, answered)
    return HttpReader(url, response, timeouts)


class HttpReader(io.BufferedIOBase):
    """Body of a response.

    Attributes:
        url: what was asked for.
        headers: headers of the response.
        length: bytes of the whole body, None where the server does not say.
        got: bytes that were read so far.
    """

    def __init__(self, url: str, response: urllib3.BaseHTTPResponse, timeouts: tuple[float, float]) -> None:
        from urllib3.exceptions import HTTPError

        self.url = url
        self.headers: Mapping[str, str] = response.headers
        announced = response.headers.get("Content-Length", "")
        chunked = "chunked" in response.headers.get("Transfer-Encoding", "").lower()
        self.length = int(announced) if announced.isdigit() and not chunked else None
        self.got = 0
        self._response = response
        self._timeouts = timeouts
        self._errors = (HTTPError, OSError)
        self._failure: ConnectionLostError | None = None

    def readable(self) -> bool:
        """True."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """`size` bytes, fewer only at the end; everything for -1.

        Raises:
            ConnectionLostError: the body ended before its length, or the connection broke.
        """
        if size is None or size < 0:
            return b"".join(iter(lambda: self._read(PIECE), b""))
        return self._read(size)

    def read1(self, size: int = -1, /) -> bytes:
        """What is there, at most `size` bytes; b"" at the end."""
        return self._read(SOME if size < 0 else min(size, SOME), some=True)

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer; the number of bytes, less than its size only at the end."""
        view = memoryview(buffer).cast("B")
        done = 0
        while done < view.nbytes:
            try:
                data = self._read(min(view.nbytes - done, PIECE))
            except ConnectionLostError:
                if done:
                    break  # it comes again with the next read
                raise
            if not data:
                break
            view[done : done + len(data)] = data
            done += len(data)
        return done

    def readinto1(self, buffer: Any, /) -> int:
        """Put into the buffer what is there; 0 at the end."""
        view = memoryview(buffer).cast("B")
        data = self.read1(view.nbytes)
        view[: len(data)] = data
        return len(data)

    def _read(self, size: int, some: bool = False) -> bytes:
        if self.closed:
            raise ValueError(f"{self!r} is closed")
        if self._failure is not None:
            raise self._failure
        try:
            data = self._response.read1(size) if some else self._response.read(size)
        except self._errors as exn:
            data = _arrived(exn)
            self.got += len(data)
            failure = self._fail(connection_error(self.url, exn, self._timeouts))
            if not data:
                raise failure from exn
            return data  # the failure comes with the next read
        if not data and size and self.length is not None and self.got < self.length:
            raise self._fail(OpenError("the connection was closed too early"))
        self.got += len(data)
        return data

    def _fail(self, fault: OpenError) -> ConnectionLostError:
        rest = "an unknown number of" if self.length is None else self.length
        self._failure = ConnectionLostError(f"{fault.message}: got {self.got} of {rest} bytes", url=self.url)
        self._failure.got, self._failure.expected = self.got, self.length
        give_up(self._response)
        return self._failure

    def close(self) -> None:
        """Let go of the connection; it is kept for the next request if the body was read to its end."""
        if not self.closed:
            give_up(self._response)
            super().close()


def send(
    method: str, url: str, headers: Mapping[str, str] | None, timeouts: tuple[float, float], **kw: Any
) -> urllib3.BaseHTTPResponse:
    """Send one request over the pool of this process; the response's body is not read yet, and not decoded."""
    import urllib3
    from urllib3.util import parse_url

    from .._version import __version__

    # identity: a compressed transfer would have another length, and other bytes than the object
    sent = urllib3.HTTPHeaderDict({"Accept-Encoding": "identity", "User-Agent": f"webdataset/{__version__}"})
    parts = parse_url(url)
    if parts.auth is not None:
        sent.update(urllib3.make_headers(basic_auth=unquote(parts.auth)))
        url = parts._replace(auth=None).url
    sent.update(headers or {})
    timeout = urllib3.Timeout(connect=timeouts[0], read=timeouts[1])
    return pool_for(url).request(
        method, url, headers=sent, timeout=timeout, preload_content=False, decode_content=False, **kw
    )


def give_up(response: urllib3.BaseHTTPResponse) -> None:
    """Close a response; a connection whose body was not read to the end is closed with it."""
    response.close()
    response.release_conn()


def _arrived(exn: Exception) -> bytes:
    """The bytes of a chunked body that http.client had read before the body broke off, and took with its error."""
    partial = next((arg.partial for arg in exn.args if isinstance(arg, http.client.IncompleteRead)), b"")
    return partial if isinstance(partial, bytes) else b""  # urllib3's own error has a number there


def timeout_pair(timeout: float | tuple[float, float]) -> tuple[float, float]:
    """(seconds to connect, seconds for the next bytes) of one number or a pair."""
    if isinstance(timeout, tuple):
        return timeout
    return (timeout, timeout)
