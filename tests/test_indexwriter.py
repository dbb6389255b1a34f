"""Writers that leave an index: the same that reading the shards would make, there when they are, and never ahead."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import webdataset as wds
import wids
from helpers import names_in
from servers import Page, serve
from test_reader_property import several
from webdataset.errors import EncodingError, OpenError, StaleIndexError
from webdataset.shardindex import energon_name, write_sidecar
from webdataset.writer import ShardWriter, TarWriter


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes are cached in a folder of the test."""
    monkeypatch.setenv("WDS_CACHE", str(tmp_path_factory.mktemp("cache")))


def samples(count: int, size: int = 10) -> list[dict[str, Any]]:
    return [{"__key__": f"{i:04d}", "txt": f"{i}" * size, "cls": i % 3} for i in range(count)]


def write(pattern: str, items: list[dict[str, Any]], **options: Any) -> ShardWriter:
    with ShardWriter(pattern, **{"index": True, "maxcount": 4, **options}) as sink:
        for sample in items:
            sink.write(sample)
    return sink


def stopped(sink: Any, items: Iterable[dict[str, Any]], count: int) -> None:
    """Write so many of the samples; then comes Ctrl-C."""
    with pytest.raises(KeyboardInterrupt), sink:
        _write_and_stop(sink, items, count)


def _write_and_stop(sink: Any, items: Iterable[dict[str, Any]], count: int) -> None:
    for sample in islice(items, count):
        sink.write(sample)
    raise KeyboardInterrupt


def made_by_reading(folder: Path, shards: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, list[bytes]]:
    """The JSON that `widsindex create` makes of these shards, and the sidecars that `write_sidecar` does."""
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        command = [sys.executable, "-m", "wids.wids_index", "create", "-o", "by-reading.json", *shards]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        text = Path("by-reading.json").read_bytes()
        Path("by-reading.json").unlink()
        sidecars = [Path(write_sidecar(shard)).read_bytes() for shard in shards]
    return text, sidecars


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tgz"])
def test_the_index_is_that_of_reading_the_shards(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON and sidecars are byte for byte those of `widsindex create` and `write_sidecar`."""
    sink = write(f"{tmp_path}/train-%06d.{suffix}", samples(10), md5=True)
    shards = [f"train-{number:06d}.{suffix}" for number in range(3)]
    sidecars = [str(energon_name(shard)) for shard in shards]
    assert names_in(tmp_path) == sorted([*shards, *sidecars, "train.json"])
    assert sink.index == f"{tmp_path}/train.json"
    left = (tmp_path / "train.json").read_bytes(), [(tmp_path / name).read_bytes() for name in sidecars]
    assert left == made_by_reading(tmp_path, shards, monkeypatch)


def test_everybody_opens_the_json(tmp_path: Path) -> None:
    """IndexedDataset, ShardListDataset and WebDataset take it, and the first two know their length at once."""
    path = write(f"{tmp_path}/a-%d.tar", samples(10)).index
    ds = wds.IndexedDataset(path)
    assert len(ds) == 10
    assert ds[9]["txt"] == b"9" * 10
    listed = wids.ShardListDataset(path, base=str(tmp_path))
    assert len(listed) == 10
    assert listed[9][".txt"] == "9" * 10
    listed.close()
    assert [sample["__key__"] for sample in wds.WebDataset(path)] == [f"{i:04d}" for i in range(10)]
    entries = json.loads(Path(path or "").read_text())["shardlist"]
    assert entries[2] == {"url": "a-2.tar", "nsamples": 2, "filesize": os.path.getsize(tmp_path / "a-2.tar")}


KEYS = st.sampled_from(["a", "b", "d/a", "d.e/b", "ä" * 30, "k" * 120, "ab"])
FIELDS = st.dictionaries(
    st.sampled_from(["txt", "seg.txt", "T", "_meta.txt", "__url__", "__bad__", "__key2__", "f" * 110]),
    st.sampled_from(["", "x", "y" * 600]),
    min_size=1,
    max_size=3,
)


@several
@given(
    drawn=st.lists(st.tuples(KEYS, FIELDS), min_size=1, max_size=12),
    keep_meta=st.booleans(),
    align=st.sampled_from([512, 4096]),
    compress=st.sampled_from([False, "gz"]),
    format=st.sampled_from(["GNU", "PAX"]),
)
def test_any_samples_are_indexed_as_readers_find_them(
    drawn: list[Any],
    keep_meta: bool,
    align: int,
    compress: Any,
    format: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Samples with long names, in pieces, with metadata, aligned, compressed: offsets are those of reading."""
    folder = tmp_path_factory.mktemp("written")
    path = f"{folder}/a.tar"
    if format == "GNU":
        align = 512
    with TarWriter(path, keep_meta=keep_meta, align=align, compress=compress, format=format, index=True) as sink:
        for key, fields in drawn:
            try:
                sink.write({"__key__": key, **fields})
            except EncodingError:
                continue
    left = Path(f"{folder}/a.tar.idx").read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert Path(write_sidecar(path)).read_bytes() == left


def test_an_archive_may_have_its_index_too(tmp_path: Path) -> None:
    """TarWriter leaves a sidecar when the archive is there, and knows where samples begin and the last one ends."""
    with TarWriter(tmp_path / "a.tar", index=True) as sink:
        for sample in samples(3):
            sink.write(sample)
        assert names_in(tmp_path) == ["a.tar.partial"]
    assert names_in(tmp_path) == ["a.tar", "a.tar.idx"]
    assert list(sink.offsets or ()) == [0, 2048, 4096, 6144]
    assert wds.IndexedDataset([str(tmp_path / "a.tar")])[2]["txt"] == b"2" * 10
    stopped(TarWriter(tmp_path / "b.tar", index=True), samples(1), 1)
    assert names_in(tmp_path) == ["a.tar", "a.tar.idx"]


@pytest.mark.parametrize(
    ("pattern", "index", "expected", "first"),
    [
        ("train-%03d.tar", True, "train.json", "train-000.tar"),
        ("%03d.tar", True, "shardindex.json", "000.tar"),
        ("100%%-%d.tar", True, "100%.json", "100%-0.tar"),
        ("d/train_%d.tar", True, "d/train.json", "train_0.tar"),
        ("part-%d/a.tar", True, "part.json", "part-0/a.tar"),
        ("d/train-%d.tar", "all.json", "all.json", "d/train-0.tar"),
        ("d/train-%d.tar", "e/all.json", "e/all.json", "../d/train-0.tar"),
        ("d/train-%d.tar", Path("d/all.json"), "d/all.json", "train-0.tar"),
    ],
)
def test_names_of_the_json(
    pattern: str, index: Any, expected: str, first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lies beside the shards, named by what stands before their number, or where it was asked for."""
    monkeypatch.chdir(tmp_path)
    for folder in ("d", "e", "part-0"):
        Path(folder).mkdir()
    sink = write(pattern, samples(2), index=index)
    assert sink.index == expected
    entries = json.loads(Path(expected).read_text())["shardlist"]
    assert [entry["url"] for entry in entries] == [first]
    assert len(wds.IndexedDataset(expected)[1]) == 4
    assert len(list(wds.WebDataset(expected))) == 2


def test_a_writer_that_gives_up_leaves_no_json(tmp_path: Path) -> None:
    """After an exception complete shards stay with their sidecars; no JSON lists a part of a data set."""
    stopped(ShardWriter(f"{tmp_path}/a-%d.tar", maxcount=2, index=True), samples(5), 5)
    assert names_in(tmp_path) == ["a-0.tar", "a-0.tar.idx", "a-1.tar", "a-1.tar.idx"]
    with ShardWriter(f"{tmp_path}/b-%d.tar", index=True):
        pass
    assert not (tmp_path / "b.json").exists()


def test_a_json_that_is_there(tmp_path: Path) -> None:
    """It is kept, and said so at once; a writer that may replace shards removes it before it replaces the first."""
    pattern = f"{tmp_path}/a-%d.tar"
    write(pattern, samples(10))
    for path in tmp_path.glob("*.tar"):
        path.unlink()
    with pytest.raises(OpenError, match=r"a\.json: it exists"):
        ShardWriter(pattern, index=True)
    stopped(ShardWriter(pattern, index=True, overwrite=True), samples(1), 1)
    assert not (tmp_path / "a.json").exists()
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(OpenError, match=r"a\.json: it exists"):  # nothing is resumed yet
        ShardWriter(f"{tmp_path}/a-0%d.tar", index=f"{tmp_path}/a.json", resume=True)
    write(pattern, samples(3), overwrite=True)
    assert len(wds.IndexedDataset(f"{tmp_path}/a.json")) == 3


def test_a_replaced_shard_has_its_own_index(tmp_path: Path) -> None:
    """With overwrite=True sidecars are those of the new shards."""
    pattern = f"{tmp_path}/a-%d.tar"
    write(pattern, samples(8))
    write(pattern, samples(6, size=1000), overwrite=True)
    assert [sample["txt"] for sample in wds.IndexedDataset(f"{tmp_path}/a.json", cache_dir="")] == [
        (f"{i}" * 1000).encode() for i in range(6)
    ]
    for path in tmp_path.glob("*.tar"):
        left = Path(str(energon_name(str(path)))).read_bytes()
        assert left == Path(write_sidecar(path)).read_bytes()


def test_post_finds_the_sidecar(tmp_path: Path) -> None:
    """`post` is called when shard and sidecar are there."""
    found: list[bool] = []
    write(f"{tmp_path}/a-%d.tar", samples(9), post=lambda name: found.append(os.path.exists(f"{name}.idx")))
    assert found == [True] * 3


@pytest.mark.parametrize("options", [{}, {"md5": True}])
@pytest.mark.parametrize("lost", [None, "a-1.tar.idx"])
def test_a_resumed_writer_lists_all_shards(options: dict[str, Any], lost: str | None, tmp_path: Path) -> None:
    """What was written before the stop is in the JSON, too, by its sidecar or, without one, by its headers."""
    for folder in ("whole", "stopped"):
        (tmp_path / folder).mkdir()
    write(f"{tmp_path}/whole/a-%d.tar", samples(18), **options)
    arguments = {"maxcount": 4, "index": True, "resume": True, **options}
    pattern = f"{tmp_path}/stopped/a-%d.tar"
    sink = ShardWriter(pattern, **arguments)
    stopped(sink, sink.remaining(samples(18)), 14)
    assert not (tmp_path / "stopped" / "a.json").exists()
    if lost is not None:
        (tmp_path / "stopped" / lost).unlink()
        os.utime(tmp_path / "stopped" / "a-0.tar.idx", (1, 1))  # of a shard that was there before
    with ShardWriter(pattern, **arguments) as sink:
        for sample in sink.remaining(samples(18)):
            sink.write(sample)
    (tmp_path / "stopped" / "a-0.tar.progress").unlink()
    assert names_in(tmp_path / "stopped") == names_in(tmp_path / "whole")
    for name in names_in(tmp_path / "whole"):
        assert (tmp_path / "stopped" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_several_writers_have_a_json_each(tmp_path: Path) -> None:
    """Writer 1 of 2 lists its shards in a-1-of-2.json; a JSON that names both opens all."""
    for rank in range(2):
        write(f"{tmp_path}/a-%d.tar", samples(20)[rank::2], rank=rank, world_size=2)
    parts = [{"source_url": f"a-{rank}-of-2.json"} for rank in range(2)]
    (tmp_path / "a.json").write_text(json.dumps({"datasets": parts}))
    assert sorted(sample["__key__"] for sample in wds.IndexedDataset(f"{tmp_path}/a.json")) == [
        f"{i:04d}" for i in range(20)
    ]


def test_shards_in_a_store_have_their_index_there(s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sidecars and JSON are uploaded, too, the JSON last, and are those of the same shards in a folder."""
    monkeypatch.setenv("WDS_STORAGE_OPTIONS", json.dumps({"endpoint": s3.endpoint}))
    sink = write(s3.url("set/a-%d.tar"), samples(10), md5=True)
    assert sink.index == s3.url("set/a.json")
    write(f"{tmp_path}/a-%d.tar", samples(10), md5=True)
    for name in names_in(tmp_path):
        assert s3.get(f"set/{name}") == (tmp_path / name).read_bytes()
    ds = wds.IndexedDataset(sink.index)
    assert (len(ds), ds[9]["txt"]) == (10, b"9" * 10)
    with pytest.raises(OpenError, match=r"a\.json: it exists"):
        ShardWriter(s3.url("set/a-%d.tar"), index=True)


def test_shards_on_a_web_server_have_their_index_there() -> None:
    """By PUT, each after its shard; a sidecar that is refused is an error, and there is no JSON."""
    with serve({}) as server:
        write(server.url("/a-%d.tar"), samples(10), uploads=1)
        put = [request.path for request in server.requests if request.method == "PUT"]
        assert sorted(put) == sorted([*(f"/a-{i}.tar{idx}" for i in range(3) for idx in ("", ".idx")), "/a.json"])
        assert put[-1] == "/a.json"
        assert all(put.index(f"/a-{i}.tar") < put.index(f"/a-{i}.tar.idx") for i in range(3))
    with serve({"/b-1.tar.idx": Page(status=403)}) as server:
        with pytest.raises(OpenError, match=r"b-1\.tar\.idx"):
            write(server.url("/b-%d.tar"), samples(10))
        assert "/b.json" not in [request.path for request in server.requests if request.method == "PUT"]


def test_a_json_without_a_folder(tmp_path: Path) -> None:
    """Is told before the shards are written."""
    with pytest.raises(OpenError, match="is no folder; create it first"):
        ShardWriter(f"{tmp_path}/a-%d.tar", index=f"{tmp_path}/gone/a.json")


@pytest.mark.parametrize(
    ("pattern", "options", "message"),
    [
        ("pipe:cat > a-%d.tar", {}, "needs a path, or a url without a query"),
        ("https://host/a-%d.tar?sig=x", {}, "needs a path, or a url without a query"),
        ("a-%d.tar", {"opener": open}, "without opener="),
        ("a-%d.tar", {"index": "s3://b/a.json"}, "can name no shards of this machine"),
        ("a-%d.tar", {"index": False, "md5": True}, "md5=True is for the JSON"),
    ],
)
def test_where_no_index_can_be(pattern: str, options: dict[str, Any], message: str) -> None:
    """Shards that cannot have something beside them, or that the JSON could not name, are told before the first one."""
    with pytest.raises(ValueError, match=message):
        ShardWriter(pattern, **{"index": True, **options})


def test_a_shard_that_changed_is_no_longer_what_the_json_says(tmp_path: Path) -> None:
    """The counts in the JSON are held against the shards when they are read."""
    path = write(f"{tmp_path}/a-%d.tar", samples(8)).index
    with TarWriter(tmp_path / "a-1.tar") as sink:
        sink.write(samples(1)[0])
    with pytest.raises(StaleIndexError, match=r"a\.json: shardlist\[1\] says nsamples 4, the shard has 1"):
        wds.IndexedDataset(path)[7]
