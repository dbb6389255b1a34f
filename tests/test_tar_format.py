"""Headers as we write them, read back by the standard tarfile and by our own reading half."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webdataset.errors import EncodingError
from webdataset.tar import header, pax
from webdataset.tar.format import (
    END_OF_ARCHIVE,
    MemberStyle,
    format_header,
    format_member,
    format_number,
    format_pax_records,
    format_time,
    split_name,
)
from webdataset.tar.template import HeaderTemplate, Memo

FORMATS = ("PAX", "GNU")
name_bytes = st.binary(min_size=1, max_size=300).filter(
    lambda name: b"\0" not in name and name != b"/" and not name.endswith(b"/")
)


def read_with_tarfile(archive: bytes) -> list[tuple[bytes, int, float]]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return [(member.name.encode("utf-8", "surrogateescape"), member.size, member.mtime) for member in tar]


@pytest.mark.parametrize(
    ("number", "field"),
    [
        (0, b"00000000000\0"),
        (8**11 - 1, b"77777777777\0"),
        (8**11, b"\x80\0\0\0\0\0\0\2\0\0\0\0"),
        (-1, b"\xff" * 12),
    ],
)
def test_numbers_are_octal_as_long_as_they_fit(number, field):
    """Octal with a NUL up to the field's width, base-256 beyond it and below zero."""
    assert field == format_number(number, 12)
    assert tarfile.nti(field) == number


def test_a_number_beyond_base_256_is_refused():
    """A field of twelve bytes cannot hold 2**88."""
    assert tarfile.nti(format_number(2**88 - 1, 12)) == 2**88 - 1
    with pytest.raises(ValueError, match="does not fit"):
        format_number(2**88, 12)


@given(st.integers(0, 2**60))
def test_numbers_come_back(number):
    """The reading half parses every number that the writing half formats."""
    assert header.parse_number(format_number(number, 12), "size") == number


@given(st.lists(st.tuples(st.sampled_from([b"path", b"size", b"x"]), st.binary(max_size=1200)), max_size=4))
def test_pax_records_come_back(records):
    """Records of any length, also around the lengths where the length itself grows a digit, are parsed alike."""
    body = format_pax_records(records)
    assert pax.parse_pax_records(body) == records


@pytest.mark.parametrize("length", range(80, 110))
def test_a_pax_record_counts_its_own_length(length):
    """The number in front of a record is the record's length."""
    record = format_pax_records([(b"path", b"p" * length)])
    assert int(record.split()[0]) == len(record)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (b"n" * 100, (b"", b"n" * 100)),
        (b"n" * 101, None),
        (b"d/" + b"n" * 100, (b"d", b"n" * 100)),
        (b"d/" + b"n" * 101, None),
        (b"/" + b"n" * 100, None),
        (b"d" * 155 + b"/" + b"n" * 100, (b"d" * 155, b"n" * 100)),
        (b"d" * 156 + b"/" + b"n" * 99, None),
        (b"a/" * 60 + b"n", (b"a/" * 10 + b"a", b"a/" * 49 + b"n")),
    ],
)
def test_long_names_are_split_at_a_slash(name, parts):
    """ustar holds 155 bytes, a slash that is not stored, and 100 bytes; an empty prefix would lose the slash."""
    assert parts == split_name(name)


@given(name_bytes, st.integers(0, 2**40), st.sampled_from(FORMATS), st.integers(0, 2**33))
def test_any_name_and_size_is_read_back(name, size, format, mtime):
    """Names of any bytes and any length, sizes beyond 8 GiB and any whole mtime pass through one header group."""
    blocks = format_member(name, size, MemberStyle(mtime=mtime, format=format))
    with tarfile.open(fileobj=io.BytesIO(blocks + bytes(512))) as tar:
        member = tar.next()
    assert member is not None
    assert len(blocks) == member.offset_data
    expected = name.decode("utf-8", "surrogateescape").rstrip("/")
    assert (expected, size, mtime) == (member.name, member.size, member.mtime)


def test_a_plain_member_needs_one_ustar_block():
    """Nothing but a ustar header stands before a member with a short name, in every format but GNU."""
    for format in ("USTAR", "PAX"):
        block = format_member(b"a.txt", 5, MemberStyle(format=format))
        assert len(block) == 512
        assert block[257:265] == b"ustar\x0000"
        parsed = header.parse_header(block)
        assert parsed == (b"a.txt", 5, b"0")


def test_a_strict_ustar_archive_refuses_what_it_cannot_say():
    """format=USTAR names the limit and what to do."""
    style = MemberStyle(format="USTAR")
    with pytest.raises(EncodingError, match="name of 101 bytes; use format='PAX'"):
        format_member(b"n" * 101, 1, style)
    with pytest.raises(EncodingError, match="size of 8589934592 bytes; use format='PAX'"):
        format_member(b"n", 8 << 30, style)


def test_a_name_that_is_no_utf8_is_marked_as_binary():
    """A long name of other bytes stands behind hdrcharset=BINARY, as POSIX asks."""
    blocks = format_member(b"\xe9" * 101, 1, MemberStyle())
    assert pax.parse_pax_records(blocks[512:1024]) == [(b"hdrcharset", b"BINARY"), (b"path", b"\xe9" * 101)]


@pytest.mark.parametrize("mtime", [1.5, 1e-6, -3, 8.0**11, 2.0**70])
def test_odd_times_take_a_pax_record(mtime):
    """A fraction, a time before 1970 and one beyond 2242 come back from a record; GNU has them as whole seconds."""
    style = MemberStyle(mtime=mtime)
    blocks = format_time(style)
    assert blocks + format_header(b"a.txt", 0, style) == format_member(b"a.txt", 0, style)
    assert [(b"a.txt", 0, mtime)] == read_with_tarfile(format_member(b"a.txt", 0, style) + END_OF_ARCHIVE)
    whole = format_member(b"a.txt", 0, MemberStyle(mtime=mtime, format="GNU"))
    assert [(b"a.txt", 0, mtime // 1)] == read_with_tarfile(whole + END_OF_ARCHIVE)


@given(
    st.lists(st.tuples(name_bytes, st.binary(max_size=2000)), max_size=6),
    st.sampled_from([512, 1024, 4096, 65536]),
    st.sampled_from([0, 1.5]),
)
def test_data_starts_at_the_alignment_asked_for(members, align, mtime):
    """Every payload starts at a multiple of `align`, and readers see the same members."""
    archive = b""
    for name, data in members:
        archive += format_member(name, len(data), MemberStyle(mtime=mtime), len(archive), align)
        assert len(archive) % align == 0
        archive += data + bytes(-len(data) % 512)
    archive += END_OF_ARCHIVE
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        read = [(member.name, tar.extractfile(member).read()) for member in tar]
    assert read == [(name.decode("utf-8", "surrogateescape").rstrip("/"), data) for name, data in members]


@given(
    st.binary(min_size=1, max_size=100).filter(lambda name: b"\0" not in name),
    st.integers(0, 8**11 - 1),
    st.sampled_from(["USTAR", *FORMATS]),
    st.integers(0, 0o7777),
    st.integers(0, 8**11 - 1),
)
def test_headers_put_together_from_pieces_are_the_same(name, size, format, mode, mtime):
    """The template gives, byte for byte, what format_header gives."""
    style = MemberStyle(mode=mode, mtime=mtime, user=b"bigdata", group="größe".encode(), format=format)
    template = HeaderTemplate(style)
    front, checksum = template.fronts[size]
    assert format_header(name, size, style) == name.ljust(100, b"\0") + front + template.rests[checksum + sum(name)]


def test_a_memo_forgets_when_it_is_full():
    """A memo never holds more than its limit."""
    memo = Memo(str, limit=3)
    assert [str(number) for number in range(10)] == [memo[number] for number in range(10)]
    assert 1 <= len(memo) <= 3
