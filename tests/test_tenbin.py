"""Tests of the tenbin format."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from codec_contract import same
from webdataset import tenbin

numbers = hnp.integer_dtypes(endianness="?") | hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64))
arrays = hnp.arrays(dtype=numbers, shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
infos = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=8)


def test_the_bytes_of_an_array() -> None:
    """One float32 array of shape (3,) with an info is exactly these 160 bytes."""
    data = tenbin.encode_buffer([np.array([1, 2, 3], "f4")], ["ab"])
    header = b"f4\0\0\0\0\0\0" + b"ab\0\0\0\0\0\0" + struct.pack("<qq", 1, 3)
    payload = struct.pack("<fff", 1, 2, 3)
    assert data == (
        b"~TenBin~"
        + struct.pack("<q", 32)
        + header
        + bytes(32)
        + b"~TenBin~"
        + struct.pack("<q", 12)
        + payload
        + bytes(52)
    )
    assert len(data) == 160


@given(values=st.lists(st.tuples(arrays, infos), max_size=4))
def test_lists_come_back(values: list[tuple[np.ndarray, str]]) -> None:
    """Arrays come back bit by bit with their infos, big-endian ones as little-endian numbers of the same value."""
    items, labels = [array for array, _ in values], [label for _, label in values]
    data = tenbin.encode_buffer(items, labels)
    assert type(data) is bytearray
    assert len(data) % 16 == 0
    decoded, found = tenbin.decode_buffer(data, infos=True)
    assert found == labels
    assert same([array.astype(array.dtype.newbyteorder("<")) for array in items], decoded)
    assert same(decoded, tenbin.decode_buffer(bytes(data)))


@pytest.mark.parametrize("code", tenbin.CODES)
def test_every_type(code: str) -> None:
    """All eleven types are written and read, uint32 included."""
    array = np.array([[1, 2], [3, 4]], code)
    assert same([array], tenbin.decode_buffer(tenbin.encode_buffer([array])))


def test_memory_order_does_not_matter() -> None:
    """Fortran-ordered and strided arrays are written in C order."""
    array = np.arange(24).reshape(2, 3, 4)
    for view in (np.asfortranarray(array), array[:, ::2], array.T):
        assert (tenbin.decode_buffer(tenbin.encode_buffer([view]))[0] == view).all()


def test_views() -> None:
    """Decoded arrays are views: writable over a bytearray, read-only over bytes."""
    data = tenbin.encode_buffer([np.zeros(3)])
    (array,) = tenbin.decode_buffer(data)
    array[0] = 5
    assert tenbin.decode_buffer(data)[0][0] == 5
    assert not tenbin.decode_buffer(bytes(data))[0].flags.writeable


@given(values=st.lists(arrays, min_size=1, max_size=3), share=st.floats(0, 1, exclude_max=True))
def test_cut_data(values: list[np.ndarray], share: float) -> None:
    """Data that is cut is an error, or lacks whole arrays at its end, or only the last padding; never wrong numbers."""
    data = tenbin.encode_buffer(values)
    whole = tenbin.decode_buffer(data)
    try:
        part = tenbin.decode_buffer(data[: int(len(data) * share)])
    except ValueError:
        return
    assert same(whole[: len(part)], part)


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda data: b"x" + data[1:], "magic bytes mismatch at byte 0"),
        (lambda data: data[:80] + b"x" + data[81:], "magic bytes mismatch at byte 80"),
        (lambda data: data[:8] + struct.pack("<q", 1 << 62) + data[16:], "claims 4611686018427387904 bytes"),
        (lambda data: data[:8] + struct.pack("<q", -1) + data[16:], "claims -1 bytes"),
        (lambda data: data[:8] + struct.pack("<q", 8) + data[16:], "header of 8 bytes"),
        (lambda data: data[:16] + b"q8" + data[18:], "unsupported tenbin array type 'q8'"),
        (lambda data: data[:32] + struct.pack("<q", 100) + data[40:], "cannot hold 100 dimensions"),
        (lambda data: data[:32] + struct.pack("<q", -1) + data[40:], "cannot hold -1 dimensions"),
        (lambda data: data[:40] + struct.pack("<q", 1 << 60) + data[48:], "its chunk has 12"),
        (lambda data: data[:40] + struct.pack("<q", -3) + data[48:], "of the shape"),
        (lambda data: data[:80], "ends after the header"),
        (lambda data: data[:90], "cut in the head of a chunk at byte 80"),
        (lambda data: data[:100], "claims 12 bytes, 4 are there"),
    ],
)
def test_damaged_data(edit, match: str) -> None:
    """Each kind of damage is an error that says what and where."""
    data = bytes(tenbin.encode_buffer([np.array([1, 2, 3], "f4")], ["ab"]))
    with pytest.raises(ValueError, match=match):
        tenbin.decode_buffer(edit(data))


def test_what_cannot_be_written() -> None:
    """Other types, too many dimensions, long infos and things that are no list are refused."""
    for value in (np.zeros(2, bool), np.zeros(2, complex), np.array(["a"]), np.zeros((1,) * 10)):
        with pytest.raises(ValueError, match=r"unsupported array type|at most 9 dimensions"):
            tenbin.encode_buffer([value])
    with pytest.raises(ValueError, match="requires list"):
        tenbin.encode_buffer(np.zeros(2))  # type: ignore[arg-type]
    for label in ("123456789", "é"):
        with pytest.raises(ValueError, match="at most 8 ASCII characters"):
            tenbin.encode_buffer([np.zeros(2)], [label])
    with pytest.raises(ValueError, match="as many infos"):
        tenbin.encode_buffer([np.zeros(2)], [])


def test_infos_can_be_required() -> None:
    """A list of infos that equals what is there gives the data, another one is an error."""
    data = tenbin.encode_buffer([np.zeros(1), np.ones(1)], ["xs", "ys"])
    assert len(tenbin.decode_buffer(data, infos=["xs", "ys"])) == 2
    with pytest.raises(ValueError, match="expected"):
        tenbin.decode_buffer(data, infos=["xs", "zs"])


def test_files(tmp_path: Path) -> None:
    """save and load keep arrays and infos; the name must end in .ten unless nocheck."""
    path = tmp_path / "a.ten"
    tenbin.save(path, np.arange(3), np.array(1.5), infos=["a", "b"])
    loaded, labels = tenbin.load(path, infos=True)
    assert same([np.arange(3), np.array(1.5)], loaded)
    assert labels == ["a", "b"]
    assert path.read_bytes() == tenbin.encode_buffer([np.arange(3), np.array(1.5)], ["a", "b"])
    with pytest.raises(ValueError, match=r"ends in \.ten"):
        tenbin.save(tmp_path / "a.bin", np.arange(3))
    tenbin.save(tmp_path / "a.bin", np.arange(3), nocheck=True)
    with pytest.raises(ValueError, match=r"ends in \.ten"):
        tenbin.load(tmp_path / "a.bin")
    assert same([np.arange(3)], tenbin.load(tmp_path / "a.bin", nocheck=True))


def test_streams_of_arrays(tmp_path: Path) -> None:
    """`write` appends lists to a stream, `read` takes as many arrays as asked, and stays behind them."""
    first, second = [np.arange(3, dtype="f4"), np.zeros((0, 2))], [np.array(7, "u4")]
    with open(tmp_path / "stream", "wb") as stream:
        tenbin.write(stream, first, infos=["a", "b"])
        tenbin.write(stream, second)
    with open(tmp_path / "stream", "rb") as stream:
        (array,) = tenbin.read(stream, n=1)
        assert same(array, first[0])
        arrays, infos = tenbin.read(stream, infos=True)
        assert [same(a, b) for a, b in zip(arrays, [first[1], *second], strict=True)] == [True, True]
        assert infos == ["b", ""]
        assert tenbin.read(stream) == []


def test_a_stream_cut_at_any_byte_is_an_error() -> None:
    """A stream that ends inside a chunk is never read as a shorter one."""
    data = bytes(tenbin.encode_buffer([np.arange(3, dtype="f4")]))
    for length in range(1, len(data)):
        if length != 80:  # behind the header chunk
            with pytest.raises(ValueError, match="premature EOF: the tenbin stream ends in"):
                tenbin.read_chunk(stream := io.BytesIO(data[:length])) and tenbin.read_chunk(stream)
    with pytest.raises(ValueError, match="magic bytes mismatch"):
        tenbin.read_chunk(io.BytesIO(b"x" * 16))
    with pytest.raises(ValueError, match="claims -1 bytes"):
        tenbin.read_chunk(io.BytesIO(tenbin.MAGIC + struct.pack("<q", -1)))


def test_small_helpers() -> None:
    """Codes of 8 characters as integers, bytes of arrays, and which arrays are accepted."""
    assert (tenbin.str64("ab"), tenbin.unstr64(25185), tenbin.magic) == (25185, "ab", 9110334830257984638)
    assert tenbin.short_to_long["u4"] == "uint32"
    assert tenbin.bytelen(np.zeros(3)) == 24
    assert bytes(tenbin.bytedata(np.ones((2, 2), "u1").T)) == b"\1" * 4
    assert tenbin.bytedata(b"ab") == b"ab"
    tenbin.check_acceptable_input_type([np.zeros(1, "f8")], True)
    with pytest.raises(ValueError, match="64 bit datatypes not allowed"):
        tenbin.check_acceptable_input_type([np.zeros(1, "f8")], False)
    with pytest.raises(ValueError, match="unsupported array type bool"):
        tenbin.check_acceptable_input_type([np.zeros(1, bool)], True)
    with pytest.raises(ValueError, match="at most 8 characters"):
        tenbin.str64("123456789")
