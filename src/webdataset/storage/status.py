"""What HTTP answers and broken connections mean, as one line: url, fact, what to do. No text of urllib3 gets in
that repeats the url, since it may carry credentials."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

from ..errors import NotFoundError, OpenError, printable
from .urls import scheme_of

ADVICE = {
    401: "credentials are needed; pass headers=, or user and password in the url",
    403: "access is denied; check the credentials, or ask for a new link if this one is signed and has run out",
    404: "there is nothing at this url; check the name and the range of shard numbers",
    407: "the proxy wants credentials; put user and password into http_proxy / https_proxy",
    408: "the server gave up waiting; try again",
    410: "it was there, and is gone for good",
    411: "the server takes no upload of unknown length; write a local file and upload that",
    412: "the object was replaced while it was read; start again",
    413: "the object is larger than the server takes",
    416: "the object has no such range of bytes; it may have changed",
    429: "too many requests; read with fewer workers, or try again later",
    451: "the server may not hand it out",
    503: "the server is busy or down; try again later",
    507: "the server has no room left",
}


def status_error(
    url: str,
    status: int,
    reason: str | None,
    headers: Mapping[str, str] | None = None,
    told: str | None = None,
) -> OpenError:
    """The error for an answer that is not what was asked for; `told` is what this kind of server means by it."""
    headers = headers or {}
    if told is not None:
        advice = told
    elif status in ADVICE:
        advice = ADVICE[status]
    elif 300 <= status < 400:
        advice = "the redirection leads nowhere"
    elif status < 300:
        advice = "this is no whole object"
    elif status >= 500:
        advice = "the fault is the server's; try again later"
    else:
        advice = "the server does not accept the request"
    wait = headers.get("Retry-After")
    if wait:
        advice += f" (the server says: after {printable(wait, 40)}{' s' if wait.isdigit() else ''})"
    kind = NotFoundError if status in (404, 410) else OpenError
    return kind(f"HTTP {status} {printable(reason or _usual_reason(status), 80)}: {advice}".replace(" :", ":"), url=url)


def _usual_reason(status: int) -> str:
    return HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""


def connection_error(url: str, exn: Exception, timeouts: tuple[float, float]) -> OpenError:
    """The error for a connection that did not come about or broke; its cause is set."""
    from urllib3 import exceptions

    reason = exn.reason if isinstance(exn, exceptions.MaxRetryError) and exn.reason is not None else exn
    facts: list[tuple[type[Exception], str]] = [
        (exceptions.NameResolutionError, "the name of the host is not known; check the spelling and the network"),
        (exceptions.NewConnectionError, f"no connection: {_root(reason)}"),
        (exceptions.ConnectTimeoutError, f"no connection within {timeouts[0]:g} s"),
        (exceptions.ReadTimeoutError, _timeout_fact(reason, timeouts[1])),
        (exceptions.ProxyError, f"the proxy of the environment does not work: {_root(reason)}"),
        (exceptions.ResponseError, "too many redirections"),
        (exceptions.ProxySchemeUnknown, "the proxy of the environment must be an http:// or https:// url"),
        (exceptions.LocationValueError, _address_fact(reason, url)),
        (exceptions.SSLError, _certificate_fact(reason)),
    ]
    fact = next((fact for kind, fact in facts if isinstance(reason, kind)), f"the connection broke: {_root(reason)}")
    error = OpenError(fact, url=url)
    if not isinstance(reason, exceptions.LocationValueError | exceptions.MaxRetryError):
        error.__cause__ = reason
    error.__suppress_context__ = True
    return error


def hopeless(exn: Exception) -> bool:
    """Whether the same request cannot fare better: a wrong url, a certificate that is not accepted, circles."""
    import ssl

    from urllib3 import exceptions

    reason = exn.reason if isinstance(exn, exceptions.MaxRetryError) and exn.reason is not None else exn
    certificate = isinstance(reason, exceptions.SSLError) and isinstance(
        next(iter(reason.args), None), ssl.SSLCertVerificationError
    )
    return certificate or isinstance(reason, exceptions.LocationValueError | exceptions.ResponseError)


def too_slow(exn: BaseException | None) -> bool:
    """Whether the connection was given up because it gave too few bytes a second."""
    from .connections import TooSlowError

    while exn is not None and not isinstance(exn, TooSlowError):
        exn = exn.__cause__ or exn.__context__
    return exn is not None


def _timeout_fact(exn: BaseException, seconds: float) -> str:
    if too_slow(exn):
        return f"the server sends too little, over {seconds:g} s less than the storage option lowest_speed asks for"
    return f"the server sent nothing for {seconds:g} s"


def _address_fact(exn: BaseException, url: str) -> str:
    """What is wrong with an address: the url that the program wrote, or, where that is well, what it leads to."""
    from urllib3 import exceptions

    if scheme_of(url) not in ("http", "https"):
        return "the server, or the endpoint, leads to what is no http:// or https:// url"
    if isinstance(exn, exceptions.LocationParseError) or not _has_host(url):
        return "this is no url that http can open"
    return "the server redirects to what is no http:// or https:// url, which is not followed"


def _has_host(url: str) -> bool:
    try:
        return bool(urlsplit(url).hostname)
    except ValueError:
        return False


def _certificate_fact(exn: BaseException) -> str:
    import ssl

    cause = exn.args[0] if exn.args else exn
    if isinstance(cause, ssl.SSLCertVerificationError):
        trust = "to trust it, let SSL_CERT_FILE name a file with its certificate"
        return f"the certificate of the server is not accepted: {cause.verify_message}; {trust}"
    return f"no secure connection: {_root(exn)}"


def _root(exn: BaseException) -> str:
    """The fact at the bottom of a chain of exceptions, without the urls that its upper ones repeat."""
    import http.client

    while True:
        inner = exn.__cause__ or next((arg for arg in reversed(exn.args) if isinstance(arg, BaseException)), None)
        if inner is None:
            break
        exn = inner
    if isinstance(exn, http.client.IncompleteRead):
        return "the other side closed it too early"
    text = exn.strerror if isinstance(exn, OSError) and exn.strerror else str(exn)
    return printable(text or type(exn).__name__)
