"""Archives cut at every byte, headers with every bit flipped: whole samples, then an error, nothing else."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lz4.frame
import pytest

from helpers import TrickleReader
from reading import PATHS, SCANS, Reading, Samples, read
from webdataset.errors import HeaderError, TarError, TruncatedError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MEMBERS = [
    ("a.txt", b"x" * 700),
    ("a.cls", b"1"),
    ("long/" * 30 + "b.txt", b"second"),
    ("long/" * 30 + "b.empty", b""),
    ("c.txt", b"y" * 512),
    ("c.cls", b"3"),
]
SAMPLES: Samples = [
    ("a", {"txt": b"x" * 700, "cls": b"1"}),
    ("long/" * 30 + "b", {"txt": b"second", "empty": b""}),
    ("c", {"txt": b"y" * 512, "cls": b"3"}),
]
FORMATS = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT}


def archive(format: int) -> tuple[bytes, list[int], int]:
    """The archive, the offsets at which a member (with its extended headers) begins, and the end of the last one."""
    out = io.BytesIO()
    begins = []
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for number, (name, data) in enumerate(MEMBERS):
            begins.append(out.tell())
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.mtime = number + 0.5 if format == tarfile.PAX_FORMAT else number
            tar.addfile(info, io.BytesIO(data))
        end = out.tell()
    return out.getvalue()[: end + 2048], begins, end


def cuts(length: int, step: int) -> list[int]:
    """Places to cut, the last one first: at each step, and around the ends of all blocks."""
    at_blocks = {at + near for at in range(0, length, 512) for near in (-1, 0, 1)}
    return sorted((at_blocks | set(range(0, length, step))) & set(range(length)), reverse=True)


def whole_samples(begins: list[int], end: int, cut: int) -> int:
    """So many samples are wholly in the first `cut` bytes, with the padding of their last members."""
    ends = [begins[2], begins[4], end]
    return sum(1 for sample_end in ends if sample_end <= cut)


def check_cut(reading: Reading, begins: list[int], end: int, cut: int) -> None:
    """What a cut tar archive may give: see the names of the assertions' parts."""
    whole = whole_samples(begins, end, cut)
    at_a_boundary = cut in begins[1:] or cut == end
    if cut >= end + 512 or at_a_boundary:  # an end mark, or nothing that tells the cut from a missing mark
        assert reading.error is None
        assert len(reading.warnings) == at_a_boundary
        complete, partial = reading.samples[:whole], reading.samples[whole:]
        assert complete == SAMPLES[:whole]
        if partial:  # the cut may have taken members: the warning has said so
            assert [key for key, _ in partial] == [SAMPLES[whole][0]]
            assert partial[0][1].items() < SAMPLES[whole][1].items()
        return
    assert isinstance(reading.error, TarError)
    assert isinstance(reading.error, TruncatedError) or cut < 512
    assert reading.error.offset is not None
    assert reading.error.offset <= cut
    # Without the next sample's header, nothing proves that the last one is whole.
    assert reading.samples in (SAMPLES[:whole], SAMPLES[: max(whole - 1, 0)])
    assert len(reading.samples) >= whole - 1


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("format", FORMATS)
def test_a_file_cut_anywhere(
    format: str, path: str, scan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file cut at any byte gives whole samples and an error, unless the cut is where a member could begin."""
    SCANS[scan](monkeypatch)
    data, begins, end = archive(FORMATS[format])
    file = tmp_path / "cut.tar"
    file.write_bytes(data)
    for cut in cuts(len(data), 1 if (path, scan) == ("fused", "singles") else 61):
        os.truncate(file, cut)
        check_cut(read(PATHS[path], file.open("rb")), begins, end, cut)


@pytest.mark.parametrize("format", FORMATS)
def test_a_stream_cut_anywhere(format: str) -> None:
    """A stream of short reads that ends at any byte gives the same."""
    data, begins, end = archive(FORMATS[format])
    for cut in cuts(len(data), 7):
        check_cut(read(PATHS["fused"], TrickleReader(data[:cut], cut)), begins, end, cut)


def gzip_in_parts(data: bytes) -> bytes:
    """A gzip stream of members of 1000 bytes each."""
    return b"".join(gzip.compress(data[at : at + 1000]) for at in range(0, len(data), 1000))


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "gzip in parts": gzip_in_parts,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd.compress,
    "lz4": lz4.frame.compress,
}


@pytest.mark.parametrize("trickle", [False, True], ids=["file", "trickle"])
@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_a_compressed_stream_cut_anywhere(kind: str, trickle: bool, tmp_path: Path) -> None:
    """Wherever a compressed stream is cut, whole samples come and then an error; to its very last byte it is needed."""
    data, _, _ = archive(tarfile.PAX_FORMAT)
    data += bytes(600) + os.urandom(300)  # behind the end mark: read only to check the stream
    compressed = COMPRESSIONS[kind](data)
    file = tmp_path / "cut"
    file.write_bytes(compressed)
    streams: Any = (lambda cut: TrickleReader(compressed[:cut], cut)) if trickle else (lambda cut: file.open("rb"))
    whole = read(PATHS["fused"], streams(len(compressed)))
    assert (whole.samples, whole.error) == (SAMPLES, None)
    length = len(compressed)
    places = {*range(0, length, 7 if trickle else 3), *range(length - 9, length)}
    for cut in sorted(places, reverse=True):
        os.truncate(file, cut)
        reading = read(PATHS["fused"], streams(cut))
        if kind == "gzip in parts" and reading.error is None:  # a whole gzip member less: the tar stream may be whole
            assert reading.samples == SAMPLES
            continue
        assert isinstance(reading.error, TarError), cut
        assert reading.samples == SAMPLES[: len(reading.samples)]


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_faults_far_behind_the_end_mark(kind: str) -> None:
    """A compressed stream is read to its end, however much follows the end mark: a cut there is an error too."""
    data, _, _ = archive(tarfile.PAX_FORMAT)
    compressed = COMPRESSIONS[kind](data + os.urandom(3 << 20))
    reading = read(PATHS["fused"], TrickleReader(compressed[:-1500]))
    assert reading.samples == SAMPLES
    assert isinstance(reading.error, TruncatedError)
    assert reading.error.offset is not None


@pytest.mark.parametrize("kind", ["gzip", "gzip in parts", "xz", "zstd"])
def test_a_damaged_compressed_stream(kind: str) -> None:
    """A flipped bit in a compressed stream with a checksum never gives other bytes without an error behind them."""
    data, _, _ = archive(tarfile.PAX_FORMAT)
    options = {zstd.CompressionParameter.checksum_flag: 1}
    compressed = zstd.compress(data, options=options) if kind == "zstd" else COMPRESSIONS[kind](data)
    for at in range(len(compressed)):
        damaged = bytearray(compressed)
        damaged[at] ^= 1 << at % 8
        reading = read(PATHS["fused"], io.BytesIO(bytes(damaged)))
        if reading.error is None:
            assert reading.samples == SAMPLES


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("format", FORMATS)
def test_flipped_bits_in_headers(format: str, scan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any flipped bit in a header block gives an error there, or, within the checksum field, changes nothing.

    The sum sees each bit outside its own field. Inside, a digit may become a space in front of the
    others, and the two bytes behind the digits end the number either way.
    """
    SCANS[scan](monkeypatch)
    data, begins, _ = archive(FORMATS[format])
    unseen = set()
    for header in (begins[1], begins[2]):
        for at in range(512):
            for bit in range(8) if scan == "singles" else [at % 8, at % 3]:
                damaged = bytearray(data)
                damaged[header + at] ^= 1 << bit
                reading = read(PATHS["fused"], io.BytesIO(bytes(damaged)))
                if reading.error is None:
                    assert reading.samples == SAMPLES
                    unseen.add(at)
                    continue
                assert isinstance(reading.error, HeaderError)
                assert reading.error.offset == header
                assert reading.samples == []  # the first sample has no proven end, or lacks a member
    assert unseen <= set(range(148, 156))


def test_a_damaged_first_header_is_no_archive() -> None:
    """Any flipped bit in the first header (but for the checksum field's own) makes the file no tar archive."""
    data, _, _ = archive(tarfile.GNU_FORMAT)
    for at in (*range(148), *range(156, 512)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        reading = read(PATHS["fused"], io.BytesIO(bytes(damaged)))
        assert reading.samples == []
        assert "not a tar archive" in str(reading.error)
