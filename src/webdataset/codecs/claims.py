"""Media bytes -> whether their own lengths say that more should follow.

Decoders take what is there of a file that was cut, and give less without a word. Containers that write down how long
they are get compared with the bytes that came. Lengths that stand for "unknown", as streaming writers leave them,
claim nothing. Nothing is decoded here.
"""

from __future__ import annotations

from collections.abc import Callable

_STREAMED = 0x7FFF_0000  # wav and avi writers that cannot seek leave a length near the largest


def check_complete(data: bytes) -> None:
    """ValueError when the container says that it is longer than the data."""
    for position, magic, end_of in _CONTAINERS:
        if data.startswith(magic, position):
            end = end_of(data)
            if end > len(data):
                raise ValueError(f"the data is cut: it should have {end} bytes, {len(data)} are there")
            return


def _riff_end(data: bytes) -> int:
    """Where the sound of a wav file, or an avi file as a whole, ends."""
    position, size, wanted = 0, int.from_bytes(data[4:8], "little"), b"RIFF"
    if data[8:12] == b"WAVE":
        # The total is often a few bytes wrong; what counts is the chunk of sound.
        position, wanted = 12, b"data"
        while position + 8 <= len(data):
            size = int.from_bytes(data[position + 4 : position + 8], "little")
            if data[position : position + 4] == wanted:
                break
            position += 8 + size + (size & 1)
        else:
            return position + 8
    return 0 if size >= _STREAMED else position + 8 + size


def _ogg_end(data: bytes) -> int:
    """Where the last page ends."""
    start = data.rfind(b"OggS")
    lengths = start + 27
    count = data[lengths - 1] if lengths <= len(data) else 1
    return lengths + count + sum(data[lengths : lengths + count])


_BOXES = frozenset(
    (b"ftyp", b"moov", b"mdat", b"moof", b"free", b"skip", b"wide", b"uuid", b"meta", b"sidx", b"styp", b"mfra")
)


def _boxes_end(data: bytes) -> int:
    """Where the last box of an mp4 or mov file ends; what follows the known ones may be anything."""
    position = 0
    while position + 8 <= len(data) and data[position + 4 : position + 8] in _BOXES:
        size = int.from_bytes(data[position : position + 4], "big")
        if size == 1:  # the real size follows
            size = int.from_bytes(data[position + 8 : position + 16], "big")
        if size < 8:  # 0: until the end; others are no boxes
            return 0
        position += size
    return position


def _ebml_end(data: bytes) -> int:
    """Where the segment of a webm or mkv file ends."""
    _, position, size = _ebml_element(data, 0)
    name, position, size = _ebml_element(data, position + size)
    return position + size if name == b"\x18\x53\x80\x67" and size >= 0 else 0


def _ebml_element(data: bytes, position: int) -> tuple[bytes, int, int]:
    """Name, begin and size of the element at a position; size -1 for unknown."""
    length = 9 - data[position + 4 : position + 5].ljust(1, b"\1")[0].bit_length()
    begin = position + 4 + length
    bits = int.from_bytes(data[position + 4 : begin], "big") & ((1 << 7 * length) - 1)
    return data[position : position + 4], begin, -1 if bits == (1 << 7 * length) - 1 else bits


_CONTAINERS: list[tuple[int, bytes, Callable[[bytes], int]]] = [
    (0, b"RIFF", _riff_end),
    (0, b"OggS", _ogg_end),
    (4, b"ftyp", _boxes_end),
    (0, b"\x1a\x45\xdf\xa3", _ebml_end),
]
