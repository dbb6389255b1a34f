"""The samplers of wids: published orders, shares of ranks, lengths; also over torch.distributed."""

from __future__ import annotations

import random

import pytest

from wids import ChunkedSampler, DistributedChunkedSampler, ShardedSampler, ShardListSampler
from wids.samplers import intersect_range, intersect_ranges, iterate_ranges, lengths_to_ranges


def epochs(sampler, count: int = 3) -> list[list[int]]:
    return [list(sampler) for _ in range(count)]


def test_shards_in_the_published_order():
    """Three epochs of shards of 3, 4 and 2 samples come in the order that webdataset 0.2.100 gives."""
    sampler = ShardListSampler(None, lengths=[3, 4, 2], seed=0)
    assert epochs(sampler) == [
        [0, 2, 1, 6, 5, 4, 3, 7, 8],
        [1, 0, 2, 8, 7, 6, 3, 5, 4],
        [5, 4, 3, 6, 0, 2, 1, 8, 7],
    ]
    assert ShardedSampler is ShardListSampler


def test_chunks_in_the_published_order():
    """Two epochs of 10 indices in chunks of 4, as 0.2.100 gives them; `set_epoch` names an epoch."""
    sampler = ChunkedSampler(range(10), chunksize=4, seed=1)
    first, second = [3, 0, 2, 1, 7, 5, 4, 6, 8, 9], [3, 1, 2, 0, 9, 8, 5, 4, 7, 6]
    assert epochs(sampler, 2) == [first, second]
    sampler.set_epoch(1)
    assert list(sampler) == second
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_an_epoch_that_is_broken_off_is_not_counted():
    """Only an epoch that was read to its end is behind us."""
    sampler = ShardListSampler(None, lengths=[5, 5])
    begun = iter(sampler)
    assert [next(begun), next(begun)] == list(ShardListSampler(None, lengths=[5, 5]))[:2]
    begun.close()
    assert list(sampler) == list(ShardListSampler(None, lengths=[5, 5]))


@pytest.mark.parametrize(
    ("given", "indices"),
    [(None, range(11)), (5, range(5)), ((3, 9), range(3, 9)), (0, range(0)), ((4, 4), range(0))],
)
def test_which_samples(given, indices):
    """`num_samples` is a number, a pair (first, end), or the whole data set; `len` says how many come."""
    for make in (ChunkedSampler, DistributedChunkedSampler):
        kw = {} if make is ChunkedSampler else {"rank": 0, "num_replicas": 1}
        sampler = make(range(11), num_samples=given, chunksize=4, **kw)
        assert sorted(sampler) == list(indices)
        assert len(sampler) == len(indices)


def test_without_shuffling():
    """`shuffle=False` gives indices in order, in every epoch."""
    assert epochs(ChunkedSampler(range(7), chunksize=3, shuffle=False)) == [list(range(7))] * 3


@pytest.mark.parametrize("num_samples", [None, 100, (3, 80), 5])
@pytest.mark.parametrize("replicas", [1, 2, 3, 7])
def test_shares(num_samples, replicas):
    """The shares of all ranks have every index once, also rank 0 when it is named; `len` is right."""
    shares = [
        DistributedChunkedSampler(range(100), num_samples=num_samples, num_replicas=replicas, rank=rank, chunksize=10)
        for rank in range(replicas)
    ]
    whole = sorted(ChunkedSampler(range(100), num_samples=num_samples))
    for _ in range(2):
        indices = [list(share) for share in shares]
        assert [len(share) for share in shares] == [len(part) for part in indices]
        assert sorted(index for part in indices for index in part) == whole
        assert all(part == sorted(part) for part in [sorted(part) for part in indices])


def test_without_torch_distributed_a_warning_says_so():
    """Neither rank nor torch.distributed: all samples, and a warning."""
    with pytest.warns(UserWarning, match="not initialized"):
        sampler = DistributedChunkedSampler(range(10), chunksize=5)
    assert sorted(sampler) == list(range(10))
    with pytest.warns(UserWarning, match="drop_last"):
        DistributedChunkedSampler(range(10), rank=0, num_replicas=2, drop_last=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DistributedChunkedSampler(range(9), rank=2, num_replicas=2), "rank must be from 0 to 1, got 2"),
        (lambda: DistributedChunkedSampler(range(9), num_replicas=2), "pass rank and num_replicas both"),
        (lambda: ChunkedSampler(range(9), num_samples=-1), "num_samples"),
        (lambda: ChunkedSampler(range(9), num_samples=(5, 2)), "num_samples"),
        (lambda: ChunkedSampler(range(9), chunksize=0), "chunksize"),
    ],
)
def test_wrong_arguments(make, message):
    """What makes no sense is a ValueError that says what is right."""
    with pytest.raises(ValueError, match=message):
        make()


def test_ranges():
    """The helpers of the samplers, edges included."""
    assert lengths_to_ranges([3, 0, 2]) == [(0, 3), (3, 3), (3, 5)]
    assert intersect_range((0, 5), (3, 9)) == (3, 5)
    assert intersect_range((0, 2), (2, 9)) is None
    assert intersect_ranges([(0, 3), (3, 7)], (5, 6)) == [(5, 6)]
    assert list(iterate_ranges([(0, 3), (3, 9)], random.Random(3), indexshuffle=False)) == [3, 4, 5, 6, 7, 8, 0, 1, 2]
