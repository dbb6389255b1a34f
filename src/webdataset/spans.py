"""Bytes of a shard that are wanted -> few reads, and what these gave -> the bytes that were wanted. Pure.

Spans that lie close together are read as one. Nobody who asks for bytes needs to know with which others they came.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from typing import NamedTuple

LARGEST_SPAN = 1 << 23
"""Bytes from which on a span is not made larger."""


class Span(NamedTuple):
    """Bytes start (inclusive) to stop (exclusive) of a shard."""

    start: int
    stop: int


def join_spans(spans: Iterable[Span], gap: int) -> list[Span]:
    """The spans in order, those with at most `gap` bytes between them as one.

    >>> join_spans([Span(9, 12), Span(0, 4), Span(5, 8)], 1)
    [Span(start=0, stop=12)]
    """
    joined: list[Span] = []
    for span in sorted(spans):
        last = joined[-1] if joined else None
        if last is not None and span.start <= last.stop + gap and span.stop - last.start <= LARGEST_SPAN:
            joined[-1] = Span(last.start, max(last.stop, span.stop))
        elif last is None or span.stop > last.stop:
            joined.append(span)
    return joined


class Pieces:
    """What was read of a shard: the bytes of `spans`, which are in order."""

    def __init__(self, spans: list[Span], data: list[bytes]) -> None:
        self._data = data
        self._starts = [span.start for span in spans]

    def cut(self, start: int, stop: int) -> bytes:
        """The bytes start (inclusive) to stop (exclusive), as far as they came in one piece.

        >>> Pieces([Span(0, 4), Span(8, 12)], [b"abcd", b"ijkl"]).cut(9, 20)
        b'jkl'
        """
        number = bisect.bisect_right(self._starts, start) - 1
        if number < 0:
            return b""
        first = self._starts[number]
        return self._data[number][start - first : stop - first]
