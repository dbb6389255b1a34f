"""What is wrong with shards, copies, indexes and lists is told by random access, in one line, and never believed."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import lzma
import os
import struct
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import webdataset as wds
import wids
from helpers import tar_bytes
from reading import fused
from servers import Page, Request, serve
from test_indexed import as_pairs, streamed, write_shards
from tools import run
from webdataset import img2dataset, shardfiles, shardindex
from webdataset.errors import DataError, ShardListError, StaleIndexError, WrongContentError
from webdataset.tar import frames
from webdataset.tar.compression import zstd_module


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WDS_CACHE", str(tmp_path / "cache"))


def contents() -> bytes:
    """An archive whose fields do not compress."""
    data = np.random.default_rng(1)
    return tar_bytes({f"{i:02d}.{field}": data.bytes(3000) for i in range(12) for field in ("a", "b")})


def bgzf(data: bytes) -> bytes:
    """As ShardWriter(seekable=True) writes gzip."""
    writer = frames.Bgzf()
    return writer.compress(data) + writer.flush()


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "members": lambda data: b"".join(gzip.compress(data[at : at + 20_000]) for at in range(0, len(data), 20_000)),
    "bgzf": bgzf,
    "zstd": zstd_module("tests").compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_a_cut_behind_the_last_sample_is_not_passed_over(kind: str, tmp_path: Path) -> None:
    """Wherever a compressed shard is cut, an index has the samples of the stream, and the fault is told likewise."""
    whole = COMPRESSIONS[kind](contents())
    for left_out in (1, 4, 8, 9, 12, 17, 20, 27, 28, 29, 30, 500, 9_000, 40_000):
        path = tmp_path / f"{left_out}.tar"
        path.write_bytes(whole[:-left_out])
        told: dict[str, list[str]] = {"stream": [], "index": []}

        def noting(where: str, told: dict[str, list[str]] = told) -> Callable[[Exception], bool]:
            return lambda exn: told[where].append(type(exn).__name__) or True

        expected = as_pairs(fused([{"url": str(path), "stream": path.open("rb")}], noting("stream")))
        for cache_dir in ("", None, None):
            told["index"].clear()
            ds = wds.IndexedDataset(str(path), handler=noting("index"), cache_dir=cache_dir)
            assert as_pairs(ds) == expected, left_out
            assert told["index"] == told["stream"], left_out


def test_zeros_behind_a_gzip_shard_are_no_cut(tmp_path: Path) -> None:
    """Padding behind the last member does not keep a large gzip shard from being read in parts."""
    data = np.random.default_rng(2).bytes(3 << 20)
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(tar_bytes({f"{i}.bin": data for i in range(4)}), 1) + bytes(1000))
    ds = wds.IndexedDataset(str(path))
    assert ds[3]["bin"] == data
    assert not list((tmp_path / "cache").rglob("*.plain"))


@pytest.mark.parametrize("damage", ["cut", "changed", "emptied"])
def test_a_damaged_plain_copy_is_made_anew(damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A copy in the cache that is not as it was when it was made gives no sample."""
    (source,) = map(Path, write_shards(tmp_path, 30))
    path = tmp_path / "b.tar.xz"
    path.write_bytes(lzma.compress(source.read_bytes()))
    expected = as_pairs(wds.IndexedDataset(str(path)))
    (copy,) = (tmp_path / "cache").rglob("*.plain")
    data = copy.read_bytes()
    damaged = {"cut": data[:-2000], "changed": data[::-1], "emptied": b""}
    copy.write_bytes(damaged[damage])
    caplog.clear()
    assert as_pairs(wds.IndexedDataset(str(path))) == expected
    assert "the plain copy in the cache was changed; it is made anew" in caplog.text
    caplog.clear()
    assert as_pairs(wds.IndexedDataset(str(path))) == expected
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("rows", "place"),
    [([(1 << 63, 1)], 8), ([(30, 1 << 62)], 8), ([(30, 70), ((1 << 64) - 1, 80)], 24), ([(30, 70), (20, 80)], 24)],
)
def test_numbers_of_a_gzi_that_are_no_bytes(rows: list[tuple[int, int]], place: int) -> None:
    """A number that no file has, or that does not grow, is refused with its place, and is never a negative one."""
    data = struct.pack("<Q", len(rows)) + b"".join(struct.pack("<QQ", *row) for row in rows)
    with pytest.raises(StaleIndexError, match=rf"do not grow, or are those of no file: \d+ and \d+ at byte {place}$"):
        frames.parse_gzi(data)


def test_an_endless_sidecar_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of an index or a count that is larger than such files are, only so much is read, and the log says why."""
    monkeypatch.setattr(shardindex, "SMALL", 1 << 14)
    monkeypatch.setattr(img2dataset, "LARGEST_STATS", 1 << 14)
    plain, packed = contents()[: 1 << 20], bgzf(contents())
    endless = Page(bytes(1 << 24))
    names = ("/a.tar.idx", "/a.idx", "/a_stats.json", "/b.tar.gz.gzi", "/b.tar.tar.idx", "/b.idx", "/b_stats.json")
    with serve({"/a.tar": plain, "/b.tar.gz": packed, **dict.fromkeys(names, endless)}) as server:
        for name in ("/a.tar", "/b.tar.gz"):
            assert len(wds.IndexedDataset([server.url(name)], cache_dir="")) == 12
    for name in names:
        beside = "b.tar.gz: the .gzi beside it" if name.endswith(".gzi") else name
        assert f"{beside}: " in caplog.text.replace("not used as the index of the shard: ", ""), name
    assert caplog.text.count("such a file should have at most") == len(names)


@pytest.mark.parametrize("read", [wds.IndexedDataset, wids.ShardListDataset, wds.WebDataset])
def test_an_endless_json_is_an_error(read: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that is larger than any is not read into memory."""
    monkeypatch.setattr(shardfiles, "LARGEST", 1 << 14)
    with (
        serve({"/a.json": Page(b" " * (1 << 24))}) as server,
        pytest.raises(WrongContentError, match=r"/a\.json: such a file should have at most 16384 bytes"),
    ):
        read(server.url("/a.json"))


def test_a_table_that_pyarrow_cannot_read_is_told_as_ours(tmp_path: Path) -> None:
    """Whatever byte of a Parquet table is damaged, the error is one of ours."""
    (path,) = write_shards(tmp_path, 3)
    out = io.BytesIO()
    pq.write_table(pa.table({"key": ["a", "b"], "width": [1, 2]}), out)
    right = out.getvalue()
    table = Path(path).with_suffix(".parquet")
    right_ones = 0
    for at in range(len(right)):
        table.write_bytes(right[:at] + bytes([right[at] ^ 0x80]) + right[at + 1 :])
        with contextlib.suppress(DataError):
            img2dataset.KeyedTable(path).column("width", ["a", "c"])
            right_ones += 1
    assert right_ones < len(right)


@pytest.mark.parametrize(
    ("field", "value"), [("filesize", "x"), ("filesize", True), ("filesize", []), ("md5sum", 3), ("md5sum", {})]
)
def test_a_wrong_type_in_a_json_is_told_with_file_and_field(field: str, value: Any, tmp_path: Path) -> None:
    """What a list says of a shard beside url and count is checked too, before anything is opened."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"wids_version": 1, "shardlist": [{"url": "a.tar", "nsamples": 1, field: value}]}))
    for read in (wids.ShardListDataset, wds.IndexedDataset):
        with pytest.raises(ShardListError, match=rf"a\.json: shardlist\[0\]: {field} must be "):
            read(str(path))


@pytest.mark.parametrize("name", ["fl-{0..2}.tar", "a.tar.gz", "http://user:secret@host/a.tgz?sig=secret"])
def test_wids_says_what_to_do_with_tar_shards(name: str) -> None:
    """Where the path of a JSON should be, the name of shards is told as such, with the command that makes a JSON."""
    with pytest.raises(ShardListError, match=r"a tar shard, .*`widsindex create SHARDS -o index.json`") as caught:
        wids.ShardListDataset(name)
    assert "secret" not in str(caught.value)
    with pytest.raises(ShardListError, match="shards is a list of shards, or the path of a JSON; got a NoneType"):
        wids.ShardListDataset(None)


def test_the_index_of_an_empty_archive_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What TarWriter(index=True) writes of no samples fits; beside a shard with samples it does not."""
    path = tmp_path / "a.tar"
    with wds.TarWriter(str(path), index=True):
        pass
    index = tmp_path / "a.tar.idx"
    assert len(index.read_bytes()) == 8
    assert len(wds.IndexedDataset(str(path))) == 0
    assert not (tmp_path / "cache").exists()
    path.write_bytes(tar_bytes({"a.txt": b"x"}))
    os.utime(index)
    assert len(wds.IndexedDataset(str(path), cache_dir="")) == 1
    assert "it has no samples, the shard has some" in caplog.text


@pytest.mark.parametrize("sidecar", [False, True])
def test_a_field_that_is_nowhere_is_told(sidecar: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Samples without a field that was asked for come with one line that says which fields there are."""
    paths = []
    for number in range(2):
        paths.append(str(tmp_path / f"{number}.tar"))
        with wds.TarWriter(paths[-1], index=sidecar) as sink:
            sink.write({"__key__": "a", "cls": 1, "txt": "x"})
    ds = wds.IndexedDataset(paths, fields=(".cls", "txt"), cache_dir="")
    assert [sorted(sample) for sample in ds] == [["__key__", "__url__", "txt"]] * 2
    (record,) = caplog.records  # of whichever shard was read first
    assert record.message in [f"{path}: no field '.cls' here, only cls, txt" for path in paths]


FORK = """
import gzip, os, sys, threading, time
import webdataset as wds
from webdataset import shardframes, gzippoints

held = threading.Event()

def hold(lock):
    with lock:
        held.set()
        time.sleep(1000)

ds = wds.IndexedDataset(sys.argv[1], cache_dir=sys.argv[2])
expected = ds[5]
samples = ds._open[0]
inside = getattr(samples.shard, "_shard", samples.shard)
locks = [ds._open._lock, ds._open._counting]
locks += [getattr(inside, name) for name in ("_lock", "_turn") if hasattr(inside, name)]
for lock in locks:
    held.clear()
    threading.Thread(target=hold, args=(lock,), daemon=True).start()
    held.wait()
if os.fork() == 0:
    if hasattr(inside, "forget"):
        inside.forget()
    assert ds[5] == expected
    assert ds["05"] == expected
    print(type(inside).__name__, len(locks), flush=True)
    os._exit(0)
_, status = os.wait()
os._exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.parametrize(
    ("kind", "expected"), [("plain", b"LocalShard 3"), ("bgzf", b"FramedShard 3"), ("gzip", b"GzipPoints 4")]
)
def test_a_fork_while_a_thread_reads_does_not_hang(kind: str, expected: bytes, tmp_path: Path) -> None:
    """A process that is forked while other threads hold the locks of an indexed data set reads on."""
    path = tmp_path / "a.tar"
    data = tar_bytes({f"{i:02d}.bin": os.urandom(1 << 20) for i in range(10)})
    path.write_bytes({"plain": bytes, "bgzf": bgzf, "gzip": lambda data: gzip.compress(data, 1)}[kind](data))
    assert run([sys.executable, "-W", "ignore", "-c", FORK, str(path), str(tmp_path)], timeout=100).strip() == expected


def test_all_keys_are_read_beside_other_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one thread reads the keys of all shards, another has its samples."""
    ds = wds.IndexedDataset(write_shards(tmp_path, 5, 5))
    opened = ds._open

    def keys() -> Any:
        with ThreadPoolExecutor(1) as pool:
            yield pool.submit(lambda: [ds[9]["__key__"]]).result(timeout=100)

    monkeypatch.setattr(opened, "all_keys", keys)
    assert "nothing" not in ds


def test_a_server_without_ranges_sends_a_shard_once(tmp_path: Path) -> None:
    """Making the index of a shard reads it once where a server gives no ranges, also one with an index beside it."""
    (path,) = map(Path, write_shards(tmp_path, 60, size=100_000))
    data = path.read_bytes()
    index = Path(shardindex.write_sidecar(path)).read_bytes()
    for beside in ({}, {"/a.tar.idx": index}):
        with serve({"/a.tar": Page(data, ranges=False), **beside}) as server:
            ds = wds.IndexedDataset([server.url("/a.tar")], cache_dir="")
            assert len(ds) == 60
            assert server.served < 1.5 * len(data)
            assert as_pairs([ds[7]]) == streamed(path)[7:8]


@pytest.mark.parametrize("status", [403, 405, 501])
def test_a_link_that_is_signed_for_get_alone_is_read_in_parts(status: int, tmp_path: Path) -> None:
    """Where a server refuses to give headers alone, or no length with them, size and version come with a byte."""
    (path,) = map(Path, write_shards(tmp_path, 60, size=100_000))

    def page(request: Request) -> Page:
        if request.method == "HEAD" and status != 501:
            return Page(b"", status=status)
        return Page(path.read_bytes(), chunked=request.method == "HEAD", headers={"ETag": '"a"'})

    with serve(page) as server:
        ds = wds.IndexedDataset([server.url("/a.tar?signed=for-get")], cache_dir="")
        assert as_pairs([ds[7]]) == streamed(path)[7:8]
        assert server.served < 1.5 * path.stat().st_size


def test_a_sample_without_a_field_is_read_by_wids(tmp_path: Path) -> None:
    """One whose only member has the name of what a sample is told by comes empty, each time it is asked for."""
    path = tmp_path / "a.tar"
    path.write_bytes(tar_bytes({"a.txt": b"1", "b.__key__": b"2", "c.txt": b"3"}))
    ds = wids.ShardListDataset([{"url": str(path), "nsamples": 3}], transformations=[])
    for _ in range(3):
        assert [sample["__key__"] for sample in ds] == ["a", "b", "c"]


def test_a_message_about_a_key_with_a_line_end_is_one_line(tmp_path: Path) -> None:
    """What DALI's index cannot say of a name is told with that name escaped."""
    path = tmp_path / "a.tar"
    path.write_bytes(tar_bytes({"a\nb.txt": b"1"}))
    with pytest.raises(StaleIndexError) as caught:
        shardindex.write_sidecar(path, "dali")
    assert str(caught.value).isprintable()


FULL = """
import errno, os, sys
import webdataset as wds
write = os.write

def full(fd, data):
    if os.readlink(f"/proc/self/fd/{fd}").endswith(".plain.partial"):
        raise OSError(errno.ENOSPC, "No space left on device")
    return write(fd, data)

os.write = full
print(len(list(wds.IndexedDataset(sys.argv[1], cache_dir=sys.argv[2]))), os.listdir(sys.argv[2] + "/index"))
"""


def test_a_full_cache_is_no_hindrance_to_a_plain_copy(tmp_path: Path) -> None:
    """Where the cache has no room for the plain copy of a compressed shard, a temporary file has."""
    (source,) = map(Path, write_shards(tmp_path, 30))
    path = tmp_path / "b.tar.xz"
    path.write_bytes(lzma.compress(source.read_bytes()))
    told = run([sys.executable, "-W", "ignore", "-c", FULL, str(path), str(tmp_path / "cache")]).decode()
    assert told.startswith("30 [")
    assert ".plain" not in told


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"fields": 5}, "fields must be a list of names or None, got 5"),
        ({"handler": 5}, "handler must be a function of one exception, .*, got 5"),
        ({"cache_dir": 5}, "cache_dir must be a str or a path or None, got 5"),
        ({"sidecars": "no"}, "sidecars must be True or False, got 'no'"),
        ({"cache_size": "x"}, "cache_size must be a number of bytes or None, got 'x'"),
    ],
)
def test_a_wrong_argument_is_told_before_anything_is_opened(arguments: dict[str, Any], expected: str) -> None:
    """The first wrong argument is named, with what it must be."""
    with pytest.raises(TypeError, match=rf"^IndexedDataset: {expected}$"):
        wds.IndexedDataset("absent.tar", **arguments)


def test_shares_and_numbers_that_are_none_are_told(tmp_path: Path) -> None:
    """A share that is no number, and numbers of samples that are no list, are named."""
    ds = wds.IndexedDataset(write_shards(tmp_path, 3))
    with pytest.raises(TypeError, match=r"^IndexedDataset\.split: train must be a number, got 'x'$"):
        ds.split(train="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"shares must be fractions that sum to at most 1, got {'train': nan}"):
        ds.split(train=float("nan"))
    with pytest.raises(TypeError, match=r"^IndexedDataset\.subset: indices must be numbers of samples, got 5$"):
        ds.subset(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^IndexedDataset\.with_keys: keys must be a list of keys, got None$"):
        ds.with_keys(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "error", "expected"),
    [
        ({"lru_size": 0}, ValueError, "lru_size must be a whole number of shards, 1 or more, got 0"),
        ({"cache_size": "x"}, TypeError, "cache_size must be a number of bytes, got 'x'"),
        ({"cache_dir": 5}, TypeError, "cache_dir must be a str or a path or None, got 5"),
        ({"localname": 5}, TypeError, "localname must be a function or None, got 5"),
    ],
)
def test_wids_with_no_room_for_a_shard_does_not_hang(
    arguments: dict[str, Any], error: type[Exception], expected: str, tmp_path: Path
) -> None:
    """Arguments with which no sample can be had are errors at once; and so is a key where a number should be."""
    shards = [{"url": path, "nsamples": 3} for path in write_shards(tmp_path, 3)]
    with pytest.raises(error, match=rf"^ShardListDataset: {expected}$"):
        wids.ShardListDataset(shards, **arguments)
    with pytest.raises(TypeError, match=r"^ShardListDataset: a sample is asked for by number, got '0-000001'$"):
        wids.ShardListDataset(shards)["0-000001"]
