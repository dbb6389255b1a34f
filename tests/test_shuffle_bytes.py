"""What a shuffle buffer holds in memory: a bound in bytes, and a warning when decoded images are shuffled."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from contracts import run as stream_of
from webdataset import filters
from webdataset.order.buffer import plainly_shuffled, shuffled_by_size
from webdataset.order.sizes import bytes_of, image_bytes


@given(
    count=st.integers(0, 60),
    bufsize=st.integers(-1, 40) | st.floats(0, 30),
    initial=st.integers(-1, 50),
    seed=st.integers(0, 100),
)
def test_a_bound_in_bytes_that_is_never_reached_changes_nothing(count, bufsize, initial, seed):
    """The order is that of the plain loop, and so is the generator's state."""
    bounded, plain = random.Random(seed), random.Random(seed)
    order = list(shuffled_by_size(range(count), bufsize, initial, bounded, count + 1, lambda item: 1))
    assert order == list(plainly_shuffled(range(count), bufsize, initial, plain))
    assert bounded.getstate() == plain.getstate()


@given(
    sizes=st.lists(st.integers(0, 20), max_size=60),
    bufsize=st.integers(1, 40),
    initial=st.integers(0, 50),
    most=st.integers(1, 60),
)
def test_the_buffer_never_holds_more_bytes_than_it_may(sizes, bufsize, initial, most):
    """Everything comes once; what is inside fits, but for an item that is too large by itself and the newest."""
    inside: dict[int, int] = {}
    held = []

    def source():
        yield from enumerate(sizes)

    def size_of(item):
        held.append(dict(inside))  # the buffer before the newcomer, which may have to wait outside
        inside[item[0]] = item[1]
        return item[1]

    order = []
    for item in shuffled_by_size(source(), bufsize, initial, random.Random(1), most, size_of):
        del inside[item[0]]
        order.append(item)
        assert len(inside) <= 1 or sum(inside.values()) <= most + max(inside.values())
    assert sorted(order) == list(enumerate(sizes))
    assert all(len(buffer) <= 1 or sum(buffer.values()) <= most for buffer in held)


def test_sizes_of_samples():
    """Bytes, text, arrays, tensors and images count, at any depth; numbers and other objects do not."""
    image = Image.new("RGB", (10, 20))
    sample = {"a": b"123", "b": "45", "c": [np.zeros((2, 3), np.float32)], "d": (torch.zeros(4), {"e": bytearray(5)})}
    assert bytes_of(sample) == 3 + 2 + 24 + 16 + 5
    assert bytes_of({"img": image, "n": 7, "none": None, "o": object()}) == 600


def test_what_counts_as_a_decoded_image():
    """Pillow's images and large arrays of three dimensions; no bytes, no vectors, no small arrays."""
    large = np.zeros((3, 200, 200), np.uint8)
    assert image_bytes({"jpg": b"x" * 10**6, "npy": np.zeros(10**6), "ten": np.zeros((3, 8, 8))}) == 0
    assert image_bytes({"jpg": large, "cls": 1}) == image_bytes((large, 1)) == image_bytes(large) == 120_000
    assert image_bytes((torch.zeros(3, 200, 200), 1)) == 480_000
    assert image_bytes({"png": Image.new("L", (100, 50))}) == 5000
    assert image_bytes("text") == image_bytes(None) == 0


IMAGE = {"__key__": "k", "npy": np.zeros((500, 500, 3), np.uint8)}


def test_decoded_images_in_a_large_buffer_are_told_once():
    """A buffer that would hold more than a gigabyte of decoded images: one warning that says what to do."""
    told = r"2000 samples with decoded images \(0\.8 MB each\) holds 1\.5 GB.*shuffle before decode"
    with pytest.warns(UserWarning, match=told) as warned:
        list(filters.shuffle(2000, initial=1)([IMAGE] * 5))
    assert len(warned) == 1
    list(filters.shuffle(1000, initial=1)([IMAGE] * 5))
    list(filters.shuffle(2000, initial=1, max_bytes=10**8)([IMAGE] * 5))
    list(filters.shuffle(10**9, initial=1)([{"jpg": b"x" * 1000}] * 5))


def test_only_the_first_reader_warns_of_images(monkeypatch):
    """Other readers would only repeat it."""
    for name, value in {"RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert len(list(filters.shuffle(2000, initial=1)([IMAGE] * 5))) == 5


@pytest.mark.parametrize("make", [filters.shuffle, filters.detshuffle])
def test_a_bound_in_bytes_bounds_what_is_read_ahead(make):
    """With max_bytes the first sample comes when so many bytes are there, whatever `initial` says."""
    taken = []

    def source():
        for number in range(1000):
            taken.append(number)
            yield {"__key__": str(number), "bin": bytes(1000)}

    stream = stream_of(make(500, initial=500, seed=3, max_bytes=20_000), source())
    next(stream)
    assert len(taken) <= 22
    assert len({sample["__key__"] for sample in stream}) == 999
