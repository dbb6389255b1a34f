"""Samples into batches and back, with the collation of tuples, dicts, arrays and tensors."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contracts import StageCase, same, stage_contract
from webdataset import filters
from webdataset.errors import CollationError

PAIRS = [(i, f"text {i}") for i in range(6)]
DICTS = [{"__key__": str(i), "__url__": "a.tar", "x": np.full(3, i)} for i in range(6)]

CASES = {
    "batched": StageCase(lambda: filters.batched(3), PAIRS, buffers=3),
    "batched-dicts": StageCase(lambda: filters.batched(4), DICTS, buffers=4),
    "listed": StageCase(lambda: filters.listed(4), PAIRS, buffers=4),
    "unbatched": StageCase(filters.unbatched, [[np.arange(2), ["a", "b"]], ([1], ["c"])]),
    "unlisted": StageCase(filters.unlisted, [[1, 2], [3]]),
}


@stage_contract(CASES)
def test_stages_keep_the_contract(case, check):
    """Each of these stages is lazy, closes, pickles, repeats and leaves samples alone."""
    check(case)


# batched, listed


def test_batches_have_their_size_and_the_last_one_what_is_left():
    """`partial=False` drops the rest; `collation_fn=None` leaves lists; another function is called with a list."""
    assert list(filters.batched(4, collation_fn=None)(PAIRS)) == [PAIRS[:4], PAIRS[4:]]
    assert list(filters.batched(4, partial=False, collation_fn=None)(PAIRS)) == [PAIRS[:4]]
    assert list(filters.batched(3, partial=False, collation_fn=None)(PAIRS)) == [PAIRS[:3], PAIRS[3:]]
    assert list(filters.batched(3, collation_fn=len)(PAIRS)) == [3, 3]
    assert list(filters._batched(PAIRS, 6, len)) == [6]
    assert [len(batch) for batch in filters.listed(4)(PAIRS)] == [4, 2]
    assert [len(batch) for batch in filters.listed(4, partial=False)(PAIRS)] == [4]
    assert [len(batch) for batch in filters.listed()([0] * 45)] == [20, 20, 5]


def test_a_batch_comes_as_soon_as_it_is_full():
    """The sample after it is not waited for."""
    taken = []

    def source():
        for i in range(4):
            taken.append(i)
            yield (i,)

    next(filters.batched(2)(source()))
    assert taken == [0, 1]


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (-1, ValueError), (2.5, TypeError), ("4", TypeError)])
def test_a_batch_has_at_least_one_sample(size, error):
    """Sizes that are no positive integer are refused; numpy integers are fine."""
    with pytest.raises(error):
        filters.batched(size)(PAIRS)
    assert len(list(filters.batched(np.int64(3))(PAIRS))) == 2


def test_errors_of_collation_functions_name_the_stage():
    """The type is the function's."""
    with pytest.raises(ZeroDivisionError) as info:
        list(filters.batched(3, collation_fn=lambda samples: 1 / 0)(PAIRS))
    assert info.value.__notes__ == ["in batched"]


# collation


def test_tuples_collate_to_a_list_of_columns():
    """Numbers become arrays, arrays and tensors are stacked, everything else stays a list."""
    samples = [
        (1, 2.5, True, "a", None, np.zeros((2, 3), np.float32), torch.ones(2), [1], np.float32(1)),
        [2, 3, False, "b", None, np.ones((2, 3), np.float32), torch.zeros(2), [2], np.float32(2)],
    ]
    batch = filters.default_collation_fn(samples)
    assert type(batch) is list
    ints, floats, bools, texts, nones, arrays, tensors, lists, scalars = batch
    assert same([ints, floats, bools], [np.array([1, 2]), np.array([2.5, 3.0]), np.array([True, False])])
    assert [texts, nones, lists] == [["a", "b"], [None, None], [[1], [2]]]
    assert (arrays.shape, arrays.dtype) == ((2, 2, 3), np.float32)
    assert torch.equal(tensors, torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    assert type(scalars) is list


def test_dicts_collate_to_a_dict_of_columns():
    """Fields in the order of the first sample; metadata are lists of str."""
    batch = filters.default_collation_fn([{"__key__": "a", "x": 1}, {"x": 2, "__key__": "b"}])
    assert same(batch, {"__key__": ["a", "b"], "x": np.array([1, 2])})


def test_columns_can_be_left_as_they_are():
    """Numbers and arrays then are tuples in batches of tuples, lists in dicts."""
    arrays = [np.zeros(2), np.ones(2)]
    samples = [(1, arrays[0], torch.ones(1), "a"), (2, arrays[1], torch.ones(1), "b")]
    left = filters.default_collation_fn(samples, combine_tensors=False, combine_scalars=False)
    assert [type(column) for column in left] == [tuple, tuple, tuple, list]
    assert filters.default_collation_fn([{"x": 1}, {"x": 2}], combine_scalars=False) == {"x": [1, 2]}
    assert filters.combine_values([1, 2], combine_scalars=False) == [1, 2]
    assert same(filters.combine_values(arrays), np.array(arrays))
    assert filters.combine_values(arrays, combine_tensors=False) == arrays


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (
            [(1, np.zeros((4, 4))), (2, np.zeros((4, 4))), (3, np.zeros((4, 3)))],
            "column 1: sample 2 of the batch has shape (4, 3), sample 0 has shape (4, 4): make them alike",
        ),
        (
            [
                {"__key__": "a", "__url__": "u", "x": torch.zeros(2)},
                {"__key__": "b", "__url__": "u", "x": torch.zeros(3)},
            ],
            "u!b: column 'x': sample 1 of the batch has shape (3,), sample 0 has shape (2,)",
        ),
        ([(np.zeros(2),), (None,)], "column 0: sample 1 of the batch is a NoneType, sample 0 has shape (2,)"),
        ([(1, 2), (1,)], "sample 1 of the batch has 1 values, sample 0 has 2 values"),
        ([(1, 2), {"x": 1}], "sample 1 of the batch is a dict, sample 0 has 2 values"),
        (
            [{"__key__": "a", "x": 1}, {"__key__": "b", "y": 1}],
            "b: sample 1 of the batch has the fields __key__, y, sample 0 has the fields __key__, x",
        ),
        ([{"x": 1}, (1,)], "sample 1 of the batch is a tuple, sample 0 has the fields x"),
        ([7, 8], "a sample must be a tuple, list or dict to be collated, got int: pass collation_fn=None"),
    ],
)
def test_samples_that_do_not_fit_are_told_apart(samples, message):
    """Column, position, shapes and key; old programs catch ValueError or AssertionError."""
    with pytest.raises(CollationError, match=re.escape(message)) as info:
        list(filters.batched(10)(samples))
    assert info.value.stage == "batched"
    assert isinstance(info.value, ValueError)
    assert isinstance(info.value, AssertionError)


def test_no_samples_are_no_batch():
    """The function called by hand with nothing."""
    with pytest.raises(ValueError, match="no samples"):
        filters.default_collation_fn([])


def test_collation_does_not_import_torch():
    """Arrays and numbers collate in a process that has no torch."""
    script = (
        "import sys, numpy; from webdataset import filters;"
        "b = next(filters.batched(2)([(1, numpy.zeros(3)), (2, numpy.ones(3))]));"
        "assert b[1].shape == (2, 3); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_tuple2dict_and_dict2tuple_are_inverse():
    """By position, whatever the order of the dict."""
    assert filters.tuple2dict(("a", "b")) == {0: "a", 1: "b"}
    assert filters.dict2tuple({1: "b", 0: "a"}) == ("a", "b")
    with pytest.raises(KeyError):
        filters.dict2tuple({"a": 1})


# unbatched, unlisted


def test_unbatched_gives_tuples_or_dicts():
    """Rows of the columns, whatever kind of column."""
    assert list(filters.unbatched()([(np.arange(2), ["a", "b"]), [(5,), torch.tensor([6])]])) == [
        (0, "a"),
        (1, "b"),
        (5, torch.tensor(6)),
    ]
    assert list(filters.unbatched()([{"x": np.arange(2), "y": ["a", "b"]}])) == [{"x": 0, "y": "a"}, {"x": 1, "y": "b"}]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ((np.arange(3), ["a", "b"]), "columns must be equally long: 0 has 3, 1 has 2"),
        ({"x": [1], "y": []}, "columns must be equally long: 'x' has 1, 'y' has 0"),
        ((), "columns must be equally long: there are none"),
        ([1, 2], "column 0 is a int, not a row of values"),
        ({"x": {"y": [1]}}, "column 'x' is a dict, not a row of values"),
        (np.zeros((2, 2)), "expected a batch of tuples or dicts, got ndarray"),
    ],
)
def test_what_is_no_batch_is_told(batch, message):
    """One line, a ValueError."""
    with pytest.raises(ValueError, match=re.escape(message)):
        list(filters.unbatched()([batch]))


def test_unlisted_wants_lists():
    """Anything else is a TypeError that names the other stage."""
    with pytest.raises(TypeError, match="expected lists, got tuple; unbatched takes batches apart"):
        list(filters.unlisted()([(1, 2)]))


rows = st.lists(st.tuples(st.integers(-99, 99), st.text(max_size=3), st.none() | st.lists(st.integers())), max_size=30)


@given(rows, st.integers(1, 12))
def test_unbatched_is_the_inverse_of_batched(samples, size):
    """For tuples and dicts, of any number; so is unlisted for listed."""
    assert list(filters.unbatched()(filters.batched(size)(samples))) == samples
    dicts = [dict(zip("abc", sample, strict=True)) for sample in samples]
    assert list(filters.unbatched()(filters.batched(size)(dicts))) == dicts
    assert list(filters.unlisted()(filters.listed(size)(samples))) == samples
