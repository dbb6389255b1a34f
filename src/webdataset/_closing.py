"""Closing what a stage reads from, so that files and processes behind a pipeline go when it is left early."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def close_source(source: Any) -> None:
    """Close an iterator that can be closed (a generator, a stage); others have nothing to close."""
    close = getattr(source, "close", None)
    if close is not None:
        close()


@contextmanager
def closing_source(source: Any) -> Iterator[None]:
    """Close the source when the block is left, however that happens."""
    try:
        yield
    finally:
        close_source(source)
