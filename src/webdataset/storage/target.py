"""What stands behind a url, as http: an address, and a signature that is made anew for each request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

Headers = Mapping[str, str]
Sign = Callable[[str, str, Headers], tuple[str, Headers]]
"""(method, address, headers) -> (address, headers) as they are sent. Called for each request, retries included, so a
long read outlives the signature that it began with. It may add to the query and to the headers."""

Explain = Callable[[int, Headers, bytes], str | None]
"""(status, headers, the first bytes of the body) -> what that answer means here and what to do; None: the usual."""


Learn = Callable[[int, Headers, bytes], bool]
"""(status, headers, the first bytes of the body) -> whether the same request, signed anew, is worth sending at once:
the refusal told the right region, or there are newer credentials."""


def _as_it_is(method: str, address: str, headers: Headers) -> tuple[str, Headers]:
    return address, headers


def _nothing_special(status: int, headers: Headers, body: bytes) -> str | None:
    return None


def _nothing_learned(status: int, headers: Headers, body: bytes) -> bool:
    return False


@dataclass(frozen=True)
class Target:
    """One object on an http server.

    Attributes:
        url: what the program wrote (`s3://bucket/a.tar`); messages show this one.
        address: the http url of the object, without a signature.
        sign: makes a request one that the server accepts.
        explain: says what the answers of this kind of server mean.
        learn: takes from a refusal what the next signature needs; asked once a request.
        redirected: whether redirections of reads are followed. A store that wants another signature at the other
            place has them refused, and learns from them.
    """

    url: str
    address: str
    sign: Sign = field(default=_as_it_is, repr=False)
    explain: Explain = field(default=_nothing_special, repr=False)
    learn: Learn = field(default=_nothing_learned, repr=False)
    redirected: bool = True


class Stat(NamedTuple):
    """What is known of an object without reading it: its size in bytes and its ETag, None where nobody says."""

    size: int | None
    etag: str | None


class Entry(NamedTuple):
    """One line of a listing: the url in the scheme that was asked for, size in bytes, ETag (None where unknown)."""

    url: str
    size: int | None = None
    etag: str | None = None
