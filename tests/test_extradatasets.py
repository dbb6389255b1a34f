"""One sample again and again; epochs and lengths of another size than the source has."""

from __future__ import annotations

import pickle

import pytest
import torch.utils.data

import webdataset as wds
from helpers import write_shards
from webdataset import extradatasets


def test_mock_gives_the_very_object():
    """The same object comes `length` times, in every pass, also in workers and batches."""
    sample = {"x": 1}
    mock = wds.MockDataset(sample, 3)
    assert [item is sample for item in mock] == [True] * 3
    assert list(wds.WebLoader(mock, batch_size=None, num_workers=0)) == [sample] * 3
    assert isinstance(mock, torch.utils.data.IterableDataset)


def test_epochs_go_on_where_the_last_one_ended(tmp_path):
    """Epochs of 4 over 6 samples of real shards: none is skipped and none comes twice within a pass."""
    source = wds.WebDataset(write_shards(tmp_path, 2, 3), shardshuffle=False).map(lambda sample: sample["__key__"])
    epochs = wds.with_epoch(source, 4)
    assert len(epochs) == 4
    assert [[int(key) for key in epochs] for _ in range(3)] == [[0, 1, 2, 3], [4, 5, 0, 1], [2, 3, 4, 5]]


def test_an_epoch_may_be_left_and_closed():
    """Leaving an epoch early loses only its rest; close begins a new pass; copies begin at the beginning."""
    epochs = wds.with_epoch([0, 1, 2, 3], 3)
    assert next(iter(epochs)) == 0
    assert list(epochs) == [1, 2, 3]
    assert list(pickle.loads(pickle.dumps(epochs))) == [0, 1, 2]
    epochs.close()
    assert list(epochs) == [0, 1, 2]


def test_an_empty_source_ends():
    """A source without items gives an epoch without items, not an endless loop."""
    assert list(wds.with_epoch([], 3)) == []
    assert list(extradatasets.repeatedly([])) == []


def test_with_length_says_a_length():
    """`len` is what was given; the items are those of the source."""
    dataset = wds.with_length([1, 2, 3], 10)
    assert len(dataset) == 10
    assert list(dataset) == [1, 2, 3]


def test_repeatedly_repeats():
    """Passes and items are limited as asked, the length is what was given or unknown."""
    assert list(extradatasets.repeatedly([1, 2], nepochs=2)) == [1, 2, 1, 2]
    assert list(extradatasets.repeatedly([1, 2], nbatches=3)) == [1, 2, 1]
    assert len(extradatasets.repeatedly([1, 2], length=7)) == 7
    with pytest.raises(TypeError, match="was given no length"):
        len(extradatasets.repeatedly([1, 2]))


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (wds.with_epoch(None, 3), [1, 2, 1]),
        (wds.with_epoch(None, 1), [1]),
        (wds.with_length(None, 9), [1, 2]),
        (extradatasets.repeatedly(None, nepochs=2), [1, 2, 1, 2]),
    ],
    ids=["with_epoch", "with_short_epoch", "with_length", "repeatedly"],
)
def test_each_is_a_stage_too(stage, expected):
    """`invoke` takes another source; behind a stage there is one pass, which is cut but not repeated."""
    assert list(stage.invoke([1, 2])) == expected
    assert list(wds.DataPipeline(range(1, 3), stage)) == expected[:2]


def test_a_negative_length_failed_in_len():
    """It is refused where it is written, with the name of the class."""
    for make in (wds.MockDataset, wds.with_epoch, wds.with_length):
        with pytest.raises(ValueError, match=rf"{make.__name__}: length must be a whole number .*, 0 or more, got -1"):
            make([1], -1)
