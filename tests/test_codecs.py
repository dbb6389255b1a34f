"""Tests of the table of codecs: what is encoded is decoded, and wrong bytes give errors that say what is wrong."""

from __future__ import annotations

import datetime
import io
import sys
import zipfile
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from codec_contract import refuses, round_trips, same
from webdataset.codecs import decoders, encoders, gz
from webdataset.errors import EncodingError, MissingDependencyError

ALIASES = [
    ["txt", "text", "transcript", "html", "htm"],
    ["cls", "cls2", "class", "count", "index", "inx", "id"],
    ["json", "jsn"],
    ["mp", "msgpack", "msg"],
    ["pyd", "pickle", "pkl"],
    ["ten", "tenbin", "tb"],
]

keys = st.text(max_size=8)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(keys, children, max_size=4),
    max_leaves=20,
)
arrays = hnp.arrays(
    dtype=hnp.integer_dtypes(endianness="?")
    | hnp.floating_dtypes(endianness="?")
    | hnp.complex_number_dtypes()
    | hnp.boolean_dtypes()
    | hnp.unicode_string_dtypes()
    | hnp.datetime64_dtypes(),
    shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)


@settings(deadline=None)
@given(text=st.text())
def test_text_comes_back(text: str) -> None:
    """Text fields hold UTF-8 text."""
    round_trips("txt", text)


@settings(deadline=None)
@given(number=st.integers())
def test_integers_come_back(number: int) -> None:
    """Integer fields hold a decimal integer of any size."""
    round_trips("cls", number)


@pytest.mark.parametrize(("extension", "alias"), [(names[0], alias) for names in ALIASES for alias in names[1:]])
def test_extensions_with_one_meaning(extension: str, alias: str) -> None:
    """Extensions that mean the same have the same functions."""
    assert decoders[alias] is decoders[extension]
    assert encoders[alias] is encoders[extension]


@pytest.mark.parametrize("value", [np.int64(7), np.uint8(7), np.array(7), torch.tensor(7), 7])
def test_integers_of_other_libraries(value: Any) -> None:
    """Integers of numpy and torch are written as digits."""
    assert encoders["cls"](value) == b"7"


@pytest.mark.parametrize("extension", ["json", "mp", "cbor", "pyd"])
@settings(deadline=None)
@given(value=plain)
def test_plain_values_come_back(extension: str, value: Any) -> None:
    """JSON, MessagePack, CBOR and pickle fields hold nested plain values, None at the top included."""
    round_trips(extension, value)


@settings(deadline=None)
@given(value=plain)
def test_json_in_any_encoding(value: Any) -> None:
    """JSON is read as the standard library reads it: with blanks around it, a byte-order mark, in UTF-16."""
    import json

    text = json.dumps(value, ensure_ascii=False)
    for data in (f" {text}\n".encode(), f"{text} \r\n".encode(), text.encode("utf-8-sig"), text.encode("utf-16")):
        assert same(json.loads(data), decoders["json"](data))


@settings(deadline=None)
@given(text=st.binary(max_size=12))
def test_json_of_any_bytes(text: bytes) -> None:
    """Any bytes give the value, or the error, of the standard library."""
    import json

    try:
        expected = json.loads(text)
    except ValueError as exn:
        with pytest.raises(type(exn)):
            decoders["json"](text)
    else:
        assert same(expected, decoders["json"](text))


@settings(deadline=None)
@given(array=arrays)
def test_npy_comes_back(array: np.ndarray) -> None:
    """Arrays of every plain dtype and byte order come back bit by bit, writable, the first time and later."""
    round_trips("npy", array)
    assert decoders["npy"](encoders["npy"](array)).flags.writeable
    assert decoders["npy"](encoders["npy"](array)).flags.aligned


@settings(deadline=None)
@given(array=arrays)
def test_npy_agrees_with_numpy(array: np.ndarray) -> None:
    """The bytes are those of numpy, and numpy's bytes are read, in C and in Fortran order."""
    for layout in (array, np.asfortranarray(array)):
        stream = io.BytesIO()
        np.save(stream, layout)
        assert encoders["npy"](layout) == stream.getvalue()
        decoded = decoders["npy"](stream.getvalue())
        assert same(layout, decoded)
        assert decoded.flags.f_contiguous == np.load(io.BytesIO(stream.getvalue())).flags.f_contiguous


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_npy_versions(version: tuple[int, int]) -> None:
    """All versions of the npy format are read, with record types and names."""
    array = np.array([(1, 2.5)], dtype=[("a", "<i4"), ("bé" if version == (3, 0) else "b", ">f8")])
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version)
    assert same(array, decoders["npy"](stream.getvalue()))


def test_npy_views_are_written_in_order() -> None:
    """Strided and reversed views are written with their own numbers."""
    array = np.arange(24).reshape(2, 3, 4)
    for view in (array[:, ::2], array[::-1], array.T, array[..., 1]):
        assert same(np.ascontiguousarray(view), np.ascontiguousarray(decoders["npy"](encoders["npy"](view))))


def test_npy_headers_of_any_length() -> None:
    """Headers that other writers pad differently are read, and the array is aligned; trailing bytes are ignored."""
    array = np.arange(5.0)
    text = repr({"descr": "<f8", "fortran_order": False, "shape": (5,)}).encode()
    for padding in range(70):
        header = text + b" " * padding + b"\n"
        data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + array.tobytes()
        for tail in (b"", b"more"):
            decoded = decoders["npy"](data + tail)
            assert same(array, decoded)
            assert decoded.flags.aligned


def test_npy_arrays_are_independent() -> None:
    """Two decodings of the same bytes do not share memory."""
    data = encoders["npy"](np.zeros(4))
    first, second = decoders["npy"](data), decoders["npy"](data)
    first[:] = 1
    assert second.sum() == 0
    assert decoders["npy"](data).sum() == 0


@settings(deadline=None)
@given(cut=st.integers(0, 8 * 100 + 127))
def test_npy_cut_anywhere(cut: int) -> None:
    """A npy field that is cut anywhere is an error, also when its header is known."""
    data = encoders["npy"](np.zeros(100))
    decoders["npy"](data)
    refuses("npy", data[:cut], "npy")


def test_npy_claims_are_checked_before_memory_is_taken() -> None:
    """A header that claims 8 EiB is an error that names both sizes."""
    for shape in ((1 << 60,), (1 << 40, 1 << 40), (1 << 70,)):
        header = repr({"descr": "<f8", "fortran_order": False, "shape": shape}).encode() + b"\n"
        refuses("npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header, "needs .* bytes, 0 are there")


@pytest.mark.parametrize(
    ("header", "match"),
    [
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "Python objects"),
        ("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,), }", "Python objects"),
        ("{'descr': '|S0', 'fortran_order': False, 'shape': (1000000000000,), }", "without a size|needs"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }", "shape|nonnegative|negative"),
        ("{'descr': '<q9', 'fortran_order': False, 'shape': (1,), }", "."),
        ("__import__('os')", "."),
        ("{" * 200, "."),
    ],
)
def test_npy_headers_that_are_wrong(header: str, match: str) -> None:
    """Wrong headers are errors, in every version of the format."""
    for version, width in ((1, 2), (2, 4), (3, 4)):
        start = b"\x93NUMPY" + bytes([version, 0]) + len(header).to_bytes(width, "little") + header.encode()
        refuses("npy", start + b"\0" * 8, match)


@settings(max_examples=30, deadline=None)
@given(value=st.dictionaries(st.from_regex("[a-z/]{1,8}", fullmatch=True), arrays, max_size=3))
def test_npz_comes_back(value: dict[str, np.ndarray]) -> None:
    """A dict of arrays comes back; a name may be any text, `file` included."""
    round_trips("npz", value)


def test_npz_agrees_with_numpy() -> None:
    """numpy's archives are read, ours are read by numpy, and equal arrays give equal bytes."""
    value = {"file": np.arange(3), "b": np.zeros((2, 2), "f4")}
    data = encoders["npz"](value)
    assert data == encoders["npz"](value)
    with np.load(io.BytesIO(data)) as archive:
        assert same(value, dict(archive))
    stream = io.BytesIO()
    np.savez(stream, a=value["b"])
    assert same({"a": value["b"]}, decoders["npz"](stream.getvalue()))


def test_npz_members_of_other_kinds_are_bytes() -> None:
    """Members that are not npy come as bytes under their own names, as in numpy."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("readme.txt", b"text")
    assert decoders["npz"](stream.getvalue()) == {"readme.txt": b"text"}


def test_expanded_sizes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """npz and gz fields that expand beyond the limit are errors that name the limit."""
    array = encoders["npz"]({"a": np.zeros(100_000)})
    text = gz.gzipped(bytes(100_000))
    monkeypatch.setattr(gz, "max_bytes", 99_999)
    refuses("npz", array, "more than 99999 bytes.*max_bytes")
    refuses("txt.gz", text, "more than 99999 bytes.*max_bytes")
    monkeypatch.setattr(gz, "max_bytes", 100_000)
    assert gz.gunzip(text) == bytes(100_000)


def test_tenbin_comes_back() -> None:
    """A list of arrays comes back, writable; one array comes back as a list of one."""
    value = [np.arange(6, dtype="u4").reshape(2, 3), np.array(2.5), np.zeros((0, 3), "i2")]
    round_trips("ten", value)
    assert all(array.flags.writeable for array in decoders["ten"](encoders["ten"](value)))
    assert same([value[0]], decoders["ten"](encoders["ten"](value[0])))


def test_tensors_come_back() -> None:
    """pth fields hold tensors, plain containers and arrays, and load on the CPU."""
    value = {"t": torch.arange(6.0).reshape(2, 3), "n": [1, "x", None]}
    decoded = decoders["pth"](encoders["pth"](value))
    assert torch.equal(decoded["t"], value["t"])
    assert decoded["n"] == value["n"]
    assert same([np.arange(3)], decoders["pth"](encoders["pth"]([np.arange(3)])))


@pytest.mark.parametrize(
    ("extension", "data", "match"),
    [
        ("txt", b"ab\xff", r"invalid utf-8 text at byte 2"),
        ("cls", b"cat", r"not an integer: b'cat'"),
        ("cls", b"", r"not an integer: b''"),
        ("json", b'{"a":\n 1,, }', r"invalid JSON at byte 9 \(line 2, column 4\): "),
        ("json", '{"é": x}'.encode(), r"invalid JSON at byte 7 \(line 1, column 7\): "),
        ("json", b"", r"invalid JSON at byte 0"),
        ("mp", b"\xc1", r"FormatError; the field starts with b'\\xc1'"),
        ("cbor", b"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff", "premature end"),
        ("npy", b"<html>not an array", r"not a npy array: starts with b'<html>no'"),
        ("npz", b"PK", "not a zip file"),
        ("ten", b"~TenBin~12", "cut in the head"),
        ("pth", b"xx", "not a torch file"),
        ("pkl", b"\x80\x04nonsense", "UnpicklingError"),
        ("txt.gz", b"plain text", "gzip data is damaged"),
        ("txt.gz", gz.gzipped(b"x" * 1000)[:-3], "ends too early"),
    ],
)
def test_wrong_bytes(extension: str, data: bytes, match: str) -> None:
    """Wrong bytes give one line with place and fact."""
    refuses(extension, data, match)


@pytest.mark.parametrize("data", [b"\x81" * 100_000 + b"\x01", b"\xa1\x00" * 100_000])
@pytest.mark.parametrize("missing", [[], ["cbor2"]])
def test_deep_cbor_does_not_crash(data: bytes, missing: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Deeply nested CBOR is an error with either package, not the end of the process."""
    for module in missing:
        monkeypatch.setitem(sys.modules, module, None)
    refuses("cbor", data, ".")


def test_cbor_with_either_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """CBOR works with cbor2 or with cbor; without both, the error names both."""
    value = {"a": [1, -1, 1.25, None, True, b"\0", "é"]}
    both = encoders["cbor"](value)
    monkeypatch.setitem(sys.modules, "cbor2", None)
    assert encoders["cbor"](value) == both
    assert same(value, decoders["cbor"](both))
    monkeypatch.delitem(sys.modules, "cbor.cbor")
    monkeypatch.setitem(sys.modules, "cbor", None)
    with pytest.raises(MissingDependencyError, match=r"needs cbor2 or cbor: pip install cbor2"):
        decoders["cbor"](both)


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A field whose package is absent says which field it was and what to install."""
    monkeypatch.setitem(sys.modules, "msgpack", None)
    refuses("mp", b"\x01", r"decoding MessagePack .* needs msgpack: pip install msgpack")


@pytest.mark.parametrize(
    ("extension", "value"),
    [
        ("txt", 5),
        ("cls", "é"),
        ("npy", np.array([{}], dtype=object)),
        ("npz", {"a": np.array([None])}),
        ("npz", {1: np.zeros(1)}),
        ("npz", np.zeros(1)),
        ("ten", [np.zeros(1, bool)]),
    ],
)
def test_values_that_would_not_come_back_are_refused(extension: str, value: Any) -> None:
    """What could not be read again is not written."""
    with pytest.raises(EncodingError):
        encoders[extension](value)


def test_every_written_extension_is_read() -> None:
    """Whatever the writer encodes has a decoder: in the table, or as an image, or as audio."""
    from webdataset.autodecode import AUDIO_EXTENSIONS, IMAGE_EXTENSIONS

    assert encoders.keys() - decoders.keys() <= {*IMAGE_EXTENSIONS, *AUDIO_EXTENSIONS}
    assert decoders.keys() <= encoders.keys()


@settings(deadline=None)
@given(parts=st.lists(st.binary(max_size=300_000), max_size=4), padding=st.integers(0, 3))
def test_gzip_members(parts: list[bytes], padding: int) -> None:
    """Members one after another, with zeros between, are expanded together."""
    data = b"".join(gz.gzipped(part) + bytes(padding) for part in parts)
    assert gz.gunzip(data) == b"".join(parts)


def test_gzip_checks_its_sums() -> None:
    """A changed byte anywhere in the data or its check sums is an error, as is junk after the members."""
    data = gz.gzipped(bytes(range(256)) * 4)
    for position in range(10, len(data)):
        damaged = data[:position] + bytes([data[position] ^ 0x55]) + data[position + 1 :]
        with pytest.raises((ValueError, EOFError), match="gzip"):
            gz.gunzip(damaged)
    with pytest.raises(ValueError, match="damaged"):
        gz.gunzip(data + b"junk")


def test_gzip_bytes_do_not_depend_on_the_clock() -> None:
    """The header of what is written holds no time."""
    assert gz.gzipped(b"a")[4:8] == bytes(4)


def test_dates_in_pickles() -> None:
    """Dates and times come back from pickle fields."""
    round_trips("pyd", [datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC), datetime.timedelta(1, 2, 3)])
