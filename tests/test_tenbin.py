"""Tests of the tenbin format."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import threading
from pathlib import Path

import lmdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from codec_contract import same
from helpers import upstream_data
from tools import published
from webdataset import WebDataset, tenbin
from webdataset.errors import DataError, DecodingError, EncodingError, OpenError

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
        (lambda data: b"x" + data[1:], r"magic bytes mismatch: .* \(byte 0\)"),
        (lambda data: data[:80] + b"x" + data[81:], r"magic bytes mismatch: .* \(byte 80\)"),
        (lambda data: data[:8] + struct.pack("<q", 1 << 62) + data[16:], "claims 4611686018427387904 bytes"),
        (lambda data: data[:8] + struct.pack("<q", -1) + data[16:], "claims -1 bytes"),
        (lambda data: data[:8] + struct.pack("<q", 8) + data[16:], "header of 8 bytes"),
        (lambda data: data[:16] + b"q8" + data[18:], "unsupported tenbin array type 'q8'"),
        (lambda data: data[:32] + struct.pack("<q", 100) + data[40:], "cannot hold 100 dimensions"),
        (lambda data: data[:32] + struct.pack("<q", -1) + data[40:], "cannot hold -1 dimensions"),
        (lambda data: data[:40] + struct.pack("<q", 1 << 60) + data[48:], "its chunk has 12"),
        (lambda data: data[:40] + struct.pack("<q", -3) + data[48:], "of the shape"),
        (lambda data: data[:80], "ends after the header"),
        (lambda data: data[:90], r"cut in the head of a chunk \(byte 80\)"),
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


def test_a_masked_array_lost_its_mask() -> None:
    """Arrays that lose something, and things that are no arrays, are refused with their place in the list."""
    masked = np.ma.array([1, 2, 3], mask=[False, True, False])
    assert same([masked.data], tenbin.decode_buffer(tenbin.encode_buffer([np.ma.array([1, 2, 3])])))
    with pytest.raises(EncodingError, match=r"item 1 of the list is masked"):
        tenbin.encode_buffer([np.zeros(2), masked])
    with pytest.raises(EncodingError, match=r"item 0 of the list, a list, is no array"):
        tenbin.encode_list([[[1], [2, 3]]])


def test_an_info_lost_its_nul_characters() -> None:
    """Infos with NUL are refused by the writer, those that are not ASCII by the reader."""
    with pytest.raises(EncodingError, match="at most 8 ASCII characters"):
        tenbin.encode_buffer([np.zeros(2)], ["a\0"])
    data = tenbin.encode_buffer([np.zeros(2)], ["ab"])
    data[24] = 0xFF
    with pytest.raises(DecodingError, match=r"not ASCII: b'\\xffb.*\(byte 0\)"):
        tenbin.decode_buffer(data)


def test_a_header_with_a_dimension_left_over_gave_another_shape() -> None:
    """A header is as long as its number of dimensions says, otherwise one of both is damaged."""
    data = tenbin.encode_buffer([np.zeros((3, 1))])
    data[32] = 1
    with pytest.raises(DecodingError, match=r"header of 40 bytes cannot hold 1 dimensions \(byte 0\)"):
        tenbin.decode_buffer(data)


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
            with pytest.raises(ValueError, match="premature EOF: the tenbin stream ends"):
                tenbin.read_chunk(stream := io.BytesIO(data[:length])) and tenbin.read_chunk(stream)
    with pytest.raises(ValueError, match="ends 61 bytes into a chunk of 64"):  # in the padding
        tenbin.read_chunk(io.BytesIO(data[:77]))
    with pytest.raises(ValueError, match="magic bytes mismatch"):
        tenbin.read_chunk(io.BytesIO(b"x" * 16))
    with pytest.raises(ValueError, match="claims -1 bytes"):
        tenbin.read_chunk(io.BytesIO(tenbin.MAGIC + struct.pack("<q", -1)))


def test_payloads_of_items_larger_than_a_byte_were_framed_too_short() -> None:
    """Arrays, and views of numbers, are framed with the length of their bytes."""
    numbers = np.arange(6.0).reshape(2, 3)
    for item in (numbers, memoryview(numbers), numbers.tobytes()):
        stream = io.BytesIO()
        tenbin.write_chunk(stream, item)
        stream.seek(0)
        assert numbers.tobytes() == tenbin.read_chunk(stream)
        assert stream.getvalue() == tenbin.encode_chunks([item])


class _Taker:
    def __init__(self, count: int | None) -> None:
        self.count, self.got = count, b""

    def write(self, data: bytes) -> int | None:
        self.got += data
        return self.count


def test_streams_that_take_or_give_nothing_hung_or_lost_arrays() -> None:
    """A stream that takes nothing, or has nothing at the moment, is an error; one that counts nothing is believed."""
    for count in (0, -1, 1 << 40):
        with pytest.raises(OpenError, match=f"says that it took {count} of 16 bytes"):
            tenbin.write(_Taker(count), [np.zeros(3)])
    plain = _Taker(None)
    tenbin.write(plain, [np.zeros(3)])
    assert plain.got == tenbin.encode_buffer([np.zeros(3)])
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    with open(reading, "rb", buffering=0) as source, open(writing, "wb", buffering=0) as sink:
        with pytest.raises(OpenError, match="nothing to read at the moment"):
            tenbin.read(source)
        with pytest.raises(OpenError, match=r"took None of \d+ bytes: tenbin needs one that blocks"):
            tenbin.write(sink, [np.zeros(1_000_000)])
    with pytest.raises(TypeError, match="gives text"):
        tenbin.read(io.StringIO("~TenBin~"))


def test_reading_a_number_of_arrays_that_is_none() -> None:
    """It was no array at all for -1, and more than asked for with a fraction."""
    for n, kind in ((-1, ValueError), (1.5, TypeError), ("1", TypeError)):
        with pytest.raises(kind, match=r"tenbin\.read: n must be a whole number of arrays, 0 or more"):
            tenbin.read(io.BytesIO(tenbin.encode_buffer([np.zeros(3)])), n)  # type: ignore[arg-type]


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


def test_damage_says_the_byte() -> None:
    """Whatever is wrong, the error has the offset of the chunk in which it was found, in its text too."""
    data = bytes(tenbin.encode_buffer([np.arange(3, dtype="f4"), np.arange(2, dtype="u4")]))
    assert len(data) == 320
    damaged = {
        0: [b"PK" + data[2:], data[:16] + b"q8" + data[18:], data[:8], data[:20], data[:8] + b"\xff" * 8 + data[16:]],
        80: [data[:40] + struct.pack("<q", 4) + data[48:], data[:100], data[:88] + struct.pack("<q", 1 << 40)],
        160: [data[:160] + bytes(8) + data[168:], data[:176] + bytes(24) + data[200:], data[:161]],
        240: [data[:239] + b"~" + data[241:], data[:256] + b"1"],
    }
    for offset, variants in damaged.items():
        for variant in variants:
            with pytest.raises(DecodingError, match=rf"\(byte {offset}\)") as caught:
                tenbin.decode_buffer(variant)
            assert caught.value.offset == offset
            stream = io.BytesIO(b"abcdefg" + variant)
            stream.seek(7)
            with pytest.raises(DecodingError, match=rf"\(byte {7 + offset}\)"):
                tenbin.read(stream)


@given(
    values=st.lists(arrays, min_size=1, max_size=3), edits=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=9)))
)
def test_whatever_bytes_come(values: list[np.ndarray], edits: list[tuple[float, bytes]]) -> None:
    """Bytes that were changed anywhere give arrays or one error of ours, of one line."""
    data = tenbin.encode_buffer(values)
    for share, new in edits:
        position = int(share * len(data))
        data[position : position + len(new)] = new
    for decode in (tenbin.decode_buffer, lambda data: tenbin.read(io.BytesIO(data))):
        try:
            found = decode(data)
        except DecodingError as exn:
            found = [] if "\n" not in str(exn) else [str(exn)]
        assert all(isinstance(array, np.ndarray) for array in found)


def test_sizes_that_are_only_claimed_take_no_memory(tmp_path: Path) -> None:
    """A chunk of 1 TB, in a file, a buffer or a stream of a few bytes, is refused, and nothing is allocated for it."""
    import tracemalloc

    data = tenbin.MAGIC + struct.pack("<q", 1 << 40) + bytes(500)
    shape = bytes(tenbin.encode_buffer([np.zeros(3)]))
    shape = shape[:40] + struct.pack("<q", 1 << 40) + shape[48:]
    (tmp_path / "a.ten").write_bytes(data)
    tracemalloc.start()
    try:
        for load in (
            lambda: tenbin.load(tmp_path / "a.ten"),
            lambda: tenbin.load(tmp_path / "a.ten", mmap=True),
            lambda: tenbin.decode_buffer(data),
            lambda: tenbin.read(io.BytesIO(data)),
            lambda: tenbin.decode_buffer(shape),
            lambda: tenbin.read(io.BytesIO(shape)),
        ):
            with pytest.raises(DecodingError, match=r"1099511627776|needs 8796093022208 bytes, its chunk has 24"):
                load()
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()
    with pytest.raises(DecodingError, match="of the shape"):
        tenbin.decode_list([struct.pack("<8s8sqqq", b"f4", b"", 2, 0, 1 << 62), b""])


def test_arrays_lie_where_their_numbers_may_lie() -> None:
    """Aligned data is not copied; data that begins at an odd address is, and both are what they were."""
    value = np.arange(100, dtype="f8")
    data = bytes(tenbin.encode_buffer([value]))
    for shift in range(9):
        buffer = np.zeros(len(data) + shift + 64, np.uint8)
        first = -buffer.ctypes.data % 64 + shift
        view = memoryview(buffer)[first : first + len(data)]
        view[:] = data
        for part, writable in ((view, True), (view.toreadonly(), False)):
            (array,) = tenbin.decode_buffer(part)
            assert array.flags.aligned
            assert array.flags.writeable == writable
            assert np.shares_memory(array, buffer) == (shift % 8 == 0)
            assert same(value, array)


def test_files_as_memory(tmp_path: Path) -> None:
    """`load(mmap=True)` gives read-only arrays of the mapped file, which outlive its name; an empty file has none."""
    path = tmp_path / "a.ten"
    values = [np.arange(1000.0).reshape(10, 100), np.array(7, "u4"), np.zeros((0, 3), "i2")]
    tenbin.save(path, *values, infos=["a", "b", "c"])
    mapped, labels = tenbin.load(path, infos=True, mmap=True)
    path.unlink()
    assert labels == ["a", "b", "c"]
    assert same(values, mapped)
    assert not any(array.flags.writeable for array in mapped)
    (tmp_path / "empty.ten").write_bytes(b"")
    assert tenbin.load(tmp_path / "empty.ten", mmap=True) == tenbin.load(tmp_path / "empty.ten") == []


def test_wrong_files_are_named(tmp_path: Path) -> None:
    """An error of `load` says file and byte; what there was under the name stays when `save` fails."""
    path = tmp_path / "a.ten"
    path.write_bytes(b"\x89PNG" + bytes(1000))
    for mapped in (False, True):
        with pytest.raises(DataError, match=rf"{path}: magic bytes mismatch.*\(byte 0\)"):
            tenbin.load(path, mmap=mapped)
    with pytest.raises(ValueError, match="unsupported array type"):
        tenbin.save(path, np.zeros(3), np.zeros(3, bool))
    assert path.stat().st_size == 1004
    assert os.listdir(tmp_path) == ["a.ten"]


def test_files_that_are_no_files(tmp_path: Path) -> None:
    """`save` and `load` work on a fifo, and `save` writes to the file behind a link."""
    fifo, values = tmp_path / "fifo.ten", [np.arange(200_000)]
    os.mkfifo(fifo)
    writer = threading.Thread(target=tenbin.save, args=(fifo, *values))
    writer.start()
    assert same(values, tenbin.load(fifo))
    writer.join()
    (tmp_path / "link.ten").symlink_to("target.ten")
    tenbin.save(tmp_path / "link.ten", *values)
    assert (tmp_path / "link.ten").is_symlink()
    assert same(values, tenbin.load(tmp_path / "target.ten"))


def test_a_fifo_that_was_to_be_mapped_was_empty(tmp_path: Path) -> None:
    """What cannot be mapped is read; names of files may be bytes."""
    name = os.fsencode(tmp_path / "a.ten")
    os.mkfifo(name)
    writer = threading.Thread(target=tenbin.save, args=(name, np.arange(5)))
    writer.start()
    (array,) = tenbin.load(name, mmap=True)
    writer.join()
    assert array.tolist() == list(range(5))
    assert not array.flags.writeable


def test_a_stream_that_takes_a_little_at_a_time() -> None:
    """A stream that writes less than it is given gets everything all the same."""

    class Slow(io.RawIOBase):
        content = b""

        def write(self, data) -> int:
            self.content += bytes(data[:7])
            return min(7, len(data))

    slow = Slow()
    tenbin.write(slow, [np.arange(9)])
    assert slow.content == tenbin.encode_buffer([np.arange(9)])


def test_lmdb_keeps_arrays(tmp_path: Path) -> None:
    """What is put into LMDB comes back, copied or as views of its pages, whatever the alignment of the values."""
    values = {f"key{'x' * n}".encode(): [np.arange(n * 500.0), np.array(n, "u4")] for n in range(12)}
    with lmdb.open(str(tmp_path / "db"), map_size=1 << 24) as store:
        with store.begin(write=True) as transaction:
            for key, arrays in values.items():
                transaction.put(key, tenbin.encode_buffer(arrays, ["xs", "n"]))
        with store.begin() as transaction:
            for key, arrays in values.items():
                assert same(arrays, tenbin.decode_buffer(transaction.get(key), infos=["xs", "n"]))
        with store.begin(buffers=True) as transaction:
            for key, arrays in values.items():
                found = tenbin.decode_buffer(transaction.get(key))
                assert all(array.flags.aligned and not array.flags.writeable for array in found)
                assert same(arrays, found)


ASK = """
import pickle, sys
from webdataset import tenbin
arrays, data = pickle.load(sys.stdin.buffer)
encoded = bytes(tenbin.encode_buffer(arrays, ["ab"] * len(arrays)))
pickle.dump((encoded, tenbin.decode_buffer(data, infos=True)), sys.stdout.buffer)
"""


def test_the_published_package_makes_the_same_bytes() -> None:
    """Every type that the published code can write gives the same bytes here, and what is written here it reads."""
    import pickle

    codes = [code for code in tenbin.CODES if code != "u4"]
    arrays = [np.arange(24).reshape(shape).astype(code) for code in codes for shape in ((24,), (2, 3, 4), (1, 24, 1))]
    data = bytes(tenbin.encode_buffer(arrays, ["ab"] * len(arrays)))
    asked = subprocess.run(
        [published(), "-I", "-W", "ignore", "-c", ASK],
        input=pickle.dumps((arrays, data)),
        stdout=subprocess.PIPE,
        check=True,
    )
    theirs, (decoded, labels) = pickle.loads(asked.stdout)
    assert theirs == data
    assert same(arrays, decoded)
    assert set(labels) == {"ab"}


def test_the_archive_of_the_published_package() -> None:
    """Its 100 samples of two arrays named xs and ys are read as they were written, from a stream and decoded."""
    path = upstream_data() / "tendata.tar"
    samples = list(WebDataset(str(path), shardshuffle=False))
    decoded = list(WebDataset(str(path), shardshuffle=False).decode())
    assert len(samples) == len(decoded) == 100
    for sample, values in zip(samples, decoded, strict=True):
        arrays, labels = tenbin.decode_buffer(sample["ten"], infos=True)
        assert [(array.shape, array.dtype) for array in arrays] == [((28, 28), np.dtype("f8"))] * 2
        assert labels == ["xs", "ys"]
        assert same(arrays, values["ten"])
        assert sample["ten"] == tenbin.encode_buffer(arrays, labels)


def test_a_list_of_arrays_was_saved_as_one_array(tmp_path):
    """`save` takes arrays one by one, and does not make one of a list of them."""
    with pytest.raises(TypeError, match=r"one by one, save\(fname, \*arrays\)"):
        tenbin.save(tmp_path / "a.ten", [np.zeros(3), np.ones(3)])
    assert not (tmp_path / "a.ten").exists()
    tenbin.save(tmp_path / "a.ten", [1, 2, 3])
    assert tenbin.load(tmp_path / "a.ten")[0].tolist() == [1, 2, 3]
