"""A window of bytes -> the run of plain members it begins with, all headers verified at once. Pure.

Reading headers one after the other costs Python more than all the rest. Here numpy looks at every
block of the window together: which ones look like headers, their sizes, their sums; then a short
loop follows the sizes from header to header. A member is plain when it is an ordinary file with a
ustar or GNU header, an octal size, no name prefix, and all of its data in the window. A PAX header
that has nothing but an mtime (Python's tarfile writes one before each member with a fractional
time) is passed over. The run ends before anything else; `reader` takes that up, member by member,
and is the truth that this file must agree with.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .header import BLOCK

_OCTAL_PLACES = 8.0 ** np.arange(10, -1, -1)
_WORDS = BLOCK // 8

# Header bytes are tested eight at a time, as little-endian words. A byte & 0xF8 == 0x30 is an octal
# digit, a byte & 0xDF == 0 is a NUL or a space.
_MAGIC_WORD = 257 // 8
_MAGIC_MASK = np.uint64(int.from_bytes(b"\0" + b"\xff" * 5, "little"))
_MAGIC = np.uint64(int.from_bytes(b"\0ustar", "little"))


def _pattern(first_byte: int, digits: int, ends: int) -> dict[int, tuple[int, int]]:
    """Word number -> (mask, value) for a field of octal digits and then NULs or spaces."""
    start = first_byte % 8
    mask = bytes(start) + b"\xf8" * digits + b"\xdf" * ends
    value = bytes(start) + b"0" * digits + bytes(ends)
    return {
        (first_byte - start + at) // 8: (
            int.from_bytes(mask[at : at + 8], "little"),
            int.from_bytes(value[at : at + 8], "little"),
        )
        for at in range(0, len(mask), 8)
    }


_NUMBERS = _pattern(124, 11, 1) | _pattern(148, 6, 2)  # size and checksum
_NUMBER_WORDS = np.array(list(_NUMBERS))
_NUMBER_MASKS = np.array([mask for mask, _ in _NUMBERS.values()], dtype=np.uint64)
_NUMBER_VALUES = np.array([value for _, value in _NUMBERS.values()], dtype=np.uint64)

_HIGH_BITS = np.uint64(0x8080808080808080)
_MTIME = np.frombuffer(b" mtime=", dtype=np.uint8)


class Run(NamedTuple):
    """Plain members that lie one after the other in a window.

    Attributes:
        window: the bytes; a bytearray is used again when the reader goes on. `cut` takes parts out.
        headers: position of each member's header in the window; its data begins 512 bytes later.
        begins: position of its first header block, which is that of a PAX header where it has one.
        sizes: bytes of data of each member.
        blocks: the header blocks, uint8 of shape (members, 512).
        end: position in the window behind the last member and its padding.
    """

    window: bytes | bytearray
    headers: NDArray[np.int64]
    begins: NDArray[np.int64]
    sizes: NDArray[np.int64]
    blocks: NDArray[np.uint8]
    end: int


def cut(window: bytes | bytearray, starts: list[int], ends: list[int]) -> list[bytes]:
    """The bytes of a window from each start to each end."""
    if isinstance(window, bytes):
        return [window[start:end] for start, end in zip(starts, ends, strict=True)]
    with memoryview(window) as view:
        return [bytes(view[start:end]) for start, end in zip(starts, ends, strict=True)]


def scan(window: bytes | bytearray, pos: int, dense: bool = True, length: int | None = None) -> Run | None:
    """The plain members that begin at `pos`, None when not even the first one is plain and whole.

    `dense` says how to find the headers, not what is found: among small members it is quickest to look
    at all blocks together; among large ones that would fetch every corner of the window from memory.
    `length` is that of the window where not all of it counts.
    """
    length = len(window) if length is None else length
    count = (length - pos) // BLOCK
    if not count:
        return None
    window_words = np.frombuffer(window, "<u8", count * _WORDS, pos).reshape(count, _WORDS)
    candidates = _headers_among_all(window_words) if dense else _headers_by_size(window, pos, length)
    if not len(candidates) or candidates[0]:
        return None
    words = window_words[candidates]
    blocks = words.view(np.uint8)
    sizes = ((blocks[:, 124:135] - 48) @ _OCTAL_PLACES).astype(np.int64)
    believable = (words[:, _MAGIC_WORD] & _MAGIC_MASK) == _MAGIC
    believable &= ((words[:, _NUMBER_WORDS] & _NUMBER_MASKS) == _NUMBER_VALUES).all(axis=1)
    believable &= _checksums_are_right(blocks)
    kind = blocks[:, 156]
    plain = believable & (kind == 48) & (blocks[:, 0] != 0) & ((blocks[:, 345] == 0) | (blocks[:, 262] == 32))
    steps = ((sizes + 2 * BLOCK - 1) // BLOCK) * plain
    behind = candidates + steps
    if plain.all() and (behind[:-1] == candidates[1:]).all():  # nothing but plain members: the usual case
        length = len(candidates) - int(behind[-1] > count)
        if not length:
            return None
        headers = candidates[:length] * BLOCK + pos
        return Run(window, headers, headers, sizes[:length], blocks[:length], int(behind[length - 1]) * BLOCK + pos)
    times = np.flatnonzero(believable & (kind == 120))
    if len(times):
        steps[times] = _times_only(window_words.view(np.uint8), candidates[times], sizes[times])
    met = _follow(candidates, steps, count, plain)
    if not len(met):
        return None
    members = plain[met]
    index = met[members]
    # A PAX header, where there is one, stands right in front of its member.
    begins = met[np.flatnonzero(members) - np.append(False, ~members[:-1])[members]]
    end = int(candidates[met[-1]] + steps[met[-1]])
    headers = candidates[index] * BLOCK + pos
    return Run(window, headers, candidates[begins] * BLOCK + pos, sizes[index], blocks[index], end * BLOCK + pos)


def _headers_among_all(words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Numbers of all blocks that may be headers, data that look like one too."""
    return np.flatnonzero((words[:, _MAGIC_WORD] & _MAGIC_MASK) == _MAGIC)


def _headers_by_size(window: bytes | bytearray, pos: int, length: int) -> NDArray[np.int64]:
    """Numbers of the blocks that one comes by following the sizes."""
    at, last = pos, length - BLOCK
    found = []
    while at <= last and (digits := window[at + 124 : at + 135]).isdigit():
        found.append((at - pos) // BLOCK)
        try:
            at += (int(digits, 8) + 2 * BLOCK - 1) & -BLOCK
        except ValueError:
            break
    return np.array(found, dtype=np.int64)


def _follow(
    candidates: NDArray[np.int64], steps: NDArray[np.int64], count: int, plain: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Indices of the candidates that one meets following the steps from block 0; the last one is a member.

    It ends before a step of 0, before a block that is no candidate, and before a step out of the window.
    """
    behind = candidates + steps
    if (behind[:-1] == candidates[1:]).all() and steps.all():
        met = list(range(len(candidates)))
    else:
        index_of = {at: index for index, at in enumerate(candidates.tolist())}
        step_of = steps.tolist()
        met, at = [], 0
        while (index := index_of.get(at)) is not None and step_of[index]:
            met.append(index)
            at += step_of[index]
    while met and (behind[met[-1]] > count or not plain[met[-1]]):
        met.pop()
    return np.array(met, dtype=np.int64)


def _checksums_are_right(blocks: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether each block's bytes sum to its six octal digits of checksum, the field itself counted as spaces.

    Sums fit into 16 bits as long as all bytes are below 128; a wider type costs twice the time.
    """
    field = blocks[:, 148:156]
    stored = ((field[:, :6] - 48) @ _OCTAL_PLACES[-6:]).astype(np.int64)
    ascii_only = not np.bitwise_or.reduce(blocks.view(np.uint64), axis=None) & _HIGH_BITS
    summed = blocks.sum(axis=1, dtype=np.uint16 if ascii_only else np.int64)
    right: NDArray[np.bool_] = stored == summed - field.sum(axis=1, dtype=np.int64) + 8 * ord(" ")
    return right


def _times_only(view: NDArray[np.uint8], at: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """2 where the PAX header's data is exactly one mtime record of two length digits, else 0."""
    inside = at + 1 < len(view)
    record = view[np.where(inside, at + 1, at), :128]
    length = (record[:, 0].astype(np.int64) - 48) * 10 + record[:, 1] - 48
    last = record[np.arange(len(record)), np.clip(sizes, 1, 100) - 1]
    fits = (
        inside & (record[:, :2] - 48 < 10).all(axis=1) & (length == sizes) & (sizes > 9) & (sizes < 100) & (last == 10)
    )
    return np.where(fits & (record[:, 2:9] == _MTIME).all(axis=1), 2, 0)
