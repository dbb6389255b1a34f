"""Lengths of shards, or of a data set, -> the order in which indices come: near ones together, so that few are open.

Rules: the order is a function of (seed, epoch) alone, made with the standard generator, and equal to the published
one. An epoch is counted when it has been read to its end; `set_epoch` names it.
"""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from ._torchbase import Sampler

Range = tuple[int, int]
"""First index, and the one behind the last."""

EPOCH_STEP = 1289738273
"""What an epoch adds to the seed."""


def lengths_to_ranges(lengths: Sequence[int]) -> list[Range]:
    """Where each part begins and ends (exclusive) when parts of these lengths lie one behind the other.

    >>> lengths_to_ranges([3, 4])
    [(0, 3), (3, 7)]
    """
    ranges = []
    start = 0
    for length in lengths:
        ranges.append((start, start + length))
        start += length
    return ranges


def intersect_range(a: Range, b: Range) -> Range | None:
    """What two ranges have in common, None where that is nothing.

    >>> intersect_range((0, 5), (3, 9)), intersect_range((0, 2), (3, 9))
    ((3, 5), None)
    """
    low, high = max(a[0], b[0]), min(a[1], b[1])
    return (low, high) if low < high else None


def intersect_ranges(rangelist: Sequence[Range], r: Range) -> list[Range]:
    """The parts of ranges that lie in another one; those that have none are left out."""
    return [common for one in rangelist if (common := intersect_range(one, r)) is not None]


def iterate_ranges(
    ranges: Sequence[Range], rng: random.Random, indexshuffle: bool = True, shardshuffle: bool = True
) -> Iterator[int]:
    """The indices of all ranges, one range after the other.

    Args:
        indexshuffle: shuffle the indices of each range among themselves.
        shardshuffle: shuffle the ranges.
    """
    order = list(range(len(ranges)))
    if shardshuffle:
        rng.shuffle(order)
    for number in order:
        indices = list(range(*ranges[number]))
        if indexshuffle:
            rng.shuffle(indices)
        yield from indices


class _RangeSampler(Sampler):  # type: ignore[misc]  # mypy does not look at torch here
    """Indices of ranges, in another order each epoch."""

    def __init__(self, ranges: list[Range], seed: int, shuffle: bool, shufflefirst: bool) -> None:
        # torch's own __init__ has nothing to do, and has warned in some versions
        self.ranges = ranges
        self.seed = seed
        self.shuffle = shuffle
        self.shufflefirst = shufflefirst
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Give the order of this epoch, counted from 0, when next iterated."""
        self.epoch = epoch

    def __len__(self) -> int:
        return sum(high - low for low, high in self.ranges)

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(self.seed + EPOCH_STEP * self.epoch)
        shardshuffle = self.shuffle and (self.shufflefirst or self.epoch > 0)
        yield from iterate_ranges(self.ranges, rng, indexshuffle=self.shuffle, shardshuffle=shardshuffle)
        self.epoch += 1


class ShardListSampler(_RangeSampler):
    """All indices, shard by shard: those of a shard shuffled, and from the second epoch on the shards too.

    Args:
        dataset: a `ShardListDataset`, whose `lengths` are taken.
        lengths: samples of each shard, instead.
        seed: of the order.
        shufflefirst: shuffle the shards in the first epoch too.
    """

    def __init__(
        self, dataset: Any, *, lengths: Sequence[int] | None = None, seed: int = 0, shufflefirst: bool = False
    ) -> None:
        super().__init__(lengths_to_ranges(dataset.lengths if lengths is None else lengths), seed, True, shufflefirst)


ShardedSampler = ShardListSampler


class ChunkedSampler(_RangeSampler):
    """Indices chunk by chunk: those of a chunk shuffled, and from the second epoch on the chunks too.

    Args:
        dataset: whatever has a length; asked for it where `num_samples` does not say it.
        num_samples: so many, from index 0; or a pair, the first index and the one behind the last.
        chunksize: indices in a chunk; the last one may be shorter.
        seed: of the order.
        shuffle: shuffle at all.
        shufflefirst: shuffle the chunks in the first epoch too.

    Raises:
        ValueError: `num_samples` is no range, or chunks hold nothing.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        num_samples: int | Range | None = None,
        chunksize: int = 2000,
        seed: int = 0,
        shuffle: bool = True,
        shufflefirst: bool = False,
    ) -> None:
        if chunksize < 1:
            raise ValueError(f"ChunkedSampler: chunksize must be at least 1, got {chunksize!r}")
        low, high = _bounds(dataset, num_samples, "ChunkedSampler")
        chunks = [(start, min(start + chunksize, high)) for start in range(low, high, chunksize)]
        super().__init__(chunks, seed, shuffle, shufflefirst)


def DistributedChunkedSampler(  # noqa: N802 - a public name of old
    dataset: Any,
    *,
    num_replicas: int | None = None,
    num_samples: int | Range | None = None,
    rank: int | None = None,
    shuffle: bool = True,
    shufflefirst: bool = False,
    seed: int = 0,
    drop_last: bool | None = None,
    chunksize: int = 1000000,
) -> ChunkedSampler:
    """A `ChunkedSampler` over the share of one rank: consecutive indices, each index in one share.

    Shares are as long as the first one, but for the last ones, which get what is left: less, or nothing.

    Args:
        num_replicas, rank: how many shares, and which one; None: those of `torch.distributed`, where it is
            initialized, else one share, with a warning.
        drop_last: Ignored with a warning; a share is what it is.

    Raises:
        ValueError: there is no such rank, or only one of the two is known.
    """
    if drop_last is not None:
        warnings.warn(
            "DistributedChunkedSampler ignores drop_last; num_samples=a multiple of num_replicas makes equal shares",
            stacklevel=2,
        )
    rank, num_replicas = _share(rank, num_replicas)
    low, high = _bounds(dataset, num_samples, "DistributedChunkedSampler")
    each = -(-(high - low) // num_replicas)
    start = min(low + rank * each, high)
    return ChunkedSampler(
        dataset,
        num_samples=(start, min(start + each, high)),
        chunksize=chunksize,
        seed=seed,
        shuffle=shuffle,
        shufflefirst=shufflefirst,
    )


def _bounds(dataset: Any, num_samples: int | Range | None, name: str) -> Range:
    low, high = (0, len(dataset)) if num_samples is None else (0, 0)
    if isinstance(num_samples, (tuple, list)):
        low, high = num_samples
    elif num_samples is not None:
        high = num_samples
    if not 0 <= low <= high:
        raise ValueError(f"{name}: num_samples must be a number of samples or a pair (first, end), got {num_samples!r}")
    return low, high


def _share(rank: int | None, num_replicas: int | None) -> tuple[int, int]:
    """Rank and number of ranks, from the arguments or from torch.distributed."""
    if rank is None or num_replicas is None:
        distributed = sys.modules.get("torch.distributed")
        if distributed is not None and distributed.is_available() and distributed.is_initialized():
            rank = distributed.get_rank() if rank is None else rank
            num_replicas = distributed.get_world_size() if num_replicas is None else num_replicas
        elif rank is None and num_replicas is None:
            warnings.warn(
                "DistributedChunkedSampler: torch.distributed is not initialized, this process gets all samples;"
                " initialize it before, or pass rank and num_replicas",
                stacklevel=3,
            )
            rank, num_replicas = 0, 1
    if rank is None or num_replicas is None:
        raise ValueError("DistributedChunkedSampler: pass rank and num_replicas both, or initialize torch.distributed")
    if not 0 <= rank < num_replicas:
        raise ValueError(f"DistributedChunkedSampler: rank must be from 0 to {num_replicas - 1}, got {rank}")
    return rank, num_replicas
