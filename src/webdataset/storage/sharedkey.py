"""Azure's shared key: a request to the header that proves whose it is. Pure: no clock, no environment.

https://learn.microsoft.com/en-us/rest/api/storageservices/authorize-with-shared-key, "Blob, Queue, and File Services
(Shared Key authorization)", since version 2015-02-21: a length of 0 is signed as nothing.

Rules: headers count as they are sent, so a request with a body must name Content-Length, and Content-Type if it has
one. Nothing here is logged.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from email.utils import format_datetime
from urllib.parse import parse_qsl, urlsplit

_STANDARD = [
    *("content-encoding", "content-language", "content-length", "content-md5", "content-type", "date"),
    *("if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range"),
]
"""Headers whose values are signed, in this order."""


def signed(
    account: str, key: bytes, method: str, address: str, headers: Mapping[str, str], now: datetime
) -> dict[str, str]:
    """The headers with a signature.

    Args:
        address: the url, quoted as it is sent.
        now: the time in UTC; servers accept a signature for 15 minutes.
    """
    sent = {**headers, "x-ms-date": format_datetime(now, usegmt=True)}
    lower = {name.lower(): " ".join(value.split()) for name, value in sent.items()}
    if lower.get("content-length") == "0":
        lower["content-length"] = ""
    parts = urlsplit(address)
    query: dict[str, list[str]] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        query.setdefault(name.lower(), []).append(value)
    text = "\n".join(
        [
            method,
            *(lower.get(name, "") for name in _STANDARD),
            *(f"{name}:{lower[name]}" for name in sorted(lower) if name.startswith("x-ms-")),
            f"/{account}{parts.path or '/'}",
            *(f"{name}:{','.join(sorted(query[name]))}" for name in sorted(query)),
        ]
    )
    proof = base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()
    return {**sent, "Authorization": f"SharedKey {account}:{proof}"}
