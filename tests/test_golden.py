"""Archives written by other tools, whole and damaged: what MANIFEST.md says of them is what comes of them."""

from __future__ import annotations

import io
import sys
import tracemalloc

import pytest

from helpers import foreign_data, tar_bytes
from reading import (
    PATHS,
    STREAMS,
    as_samples,
    golden,
    golden_names,
    hashed,
    members_of,
    no_short_cuts,
    read,
    scan_everything,
    scan_nothing,
)
from webdataset.errors import CompressionError, DataError, DuplicateFieldError, HeaderError, TarError, TruncatedError

WARNED = {
    "gnutar/amber-catted.tar": "members follow the end mark",
    "gnutar/amber-no-eoa.tar": "no end mark",
    "corrupt/amber-garbage-after.tgz": "follows the end of a gzip stream",
    "corrupt/amber-interleaved.tar": "a sample is torn apart",
    "corrupt/amber-single-zero-block.tar": "members follow the end mark",
    "corrupt/amber-trunc-member-boundary.tar": "no end mark",
    "corrupt/amber-trunc-sample-boundary.tar": "no end mark",
}
"""The archives that are read with a warning, and what it says; all others are read without one."""

FAULTS: dict[str, tuple[type[DataError], str | None, int]] = {
    "dup-field-case.tar": (DuplicateFieldError, "pebble0002.TXT", 8192),
    "dup-field.tar": (DuplicateFieldError, "pebble0002.txt", 8192),
    "empty.tar": (TruncatedError, None, 0),
    "flip-checksum.tar": (HeaderError, None, 6144),
    "flip-first-header.tar": (TarError, None, 0),
    "flip-name.tar": (HeaderError, None, 7168),
    "garbage-between-samples.tar": (HeaderError, None, 6144),
    "garbage-first.tar": (TarError, None, 0),
    "garbage-in-sample.tar": (HeaderError, None, 7168),
    "html-error.tar": (TarError, None, 0),
    "longlink-alone.tar": (TarError, None, 12288),
    "longlink-at-end.tar": (TruncatedError, "././@LongLink", 12288),
    "longlink-huge.tar": (HeaderError, "././@LongLink", 6144),
    "pax-bad-length.tar": (HeaderError, "PaxHeaders/x", 6144),
    "pax-huge.tar": (HeaderError, "PaxHeaders/x", 6144),
    "pax-negative-size.tar": (HeaderError, "pebble0002.json", 8192),
    "pax-no-number.tar": (HeaderError, "PaxHeaders/x", 7168),
    "pax-zero-length.tar": (HeaderError, "PaxHeaders/x", 6144),
    "short-text.tar": (TarError, None, 0),
    "size-8eib.tar": (TruncatedError, "pebble0002.json", 7168),
    "size-8gib-octal.tar": (TruncatedError, "pebble0002.json", 7168),
    "size-max-base256.tar": (TruncatedError, "pebble0002.txt", 6144),
    "size-negative.tar": (HeaderError, None, 7168),
    "size-octal-8.tar": (HeaderError, None, 7168),
    "size-octal-garbage.tar": (HeaderError, None, 6144),
    "trunc-data-last.tar": (TruncatedError, "pebble0003.cls", 11264),
    "trunc-data-second.tar": (TruncatedError, "pebble0002.json", 7168),
    "trunc-data.tar": (TruncatedError, "pebble0002.txt", 6144),
    "trunc-header-next.tar": (TruncatedError, None, 6144),
    "trunc-header.tar": (TruncatedError, None, 7168),
    "trunc-padding-last.tar": (TruncatedError, "pebble0003.cls", 11264),
    "trunc.tgz": (TruncatedError, None, 6144),
}
"""What is wrong with the damaged archives, in which member, and at which byte of the (decompressed) archive."""

FAULTS_AT_THE_END = {
    "bad-crc.tgz": (CompressionError, "wrong checksum"),
    "bad-isize.tgz": (CompressionError, "wrong length"),
    "no-trailer.tgz": (TruncatedError, "the gzip stream ends too early"),
}
"""Faults of the compressed stream behind the last member."""


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", golden_names("expected.json"))
def test_archives_of_other_tools(name: str, path: str, stream: str) -> None:
    """Each archive gives the samples that MANIFEST.md lists, in order, on both paths and from every kind of stream."""
    file = foreign_data() / name
    reading = read(PATHS[path], STREAMS[stream](file))
    assert reading.error is None
    assert hashed(reading.samples) == as_samples(golden("expected.json")[name])
    assert len(reading.warnings) == (name in WARNED)
    assert all(WARNED[name] in warning for warning in reading.warnings)


@pytest.mark.parametrize("name", [name for name in golden_names("expected.json") if "corrupt" not in name])
def test_runs_and_single_members_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members that come in runs are those that come one by one: names, bytes and offsets."""
    file = foreign_data() / name
    scan_everything(monkeypatch)
    found = members_of(file.open("rb"))[0]
    scan_nothing(monkeypatch)
    assert members_of(file.open("rb")) == (found, 0)
    no_short_cuts(monkeypatch)
    assert members_of(file.open("rb")) == (found, 0)


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", golden_names("expected_corrupt.json"))
def test_damaged_archives_raise_after_the_whole_samples(name: str, path: str, stream: str) -> None:
    """A damaged archive gives its whole samples, nothing else, and then the error, with url, member and offset."""
    file = foreign_data() / name
    expected = golden("expected_corrupt.json")[name]
    tracemalloc.start()
    try:
        reading = read(PATHS[path], STREAMS[stream](file))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    must, may = as_samples(expected["must"]), as_samples(expected["may"])
    got = hashed(reading.samples)
    if name.startswith("corrupt/amber-dup-field"):
        may = []  # the rest of the shard comes only with a handler that goes on
    assert got[: len(must)] == must
    assert got[len(must) :] == may[: len(got) - len(must)]
    check_error(name, expected["error"], reading.error)
    assert len(reading.warnings) == (name in WARNED)
    assert all(WARNED[name] in warning for warning in reading.warnings)
    assert peak < 32 << 20  # the archives have some 15 KiB, and claim up to 2**88 bytes


def check_error(name: str, expected: str, error: Exception | None) -> None:
    """The error is there where it must be, and knows its place."""
    if expected == "none":
        assert error is None
    if expected == "required":
        assert error is not None
    short = name.removeprefix("corrupt/amber-")
    assert (error is not None) == (short in FAULTS or short in FAULTS_AT_THE_END)
    if error is None:
        return
    assert isinstance(error, DataError)
    assert error.url == "shard-0"
    assert str(error).startswith("shard-0")
    assert "\n" not in str(error)
    if short in FAULTS:
        assert (type(error), error.member, error.offset) == FAULTS[short]
    else:
        kind, message = FAULTS_AT_THE_END[short]
        assert type(error) is kind
        assert message in str(error)
        assert error.offset is not None
        assert error.offset >= 12288  # behind the last member


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", golden_names("expected_corrupt.json"))
def test_a_handler_that_goes_on_loses_nothing_else(name: str, path: str, stream: str) -> None:
    """With a handler that goes on, the good shards around a damaged one come whole, and nothing partial comes of it."""
    file = foreign_data() / name
    expected = golden("expected_corrupt.json")[name]
    good = {"good-0.txt": b"first", "good-0.cls": b"0", "good-1.txt": b"second", "good-1.cls": b"1"}
    whole = [
        ("good-0", {"txt": b"first", "cls": b"0"}),
        ("good-1", {"txt": b"second", "cls": b"1"}),
    ]
    errors: list[Exception] = []

    def go_on(error: Exception) -> bool:
        errors.append(error)
        return True

    streams = (io.BytesIO(tar_bytes(good)), STREAMS[stream](file), io.BytesIO(tar_bytes(good)))
    reading = read(PATHS[path], *streams, handler=go_on)
    assert reading.error is None
    assert reading.samples[:2] == whole
    assert reading.samples[-2:] == whole
    must, may = as_samples(expected["must"]), as_samples(expected["may"])
    got = hashed(reading.samples[2:-2])
    assert got[: len(must)] == must
    assert got[len(must) :] == may[: len(got) - len(must)]
    assert len(errors) == (name.removeprefix("corrupt/amber-") in FAULTS | FAULTS_AT_THE_END)
    assert all(isinstance(error, DataError) and error.url == "shard-1" for error in errors)
    assert all(stream.closed for stream in streams)


@pytest.mark.parametrize("path", PATHS)
def test_html_says_so(path: str) -> None:
    """Of an HTML page under the name of an archive the error says what it looks like."""
    reading = read(PATHS[path], (foreign_data() / "corrupt/amber-html-error.tar").open("rb"))
    assert "HTML" in str(reading.error)


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"\xff\xd8\xff\xe0", "a JPEG image"),
        (b"\x89PNG\r\n\x1a\n", "a PNG image"),
        (b"PK\x03\x04", "a zip archive"),
        (b"PAR1", "a Parquet file"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS in place of the file"),
        (b' {"error"', "JSON: did the server send an error message"),
        (b"hello there", "text"),
    ],
)
@pytest.mark.parametrize("path", PATHS)
def test_other_files_are_called_what_they_are(path: str, start: bytes, said: str) -> None:
    """Of files under the name of an archive the error says what they look like."""
    reading = read(PATHS[path], io.BytesIO(start + b"a" * 2000))
    assert f"not a tar archive: it begins with {start[:24]!r}"[:-1] in str(reading.error)
    assert f"it looks like {said}" in str(reading.error)


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("path", PATHS)
def test_ignore_zeros_reads_concatenated_archives(path: str, stream: str) -> None:
    """With ignore_zeros, members behind an end mark are read, without a warning."""
    name = "gnutar/amber-catted.tar"
    reading = read(PATHS[path], STREAMS[stream](foreign_data() / name), ignore_zeros=True)
    assert reading.error is None
    assert reading.warnings == []
    assert hashed(reading.samples) == as_samples(golden("expected_alt.json")[name]["ignore_zeros"])


@pytest.mark.parametrize("path", PATHS)
def test_a_lone_zero_block_can_be_passed_over(path: str) -> None:
    """With ignore_zeros, one zero block in the middle loses nothing."""
    name = "corrupt/amber-single-zero-block.tar"
    reading = read(PATHS[path], (foreign_data() / name).open("rb"), ignore_zeros=True)
    expected = golden("expected_corrupt.json")[name]
    assert reading.error is None
    assert hashed(reading.samples) == as_samples(expected["must"] + expected["may"])


@pytest.mark.parametrize("path", PATHS)
def test_zlib_streams_are_refused(path: str) -> None:
    """A zlib stream, which nothing marks as such, is said to be no tar archive; nothing comes of it."""
    reading = read(PATHS[path], (foreign_data() / "compressed/amber-pigz-zlib.tar.zz").open("rb"))
    assert reading.samples == []
    assert isinstance(reading.error, TarError)
    assert "not a tar archive" in str(reading.error)


@pytest.mark.parametrize("name", [name for name in golden_names("expected.json") if name.endswith(("gz", "gz-as.tar"))])
def test_gzip_without_isal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without isal, the standard zlib reads the same."""
    monkeypatch.setitem(sys.modules, "isal", None)
    reading = read(PATHS["fused"], (foreign_data() / name).open("rb"))
    assert reading.error is None
    assert hashed(reading.samples) == as_samples(golden("expected.json")[name])


@pytest.mark.parametrize("name", [name for name in golden_names("expected_corrupt.json") if name.endswith("gz")])
def test_damaged_gzip_without_isal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without isal, damage is found in the same places."""
    monkeypatch.setitem(sys.modules, "isal", None)
    expected = golden("expected_corrupt.json")[name]
    reading = read(PATHS["fused"], (foreign_data() / name).open("rb"))
    must = as_samples(expected["must"])
    assert hashed(reading.samples)[: len(must)] == must
    check_error(name, expected["error"], reading.error)
