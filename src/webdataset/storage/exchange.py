"""One http request and its answer, asked again as long as there is patience and hope."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from ..errors import OpenError
from .discretion import discreet
from .options import StorageOptions
from .pool import pool_for
from .retry import Patience, seconds_of, worth_retrying
from .status import connection_error, hopeless, status_error
from .target import Target

if TYPE_CHECKING:
    import threading

    import urllib3

REDIRECTS = 10
EXPLANATION = 4096
"""Bytes of the body of a refusal that are looked at."""


class Answer(NamedTuple):
    """An answer whose body was read whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def request(
    target: Target,
    method: str,
    options: StorageOptions,
    headers: Mapping[str, str] | None = None,
    body: Any = None,
    accept: Collection[int] = (200,),
    stopped: threading.Event | None = None,
) -> Answer:
    """Ask for something small: a listing, the headers of an object, a piece of an upload. Retried as a whole.

    Args:
        body: bytes, or a function that gives, for each attempt, an iterator over them.
        stopped: when it is set, nothing is tried again.

    Raises:
        NotFoundError: status 404 or 410.
        OpenError: another status that is not in `accept`, or no answer.
    """
    from urllib3.exceptions import HTTPError

    patience = Patience(options, stopped)
    while True:
        response = open_response(target, method, options, patience, headers, body, accept)
        try:
            whole = response.read()
            response.release_conn()
            return Answer(response.status, response.headers, whole)
        except (HTTPError, OSError) as exn:
            give_up(response)
            patience.failed(connection_error(target.url, exn, patience.timeouts()))


def open_response(
    target: Target,
    method: str,
    options: StorageOptions,
    patience: Patience,
    headers: Mapping[str, str] | None = None,
    body: Any = None,
    accept: Collection[int] = (200,),
) -> urllib3.BaseHTTPResponse:
    """The answer to a request, its body not read yet.

    Raises:
        NotFoundError: status 404 or 410.
        OpenError: another status that is not in `accept`, or no answer.
    """
    from urllib3.exceptions import HTTPError, ProtocolError

    idle = True  # the first connection may be an idle one that the server has just closed: no failure yet
    learned = False
    while True:
        timeouts = patience.timeouts()
        try:
            response = send(target, method, options, timeouts, headers, body)
        except OpenError:
            raise  # nothing was sent: there is no signature
        except (HTTPError, OSError) as exn:
            if hopeless(exn):
                raise connection_error(target.url, exn, timeouts)
            if not (idle and isinstance(exn, ProtocolError)):
                patience.failed(connection_error(target.url, exn, timeouts))
            idle = False
            continue
        if response.status in accept:
            return response
        told = _told(response)
        if not learned and target.learn(response.status, response.headers, told):
            learned = True
            continue
        advice = target.explain(response.status, response.headers, told)
        facts = (target.url, response.status, response.reason, response.headers, advice)
        if not worth_retrying(response.status):
            raise status_error(*facts)  # in no variable: it would hold this frame, and what callers have open
        patience.failed(status_error(*facts), seconds_of(response.headers.get("Retry-After")))


def _told(response: urllib3.BaseHTTPResponse) -> bytes:
    """The beginning of the body of a refusal, whose response is closed."""
    from urllib3.exceptions import HTTPError

    told = b""
    with contextlib.suppress(HTTPError, OSError):
        told = response.read(EXPLANATION)
    give_up(response)
    return told


def send(
    target: Target,
    method: str,
    options: StorageOptions,
    timeouts: tuple[float, float],
    headers: Mapping[str, str] | None = None,
    body: Any = None,
) -> urllib3.BaseHTTPResponse:
    """Send one request over the pool of this process; the response's body is not read yet, and not decoded.

    Redirections of reads are followed; headers of the program are meant for the host that it named, and go no further.
    """
    import urllib3
    from urllib3.util import Retry, parse_url

    from .._version import __version__
    from .connections import at_least

    # identity: a compressed transfer would have another length, and other bytes than the object
    own = {"Accept-Encoding": "identity", "User-Agent": f"webdataset/{__version__}"}
    given = urllib3.HTTPHeaderDict(own)  # where names are equal, in whatever case, the later one wins
    given.update(headers or {})
    given.update(options.headers)
    content: Any = body() if callable(body) else body
    address, signed = target.sign(method, target.address, dict(given))
    sent = urllib3.HTTPHeaderDict(signed)
    parts = parse_url(address)
    if parts.auth is not None:
        for name, value in urllib3.make_headers(basic_auth=unquote(parts.auth)).items():
            sent.setdefault(name, value)
        address = parts._replace(auth=None).url
    secret = Retry.DEFAULT_REMOVE_HEADERS_ON_REDIRECT | set(options.headers) | (set(signed) - set(own) - _PLAIN)
    # what is no read may be answered slowly: stores send blanks while they put the parts of an object together
    with discreet(), at_least(options.lowest_speed if method == "GET" else 0.0, timeouts[1]):
        return pool_for(address).request(
            method,
            address,
            headers=sent,
            body=content,
            timeout=urllib3.Timeout(connect=timeouts[0], read=timeouts[1]),
            preload_content=False,
            decode_content=False,
            redirect=target.redirected and method in ("GET", "HEAD"),
            retries=Retry(
                total=None,
                connect=False,
                read=False,
                redirect=REDIRECTS,
                status=False,
                other=False,
                remove_headers_on_redirect=secret,
            ),
        )


_PLAIN = {"Range", "If-Match", "If-Range", "Content-Length", "Content-Type"}
"""Headers of a request that no redirection needs to lose."""


def give_up(response: urllib3.BaseHTTPResponse) -> None:
    """Close a response; a connection whose body was not read to the end is closed with it."""
    response.close()
    response.release_conn()
