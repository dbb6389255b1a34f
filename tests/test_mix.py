"""Several data sets as one stream."""

from __future__ import annotations

import pickle
import random

import pytest
import torch.utils.data

import webdataset as wds
from helpers import write_shards
from webdataset.errors import EmptyDatasetError
from webdataset.mix import random_samples, round_robin_longest, round_robin_shortest

THREE = [[1] * 5, [2] * 5, [3] * 5]


def texts(samples) -> list[str]:
    return [sample["txt"].decode() for sample in samples]


def test_shortest_ends_with_the_first_exhausted_source():
    """The pass ends at the first turn that finds nothing; classes and functions agree."""
    assert list(wds.RoundRobin([[1, 2], [3], [4, 5, 6]])) == [1, 3, 4, 2]
    assert list(round_robin_shortest([1, 2], [3], [4, 5, 6])) == [1, 3, 4, 2]


def test_longest_goes_on_with_those_that_have_more():
    """Exhausted sources are left out, and nothing is lost."""
    assert list(wds.RoundRobin([[1, 2], [3], [4, 5, 6]], longest=True)) == [1, 3, 4, 2, 5, 6]
    assert list(round_robin_longest([], [1], [])) == [1]


def test_round_robin_of_archives_gives_every_sample(tmp_path):
    """Two data sets of equal length come whole, in turn, and again in the next pass."""
    for name in "ab":
        (tmp_path / name).mkdir()
    first = wds.WebDataset(write_shards(tmp_path / "a", 2, 3), shardshuffle=False)
    second = wds.WebDataset(write_shards(tmp_path / "b", 2, 3), shardshuffle=False)
    mixed = wds.RoundRobin([first, second])
    expected = [f"text {n}" for n in range(6) for _ in range(2)]
    assert texts(mixed) == expected
    assert texts(mixed) == expected


def test_the_published_order_of_draws():
    """The first epoch of seed 0 draws what the published class draws after random.seed(0)."""
    golden = [3, 3, 2, 2, 2, 2, 3, 2]
    assert list(wds.RandomMix(THREE, [1, 2, 1])) == golden
    assert list(random_samples(THREE, [1, 2, 1])) == golden
    assert list(random_samples(THREE, [1, 2, 1], rng=random.Random(0))) == golden
    other = list(random_samples(THREE, [1, 2, 1], seed=5))
    assert other == list(random_samples(THREE, [1, 2, 1], rng=random.Random(5))) != golden
    assert sorted(random_samples(THREE, [1, 2, 1], longest=True, seed=5)) == [1] * 5 + [2] * 5 + [3] * 5


def test_each_epoch_and_each_reader_draws_anew(monkeypatch):
    """Epochs differ, set_epoch brings one back, a second reader draws differently, the global one is left alone."""
    mix = wds.RandomMix([["a"] * 50, ["b"] * 50], longest=True)
    state = random.getstate()
    first, second = list(mix), list(mix)
    assert random.getstate() == state
    assert sorted(first) == sorted(second)
    assert first != second
    mix.set_epoch(0)
    assert list(mix) == first
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    mix.set_epoch(0)
    assert list(mix) != first


def test_longest_draws_all_samples():
    """With longest=True every item of every source comes; sources of probability 0 never do."""
    assert sorted(wds.RandomMix([range(5), range(5, 7)], [1, 3], longest=True)) == list(range(7))
    assert list(wds.RandomMix([range(5), range(5, 7)], [1, 0], longest=True)) == list(range(5))


def test_workers_share_the_epochs(tmp_path):
    """In DataLoader workers each sample comes once in an epoch, and the epochs have different orders."""
    for name in "ab":
        (tmp_path / name).mkdir()
    parts = [
        wds.WebDataset(write_shards(tmp_path / name, 4, 4), shardshuffle=4).map(lambda sample: sample["txt"].decode())
        for name in "ab"
    ]
    mix = wds.RandomMix(parts, longest=True)
    assert isinstance(mix, torch.utils.data.IterableDataset)
    loader = torch.utils.data.DataLoader(mix, batch_size=None, num_workers=2)
    epochs = [list(loader) for _ in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted([f"text {n}" for n in range(16)] * 2)
    assert epochs[0] != epochs[1]


def test_a_mix_is_a_source_and_pickles():
    """A pipeline takes a mix as its first stage; a copy draws what the original draws."""
    mix = wds.RandomMix(THREE, [1, 2, 1])
    assert list(pickle.loads(pickle.dumps(mix))) == list(wds.FluidWrapper(mix).map(lambda x: x))
    assert list(wds.DataPipeline(wds.RoundRobin([[1], [2]]), wds.batched(2, collation_fn=None))) == [[1, 2]]


def test_sources_are_closed_when_the_stream_is():
    """Leaving a mix early closes every source that it had opened."""
    closed = []

    def source(name):
        try:
            while True:
                yield name
        finally:
            closed.append(name)

    for stream in (round_robin_longest(source(1), source(2)), random_samples([source(3), source(4)])):
        for _ in range(20):
            next(stream)
        stream.close()
    assert closed == [1, 2, 3, 4]


@pytest.mark.parametrize("kind", [wds.RoundRobin, wds.RandomMix])
def test_nothing_to_mix_is_an_error(kind):
    """An empty list is an error when the object is made, and so is what is no list."""
    with pytest.raises(EmptyDatasetError, match=rf"{kind.__name__}: there are no data sets to mix"):
        kind([])
    with pytest.raises(TypeError, match=r"must be a list of data sets, got 'a\.tar'"):
        kind("a.tar")


@pytest.mark.parametrize(
    ("probs", "message"),
    [([1, 2], "one entry for each of the 3 data sets, got 2"), ([1, -1, 1], "0 or more"), ([0, 0, 0], "not all 0")],
)
def test_probabilities_must_fit(probs, message):
    """Wrong probabilities are errors when the object is made."""
    with pytest.raises(ValueError, match=message):
        wds.RandomMix(THREE, probs)
    with pytest.raises(ValueError, match=message):
        random_samples(THREE, probs)
