"""Streaming shuffle: an iterable -> the same items, mixed through a buffer of bounded size.

`shuffled` is the loop that runs once a sample, `plainly_shuffled` says what it does; both give the
published order for the same generator, draw for draw. `shuffled` draws as `Random.randint` does
inside (getrandbits, again while the number is too large) without its three calls. An editor keeps
both equal: the tests compare them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")


def pick(buf: list[T], rng: Any) -> T:
    """Take one item out of the buffer, at random; the last item moves to its place."""
    k: int = rng.randint(0, len(buf) - 1)
    item = buf[k]
    buf[k] = buf[-1]
    buf.pop()
    return item


def plainly_shuffled(data: Iterable[T], bufsize: float, initial: float, rng: Any) -> Iterator[T]:
    """The items of `data`, shuffled; needs of `rng` only `randint(first, last)`, both inclusive.

    The first item comes when the buffer holds `initial` items (at most `bufsize`). Until it holds
    `bufsize`, two items go in for each that comes out. `bufsize` 0 or 1 leaves the order as it is.
    """
    buf: list[T] = []
    for _ in _filling(iter(data), buf, bufsize, min(initial, bufsize)):
        yield pick(buf, rng)
    while buf:
        yield pick(buf, rng)


def _filling(source: Iterator[T], buf: list[T], bufsize: float, initial: float) -> Iterator[None]:
    """Put one item into the buffer, two as long as there is room; says each time that one may come out."""
    for item in source:
        buf.append(item)
        if len(buf) < bufsize:
            buf.extend(islice(source, 1))
        if len(buf) >= initial:
            yield


def shuffled_by_size(
    data: Iterable[T], bufsize: float, initial: float, rng: Any, max_size: float, size_of: Callable[[T], int]
) -> Iterator[T]:
    """As `plainly_shuffled`, and the items in the buffer have together at most the size `max_size`.

    Items come out earlier where there would be more; one that is larger by itself is alone in the buffer. As long
    as sizes do not matter, the order is that of `plainly_shuffled`.
    """
    source = iter(data)
    initial = min(initial, bufsize)
    buf: list[tuple[T, int]] = []
    held = 0
    for item in source:
        for newcomer in (item, *islice(source, int(len(buf) + 1 < bufsize))):
            size = size_of(newcomer)
            while buf and held + size > max_size:
                chosen, its_size = pick(buf, rng)
                held -= its_size
                yield chosen
            buf.append((newcomer, size))
            held += size
        if len(buf) >= initial:
            chosen, its_size = pick(buf, rng)
            held -= its_size
            yield chosen
    while buf:
        yield pick(buf, rng)[0]


def shuffled(data: Iterable[T], bufsize: float, initial: float, rng: Any) -> Iterator[T]:
    """The items of `data`, shuffled: as `plainly_shuffled`, several times as fast for a `random.Random`."""
    if type(rng) is not random.Random and rng is not random:
        yield from plainly_shuffled(data, bufsize, initial, rng)
        return
    getrandbits = rng.getrandbits
    source = iter(data)
    buf: list[T] = []
    for _ in _filling(source, buf, bufsize, min(initial, bufsize)):
        yield pick(buf, rng)
        if len(buf) + 1 >= bufsize:
            break

    # From here the buffer is full before each draw, so its size and the bits of a draw stay the same.
    # Slot `last` holds the newcomer; what is left in it after the swap is the item of another slot.
    last = len(buf)
    size = last + 1
    bits = size.bit_length()
    buf.append(None)  # type: ignore[arg-type]  # filled before it is drawn
    for item in source:
        k = getrandbits(bits)
        while k >= size:
            k = getrandbits(bits)
        buf[last] = item
        chosen = buf[k]
        buf[k] = item
        yield chosen
    buf.pop()

    while buf:
        yield pick(buf, rng)
