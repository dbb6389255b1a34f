"""The streaming shuffle: published orders, and the fast loop against the plain one."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webdataset.order.buffer import pick, plainly_shuffled, shuffled

GOLDEN = [
    (20, 5, 2, 0, "1 2 0 4 8 6 9 7 10 11 14 3 16 15 13 17 5 18 19 12"),
    (20, 10, 10, 0, "6 9 0 4 8 7 10 12 14 5 19 3 2 17 1 11 15 13 16 18"),
    (12, 1000, 100, 42, "10 1 0 4 3 11 6 9 8 2 5 7"),
    (10, 5, 100, 3, "1 5 6 4 2 9 3 8 0 7"),
    (10, 5, 100, 4, "1 2 0 3 7 4 6 8 5 9"),
]


@pytest.mark.parametrize("function", [shuffled, plainly_shuffled])
@pytest.mark.parametrize(("count", "bufsize", "initial", "seed", "order"), GOLDEN)
def test_published_orders_hold(function, count, bufsize, initial, seed, order):
    """The orders that the published package gives for these seeds."""
    assert list(function(range(count), bufsize, initial, random.Random(seed))) == [int(n) for n in order.split()]


@given(
    count=st.integers(0, 80),
    bufsize=st.integers(-1, 100) | st.floats(0, 30),
    initial=st.integers(-1, 100),
    seed=st.integers(0, 1000),
)
def test_the_fast_loop_draws_as_randint_does(count, bufsize, initial, seed):
    """Same order as the plain loop, which calls `randint`, and the generator left in the same state."""
    fast, plain = random.Random(seed), random.Random(seed)
    order = list(shuffled(range(count), bufsize, initial, fast))
    assert order == list(plainly_shuffled(range(count), bufsize, initial, plain))
    assert sorted(order) == list(range(count))
    assert fast.getstate() == plain.getstate()


def test_a_full_buffer_draws_as_randint_does_over_many_items():
    """Fifty thousand items through a thousand places, in one order in both loops."""
    fast = shuffled(range(50_000), 1000, 100, random.Random(7))
    assert list(fast) == list(plainly_shuffled(range(50_000), 1000, 100, random.Random(7)))


@pytest.mark.parametrize("bufsize", [0, 1, False, True])
def test_a_buffer_of_at_most_one_item_leaves_the_order(bufsize):
    """0, 1, False and True are no shuffle."""
    assert list(shuffled(range(50), bufsize, 100, random.Random(0))) == list(range(50))


def test_other_generators_are_asked_for_randint():
    """A subclass of Random that draws in its own way is asked, not bypassed; the module random works too."""

    class Last(random.Random):
        def randint(self, a, b):
            return b

    assert list(shuffled(range(6), 3, 3, Last())) == [2, 3, 4, 5, 1, 0]
    random.seed(5)
    from_module = list(shuffled(range(30), 5, 5, random))
    assert from_module == list(shuffled(range(30), 5, 5, random.Random(5)))


def test_an_infinite_buffer_shuffles_everything():
    """With a buffer without bound and nothing given early, the order is one draw over all items."""
    order = list(shuffled(range(100), float("inf"), float("inf"), random.Random(1)))
    assert sorted(order) == list(range(100))
    assert order != list(range(100))


def test_no_more_than_the_buffer_is_read_ahead():
    """When the n-th item comes out, at most n - 1 + bufsize have been read."""
    taken = 0

    def source():
        nonlocal taken
        while taken < 1000:
            taken += 1
            yield taken

    for given_out, _ in enumerate(shuffled(source(), 50, 10, random.Random(0)), start=1):
        assert taken <= given_out - 1 + 50


def test_pick_moves_the_last_item_into_the_gap():
    """One item leaves the list, in constant time."""
    buf = [1, 2, 3, 4]
    k = random.Random(0).randint(0, 3)
    assert pick(buf, random.Random(0)) == [1, 2, 3, 4][k]
    assert sorted(buf) == sorted({1, 2, 3, 4} - {k + 1})
