"""Compressed shards: read in parts where their format allows it, from a copy elsewhere; never a wrong byte."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import random
import re
import shutil
import struct
import sys
import tarfile
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np
import pytest

import webdataset as wds
from helpers import names_in, tar_bytes
from nginx import Nginx
from reading import fused, read
from servers import Page, Request, serve
from test_indexed import as_pairs
from tools import run
from webdataset.errors import DataError, OpenError, StaleIndexError, TruncatedError
from webdataset.handlers import ignore_and_continue
from webdataset.shardindex import write_sidecar
from webdataset.tar import frames
from webdataset.tar.compression import zstd_module

zstd = zstd_module("tests")
COUNT, LARGE = 24, 500_000
ONE_FRAME = 1 << 20


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found out is kept in a folder of the test."""
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("WDS_CACHE", str(tmp_path / "cache"))


def contents(count: int = COUNT, size: int = LARGE) -> list[dict[str, Any]]:
    """Samples with a large field that compresses to about a half, and a small one."""
    rng = random.Random(1)
    return [
        {"__key__": f"{i:04d}", "bin": rng.randbytes(size // 2).hex().encode()[: size - i], "txt": f"{i}".encode()}
        for i in range(count)
    ]


def plain(count: int = COUNT, size: int = LARGE) -> bytes:
    """The archive of these samples."""
    return tar_bytes({f"{s['__key__']}.{name}": s[name] for s in contents(count, size) for name in s if name[0] != "_"})


def as_stream(path: Path) -> list[tuple[str, dict[str, bytes]]]:
    return read(fused, path.open("rb"), handler=ignore_and_continue).samples


def written(path: Path, **options: Any) -> None:
    with wds.TarWriter(str(path), encoder=False, **options) as sink:
        for sample in contents():
            sink.write(sample)


def in_pieces(compress: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """Writes the archive as compressed pieces in a row, of sizes that fit nothing else."""

    def write(path: Path) -> None:
        data = plain()
        path.write_bytes(b"".join(compress(data[at : at + 700_001]) for at in range(0, len(data), 700_001)))

    return write


def with_pzstd(path: Path) -> None:
    path.with_suffix("").write_bytes(plain())
    run(["pzstd", "-q", "-f", str(path.with_suffix("")), "-o", str(path)])


def with_checksums(path: Path) -> None:
    """A seekable file as zstd's own tool writes it: with a checksum for each frame, and an empty frame."""
    data, out, rows = plain(), b"", b""
    for at in [0, 0, *range(ONE_FRAME // 2, len(data), ONE_FRAME // 2)]:
        piece = data[at : at + ONE_FRAME // 2] if out or at else b""
        frame = zstd.compress(piece)
        rows += struct.pack("<III", len(frame), len(piece), 7)
        out += frame
    footer = struct.pack("<IBI", len(rows) // 12, 0x80, 0x8F92EAB1)
    path.write_bytes(out + struct.pack("<II", 0x184D2A5E, len(rows) + 9) + rows + footer)


IN_PARTS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "zstd, seekable": (".tar.zst", lambda path: written(path, seekable=True)),
    "zstd, seekable, checksums": (".tar.zst", with_checksums),
    "zstd, frames": (".tar.zst", in_pieces(zstd.compress)),
    "pzstd": (".tar.zst", with_pzstd),
    "gzip, BGZF": (".tar.gz", lambda path: written(path, seekable=True)),
    "gzip, members": (".tgz", in_pieces(gzip.compress)),
    "gzip, padded members": (".tgz", in_pieces(lambda data: gzip.compress(data) + bytes(77))),
    "gzip, one member": (".tar.gz", lambda path: path.write_bytes(gzip.compress(plain()))),
}
"""Ways to compress a shard that can be read in parts."""

IN_ONE: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "zstd": (".tar.zst", zstd.compress),
    "xz": (".tar.xz", lzma.compress),
    "bzip2": (".tar.bz2", bz2.compress),
    "lz4": (".tar.lz4", lz4.frame.compress),
}


@pytest.mark.parametrize("way", IN_PARTS)
def test_a_shard_in_parts_is_read_without_a_copy(
    way: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever lists its frames, or has several, is read in parts: the streamed samples, and no copy anywhere."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "absent"))
    suffix, write = IN_PARTS[way]
    path = tmp_path / f"a{suffix}"
    write(path)
    expected = as_stream(path)
    assert len(expected) == COUNT
    for cache_dir in (None, None, ""):  # found, known, found again
        ds = wds.IndexedDataset(str(path), cache_dir=cache_dir)
        assert as_pairs(ds[i] for i in (-1, 3, 4, 0, 17)) == [expected[i] for i in (-1, 3, 4, 0, 17)]
        assert as_pairs(ds) == expected
        assert as_pairs(ds.fetch([9, 20, 9])) == [expected[i] for i in (9, 20, 9)]
        small = wds.IndexedDataset(str(path), ["txt"], cache_dir=cache_dir)
        assert [sample["txt"] for sample in small] == [data["txt"] for _, data in expected]
    assert "decompressed" not in caplog.text
    assert not [name for name in names_in(tmp_path / "cache") if name.endswith(".plain")]


@pytest.mark.parametrize("way", IN_ONE)
def test_a_shard_in_one_piece_is_copied_once(way: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where the format has no parts, one plain copy is made in the cache, which is said once."""
    suffix, compress = IN_ONE[way]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(compress(plain(size=LARGE // 10)))
    for _ in range(2):
        assert as_pairs(wds.IndexedDataset(str(path))) == as_stream(path)
    assert caplog.text.count("decompressed once") == 1
    assert len([name for name in names_in(tmp_path / "cache") if name.endswith(".plain")]) == 1


def test_gzip_in_one_piece_without_indexed_gzip(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the package the shard is copied, and the line in the log says what would read it as it is."""
    monkeypatch.setitem(sys.modules, "indexed_gzip", None)
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(plain()))
    assert as_pairs(wds.IndexedDataset(str(path))) == as_stream(path)
    assert "decompressed once" in caplog.text
    assert "`pip install indexed_gzip`" in caplog.text
    assert "ShardWriter(seekable=True)" in caplog.text


@pytest.mark.parametrize(("suffix", "tool"), [("gz", "gzip"), ("zst", "zstd")])
def test_other_programs_read_what_is_written_in_parts(suffix: str, tool: str, tmp_path: Path) -> None:
    """gzip and zstd decompress seekable shards to the bytes of the plain one, tar and tarfile list their members."""
    written(tmp_path / "a.tar")
    path = tmp_path / f"a.tar.{suffix}"
    written(path, seekable=True)
    assert run([tool, "-dc", str(path)]) == (tmp_path / "a.tar").read_bytes()
    run([tool, "-t", str(path)])
    members = [f"{i:04d}.{field}" for i in range(COUNT) for field in ("bin", "txt")]
    assert run(["tar", "-tf", str(path)]).decode().split() == members
    if suffix == "gz":
        with tarfile.open(path) as archive:
            assert archive.getnames() == members
    first = path.read_bytes()
    written(path, seekable=True)
    assert path.read_bytes() == first
    assert [sample["__key__"] for sample in wds.WebDataset(str(path))] == [f"{i:04d}" for i in range(COUNT)]


def test_frames_are_of_one_size(tmp_path: Path) -> None:
    """Frames hold 1 MiB, members of BGZF less than 64 KiB, however the archive came to the compressor."""
    for suffix, size in (("zst", ONE_FRAME), ("gz", 0xFF00)):
        path = tmp_path / f"a.tar.{suffix}"
        written(path, seekable=True)
        with path.open("rb") as stream:
            found = frames.walk(stream, {"zst": "zstd", "gz": "gzip"}[suffix])
        assert found is not None
        sizes = np.diff(found.plain)
        assert set(sizes[:-1]) == {size}
        assert 0 < sizes[-1] <= size


def test_what_cannot_be_written_in_parts(tmp_path: Path) -> None:
    """seekable=True with a compression that has no such format is an error; a plain archive can be read anywhere."""
    with pytest.raises(ValueError, match=r'seekable=True needs compress="zst" or "gz"'):
        wds.TarWriter(str(tmp_path / "a.tar.xz"), seekable=True)
    with wds.ShardWriter(str(tmp_path / "b-%d.tar"), seekable=True) as sink:
        sink.write({"__key__": "0", "txt": "x"})
    with tarfile.open(tmp_path / "b-0.tar") as archive:
        assert archive.getnames() == ["0.txt"]


def damaged_tables(data: bytes) -> dict[str, bytes]:
    """Seekable zstd files whose table says something wrong, about any part of the file."""
    size = frames.seek_table_size(data[-9:])
    body, rows, footer = data[:-size], np.frombuffer(data[-size + 8 : -9], "<u4").reshape(-1, 2), data[-9:]

    def other(changed: Any, count: int | None = None) -> bytes:
        changed = np.asarray(changed, "<u4")
        foot = footer if count is None else struct.pack("<I", count) + footer[4:]
        return body + struct.pack("<II", 0x184D2A5E, changed.nbytes + 9) + changed.tobytes() + foot

    def moved(row: int, column: int, by: int, back: int | None = None) -> Any:
        changed = rows.astype(np.int64)
        changed[row, column] += by
        if back is not None:
            changed[back, column] -= by
        return changed

    return {
        "a frame is said to be longer": other(moved(2, 0, 100)),
        "a border is moved": other(moved(2, 0, 100, 3)),
        "more is said to be inside": other(moved(2, 1, 512)),
        "less is said to be inside": other(moved(2, 1, -512)),
        "much more is said to be inside": other(moved(2, 1, 1 << 22)),
        "what is inside is moved": other(moved(2, 1, 512, 3)),
        "two frames are swapped": other(np.concatenate([rows[:2], rows[3:4], rows[2:3], rows[4:]])),
        "a row is missing": other(np.delete(rows, 3, 0), len(rows) - 1),
        "a count is wrong": other(rows, len(rows) + 1),
        "a count is huge": other(rows, 0xFFFFFFF0),
        "the magic is gone": data[:-1] + b"\0",
        "the table is cut": data[:-30],
        "the file is cut": data[: len(data) // 2],
    }


TABLE = b"".join([b"x", frames.format_seek_table([(1, 1)] * 5)])


@pytest.mark.parametrize("fault", damaged_tables(TABLE))
@pytest.mark.parametrize("place", ["local", "remote"])
def test_a_damaged_seek_table_gives_no_wrong_byte(fault: str, place: str, tmp_path: Path, nginx: Nginx) -> None:
    """The samples are those of the stream, whatever the table says, now and when the index is cached."""
    path = (tmp_path if place == "local" else nginx.folder) / f"table-{fault.replace(' ', '-')}.tar.zst"
    written(path, seekable=True)
    path.write_bytes(damaged_tables(path.read_bytes())[fault])
    expected = as_stream(path)
    url = str(path) if place == "local" else nginx.url(path.name)
    for _ in range(2):
        ds = wds.IndexedDataset([url], handler=ignore_and_continue)
        assert as_pairs(ds[i] for i in range(len(ds))) == expected


@pytest.mark.parametrize("suffix", ["zst", "gz"])
def test_damaged_frames_give_no_wrong_byte(suffix: str, tmp_path: Path) -> None:
    """With a wrong byte anywhere in the compressed data, each sample is right, that of a stream, or an error."""
    path = tmp_path / f"a.tar.{suffix}"
    written(path, seekable=True)
    right = path.read_bytes()
    expected = dict(as_pairs(contents()))
    for at in range(5, len(right), len(right) // 7):
        path.write_bytes(right[:at] + bytes([right[at] ^ 0x55]) + right[at + 1 :])
        ds = wds.IndexedDataset([str(path)], handler=ignore_and_continue)
        some = dict(as_stream(path))  # checksums come behind the data
        for i in range(len(ds)):
            with contextlib.suppress(DataError):
                ((key, fields),) = as_pairs([ds[i]])
                assert fields in (expected[key], some.get(key))


@pytest.mark.parametrize("way", ["zstd, frames", "gzip, one member"])
def test_damaged_notes_are_not_used(way: str, tmp_path: Path) -> None:
    """What is kept of the frames of a shard counts for that state of it only, and not with a wrong byte."""
    suffix, write = IN_PARTS[way]
    path = tmp_path / f"a{suffix}"
    write(path)
    expected = as_stream(path)
    assert as_pairs(wds.IndexedDataset(str(path))) == expected
    (note,) = (tmp_path / "cache" / "index").glob("*.[fp]*s")
    right = note.read_bytes()
    for at in (3, 60, len(right) // 2, len(right) - 1):
        note.write_bytes(right[:at] + bytes([right[at] ^ 1]) + right[at + 1 :])
        assert as_pairs([wds.IndexedDataset(str(path))[11]]) == [expected[11]]
        assert note.read_bytes() == right
    path.write_bytes(gzip.compress(plain(5)) if "gzip" in way else b"".join(map(zstd.compress, [plain(5), b"x"])))
    assert len(wds.IndexedDataset(str(path))) == 5


def test_a_frame_that_changed_while_it_is_read(tmp_path: Path) -> None:
    """A shard that is rewritten or cut after it was opened gives an error, in parts too."""
    for way, (suffix, write) in IN_PARTS.items():
        path = tmp_path / f"{way.replace(' ', '')}{suffix}"
        write(path)
        ds = wds.IndexedDataset(str(path))
        assert len(ds[0]["bin"]) == LARGE
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 3)
        with pytest.raises((StaleIndexError, TruncatedError), match="changed after it was opened"):
            ds[20]


def test_threads_share_a_shard_in_parts(tmp_path: Path) -> None:
    """Threads that read at once get their samples, whatever stays in memory."""
    for way in ("zstd, seekable", "gzip, BGZF", "gzip, one member"):
        suffix, write = IN_PARTS[way]
        path = tmp_path / f"{way.replace(' ', '')}{suffix}"
        write(path)
        ds = wds.IndexedDataset(str(path))
        expected = as_stream(path)
        numbers = [random.Random(2).randrange(COUNT) for _ in range(200)]
        with ThreadPoolExecutor(8) as pool:
            assert as_pairs(pool.map(ds.__getitem__, numbers)) == [expected[i] for i in numbers]


def test_what_stays_in_memory_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of the shards that were read last stay in memory, those of others do not, however many shards are open."""
    monkeypatch.setattr("webdataset.shardframes.HOLDERS", 2)
    written(tmp_path / "0.tar.zst", seekable=True)
    paths = [tmp_path / f"{i}.tar.zst" for i in range(8)]
    for path in paths[1:]:
        shutil.copy(paths[0], path)
    ds = wds.IndexedDataset([str(path) for path in paths])
    tracemalloc.start()
    try:
        assert sum(len(sample["bin"]) for sample in ds) == 8 * sum(LARGE - i for i in range(COUNT))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2 * (4 << 20) + (2 << 20)


def test_frames_too_large_are_copied(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where a single sample would cost more than 8 MiB to decompress, a copy is made."""
    path = tmp_path / "a.tar.zst"
    data = plain(20)
    path.write_bytes(zstd.compress(data[: frames.LARGEST_FRAME + 1]) + zstd.compress(data[frames.LARGEST_FRAME + 1 :]))
    assert len(list(wds.IndexedDataset(str(path)))) == 20
    assert "decompressed once" in caplog.text


@pytest.mark.parametrize("suffix", ["zst", "gz"])
def test_one_remote_sample_costs_its_frames(suffix: str, nginx: Nginx, caplog: pytest.LogCaptureFixture) -> None:
    """On a server only the frames of a sample are asked for, with one request; gzip needs a .gzi beside it."""
    path = nginx.folder / f"parts.tar.{suffix}"
    written(path, seekable=True)
    if suffix == "gz":
        assert write_sidecar(path, "gzi") == f"{path}.gzi"
    expected = as_stream(path)
    url = nginx.url(path.name)

    def gets() -> list[Any]:
        return [asked for asked in nginx.asked(f"/{path.name}") if asked.method == "GET"]

    ds = wds.IndexedDataset(url)
    for i in (0, 7, 20, -1):
        before = len(gets())
        assert as_pairs([ds[i]]) == [expected[i]]
        asked = gets()[before:]
        assert len(asked) <= 1
        assert sum(request.bytes for request in asked) < 1.3 * ONE_FRAME
    before = len(gets())
    assert as_pairs([wds.IndexedDataset(url)[9]]) == [expected[9]]
    assert sum(request.bytes for request in gets()[before:]) < 1.5 * ONE_FRAME
    assert as_pairs(ds) == expected
    assert all(request.status == 206 for request in gets())
    assert "decompressed once" not in caplog.text


def test_headers_of_large_remote_members_cost_few_frames(nginx: Nginx) -> None:
    """A header scan of a seekable shard leaves out the frames that are inside of large members."""
    path = nginx.folder / "large.tar.zst"
    with wds.TarWriter(str(path), encoder=False, seekable=True) as sink:
        for i in range(4):
            sink.write({"__key__": str(i), "bin": random.Random(i).randbytes(12 << 20)})
    ds = wds.IndexedDataset(nginx.url(path.name), sidecars=False)
    assert sum(asked.bytes for asked in nginx.asked("/large.tar.zst")) < path.stat().st_size // 3
    assert ds[2]["bin"] == random.Random(2).randbytes(12 << 20)


def test_an_object_replaced_before_it_is_copied_is_told(tmp_path: Path) -> None:
    """A copy is of the version that was looked at, or there is an error: never a copy of one, an index of another."""
    old, new = (Page(lzma.compress(plain(n)), headers={"ETag": f'"{n}"'}) for n in (3, 4))

    def answer(request: Request) -> Page:
        return new if request.method == "GET" and not request.headers.get("Range") else old

    with serve({"/a.tar.xz": answer}) as server, pytest.raises(StaleIndexError, match="replaced just now"):
        wds.IndexedDataset(server.url("/a.tar.xz"), sidecars=False)
    assert names_in(tmp_path / "cache") == []


def test_a_server_that_fails_is_no_reason_for_a_copy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where frames cannot be had because a server refuses, that is the error; nothing is downloaded whole."""
    written(tmp_path / "a.tar.zst", seekable=True)
    good = Page((tmp_path / "a.tar.zst").read_bytes(), headers={"ETag": '"1"'})

    def answer(request: Request) -> Page:
        wanted = re.match(r"bytes=(\d+)-", request.headers.get("Range", ""))
        return Page(status=403) if wanted and 10_000 < int(wanted[1]) < 5_000_000 else good

    with serve({"/a.tar.zst": answer}) as server, pytest.raises(OpenError, match="403"):
        wds.IndexedDataset(server.url("/a.tar.zst"), sidecars=False)
    assert all(request.method == "HEAD" or request.headers.get("Range") for request in server.requests)
    assert "decompressed" not in caplog.text


@pytest.mark.parametrize("fault", ["cut", "backwards", "moved", "of nothing", "beyond"])
def test_a_damaged_gzi_gives_no_wrong_byte(fault: str, nginx: Nginx) -> None:
    """A .gzi that does not fit is told, and the shard copied."""
    path = nginx.folder / f"gzi-{fault.replace(' ', '-')}.tar.gz"
    written(path, seekable=True)
    gzi = Path(write_sidecar(path, "gzi"))
    numbers = np.frombuffer(gzi.read_bytes(), "<u8").copy()
    if fault == "moved":
        numbers[20] += 512
    elif fault == "beyond":
        numbers[-2] += 1 << 40
    elif fault == "backwards":
        numbers[1:] = numbers[1:][::-1]
    gzi.write_bytes({"cut": numbers.tobytes()[:-8], "of nothing": b""}.get(fault, numbers.tobytes()))
    assert as_pairs(wds.IndexedDataset(nginx.url(path.name))) == as_stream(path)


def test_a_gzi_is_that_of_bgzip(tmp_path: Path) -> None:
    """The file counts the members but the first, and says where each begins, compressed and plain."""
    path = tmp_path / "a.tar.gz"
    written(path, seekable=True)
    numbers = np.frombuffer(Path(write_sidecar(path, "gzi")).read_bytes(), "<u8")
    count, rows = int(numbers[0]), numbers[1:].reshape(-1, 2)
    assert count == len(rows)
    data, raw = path.read_bytes(), gzip.decompress(path.read_bytes())
    for packed, start in rows[:: len(rows) // 5].tolist():
        assert data[packed : packed + 4] == b"\x1f\x8b\x08\x04"
        assert gzip.decompress(data[packed:]) == raw[start:]
    path.write_bytes(gzip.compress(b"x"))
    with pytest.raises(StaleIndexError, match="BGZF"):
        write_sidecar(path, "gzi")


def test_a_small_shard_in_parts_is_not_copied(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A shard of one frame, as `seekable=True` writes less than 1 MiB, is read as it is, without a warning."""
    path = tmp_path / "a.tar.zst"
    with wds.TarWriter(str(path), seekable=True) as sink:
        for sample in contents(3, 100):
            sink.write(sample)
    assert as_pairs(wds.IndexedDataset(str(path))) == as_pairs(wds.WebDataset(str(path), shardshuffle=False))
    assert not caplog.messages
    assert not list((tmp_path / "cache").rglob("*.plain"))
