"""urllib3's own log lines about our requests, without query strings: signed urls stand there whole, at level INFO
where a server redirects (the hub sends its readers to signed urls).

Lines about requests of the program itself stay as they are.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from contextvars import ContextVar

LOGGERS = ("urllib3.connection", "urllib3.connectionpool", "urllib3.poolmanager", "urllib3.util.retry")

_ours = ContextVar("webdataset's request", default=False)


@contextlib.contextmanager
def discreet() -> Iterator[None]:
    """In this block, what urllib3 logs names no credentials."""
    for name in LOGGERS:
        logging.getLogger(name).addFilter(_without_secrets)  # the same one twice is there once
    token = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(token)


def _without_secrets(record: logging.LogRecord) -> bool:
    if _ours.get() and isinstance(record.args, tuple):
        record.args = tuple(_public(arg) if isinstance(arg, str) else arg for arg in record.args)
    return True


def _public(text: str) -> str:
    return re.sub(r"(?<=://)[^/\s]*@", "", re.sub(r"[?#]\S*", "", text))
