"""Shards in a row that gave nothing: when is it hopeless to go on? For streams that draw shards without end.

A rare sample must raise no false alarm. Of n shards that are drawn at random, the only one that holds
something stays away for 20 n draws once in 500 million times.
"""

from __future__ import annotations

from collections import Counter

TIMES = 20
"""Each of the shards was tried so many times, on average."""


class Barren:
    """Counts the shards since something came.

    Args:
        least: so many must have given nothing, however few different ones they are.
        spare: of so many, what they gave may still be on its way.
    """

    def __init__(self, least: int, spare: float = 0) -> None:
        self.least = least
        self.spare = spare
        self._tries: Counter[str] = Counter()
        self._count = 0

    def add(self, url: str) -> bool:
        """Note one more that gave nothing; whether they are always the same."""
        self._tries[url] += 1
        self._count += 1
        return self._count - self.spare >= max(self.least, TIMES * len(self._tries))

    def clear(self) -> None:
        """Something came."""
        if self._count:
            self._tries.clear()
            self._count = 0

    def __str__(self) -> str:
        return f"{self._count} shards in a row, {len(self._tries)} different,"
