"""Shards that are read while they are downloaded: one request each, whoever dies, breaks off or changes."""

from __future__ import annotations

import gzip
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import webdataset as wds
from helpers import names_in, tar_bytes
from opener_contract import children, descriptors, eventually
from servers import Page, serve
from webdataset import cachecleanup
from webdataset.cache import FileCache, LRUCleanup, url_to_cache_name
from webdataset.errors import ConnectionLostError, NotFoundError, OpenError, WrongContentError

fork = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")


def shard(seed: int, samples: int = 10, size: int = 10_000) -> bytes:
    """A shard of random texts, the same for the same seed."""
    numbers = random.Random(seed)
    return tar_bytes({f"{seed}-{i}.txt": numbers.randbytes(size) for i in range(samples)})


def slow(body: bytes, etag: str | None = '"one"', **kw) -> Page:
    """A page at some 2 MB/s."""
    headers = {} if etag is None else {"ETag": etag}
    return Page(body, **{"pace": 0.01, "piece": 20_000, "headers": headers, **kw})


def read(cache: FileCache, url: str) -> bytes:
    (source,) = cache([url])
    with source["stream"] as stream:
        return stream.read()


@pytest.fixture
def folder(tmp_path):
    """A folder for copies."""
    path = tmp_path / "copies"
    path.mkdir()
    return path


@pytest.fixture(autouse=True)
def _one_connection(monkeypatch):
    """A request a shard, so that requests can be counted."""
    options = '{"attempts": 3, "backoff": 0.01, "deadline": 60, "connections": 1}'
    monkeypatch.setenv("WDS_STORAGE_OPTIONS", options)


def run(target, *args) -> multiprocessing.Process:
    process = fork.Process(target=target, args=args)
    process.start()
    return process


# Reading while it comes


def test_the_first_sample_comes_before_the_download_ends(folder):
    """From a server of 200 KB/s, through the cache, the first sample is there when little has been served."""
    body = shard(0, samples=40)
    with serve({"/a.tar": slow(body, pace=0.1)}) as server:
        dataset = wds.WebDataset(server.url("/a.tar"), shardshuffle=False, cache_dir=folder)
        samples = iter(dataset)
        first = next(samples)
        assert server.served < len(body) / 2
        assert first["txt"] == random.Random(0).randbytes(10_000)
        assert 1 + sum(1 for _ in samples) == 40
        assert len(server.requests) == 1
    (name,) = names_in(folder)
    assert (folder / name).read_bytes() == body


def epoch(folder: str, urls: list[str], start, answers) -> None:
    start.wait()
    keys = [sample["__key__"] for sample in wds.WebDataset(urls, shardshuffle=False, cache_dir=folder)]
    answers.put(keys)


def test_eight_processes_ask_for_each_of_twenty_shards_once(folder):
    """Eight processes that read twenty shards of a slow server at once make twenty requests; later ones make none."""
    pages = {f"/{i}.tar": slow(shard(i), etag=None) for i in range(20)}
    with serve(pages) as server:
        start, answers = fork.Barrier(8), fork.Queue()
        urls = [server.url(path) for path in pages]
        processes = [run(epoch, str(folder), urls, start, answers) for _ in range(8)]
        expected = [f"{i}-{j}" for i in range(20) for j in range(10)]
        assert [answers.get(timeout=90) for _ in processes] == [expected] * 8
        for process in processes:
            process.join()
        assert sorted(request.path for request in server.requests) == sorted(pages)
        read_again = [sample["__key__"] for sample in wds.WebDataset(urls, shardshuffle=False, cache_dir=folder)]
        assert read_again == expected
        assert len(server.requests) == 20
    assert len(names_in(folder)) == 20


def test_readers_of_one_process_share_a_download(folder):
    """Two streams of one shard in one process make one request; each has all bytes, at its own pace."""
    body = shard(0)
    with serve({"/a.tar": slow(body)}) as server:
        cache, url = FileCache(folder), server.url("/a.tar")
        (first,), (second,) = cache([url]), cache([url])
        with first["stream"] as one, second["stream"] as two:
            assert two.read() == body
            assert one.read() == body
        assert len(server.requests) == 1


def test_two_shards_with_one_base_name_stay_two(folder):
    """Shards of two folders that are downloaded at the same time under one file name are two copies."""
    pages = {f"/{place}/a.tar": slow(shard(place)) for place in range(2)}
    with serve(pages) as server:
        cache = FileCache(folder)
        sources = list(cache([server.url(path) for path in pages]))
        contents = []
        for source in sources:
            with source["stream"] as stream:
                contents.append(stream.read())
        assert contents == [page.body for page in pages.values()]
    assert len(names_in(folder)) == 2


def test_a_whole_file_from_the_start(folder):
    """With wait=True, or a validator that must see the whole, the file is there when its stream is given."""
    body = shard(0)
    with serve({"/a.tar": slow(body), "/b.tar": slow(body)}) as server:
        seen = []

        def validator(path: str) -> bool:
            seen.append(Path(path).read_bytes())
            return True

        for cache, path in (
            (FileCache(folder, wait=True), "/a.tar"),
            (FileCache(folder, validator=validator), "/b.tar"),
        ):
            (source,) = cache([server.url(path)])
            assert Path(source["local_path"]).read_bytes() == body
            source["stream"].close()
        assert seen == [body]


def test_a_web_page_ends_the_download_early(folder):
    """What does not begin as an archive is refused by its first bytes, and the rest is not fetched."""
    page = slow(b"<html>" + b"please log in " * 1_000_000)
    with serve({"/a.tar": page}) as server:
        with pytest.raises(WrongContentError, match="please log in"):
            list(FileCache(folder)([server.url("/a.tar")]))
        assert eventually(lambda: not any("download" in thread.name for thread in threading.enumerate()))
        assert server.served < len(page.body) / 2
    assert names_in(folder) == []


def test_compressed_shards_are_read_while_they_come(folder):
    """Compressed shards too; something else that is compressed never becomes a copy."""
    body = gzip.compress(shard(0))
    with serve({"/a.tgz": slow(body), "/b.tgz": slow(gzip.compress(os.urandom(50_000)))}) as server:
        assert read(FileCache(folder), server.url("/a.tgz")) == body
        with pytest.raises(wds.errors.TarError):
            list(wds.WebDataset(server.url("/b.tgz"), shardshuffle=False, cache_dir=folder))
        with pytest.raises(WrongContentError):
            FileCache(folder).get_file(server.url("/b.tgz"))
    assert [name[0] for name in names_in(folder)] == ["a"]


# Breaking off


def test_two_hundred_epochs_with_an_early_break(folder):
    """After 200 passes that end early, no more memory, descriptors, threads or processes are in use than after 20."""
    body = shard(0, samples=40, size=20_000)
    with serve({"/a.tar": slow(body, pace=0.001), "/b.tar": slow(body, pace=0.001)}) as server:
        urls = [server.url("/a.tar"), server.url("/b.tar")]

        def passes(count: int) -> tuple[int, ...]:
            for _ in range(count):
                next(iter(wds.WebDataset(urls, shardshuffle=False, cache_dir=folder)))
                for path in folder.iterdir():
                    if random.random() < 0.2:
                        path.unlink(missing_ok=True)
            assert eventually(lambda: not any("download" in thread.name for thread in threading.enumerate()))
            clients = sum(thread.name != "Thread" for thread in threading.enumerate())
            return descriptors(), clients, len(children()), memory()

        before = passes(20)
        after = passes(180)
    for was, now, slack in zip(before, after, (20, 10, 0, 8 << 20), strict=True):
        assert now <= was + slack


def memory() -> int:
    """Resident bytes of this process."""
    import gc

    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_a_reader_that_leaves_stops_its_download(folder):
    """Closing early stops the download; the next reader goes on at the byte where it stopped."""
    body = shard(0, samples=100)
    with serve({"/a.tar": slow(body)}) as server:
        (source,) = FileCache(folder)([server.url("/a.tar")])
        with source["stream"] as stream:
            assert stream.read(50_000) == body[:50_000]
        (partial,) = folder.glob("*.partial")
        came = partial.stat().st_size
        assert 50_000 <= came < len(body)
        assert read(FileCache(folder), server.url("/a.tar")) == body
        ranges = [request.headers.get("Range") for request in server.requests]
        assert ranges == [None, None, f"bytes={came}-"]
    assert len(names_in(folder)) == 1


def test_over_several_connections(folder, monkeypatch):
    """A download that is spread over several connections can be broken off and continued as well."""
    monkeypatch.setenv("WDS_STORAGE_OPTIONS", '{"attempts": 3, "backoff": 0.01, "deadline": 60, "connections": 4}')
    body = shard(0, samples=40, size=300_000)
    with serve({"/a.tar": slow(body, headers={"ETag": '"one"', "Accept-Ranges": "bytes"}, piece=50_000)}) as server:
        (source,) = FileCache(folder)([server.url("/a.tar")])
        with source["stream"] as stream:
            assert stream.read(6_000_000) == body[:6_000_000]
        asked = len(server.requests)
        assert asked > 1
        (partial,) = folder.glob("*.partial")
        assert body.startswith(partial.read_bytes())
        assert partial.stat().st_size < len(body)
        assert read(FileCache(folder), server.url("/a.tar")) == body
        assert int(server.requests[asked + 1].headers["Range"].removeprefix("bytes=").rstrip("-")) >= 6_000_000
    assert len(names_in(folder)) == 1


def test_a_reader_takes_over_from_one_that_leaves(folder):
    """When the reader whose process downloads leaves, another one goes on at that byte, with all bytes right."""
    body = shard(0, samples=100)
    with serve({"/a.tar": slow(body)}) as server:
        cache, url = FileCache(folder), server.url("/a.tar")
        (first,), (second,) = cache([url]), cache([url])
        with second["stream"] as stream:
            start = stream.read(10_000)
            first["stream"].close()
            assert start + stream.read() == body
        assert len(server.requests) == 3
    assert len(names_in(folder)) == 1


@pytest.mark.parametrize("etag", ['"one"', None])
def test_a_killed_downloader_with_a_reader_behind_it(folder, etag):
    """A reader of another process takes over from a killed one; without a version, by comparing what is there."""
    body = shard(0, samples=100)
    with serve({"/a.tar": slow(body, etag=etag, pace=0.04)}) as server:
        url = server.url("/a.tar")
        process = run(read, FileCache(folder), url)
        assert eventually(lambda: bool(list(folder.glob("*.partial"))))
        (source,) = FileCache(folder)([url])
        with source["stream"] as stream:
            start = stream.read(30_000)
            assert len(server.requests) == 1
            process.kill()
            assert start + stream.read() == body
        process.join()
        ranged = [request.headers.get("Range") is not None for request in server.requests]
        # a download that was through before it could be killed needs nothing more
        assert ranged in ([False], [False, False, True] if etag else [False, False])
    assert len(names_in(folder)) == 1


@pytest.mark.parametrize("versions", [('"one"', '"two"'), (None, None)])
def test_an_object_that_was_replaced_is_not_continued(folder, versions):
    """What another version left is thrown away: the next reader gets the new object, whole."""
    old, new = shard(1, samples=100), shard(2, samples=100)
    pages = {"/a.tar": slow(old, versions[0])}
    with serve(pages) as server:
        (source,) = FileCache(folder)([server.url("/a.tar")])
        with source["stream"] as stream:
            stream.read(50_000)
        pages["/a.tar"] = slow(new, versions[1])
        assert read(FileCache(folder), server.url("/a.tar")) == new
    (name,) = names_in(folder)
    assert (folder / name).read_bytes() == new


def test_an_object_that_is_replaced_while_it_is_read(folder):
    """A reader that has the old beginning hears of it; it never gets a mixture."""
    old, new = shard(1, samples=100), shard(2, samples=100)
    pages = {"/a.tar": slow(old, '"one"')}
    with serve(pages) as server:
        cache, url = FileCache(folder), server.url("/a.tar")
        (first,), (second,) = cache([url]), cache([url])
        second["stream"].read(10)
        pages["/a.tar"] = slow(new, '"two"')
        first["stream"].close()
        with second["stream"] as stream, pytest.raises(OpenError, match="replaced while it was read"):
            stream.read()
        assert read(cache, url) == new


def fail(folder: str, url: str, answers) -> None:
    try:
        read(FileCache(folder), url)
    except OSError as exn:
        answers.put((type(exn).__name__, str(exn)))


def test_readers_hear_why_a_download_failed(folder):
    """When the download breaks for good, readers of other processes get its error, without requests of their own."""
    body = shard(0, samples=100)
    with serve({"/a.tar": slow(body, etag=None, ranges=False, cut=300_000)}) as server:
        answers, url = fork.Queue(), server.url("/a.tar")
        process = run(fail, str(folder), url, answers)
        assert eventually(lambda: bool(list(folder.glob("*.partial"))))
        with pytest.raises(ConnectionLostError) as caught:
            read(FileCache(folder), url)
        assert answers.get(timeout=30) == ("ConnectionLostError", str(caught.value))
        process.join()
        assert len(server.requests) == 3
    assert names_in(folder) == []


def test_a_shard_that_is_not_there(folder):
    """A shard that is not there is an error when it is opened, and leaves nothing."""
    with serve({}) as server:
        with pytest.raises(NotFoundError):
            list(FileCache(folder)([server.url("/a.tar")]))
        assert len(server.requests) == 1
    assert names_in(folder) == []


def test_a_failed_command_is_tried_again(folder, tmp_path):
    """A command that fails in the middle is run again, behind the bytes that are there."""
    body = shard(0)
    (tmp_path / "whole").write_bytes(body)
    flag = tmp_path / "failed"
    command = "if [ -e {0} ]; then cat {1}; else touch {0}; head -c 30000 {1}; exit 3; fi"
    assert read(FileCache(folder), "pipe:" + command.format(flag, tmp_path / "whole")) == body


# Killing


def work(folder: str, urls: list[str]) -> None:
    for source in FileCache(folder, cache_size=10**9)(urls):
        with source["stream"] as stream:
            stream.read()


def test_a_hundred_rounds_of_killing(folder):
    """Processes killed at any moment of a download leave a cache that works, and never a wrong byte."""
    numbers = random.Random(0)
    pages = {f"/{i}.tar": slow(shard(i, samples=3), etag=f'"{i}"' if i % 2 else None, pace=0.002) for i in range(4)}
    with serve(pages) as server:
        urls = [server.url(path) for path in pages]
        for _ in range(100):
            order = numbers.sample(urls, len(urls))
            processes = [run(work, str(folder), order[i:] + order[:i]) for i in range(2)]
            time.sleep(numbers.uniform(0, 0.1))
            place = numbers.randrange(len(urls))
            (source,) = FileCache(folder)([urls[place]])  # a reader that is there before and after
            for process in processes:
                process.kill()
            for process in processes:
                process.join()
            with source["stream"] as stream:
                assert stream.read() == pages[f"/{place}.tar"].body
            for path, page in pages.items():
                copy = folder / url_to_cache_name(server.url(path))
                if copy.exists():
                    assert copy.read_bytes() == page.body
                    if numbers.random() < 0.7:
                        copy.unlink()
        for url, page in zip(urls, pages.values(), strict=True):
            assert read(FileCache(folder), url) == page.body
        asked = len(server.requests)
        work(str(folder), urls)
        assert len(server.requests) == asked
    assert names_in(folder) == sorted(url_to_cache_name(url) for url in urls)


def test_leftovers_are_swept(folder):
    """What a killed process left goes with the next download when nobody has continued it for a day."""
    body = shard(0, samples=100)
    with serve({"/a.tar": slow(body), "/b.tar": slow(body), "/c.tar": shard(1)}) as server:
        for path in ("/a.tar", "/b.tar"):
            (source,) = FileCache(folder)([server.url(path)])
            source["stream"].close()
        old = time.time() - 2 * cachecleanup.ABANDONED
        for path in folder.glob("a-*"):
            os.utime(path, (old, old))
        read(FileCache(folder), server.url("/c.tar"))
    assert [name[0] + name.rpartition(".")[2] for name in names_in(folder)] == ["bpartial", "bstate", "ctar"]


# Bounds


def test_what_is_under_way_counts(folder):
    """Room is made for the whole of a download when it begins, also for one that another process is at."""
    body = shard(0, samples=100)
    pages = {"/old.tar": body, "/a.tar": slow(body), "/b.tar": slow(body)}
    with serve(pages) as server:
        cache = FileCache(folder, cache_size=int(2.5 * len(body)))
        read(cache, server.url("/old.tar"))
        (first,) = cache([server.url("/a.tar")])
        assert any(name.startswith("old-") and name.endswith(".tar") for name in names_in(folder))
        (second,) = cache([server.url("/b.tar")])
        assert not any(name.startswith("old-") for name in names_in(folder))
        for source in (first, second):
            with source["stream"] as stream:
                assert stream.read() == body


def test_what_is_used_without_locks_stays(folder, monkeypatch):
    """Where there are no locks, a cleanup removes only what nobody used lately, and nothing in the making."""
    import errno
    import fcntl

    def no_locks(fd, operation):
        raise OSError(errno.ENOTSUP, "no locks here")

    body = shard(0)
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with serve({"/a.tar": slow(body), "/b.tar": slow(body)}) as server:
        cache = FileCache(folder, cache_size=10)
        (one,), (two,) = cache([server.url("/a.tar")]), cache([server.url("/a.tar")])
        for source in (one, two):
            with source["stream"] as stream:
                assert stream.read() == body
        assert len(server.requests) == 2
        read(cache, server.url("/b.tar"))
    assert sorted(name[0] for name in names_in(folder)) == ["a", "b"]
    monkeypatch.setattr(cachecleanup, "LATELY", 0.0)
    LRUCleanup(folder, 10, interval=None).cleanup()
    assert names_in(folder) == []


# Versions of copies


def test_a_stale_copy(folder, monkeypatch):
    """With revalidate, a copy of another version is replaced, with a request without a body at each use; else never."""
    pages = {"/a.tar": Page(shard(1), headers={"ETag": '"one"'})}
    with serve(pages) as server:
        url = server.url("/a.tar")
        cache = FileCache(folder, revalidate=True)
        assert read(cache, url) == read(cache, url) == pages["/a.tar"].body
        assert [request.method for request in server.requests] == ["GET", "HEAD"]
        old = pages["/a.tar"].body
        pages["/a.tar"] = Page(shard(2), headers={"ETag": '"two"'})
        assert read(FileCache(folder), url) == old
        assert len(server.requests) == 2
        monkeypatch.setenv("WDS_CACHE_REVALIDATE", "1")
        assert read(FileCache(folder), url) == pages["/a.tar"].body
        assert read(FileCache(folder), url) == pages["/a.tar"].body
        assert [request.method for request in server.requests[2:]] == ["HEAD", "GET", "HEAD"]
        del pages["/a.tar"]
        assert read(FileCache(folder), url) == shard(2)
    assert sorted(name.rpartition(".")[2] for name in names_in(folder)) == ["etag", "tar"]
    LRUCleanup(folder, 10, interval=None).cleanup()
    assert names_in(folder) == []


@pytest.mark.parametrize(
    "queries",
    [
        ["X-Amz-Algorithm=A&X-Amz-Date={n}&X-Amz-Expires=9&X-Amz-Credential={n}&X-Amz-Signature={n}&versionId=7"],
        ["versionId=7&AWSAccessKeyId=k&Expires={n}&Signature={n}"],
        ["X-Goog-Date={n}&X-Goog-Signature={n}&versionId=7"],
        ["sv=2021&se={n}&sp=r&sig={n}&versionId=7"],
        ["Policy={n}&Signature={n}&Key-Pair-Id=K&versionId=7"],
    ],
)
def test_signed_urls_have_one_copy(queries):
    """A url that is signed anew has the name that it had; what is no part of the signature tells copies apart."""
    url = f"https://host/a/b.tar?{queries[0]}"
    assert url_to_cache_name(url.format(n=1)) == url_to_cache_name(url.format(n=2))
    assert url_to_cache_name(url.format(n=1)) == url_to_cache_name("https://host/a/b.tar?versionId=7")
    assert url_to_cache_name(url.format(n=1)) != url_to_cache_name(url.format(n=1).replace("Id=7", "Id=8"))


def test_queries_without_a_signature_count(folder):
    """A query that only looks like a part of a signature tells copies apart."""
    names = {url_to_cache_name(f"https://host/a.tar?{query}") for query in ("Expires=1", "Expires=2", "sv=1", "se=1")}
    assert len(names) == 4


# Forks


def hold(ready, stop) -> None:
    ready.set()
    stop.wait()


def test_a_forked_process_holds_no_lock(folder):
    """A process that was forked during a download does not keep others from taking over when the downloader dies."""
    body = shard(0, samples=100)
    code = f"""
import multiprocessing, sys, time
from webdataset.cache import FileCache
(source,) = FileCache({str(folder)!r})([sys.argv[1]])
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
child.start()
print(child.pid, flush=True)
time.sleep(60)
"""
    with serve({"/a.tar": slow(body)}) as server:
        url = server.url("/a.tar")
        parent = subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, text=True)
        child = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        parent.stdout.close()
        try:
            assert read(FileCache(folder), url) == body
        finally:
            os.kill(child, signal.SIGKILL)
    assert len(names_in(folder)) == 1
