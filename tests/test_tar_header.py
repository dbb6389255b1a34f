"""Header blocks, PAX records and sparse maps, as literals: what is believed, and what is refused."""

from __future__ import annotations

import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import tar_bytes
from webdataset.errors import HeaderError
from webdataset.tar.header import Header, checksum_is_right, is_header, padding, parse_header, parse_number
from webdataset.tar.pax import PAX_LIMIT, parse_pax_records, parse_pax_size
from webdataset.tar.scan import scan
from webdataset.tar.sparse import (
    FREE_HOLES,
    expand_sparse,
    parse_old_sparse,
    parse_pax_sparse,
    parse_sparse_extension,
    split_sparse_data,
)


def block(**fields: bytes) -> bytes:
    """A ustar header of the file a.txt with its checksum made right; `fields` are set at the places below."""
    places = {"name": 0, "size": 124, "type": 156, "magic": 257, "prefix": 345, "star": 508, "any": 0}
    made = bytearray(tarfile.TarInfo("a.txt").tobuf(tarfile.USTAR_FORMAT))
    for field, value in fields.items():
        if field == "name":
            made[:100] = bytes(100)
        made[places[field] : places[field] + len(value)] = value
    made[148:156] = b"        "
    made[148:156] = b"%06o\0 " % sum(made)
    return bytes(made)


@pytest.mark.parametrize(
    ("field", "number"),
    [
        (b"00000000010\0", 8),
        (b"00000000010 ", 8),
        (b"        10 \0", 8),
        (b"10\0         ", 8),
        (b"10          ", 8),
        (b"000000000010", 8),
        (b"77777777777\0", 8**11 - 1),
        (b"10\0garbage!!", 8),
        (b"            ", 0),
        (b"\0" * 12, 0),
        (b"\x80" + b"\0" * 10 + b"\x05", 5),
        (b"\x80\0\0\0" + (2**40).to_bytes(8, "big"), 2**40),
        (b"\x80" + b"\xff" * 11, 2**88 - 1),
    ],
)
def test_numbers(field: bytes, number: int) -> None:
    """Octal digits padded in any usual way, nothing at all, and base-256 are numbers."""
    assert parse_number(field, "size") == number


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        (b"00000000898\0", "is not a number: b'00000000898"),
        (b"0000012x9z7\0", "is not a number"),
        (b"-0000000010\0", "is not a number"),
        (b"0x000000010\0", "is not a number"),
        (b"1 2        \0", "is not a number"),
        (b"\xff" * 12, "is negative"),
        (b"\xff" * 11 + b"\0", "is negative"),
        (b"\xc0" + b"\0" * 11, "is negative"),
    ],
)
def test_what_is_no_number(field: bytes, reason: str) -> None:
    """Anything else is refused, and the message says which field it was."""
    with pytest.raises(HeaderError, match="the size in the header") as caught:
        parse_number(field, "size")
    assert reason in str(caught.value)


@given(st.integers(0, 8**11 - 1))
def test_numbers_of_tarfile(number: int) -> None:
    """What tarfile writes as octal is read back."""
    assert parse_number(b"%011o\0" % number, "size") == number


@given(st.integers(8**11, 256**11 - 1))
def test_large_numbers_of_tarfile(number: int) -> None:
    """What tarfile writes as base-256 is read back."""
    info = tarfile.TarInfo("a")
    info.size = number
    assert parse_header(info.tobuf(tarfile.GNU_FORMAT)).size == number


@pytest.mark.parametrize(
    ("made", "header"),
    [
        (block(), Header(b"a.txt", 0, b"0")),
        (block(size=b"00000001000\0"), Header(b"a.txt", 512, b"0")),
        (block(size=b"       1000 "), Header(b"a.txt", 512, b"0")),
        (block(type=b"\0", magic=bytes(8)), Header(b"a.txt", 0, b"\0")),
        (block(prefix=b"dir/sub"), Header(b"dir/sub/a.txt", 0, b"0")),
        (block(prefix=b"p" * 155), Header(b"p" * 155 + b"/a.txt", 0, b"0")),
        (
            block(prefix=b"p" * 131 + b"00000000000 00000000000 ", star=b"tar\0"),
            Header(b"p" * 131 + b"/a.txt", 0, b"0"),
        ),
        (block(prefix=b"01234567012\0", magic=b"ustar  \0"), Header(b"a.txt", 0, b"0")),
        (block(prefix=b"not a prefix", magic=bytes(8)), Header(b"a.txt", 0, b"0")),
        (block(name=b"n" * 100), Header(b"n" * 100, 0, b"0")),
        (block(name=b"a.txt\0rest of an older name"), Header(b"a.txt", 0, b"0")),
        (block(name=b""), Header(b"", 0, b"0")),
        (block(name="größe.txt".encode()), Header("größe.txt".encode(), 0, b"0")),
        (block(name=b"caf\xe9.txt"), Header(b"caf\xe9.txt", 0, b"0")),
    ],
)
def test_headers(made: bytes, header: Header) -> None:
    """Names, sizes and types of ustar, star, GNU and v7 headers; only ustar has a prefix, star a shorter one."""
    assert parse_header(made) == header
    assert is_header(made)


@pytest.mark.parametrize("style", [b"%06o\0 ", b"%06o \0", b"%07o\0", b"%6o\0 ", b"%7o ", b"%8o", b"%08o"])
def test_checksum_styles(style: bytes) -> None:
    """A checksum is believed however its digits are padded."""
    made = bytearray(block())
    summed = sum(made) - sum(made[148:156]) + 8 * 32
    made[148:156] = style % summed
    assert parse_header(bytes(made)) == Header(b"a.txt", 0, b"0")


def test_signed_checksum() -> None:
    """A sum of signed bytes, as old writers made it, is believed too."""
    made = bytearray(block(name="größe.txt".encode()))
    summed = sum(made) - sum(made[148:156]) + 8 * 32
    made[148:156] = b"%06o\0 " % (summed - 256 * 4)
    assert parse_header(bytes(made)).name == "größe.txt".encode()
    made[148:156] = b"%06o\0 " % (summed - 256 * 3)
    assert not checksum_is_right(bytes(made))


def test_wrong_checksums() -> None:
    """Every sum but the right one is refused, an empty or unreadable one too."""
    made = bytearray(block())
    right = sum(made) - sum(made[148:156]) + 8 * 32
    for wrong in (right - 1, right + 1, right + 65536, 0):
        made[148:156] = b"%07o\0" % wrong
        with pytest.raises(HeaderError, match="wrong header checksum"):
            parse_header(bytes(made))
        assert not is_header(bytes(made))
    for field in (bytes(8), b" " * 8, b"not oct\0", b"\xff" * 8):
        made[148:156] = field
        with pytest.raises(HeaderError, match="wrong header checksum"):
            parse_header(bytes(made))


def test_what_is_no_header() -> None:
    """Zeros, text, and blocks that are too short are no headers."""
    for data in (bytes(512), b"<!DOCTYPE html>" + b" " * 497, b"", block()[:511], block() + b"x"):
        assert not is_header(data)


@given(st.integers(0, 1 << 70))
def test_padding(size: int) -> None:
    """Data and padding fill whole blocks."""
    assert (size + padding(size)) % 512 == 0
    assert 0 <= padding(size) < 512


@pytest.mark.parametrize(
    ("data", "records"),
    [
        (b"", []),
        (b"12 path=abc\n", [(b"path", b"abc")]),
        (b"8 path=\n", [(b"path", b"")]),
        (b"16 path=a=b c\nd\n", [(b"path", b"a=b c\nd")]),
        (b"6 a=1\n6 a=2\n6 b=\0\n", [(b"a", b"1"), (b"a", b"2"), (b"b", b"\0")]),
        (b"6 a=1\n" + bytes(20), [(b"a", b"1")]),
        ("18 path=größe.t\n".encode(), [(b"path", "größe.t".encode())]),
    ],
)
def test_pax_records(data: bytes, records: list[tuple[bytes, bytes]]) -> None:
    """Records in order, by their lengths: values may hold equal signs, line ends and zeros; padding is no record."""
    assert parse_pax_records(data) == records


@pytest.mark.parametrize(
    "data",
    [
        b"path=abc\n",
        b"0 path=x\n",
        b"-12 path=abc\n",
        b"+12 path=abc\n",
        b"012 path=abc\n",
        b"13 path=abc\n",
        b"11 path=abc\n",
        b"99 path=abc\n",
        b"3 \n",
        b"2 ",
        b"12 path_abc\n",
        b"8 =value\n",
        b"12 path=abcd",
        b"99999999999999999999 path=abc\n",
        b"12 path=abc\nrest",
        b"\0\0\0x",
    ],
)
def test_bad_pax_records(data: bytes) -> None:
    """A record whose length is missing or does not fit, or that has no key, spoils the header."""
    with pytest.raises(HeaderError, match="PAX record"):
        parse_pax_records(data)


@given(st.dictionaries(st.text(st.characters(codec="ascii", exclude_characters="=\0"), min_size=1), st.text()))
def test_pax_records_of_tarfile(headers: dict[str, str]) -> None:
    """What tarfile writes as extended header is read back."""
    made = tarfile.TarInfo._create_pax_generic_header(headers, tarfile.XHDTYPE, "utf-8")  # type: ignore[attr-defined]
    data = made[512 : 512 + parse_header(made[:512]).size] if headers else b""
    assert dict(parse_pax_records(data)) == {key.encode(): value.encode() for key, value in headers.items()}


def test_pax_sizes() -> None:
    """A size in a record is decimal digits, nothing else; large ones are no trouble."""
    assert parse_pax_size(b"0", "size") == 0
    assert parse_pax_size(b"8589934592", "size") == 1 << 33
    for value in (b"", b"-1", b"1.5", b"0x10", b" 1", b"1\n", b"9" * 21, "٣".encode()):
        with pytest.raises(HeaderError, match="the size in a PAX record is not a size"):
            parse_pax_size(value, "size")
    assert PAX_LIMIT == 1 << 20


def test_old_sparse_maps() -> None:
    """The map in an old GNU header ends at the first empty entry; extension blocks go on with it."""
    header = bytearray(512)
    header[386:410] = b"%011o\0%011o\0" % (512, 7)
    header[410:434] = b"%011o\0%011o\0" % (4096, 100)
    header[458:482] = b"%011o\0%011o\0" % (9, 9)  # behind the empty entry
    header[483:495] = b"%011o\0" % 5000
    assert parse_old_sparse(bytes(header)) == ([(512, 7), (4096, 100)], 5000, False)
    header[482] = 1
    assert parse_old_sparse(bytes(header))[2] is True
    extension = (b"%011o\0%011o\0" % (8192, 1)) * 21
    assert parse_sparse_extension(extension + b"\x01" + bytes(7)) == ([(8192, 1)] * 21, True)
    assert parse_sparse_extension(bytes(512)) == ([], False)
    with pytest.raises(HeaderError, match="sparse offset"):
        parse_sparse_extension(b"rubbish".ljust(512, b"\0"))


def test_pax_sparse_maps() -> None:
    """The three PAX forms: repeated records, one record, and a map in front of the data."""
    assert parse_pax_sparse([(b"path", b"a.txt")]) is None
    repeated = [
        (b"GNU.sparse.size", b"100"),
        (b"GNU.sparse.numblocks", b"2"),
        (b"GNU.sparse.offset", b"0"),
        (b"GNU.sparse.numbytes", b"3"),
        (b"GNU.sparse.offset", b"50"),
        (b"GNU.sparse.numbytes", b"4"),
    ]
    assert parse_pax_sparse(repeated) == ([(0, 3), (50, 4)], 100)
    assert parse_pax_sparse([(b"GNU.sparse.size", b"100"), (b"GNU.sparse.map", b"0,3,50,4")]) == (
        [(0, 3), (50, 4)],
        100,
    )
    version_1 = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"100")]
    assert parse_pax_sparse(version_1) == (None, 100)
    for numbers in (b"0,3,50", b"0,x", b"0,-3"):
        with pytest.raises(HeaderError, match="sparse map"):
            parse_pax_sparse([(b"GNU.sparse.size", b"100"), (b"GNU.sparse.map", numbers)])


def test_sparse_map_in_front_of_the_data() -> None:
    """A count and that many pairs, a number a line, padded to a block; anything else is refused."""
    assert split_sparse_data(b"2\n0\n3\n50\n4\n".ljust(512, b"\0") + b"abcdefg") == ([(0, 3), (50, 4)], b"abcdefg")
    assert split_sparse_data(b"0\n".ljust(512, b"\0")) == ([], b"")
    for data in (b"", b"2\n0\n3\n", b"x\n0\n3\n", b"-1\n", b"9" * 40 + b"\n", b"999999999999999\n0\n"):
        with pytest.raises(HeaderError, match="sparse map"):
            split_sparse_data(data)


def test_holes_are_filled() -> None:
    """Pieces lie at their offsets, zeros between and behind them."""
    assert expand_sparse(b"abcde", [(2, 3), (8, 2)], 12) == b"\0\0abc\0\0\0de\0\0"
    assert expand_sparse(b"", [(5, 0)], 5) == bytes(5)
    assert expand_sparse(b"", [], 0) == b""


@pytest.mark.parametrize(
    ("data", "pieces", "real_size"),
    [
        (b"abcde", [(4, 3), (2, 2)], 12),
        (b"abcde", [(0, 3), (2, 2)], 12),
        (b"abcde", [(0, 6)], 12),
        (b"abcde", [(8, 5)], 12),
        (b"abcde", [(0, 3)], 12),
        (b"abcde", [], 12),
    ],
)
def test_maps_that_do_not_fit(data: bytes, pieces: list[tuple[int, int]], real_size: int) -> None:
    """A map that goes backwards, overlaps, or does not use up exactly the data is refused."""
    with pytest.raises(HeaderError, match="does not fit"):
        expand_sparse(data, pieces, real_size)


def test_holes_have_a_limit() -> None:
    """A few stored bytes cannot claim gigabytes; what real files have is no trouble."""
    with pytest.raises(HeaderError, match="a sparse member of 2 bytes claims to be"):
        expand_sparse(b"ab", [(0, 2)], FREE_HOLES + 1)
    assert len(expand_sparse(bytes(1 << 17), [(0, 1 << 17)], FREE_HOLES + 1)) == FREE_HOLES + 1


def with_checksum(block: bytearray, checksum: int) -> bytes:
    block[148:156] = b"%06o\0 " % checksum
    return bytes(block)


@pytest.mark.parametrize("prefix", [b"\xff" * 155, bytes(155)], ids=["by the reader", "by the scan"])
def test_a_checksum_that_is_wrong_by_a_modulus_is_wrong(prefix: bytes) -> None:
    """Sums are compared exactly, also of blocks with so many high bytes that they exceed what sums are reduced by."""
    block = bytearray(tar_bytes({"a.txt": b""})[:512])
    block[0:100], block[157:257], block[265:329], block[345:500] = b"\xff" * 100, b"\xff" * 100, b"\xff" * 64, prefix
    block[148:156] = b" " * 8
    right = sum(block)
    assert right > 65536
    for checksum in (right, right - 65521, right - 65536, right ^ 1):
        header = with_checksum(block, checksum)
        assert is_header(header) is checksum_is_right(header) is (checksum == right)
        assert (scan(header, 0) is not None) is (checksum == right and not prefix.strip(b"\0"))
