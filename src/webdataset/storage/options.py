"""How patiently, and with how many connections, remote urls are read and written: one value, given by option or
environment. Values only: nothing here opens anything."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from typing import Any

from ..errors import public_url

VARIABLE = "WDS_STORAGE_OPTIONS"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StorageOptions:
    """How remote urls are read and written. A dict of these names does as well wherever one is taken.

    Attributes:
        connect_timeout: seconds to wait for a connection.
        read_timeout: seconds to wait for the next bytes.
        lowest_speed: bytes a second that a connection must give while it is waited for, measured over read_timeout;
            a slower one counts as broken. 0: any speed will do.
        attempts: requests in a row that may fail without new bytes at that speed; 1 means no retries.
        deadline: seconds that one read may wait in all, retries and pauses included.
        backoff: seconds before the second attempt; twice as long before each further one, less a random part.
        longest_pause: seconds that a pause may grow to; a server's Retry-After may ask for more.
        connections: ranges of one object that may be read at a time where a single connection is slow; 1: never more.
        ahead: bytes of an object that may be in memory before they are asked for.
        headers: sent with each http request, besides ours and instead of ours; never to another host.
        endpoint: the server of an object store, such as "http://127.0.0.1:9000"; None: the store's own, or what its
            own environment variables say.
        anonymous: ask an object store without credentials, as public buckets allow.
        overwrite: writing replaces the object that is there; False: it stays, and to write it is an error, where the
            store or the server can tell.
        tool: read and write through the command-line tool of the scheme (curl, aws, gsutil, az) instead.
    """

    connect_timeout: float = 30.0
    read_timeout: float = 60.0
    lowest_speed: float = 1000.0
    attempts: int = 8
    deadline: float = 300.0
    backoff: float = 0.5
    longest_pause: float = 30.0
    connections: int = 8
    ahead: int = 64 << 20
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    endpoint: str | None = None
    anonymous: bool = False
    overwrite: bool = True
    tool: bool = False

    def __post_init__(self) -> None:
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            wrong = not isinstance(value, kind) or (isinstance(value, bool) and bool not in kind)
            if wrong or (name in _POSITIVE and not value > 0) or (kind is _NUMBER and not value >= 0):
                wanted = _WANTED.get(kind, f"a {kind[0].__name__}") if name not in _POSITIVE else "a positive number"
                shown = type(value).__name__ if name == "headers" else f"{value!r:.100}"  # headers hold tokens
                raise ValueError(f"storage option {name!r} must be {wanted}, got {shown}")
        if self.endpoint is not None and not re.match(r"https?://[^/@]+(/[^@]*)?$", self.endpoint, re.IGNORECASE):
            raise ValueError(
                "storage option 'endpoint' must be an http:// or https:// url without user and password, got"
                f" {public_url(self.endpoint)!r:.100}"
            )
        for name, value in self.headers.items():
            if not _is_header(name, value):
                raise ValueError(
                    f"storage option 'headers': {name!r:.60} and its value must be text of one line each, without"
                    " blanks at the ends"
                )


_NUMBER = (float, int)
_KINDS: dict[str, Any] = {
    "connect_timeout": _NUMBER,
    "read_timeout": _NUMBER,
    "lowest_speed": _NUMBER,
    "attempts": (int,),
    "deadline": _NUMBER,
    "backoff": _NUMBER,
    "longest_pause": _NUMBER,
    "connections": (int,),
    "ahead": (int,),
    "headers": (Mapping,),
    "endpoint": (str, type(None)),
    "anonymous": (bool,),
    "overwrite": (bool,),
    "tool": (bool,),
}
_WANTED = {_NUMBER: "a number, 0 or more"}
_POSITIVE = {"connect_timeout", "read_timeout", "attempts", "deadline", "connections", "ahead"}


def storage_options(given: StorageOptions | Mapping[str, Any] | None = None, **changes: Any) -> StorageOptions:
    """The options that were given, else those of WDS_STORAGE_OPTIONS (a JSON object), else the defaults; with changes.

    Args:
        changes: single options by name; `timeout`, one number or a pair, sets connect_timeout and read_timeout.

    Raises:
        TypeError: `changes` has a name that is no option, or `given` is neither.
        ValueError: `given` has one, or an option is of the wrong kind.
    """
    timeout = changes.pop("timeout", None)
    if timeout is not None:
        both = timeout if isinstance(timeout, (tuple, list)) else (timeout, timeout)
        if len(both) != 2:
            raise ValueError(f"storage option 'timeout' must be a number or a pair of them, got {timeout!r:.100}")
        connect, read = both
        changes = {"connect_timeout": connect, "read_timeout": read, **changes}
    if changes.keys() - _KINDS.keys():
        raise TypeError(_unknown(changes))
    if not isinstance(given, StorageOptions):
        named = _from_environment() if given is None else given
        if not isinstance(named, Mapping):
            raise TypeError(f"storage_options must be a StorageOptions or a dict, got {given!r:.100}")
        if named.keys() - _KINDS.keys():
            raise ValueError(_unknown(named))
        given, changes = StorageOptions(), {**named, **changes}
    if changes.get("headers", ()) is None:
        changes["headers"] = {}
    return dataclasses.replace(given, **changes) if changes else given


def _is_header(name: Any, value: Any) -> bool:
    if not (isinstance(name, str) and isinstance(value, str)):
        return False
    sendable = value.isprintable() and all(ord(letter) < 256 for letter in value)
    return sendable and value == value.strip() and re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII) is not None


def _unknown(named: Mapping[str, Any]) -> str:
    names = ", ".join(repr(name) for name in sorted(named.keys() - _KINDS.keys(), key=str))
    return f"no storage option {names}; there are timeout, {', '.join(_KINDS)}"


def _from_environment() -> dict[str, Any]:
    """WDS_STORAGE_OPTIONS as a dict."""
    text = os.environ.get(VARIABLE)
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError as exn:
        raise ValueError(f"the environment variable {VARIABLE} is no JSON object: {exn}") from None
    if not isinstance(found, dict):
        raise ValueError(
            f'the environment variable {VARIABLE} must be a JSON object such as {{"attempts": 3}},'
            f" got {type(found).__name__}"
        )
    return found
