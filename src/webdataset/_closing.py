"""Closing what a stage reads from, so that files and processes behind a pipeline go when it is left early."""

from __future__ import annotations

from typing import Any


def close_source(source: Any) -> None:
    """Close an iterator that can be closed (a generator, a stage); others have nothing to close."""
    close = getattr(source, "close", None)
    if close is not None:
        close()
