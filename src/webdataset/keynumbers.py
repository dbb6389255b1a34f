"""Keys of samples, shard by shard -> the numbers of the samples that may have a key; 16 bytes a key.

Of each key its hash is kept, sorted, with the number of its sample. Two keys may have one hash, so whoever asks
compares them. The hash is Python's own, another one in each process: the table is never stored, and no order depends
on it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


class KeyNumbers:
    """See the module; `shards` are the keys of each shard, in order."""

    def __init__(self, shards: Iterable[list[str]]) -> None:
        hashes = [np.fromiter(map(hash, keys), np.int64, len(keys)) for keys in shards]
        self._ends = np.cumsum([len(each) for each in hashes], dtype=np.int64)
        together = np.concatenate(hashes) if hashes else np.empty(0, np.int64)
        self._numbers = np.argsort(together, kind="stable")
        self._hashes = together[self._numbers]

    def places(self, key: str) -> list[tuple[int, int, int]]:
        """Shard, number in it, and number among all, of each sample whose key has the same hash, in order."""
        begin, end = (int(np.searchsorted(self._hashes, hash(key), side)) for side in ("left", "right"))
        found = []
        for number in self._numbers[begin:end].tolist():
            shard = int(np.searchsorted(self._ends, number, side="right"))
            found.append((shard, number - (int(self._ends[shard - 1]) if shard else 0), number))
        return found
