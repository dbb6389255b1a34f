"""Closing what a stage reads from, so that files and processes behind a pipeline go when it is left early."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


def close_source(source: Any) -> None:
    """Close an iterator that can be closed, such as a generator.

    What is merely iterable, a pipeline or a list, belongs to the program and may be iterated over again.
    """
    close = getattr(source, "close", None)
    if close is not None and hasattr(source, "__next__"):
        close()


def close_stream(stream: Any) -> None:
    """Close a stream that nobody reads on, in which nobody wants to hear what goes wrong behind that.

    Whoever read it to its end has heard of a failed command or a cut body there.
    """
    close = getattr(stream, "close", None)
    if close is not None:
        with suppress(OSError):
            close()


@contextmanager
def closing_source(source: Any) -> Iterator[None]:
    """Close the source when the block is left, however that happens."""
    try:
        yield
    finally:
        close_source(source)
