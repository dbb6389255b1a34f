"""Closing what a stage reads from, so that files and processes behind a pipeline go when it is left early."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def close_source(source: Any) -> None:
    """Close an iterator that can be closed, such as a generator.

    What is merely iterable, a pipeline or a list, belongs to the program and may be iterated over again.
    """
    if hasattr(source, "__next__"):
        close_stream(source)


def close_stream(stream: Any) -> None:
    """Close what has a method `close`."""
    close = getattr(stream, "close", None)
    if close is not None:
        close()


@contextmanager
def closing_source(source: Any) -> Iterator[None]:
    """Close the source when the block is left, however that happens."""
    try:
        yield
    finally:
        close_source(source)
