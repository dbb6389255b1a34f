"""Which numbers a stage draws: by seed, epoch, reader, and its place among the stages that draw."""

from __future__ import annotations

import random

import pytest

import webdataset as wds
from webdataset import filters
from webdataset.multi import MultiLoader
from webdataset.order.seeds import epoch_random
from webdataset.shardlists import make_seed
from webdataset.workers import ReaderInfo


def orders_in(*stages: object) -> list[list[int]]:
    """What each of the stages makes of 0 to 49 when it runs in one pipeline with the others."""
    seen: list[list[int]] = []

    def again(data):
        seen.append(list(data))
        return range(50)

    list(wds.DataPipeline(range(50), *(one for stage in stages for one in (stage, again))))
    return seen


def test_two_stages_without_a_seed_drew_the_same_numbers():
    """Each stage has numbers of its own; the first one, and those with a seed, have the published ones."""
    alone = list(filters.shuffle(100)(range(50)))
    first, second, seeded, third = orders_in(
        filters.shuffle(100), filters.shuffle(100), filters.shuffle(100, seed=0), filters.shuffle(100)
    )
    assert first == seeded == alone
    assert len({tuple(order) for order in (first, second, third)}) == 3
    again = orders_in(filters.shuffle(100), filters.shuffle(100), filters.shuffle(100, seed=0), filters.shuffle(100))
    assert again == [first, second, seeded, third]


@pytest.mark.parametrize(
    "inner",
    [
        lambda: wds.WebDataset("{0..49}", resampled=True),
        lambda: wds.DataPipeline(wds.SimpleShardList("{0..49}", seed=0)),
        lambda: wds.FluidWrapper(range(50)).shuffle(100),
        lambda: wds.RoundRobin([wds.FluidWrapper(range(50)).shuffle(100)]),
        lambda: MultiLoader(wds.FluidWrapper(range(50)).shuffle(100)),
    ],
)
def test_what_draws_before_a_stage_counts(inner):
    """Sources, nested data sets and loaders that draw numbers leave other ones to the stages behind them."""
    stage = filters.shuffle(100)
    pipeline = wds.DataPipeline(inner(), stage)
    pipeline._start_stages(0, ReaderInfo(0, 1, 0, 1))
    assert list(stage(range(50))) != list(filters.shuffle(100)(range(50)))


def test_a_mix_draws_other_numbers_than_the_data_sets_in_it():
    """RandomMix over data sets that draw does not use their numbers; over others it has the published order."""

    def mixed(sources):
        return list(wds.RandomMix(sources))

    plain = mixed([wds.FluidWrapper([1] * 50), wds.FluidWrapper([2] * 50)])
    drawing = mixed([wds.FluidWrapper([1] * 50).shuffle(5), wds.FluidWrapper([2] * 50).shuffle(5)])
    assert plain[:20] != drawing[:20]


def test_negative_seeds_were_those_of_positive_ones():
    """-3 is another seed than 3, in every stage that takes one; epoch 0 of 3 is still the published one."""
    assert list(filters.shuffle(100, seed=-3)(range(50))) != list(filters.shuffle(100, seed=3)(range(50)))
    assert list(wds.detshuffle(100, seed=-3).run(range(50))) != list(wds.detshuffle(100, seed=3).run(range(50)))
    assert list(wds.SimpleShardList("{0..49}", seed=-3)) != list(wds.SimpleShardList("{0..49}", seed=3))
    assert len({make_seed(seed) for seed in range(-3, 4)}) == 7
    assert epoch_random(3).random() == random.Random(3).random()
