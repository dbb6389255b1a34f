"""AWS signature, version 4: a request to the headers that prove whose it is. Pure: no clock, no environment.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html

Rules: the path of a request to S3 is signed as it is sent, never normalised. Bodies are not part of the signature
(UNSIGNED-PAYLOAD), so they may be streams. Nothing here is logged: the text that is signed holds the session token.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlsplit

UNSIGNED = "UNSIGNED-PAYLOAD"
_CHANGED_ON_THE_WAY = {"user-agent", "expect", "transfer-encoding", "connection", "authorization"}
"""Headers that proxies change; they are not signed."""


@dataclass(frozen=True)
class Keys:
    """An access key, its secret, and the token of a session."""

    access: str = field(repr=False)
    secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


def signed(
    keys: Keys, region: str, method: str, address: str, headers: Mapping[str, str], now: datetime
) -> dict[str, str]:
    """The headers with a signature for S3.

    Args:
        address: the url, quoted as it is sent.
        now: the time in UTC; servers accept a signature for about 15 minutes.
    """
    parts = urlsplit(address)
    moment = now.strftime("%Y%m%dT%H%M%SZ")
    sent = {name: value for name, value in headers.items() if name.lower() != "authorization"}
    sent |= {"X-Amz-Date": moment, "X-Amz-Content-SHA256": UNSIGNED}
    if keys.token:
        sent["X-Amz-Security-Token"] = keys.token
    lower = {name.lower(): " ".join(value.split()) for name, value in sent.items()}
    lower = {"host": _host(address), **lower}
    names = sorted(lower.keys() - _CHANGED_ON_THE_WAY)
    request = "\n".join(
        [
            method,
            parts.path or "/",
            _sorted_query(parts.query),
            *(f"{name}:{lower[name]}" for name in names),
            "",
            ";".join(names),
            UNSIGNED,
        ]
    )
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{keys.secret}".encode()
    for part in scope.split("/"):
        key = _hmac(key, part)
    proof = f"Credential={keys.access}/{scope}, SignedHeaders={';'.join(names)}, Signature={_hmac(key, text).hex()}"
    return {**sent, "Authorization": f"AWS4-HMAC-SHA256 {proof}"}


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _host(address: str) -> str:
    """The Host header that is sent: a port that the scheme implies is left out."""
    parts = urlsplit(address)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    usual = parts.port in (None, {"http": 80, "https": 443}.get(parts.scheme))
    return host if usual else f"{host}:{parts.port}"


def _sorted_query(query: str) -> str:
    pairs = sorted(pair.partition("=") for pair in query.split("&") if pair)
    return "&".join(f"{name}={value}" for name, _, value in pairs)
