"""Random access to remote shards: few requests, few bytes, never another version, against a real nginx."""

from __future__ import annotations

import gc
import gzip
import json
import lzma
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import webdataset as wds
from helpers import foreign_data, names_in, tar_bytes
from nginx import Nginx
from test_indexed import ALL, as_pairs, samples, streamed, write_shards
from webdataset.errors import DataError, NotFoundError, OpenError, ShardListError
from webdataset.handlers import ignore_and_continue
from webdataset.shardbytes import LocalShard
from webdataset.shardindex import write_sidecar
from webdataset.storage import http


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes are cached in a folder of the test."""
    monkeypatch.setenv("WDS_CACHE", str(tmp_path / "cache"))


def served(nginx: Nginx, folder: str, *counts: int, size: int = 100) -> list[Path]:
    """Shards in a folder of the server."""
    return [Path(path) for path in write_shards(nginx.folder / folder, *counts, size=size)]


def url_of(nginx: Nginx, path: Path) -> str:
    return nginx.url(str(path.relative_to(nginx.folder)))


def gets(nginx: Nginx, path: Path) -> list[Any]:
    """The GET requests for a file so far."""
    return [asked for asked in nginx.asked("/" + str(path.relative_to(nginx.folder))) if asked.method == "GET"]


def test_one_remote_sample_costs_one_request_and_its_bytes(nginx: Nginx) -> None:
    """`ds[i]` of a remote shard is one ranged request of less than the sample and 4 KB."""
    (path,) = served(nginx, "one", 300, size=5000)
    ds = wds.IndexedDataset(url_of(nginx, path))
    expected = streamed(path)
    before = len(gets(nginx, path))
    for i in (0, 7, 150, -1):
        assert as_pairs([ds[i]]) == [expected[i]]
    asked = gets(nginx, path)[before:]
    assert len(asked) == 4
    assert all(request.status == 206 and request.bytes < 10_000 + 4096 for request in asked)


@pytest.mark.parametrize("kind", ["energon", "dali"])
def test_a_sidecar_costs_the_headers_before_a_remote_sample(nginx: Nginx, kind: str) -> None:
    """Headers of the sample before are read too, since a sidecar may be wrong: within 4 KB, once, not of small ones."""
    (path,) = served(nginx, f"beside-{kind}", 300, size=5000)
    write_sidecar(path, kind)
    ds = wds.IndexedDataset(url_of(nginx, path))
    expected = streamed(path)
    for i, most in {0: 1, 7: 3, 8: 1, 150: 3, 7 - 300: 1, -1: 3}.items():
        before = len(gets(nginx, path))
        assert as_pairs([ds[i]]) == [expected[i]]
        asked = gets(nginx, path)[before:]
        assert len(asked) <= most
        assert sum(request.bytes for request in asked) < 10_000 + 4096
    (small,) = served(nginx, f"beside-small-{kind}", 300, size=400)
    write_sidecar(small, kind)
    ds = wds.IndexedDataset(url_of(nginx, small))
    before = len(gets(nginx, small))
    assert as_pairs([ds[i] for i in (200, 100, 299, 0)]) == [streamed(small)[i] for i in (200, 100, 299, 0)]
    assert [request.bytes < 800 + 4096 for request in gets(nginx, small)[before:]] == [True] * 4


def test_golden_archives_on_a_server(nginx: Nginx) -> None:
    """Every golden archive, whole or damaged, gives on a server the samples that a stream of the file gives."""
    for name in ALL:
        path = nginx.folder / "golden" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(foreign_data() / name, path)
        ds = wds.IndexedDataset([url_of(nginx, path)], handler=ignore_and_continue, sidecars=False)
        assert (name, as_pairs(ds)) == (name, streamed(path))
        ds.close()


def test_only_wanted_fields_are_read(nginx: Nginx) -> None:
    """With `fields`, the bytes of large other fields are not asked for."""
    path = nginx.folder / "wanted.tar"
    path.write_bytes(tar_bytes({f"{i}.{f}": b"x" * n for i in range(3) for f, n in (("bin", 3 << 20), ("cls", 1))}))
    ds = wds.IndexedDataset(url_of(nginx, path), ["cls"])
    opened = sum(request.bytes for request in gets(nginx, path))
    assert opened < 1 << 20  # data are passed over when the headers are read
    assert [sample["cls"] for sample in ds.fetch([0, 2])] == [b"x", b"x"]
    assert sum(request.bytes for request in gets(nginx, path)) - opened < 4096


def test_many_samples_cost_few_requests(nginx: Nginx) -> None:
    """Samples that lie close together come with one request, those far apart with one each."""
    paths = served(nginx, "many", 50, 50, size=100_000)
    ds = wds.IndexedDataset([url_of(nginx, path) for path in paths])
    before = [len(gets(nginx, path)) for path in paths]
    numbers = [3, 2, 4, 30, 60]
    assert as_pairs(ds.fetch(numbers)) == [(streamed(paths[0]) + streamed(paths[1]))[i] for i in numbers]
    assert [len(gets(nginx, path)) - count for path, count in zip(paths, before, strict=True)] == [2, 1]
    assert ds.__getitems__([1]) == [ds[1]]


def test_a_cached_index_of_a_remote_shard_is_used(nginx: Nginx) -> None:
    """The second data set reads no headers again; after the object changed, the index is made anew."""
    (path,) = served(nginx, "cached", 100)
    wds.IndexedDataset(url_of(nginx, path))
    before = sum(request.bytes for request in gets(nginx, path))
    assert len(wds.IndexedDataset(url_of(nginx, path))) == 100
    assert sum(request.bytes for request in gets(nginx, path)) - before < 1024
    path.write_bytes(tar_bytes(samples(40)))
    assert as_pairs(wds.IndexedDataset(url_of(nginx, path))) == streamed(path)


def test_an_object_that_changes_gives_an_error(nginx: Nginx) -> None:
    """After the object behind a url is replaced, a sample of the one that was opened is an error, not other bytes."""
    (path,) = served(nginx, "changing", 20)
    ds = wds.IndexedDataset(url_of(nginx, path))
    assert ds[3]["__key__"] == "0-000003"
    path.write_bytes(tar_bytes(samples(20, 50)))
    os.utime(path, (1, 1))
    with pytest.raises(DataError, match=r"a-0\.tar"):
        ds[3]


def test_compressed_remote_shards_are_decompressed_once(nginx: Nginx, caplog: pytest.LogCaptureFixture) -> None:
    """A compressed shard is loaded once into the cache, which is said once."""
    (path,) = served(nginx, "packed", 20)
    packed = path.with_suffix(".tgz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    for _ in range(2):
        assert as_pairs(wds.IndexedDataset(url_of(nginx, packed))) == streamed(path)
    assert caplog.text.count("decompressed once") == 1
    assert sum(request.bytes >= packed.stat().st_size for request in gets(nginx, packed)) == 1


def test_a_remote_json_lists_what_is_beside_it(nginx: Nginx) -> None:
    """Urls in a JSON on a server are relative to it, and no local files."""
    (path,) = served(nginx, "listed", 4)
    (path.parent / "a.json").write_text('{"shardlist": [{"url": "a-0.tar", "nsamples": 4}]}')
    ds = wds.IndexedDataset(nginx.url("listed/a.json"))
    assert as_pairs(ds) == streamed(path)
    (path.parent / "b.json").write_text(json.dumps({"shardlist": [{"url": str(path), "nsamples": 4}]}))
    with pytest.raises(ShardListError, match="names no local files"):
        wds.IndexedDataset(nginx.url("listed/b.json"))


def test_what_has_no_ranges_is_told(nginx: Nginx, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command's output and a missing object give errors that say so, without fsspec too."""
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(OpenError, match="no part can be read alone"):
        wds.IndexedDataset("pipe:cat a.tar")
    with pytest.raises(NotFoundError):
        wds.IndexedDataset(nginx.url("absent.tar"))


def test_shards_are_read_through_the_cache_when_asked(nginx: Nginx, tmp_path: Path) -> None:
    """With `cache_shards` each shard is downloaded once; later passes and data sets take no byte from the server."""
    paths = served(nginx, "through", 20, 30)
    counted = [{"url": url_of(nginx, path), "nsamples": n} for path, n in zip(paths, (20, 30), strict=True)]
    expected = streamed(paths[0]) + streamed(paths[1])
    ds = wds.IndexedDataset(counted, cache_shards=True)
    assert not any(gets(nginx, path) for path in paths)
    assert as_pairs([ds[3], ds[4]]) == expected[3:5]
    assert [len(gets(nginx, path)) for path in paths] == [1, 0]
    for again in (ds, ds, pickle.loads(pickle.dumps(ds)), wds.IndexedDataset(counted, cache_shards=True)):
        assert as_pairs(again) == expected
        assert as_pairs(again.fetch([40, 2])) == [expected[40], expected[2]]
    assert [[request.bytes for request in gets(nginx, path)] for path in paths] == [
        [path.stat().st_size] for path in paths
    ]
    copies = sorted(name for name in names_in(tmp_path / "cache") if name.endswith(".tar"))
    assert len(copies) == 2
    (uncounted,) = (wds.IndexedDataset([url_of(nginx, path) for path in paths], cache_shards=True),)
    assert len(uncounted) == 50
    assert [len(gets(nginx, path)) for path in paths] == [1, 1]


BOUNDED = """
import json, os, sys
import webdataset as wds, webdataset.indexed, webdataset.openshards
webdataset.indexed.OPEN_SHARDS = webdataset.openshards.OPEN_SHARDS = 1
urls, size = json.loads(sys.argv[1])
ds = wds.IndexedDataset(urls, cache_shards=True, cache_size=2.5 * size)
for _ in range(2):
    keys = [sample["__key__"] for sample in ds]
    print(len(keys), sum(name.endswith(".tar") for name in os.listdir(os.environ["WDS_CACHE"])))
"""


def test_copies_of_shards_have_an_end(nginx: Nginx) -> None:
    """`cache_size` bounds the copies that nobody reads, and a shard that is gone comes again."""
    paths = served(nginx, "bounded", *[10] * 6, size=20_000)
    urls = [{"url": url_of(nginx, path), "nsamples": 10} for path in paths]
    argument = json.dumps([urls, paths[0].stat().st_size])
    # in a process of its own: what another thread forks here holds on to the files for a while
    done = subprocess.run([sys.executable, "-c", BOUNDED, argument], stdout=subprocess.PIPE, text=True, check=True)
    for line in done.stdout.splitlines():
        count, copies = map(int, line.split())
        assert count == 60
        assert copies <= 3
    assert len(gets(nginx, paths[0])) == 2


def test_a_copy_of_an_object_that_changed_is_replaced(nginx: Nginx) -> None:
    """A shard that was replaced on the server is copied anew, and no index of the old one is used."""
    (path,) = served(nginx, "replaced", 20)
    assert len(wds.IndexedDataset(url_of(nginx, path), cache_shards=True)) == 20
    assert len(wds.IndexedDataset(url_of(nginx, path))) == 20
    path.write_bytes(tar_bytes(samples(20, 50)))
    os.utime(path, (1, 1))
    assert as_pairs(wds.IndexedDataset(url_of(nginx, path), cache_shards=True)) == streamed(path)


def test_compressed_shards_through_the_cache(nginx: Nginx) -> None:
    """A compressed shard is copied as it is, and read in parts where it has parts."""
    (path,) = served(nginx, "both", 20)
    for suffix, pack in ((".tgz", gzip.compress), (".tar.xz", lzma.compress)):
        packed = path.with_suffix(suffix)
        packed.write_bytes(pack(path.read_bytes()))
        for _ in range(2):
            assert as_pairs(wds.IndexedDataset(url_of(nginx, packed), cache_shards=True)) == streamed(path)
        assert [request.bytes for request in gets(nginx, packed)] == [packed.stat().st_size]


def test_a_cache_of_shards_needs_a_folder(nginx: Nginx) -> None:
    """Without a place for files the option is an error that says what to do."""
    (path,) = served(nginx, "nowhere", 2)
    with pytest.raises(ValueError, match="pass cache_dir or set WDS_CACHE"):
        wds.IndexedDataset(url_of(nginx, path), cache_shards=True, cache_dir="")


def test_headers_among_small_members_are_read_in_few_large_pieces(nginx: Nginx) -> None:
    """Where passing over data is not worth a request, the index of a shard costs its bytes once, in few requests."""
    (path,) = served(nginx, "small", 4000, size=900)
    size = path.stat().st_size
    assert size > 12e6
    assert len(wds.IndexedDataset(url_of(nginx, path), sidecars=False)) == 4000
    asked = gets(nginx, path)
    assert len(asked) <= 10
    assert sum(request.bytes for request in asked) <= size + 4096


def test_headers_among_large_members_cost_little(nginx: Nginx) -> None:
    """Of a shard with members of 8 MiB the index costs a piece around each header."""
    path = nginx.folder / "headers.tar"
    path.write_bytes(tar_bytes({f"{i}.{f}": b"x" * n for i in range(8) for f, n in (("bin", 8 << 20), ("cls", 1))}))
    assert len(wds.IndexedDataset(url_of(nginx, path), sidecars=False)) == 8
    asked = gets(nginx, path)
    assert len(asked) <= 10
    assert sum(request.bytes for request in asked) < path.stat().st_size // 50


def test_a_server_without_ranges(nginx: Nginx, caplog: pytest.LogCaptureFixture) -> None:
    """Samples come from a server without ranges too, with one warning; through the cache, each shard comes once."""
    http._tell_of_no_ranges.cache_clear()
    (path,) = served(nginx, "rangeless", 30)
    url = nginx.url(str(path.relative_to(nginx.folder)), ranges=False)
    assert as_pairs(wds.IndexedDataset(url)) == streamed(path)
    assert as_pairs([wds.IndexedDataset(url)[-1]]) == streamed(path)[-1:]
    assert [message.partition(": ")[2][:26] for message in caplog.messages] == ["the server gives no ranges"]
    before = len(gets(nginx, path))
    ds = wds.IndexedDataset(url, cache_shards=True)
    assert as_pairs(ds[i] for i in (29, 0, 7)) == [streamed(path)[i] for i in (29, 0, 7)]
    assert len(gets(nginx, path)) == before + 1


def test_a_missing_sidecar_keeps_no_shard_open(nginx: Nginx, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards are let go of when they are no longer needed, not when garbage is collected, after a 404 too."""
    monkeypatch.setattr("webdataset.indexed.OPEN_SHARDS", 1)
    monkeypatch.setattr("webdataset.openshards.OPEN_SHARDS", 1)
    paths = served(nginx, "let-go", *[2] * 8)
    gc.collect()
    gc.disable()
    try:
        ds = wds.IndexedDataset([url_of(nginx, path) for path in paths], cache_shards=True)
        assert len(list(ds)) == 16
        opened = [item for item in gc.get_objects() if type(item) is LocalShard and "/let-go" in item.url]
    finally:
        gc.enable()
    assert len(opened) == 1
