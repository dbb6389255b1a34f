"""Local copies of shards: their names, one download each, what is refused, what is removed."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import webdataset as wds
from helpers import names_in, tar_bytes
from servers import Page, html_page, serve
from webdataset.cache import (
    FileCache,
    LRUCleanup,
    cached_url_opener,
    check_tar_format,
    download,
    get_filetype,
    islocal,
    magic_filetype,
    pipe_cleaner,
    url_to_cache_name,
)
from webdataset.errors import ConnectionLostError, NotFoundError, OpenError, SecurityError, WrongContentError


def shard(text: str, size: int = 0) -> bytes:
    """A shard of one sample, of about `size` bytes."""
    return tar_bytes({"a.txt": text.encode() + b"." * size})


SHARDS = {f"/{folder}/train-0.tar": shard(folder) for folder in ("left", "right")}


def texts(samples) -> list[bytes]:
    return [sample["txt"] for sample in samples]


def read_all(cache: FileCache, urls: list[str]) -> list[bytes]:
    """The bytes of each shard, as the cache gives them."""
    contents = []
    for source in cache(urls):
        with source["stream"] as stream:
            contents.append(stream.read())
    return contents


def size_of(folder: Path) -> int:
    """Bytes in a folder in which names change."""
    total = 0
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


@pytest.fixture
def folder(tmp_path):
    """An empty folder for copies."""
    path = tmp_path / "copies"
    path.mkdir()
    return path


# Names


@pytest.mark.parametrize(
    ("url", "ndir", "start", "end"),
    [
        ("https://host/a/b/train-0.tar", 0, "train-0-", ".tar"),
        ("https://host/a/b/train-0.tar.gz?token=secret#x", 0, "train-0-", ".tar.gz"),
        ("s3://bucket/a/b/v1.2-train.tar", 1, "b/v1.2-train-", ".tar"),
        ("http://user:secret@host/", 0, "shard-", ""),
        ("http://host/.hidden/..%2f..%2fx y.tar", 1, "_hidden/_._.._x_y-", ".tar"),
        ("pipe:curl -H 'Authorization: secret' https://host/a.tar", 0, "a-", ".tar"),
        ("pipe:cat secret/a.tar", 0, "pipe-", ""),
    ],
)
def test_names_of_copies(url, ndir, start, end):
    """A name is the file's name with a hash before its suffix; nothing secret and no way out of the folder is in it."""
    name = url_to_cache_name(url, ndir)
    assert name.startswith(start)
    assert name.endswith(end)
    assert len(name) == len(start) + 16 + len(end)
    assert "secret" not in name


def test_names_tell_urls_apart():
    """Urls that differ anywhere have different names; the same url has the same one, however long it is."""
    urls = [f"http://h{host}/{path}/a.tar?{query}" for host in "12" for path in ("a", "b" * 500) for query in "12"]
    assert len({url_to_cache_name(url) for url in urls}) == len(urls)
    assert all(len(url_to_cache_name(f"http://h/{'a' * 500}.tar", 3)) < 255 for _ in urls)


def test_the_url_inside_a_command():
    """`pipe_cleaner` gives the one remote url of a command, quoted or not, and otherwise what it was given."""
    assert pipe_cleaner("pipe:curl -s 'https://h/a.tar'") == "https://h/a.tar"
    assert pipe_cleaner("pipe:gsutil cat gs://b/a.tar | cat") == "gs://b/a.tar"
    for spec in ("pipe:cat a.tar", "https://h/a.tar", "pipe:curl http://h/a.tar http://h/b.tar"):
        assert pipe_cleaner(spec) == spec


def test_local_urls():
    """Paths and `file:` urls are local."""
    assert [islocal(url) for url in ("a.tar", "file:/a.tar", "http://h/a.tar", "pipe:cat a.tar")] == [1, 1, 0, 0]


@pytest.mark.parametrize("name", ["../a.tar", "/a.tar", "", "a/./b", "a\\b", "a\0b", 7])
def test_a_name_outside_of_the_folder(folder, name):
    """A `url_to_name` whose result leads out of the folder is refused before anything is downloaded."""
    with serve(SHARDS) as server:
        with pytest.raises(ValueError, match="url_to_name gave"):
            FileCache(folder, url_to_name=lambda url: name).get_file(server.url("/left/train-0.tar"))
        assert server.requests == []
    assert names_in(folder.parent) == []


# Content


def test_archives_are_known_by_content(tmp_path):
    """Plain archives of every kind and all compressions that we read are archives, whatever their name."""
    plain = shard("x")
    v7 = bytearray(plain)
    v7[257:265] = bytes(8)
    v7[148:156] = b"        "
    v7[148:156] = b"%06o\0 " % sum(v7[:512])
    import backports.zstd
    import lz4.frame

    packers = [bytes, gzip.compress, bz2.compress, lzma.compress, backports.zstd.compress, lz4.frame.compress]
    path = tmp_path / "file"
    for content in (plain, bytes(v7), bytes(1024), *(pack(plain) for pack in packers)):
        path.write_bytes(content)
        assert check_tar_format(path)
    broken = gzip.compress(plain)[:12] + b"broken"
    for content in (b"", b"x" * 2000, html_page().body, gzip.compress(html_page().body), plain[:300], broken):
        path.write_bytes(content)
        assert not check_tar_format(path)


def test_kinds_of_files(tmp_path):
    """`magic_filetype` and `get_filetype` say name and kind."""
    path = tmp_path / "file"
    kinds = {shard("x"): "POSIX tar archive", gzip.compress(b"x"): "gzip compressed data", b"x": "data"}
    for content, kind in kinds.items():
        path.write_bytes(content)
        assert magic_filetype(str(path)) == get_filetype(str(path)) == f"{path}: {kind}"


# Downloads


def test_two_folders_with_one_file_name(folder):
    """Shards of two folders with one file name are two copies, and the second pass makes no request."""
    with serve(SHARDS) as server:
        dataset = wds.WebDataset([server.url(path) for path in SHARDS], shardshuffle=False, cache_dir=str(folder))
        for _ in range(2):
            assert texts(dataset) == [b"left", b"right"]
        assert [request.path for request in server.requests] == list(SHARDS)
    assert len(names_in(folder)) == 2
    assert {sample["__local_path__"] for sample in dataset} == {str(folder / name) for name in names_in(folder)}


def ask(folder: str, urls: list[str], start, answers) -> None:
    start.wait()
    answers.put([source["stream"].read() for source in FileCache(folder)(urls)])


def test_many_processes_make_one_request_a_shard(folder):
    """Six processes that ask for the same shards at once get them all, with one request for each."""
    pages = {f"/{i}.tar": Page(shard(str(i), 300_000), pace=0.02, piece=50_000) for i in range(3)}
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    with serve(pages) as server:
        start, answers = context.Barrier(6), context.Queue()
        urls = [server.url(path) for path in pages]
        children = [context.Process(target=ask, args=(str(folder), urls, start, answers)) for _ in range(6)]
        for child in children:
            child.start()
        assert [answers.get(timeout=60) for _ in children] == [[page.body for page in pages.values()]] * 6
        for child in children:
            child.join()
        assert sorted(request.path for request in server.requests) == sorted(pages)
    assert len(names_in(folder)) == 3


def test_a_cut_download(tmp_path, folder):
    """A transfer that ends early is an error of who reads it; nothing is left of it where no version is known."""
    with serve({"/a.tar": Page(shard("x", 100_000), cut=5000, ranges=False)}) as server:
        with pytest.raises(ConnectionLostError):
            download(server.url("/a.tar"), tmp_path / "a.tar")
        assert len(server.requests) == 3
        with pytest.raises(ConnectionLostError):
            read_all(FileCache(folder), [server.url("/a.tar")])
        assert len(server.requests) == 6
    assert names_in(tmp_path) == []


def test_a_failed_command_leaves_nothing(folder):
    """What a command wrote before it failed is not kept."""
    with pytest.raises(OSError, match="3"):
        read_all(FileCache(folder), ["pipe:head -c 10240 /dev/zero; exit 3"])
    assert names_in(folder) == []


def test_a_web_page_is_refused(folder):
    """A page instead of a shard is an error that shows it, asked for once, and not kept."""
    with serve({"/a.tar": html_page("please log in")}) as server:
        with pytest.raises(WrongContentError, match=r"is not a tar archive, but a HTML document, contains .*log in"):
            list(FileCache(folder)([server.url("/a.tar")]))
        assert len(server.requests) == 1
        cache = FileCache(folder, validator=None)
        assert Path(cache.get_file(server.url("/a.tar"))).read_bytes() == html_page().body
    assert names_in(folder) != []


def test_handlers(folder):
    """True skips the shard that is not there, false ends the stage; a shard that is not there is asked for once."""
    with serve(SHARDS) as server:
        urls = [server.url(path) for path in ("/left/train-0.tar", "/none.tar", "/right/train-0.tar")]
        for handler, count in ((wds.ignore_and_continue, 2), (wds.ignore_and_stop, 1)):
            assert len([source["stream"].close() for source in FileCache(folder, handler=handler)(urls)]) == count
        assert [request.path for request in server.requests].count("/none.tar") == 2
        with pytest.raises(NotFoundError):
            list(FileCache(folder)(urls[1:]))


def test_download_replaces_what_is_there(tmp_path):
    """`download` gives the file anew, also over one that is there."""
    path = tmp_path / "a.tar"
    path.write_bytes(b"old")
    with serve(SHARDS) as server:
        download(server.url("/left/train-0.tar"), str(path), chunk_size=100)
    assert path.read_bytes() == SHARDS["/left/train-0.tar"]
    assert names_in(tmp_path) == ["a.tar"]


def test_a_killed_downloader(folder):
    """What a killed process left is taken over: the next one gets the whole shard."""
    body = shard("x", 2_500_000)
    with serve({"/a.tar": Page(body, pace=0.05, piece=250_000)}) as server:
        url = server.url("/a.tar")
        code = f"from webdataset.cache import FileCache; FileCache({str(folder)!r}).get_file({url!r})"
        child = subprocess.Popen([sys.executable, "-c", code])
        while not any(path.stat().st_size for path in folder.glob("*.partial")):
            assert child.poll() is None
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert [name.rpartition(".")[2] for name in names_in(folder)] == ["partial", "state"]
        assert Path(FileCache(folder).get_file(url)).read_bytes() == body
    assert [name.endswith(".tar") for name in names_in(folder)] == [True]


def test_local_files_are_not_copied(tmp_path, folder):
    """Local files are opened where they are, also as `file:` urls."""
    path = tmp_path / "a#b.tar"
    path.write_bytes(shard("x"))
    for url in (str(path), path.as_uri()):
        (source,) = FileCache(folder)([{"url": url, "extra": 1}])
        source["stream"].close()
        assert (source["url"], source["local_path"], source["extra"]) == (url, str(path), 1)
        assert FileCache(folder).get_file(url) == str(path)
    assert names_in(folder) == []


def test_the_security_switch(tmp_path, folder, monkeypatch):
    """With the switch on, local files are refused; copies of remote shards are read."""
    path = tmp_path / "a.tar"
    path.write_bytes(shard("x"))
    monkeypatch.setenv("WDS_SECURE", "1")
    with pytest.raises(SecurityError):
        list(FileCache(folder)([str(path)]))
    with serve(SHARDS) as server:
        dataset = wds.WebDataset(server.url("/left/train-0.tar"), shardshuffle=False, cache_dir=folder)
        assert texts(dataset) == texts(dataset) == [b"left"]


def test_a_folder_that_cannot_be_written(tmp_path):
    """A folder that cannot be made or written is an error that names it, at once and without a request."""
    (tmp_path / "file").write_bytes(b"")
    with serve(SHARDS) as server:
        with pytest.raises(OpenError, match="cannot be written") as caught:
            list(FileCache(tmp_path / "file")([server.url("/left/train-0.tar")]))
        assert str(tmp_path / "file") in str(caught.value)
        assert server.requests == []


def test_a_full_disk(folder):
    """When the disk is full, what is being read is streamed on with the same request, with one warning."""
    code = """
import resource, signal, sys, warnings
from webdataset import cache
folder, *urls = sys.argv[1:]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))  # a write beyond is EFBIG
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    opened = list(cache.FileCache(folder)(urls))
    for source in opened:
        with source["stream"] as stream:
            sys.stdout.buffer.write(stream.read())
    sys.exit(len(seen))
"""
    pages = {f"/{i}.tar": shard(str(i), 100_000) for i in range(2)}
    with serve(pages) as server:
        arguments = [str(folder), *(server.url(path) for path in pages)]
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, check=False)
        assert [request.path for request in server.requests] == list(pages)
    assert done.stdout == b"".join(pages.values())
    assert done.returncode == 1, done.stderr
    assert names_in(folder) == []


# Cleanup


def write_aged(folder: Path, names: str, size: int = 100) -> None:
    """Files of one letter each, the first one used longest ago."""
    for age, name in enumerate(reversed(names)):
        (folder / name).write_bytes(bytes(size))
        os.utime(folder / name, (1e9 - age, 1e9 - age))


def test_what_was_used_longest_ago_goes(folder):
    """Files go in the order of the key, those of subfolders too, until what remains fits."""
    write_aged(folder, "cadb")
    (folder / "sub").mkdir()
    write_aged(folder / "sub", "e")
    os.utime(folder / "sub" / "e", (1, 1))
    cleanup = LRUCleanup(folder, 250, keyfn=os.path.getmtime, interval=None)
    cleanup.cleanup()
    assert names_in(folder) == ["b", "d"]
    cleanup.cleanup()
    assert names_in(folder) == ["b", "d"]


def test_the_interval(folder):
    """A second look comes only after the interval, or when room is asked for."""
    cleanup = LRUCleanup(folder, 250, keyfn=os.path.getmtime, interval=1000)
    cleanup.cleanup()
    write_aged(folder, "abc")
    cleanup.cleanup()
    assert len(names_in(folder)) == 3
    cleanup.make_room()
    assert names_in(folder) == ["b", "c"]


def test_no_folder_is_nothing_to_clean(tmp_path):
    """Without a folder, or with one that is missing, nothing happens."""
    LRUCleanup(None).cleanup()
    cleanup = LRUCleanup()
    cleanup.set_cache_dir(tmp_path / "missing")
    cleanup.cleanup()
    assert names_in(tmp_path) == []


def test_use_keeps_a_shard(folder):
    """The cache removes the shard that was not used longest, not the oldest one."""
    pages = {f"/{name}.tar": shard(name, 20_000) for name in "abcd"}
    size = len(pages["/a.tar"])
    with serve(pages) as server:
        cache = FileCache(folder, cache_size=3 * size, cache_cleanup_interval=None)
        for name in "abcad":
            read_all(cache, [server.url(f"/{name}.tar")])
            time.sleep(0.02)  # longer than a tick of the file system's clock
        assert [name[0] for name in names_in(folder)] == ["a", "c", "d"]
        assert [request.path[1] for request in server.requests] == list("abcd")


def test_the_quota_holds_without_waiting(folder):
    """The folder never holds more than its size and the shard that is being read, whatever the interval."""
    pages = {f"/{i}.tar": shard(str(i), 20_000) for i in range(6)}
    size = len(pages["/0.tar"])
    with serve(pages) as server:
        for source in FileCache(folder, cache_size=2 * size)([server.url(path) for path in pages]):
            assert size_of(folder) <= 3 * size
            assert source["stream"].read() == pages[f"/{source['url'][-5]}.tar"]
            source["stream"].close()
    assert 0 < len(names_in(folder)) <= 3


def test_an_open_shard_is_not_removed(folder):
    """A cleanup, also that of another process, leaves the shard that is being read."""
    with serve(SHARDS) as server:
        (source,) = FileCache(folder)([server.url("/left/train-0.tar")])
    code = f"from webdataset import LRUCleanup; LRUCleanup({str(folder)!r}, 0, interval=None).cleanup()"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert len(names_in(folder)) == 1
    source["stream"].close()
    subprocess.run([sys.executable, "-c", code], check=True)
    assert names_in(folder) == []


# Choosing the cache


def test_the_environment_chooses_the_cache(folder, monkeypatch):
    """WDS_CACHE turns the cache on and WDS_CACHE_SIZE, also as 1e12, bounds it; `~` is the user's folder."""
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.setenv("WDS_CACHE", "~/copies")
    monkeypatch.setenv("WDS_CACHE_SIZE", "1e12")
    with serve(SHARDS) as server:
        dataset = wds.WebDataset(server.url("/left/train-0.tar"), shardshuffle=False)
        assert texts(dataset) == [b"left"]
    assert len(names_in(folder)) == 1
    (cache,) = [stage for stage in dataset.pipeline if isinstance(stage, FileCache)]
    assert cache.cleaner.cache_size == 1e12
    assert (wds.cache.default_cache_dir, wds.cache.default_cache_size) == ("~/copies", 1e12)
    without = wds.WebDataset("a.tar", shardshuffle=False, cache_size=0)
    assert not [stage for stage in without.pipeline if isinstance(stage, FileCache)]
    monkeypatch.setenv("WDS_CACHE_SIZE", "many")
    with pytest.raises(ValueError, match="WDS_CACHE_SIZE must be a number of bytes, got 'many'"):
        wds.WebDataset("a.tar")


def test_defaults_without_environment(monkeypatch):
    """Without the variables the defaults are those of the published package."""
    for name in ("WDS_CACHE", "WDS_CACHE_SIZE", "WDS_VERBOSE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    assert (wds.cache.default_cache_dir, wds.cache.default_cache_size) == ("./_cache", 1e18)
    assert wds.cache.verbose_cache == 0


def test_a_missing_folder(tmp_path, monkeypatch):
    """A folder that is not there is an error when the data set is made, whoever named it."""
    missing = str(tmp_path / "missing")
    with pytest.raises(ValueError, match=f"^cache directory {missing} does not exist; make it first"):
        wds.WebDataset("a.tar", cache_dir=missing)
    with pytest.raises(ValueError, match="is no folder; make it first"):
        wds.WebDataset("a.tar", cache_dir=__file__)
    monkeypatch.setenv("WDS_CACHE", missing)
    with pytest.raises(ValueError, match=f"^cache directory {missing} does not exist; make it first"):
        wds.WebDataset("a.tar")


def test_the_log(folder, monkeypatch, caplog):
    """WDS_VERBOSE_CACHE=1 and verbose=True log downloads and uses."""
    monkeypatch.setenv("WDS_VERBOSE_CACHE", "1")
    with serve(SHARDS) as server, caplog.at_level("INFO", "webdataset"):
        texts(wds.WebDataset(server.url("/left/train-0.tar"), shardshuffle=False, cache_dir=folder))
    assert [message.split()[0] for message in caplog.messages] == ["downloading", "opening"]


def test_commands_and_names_of_ones_own(folder):
    """A command shares the copy of the url inside it; `url_to_name` gives other names, with folders."""
    with serve(SHARDS) as server:
        url = server.url("/left/train-0.tar")
        for urls in ([url], [f"pipe:curl -s {url}"]):
            assert texts(wds.WebDataset(urls, shardshuffle=False, cache_dir=folder)) == [b"left"]
        assert len(server.requests) == 1
        named = wds.WebDataset([url], shardshuffle=False, cache_dir=folder, url_to_name=lambda url: "sub/one.tar")
        assert texts(named) == [b"left"]
    assert "sub/one.tar" in names_in(folder)


def test_the_functions_of_old(folder):
    """`cached_url_opener`, `cached_tarfile_samples` and its curried twin read through the cache."""
    with serve(SHARDS) as server:
        shards = [{"url": server.url(path)} for path in SHARDS]
        for source in cached_url_opener(shards, cache_dir=str(folder)):
            with source["stream"] as stream:
                assert stream.read() == SHARDS[source["url"].removeprefix(server.base)]
        assert texts(wds.cached_tarfile_samples(shards, cache_dir=str(folder))) == [b"left", b"right"]
        stage = wds.cached_tarfile_to_samples(cache_dir=str(folder), select_files=lambda name: name.endswith("txt"))
        pipeline = wds.DataPipeline(wds.SimpleShardList([shard["url"] for shard in shards]), stage)
        assert texts(pipeline) == [b"left", b"right"]
        assert len(server.requests) == 2
        for source in cached_url_opener(shards, cache_size=0):
            source["stream"].close()
        assert len(server.requests) == 4


def test_standard_input_is_not_copied(folder, monkeypatch):
    """`-` is standard input, read as it comes."""
    data = shard("x")
    code = f"import webdataset as wds; print(len(list(wds.cached_tarfile_samples(['-'], cache_dir={str(folder)!r}))))"
    done = subprocess.run([sys.executable, "-c", code], input=data, stdout=subprocess.PIPE, check=True)
    assert int(done.stdout) == 1
    assert names_in(folder) == []


def test_streams_of_ones_own_scheme(folder, monkeypatch):
    """What a registered opener gives is cached as well, also when it is a bare stream."""
    calls = []

    def opener(url, mode, bufsize, **kw):
        calls.append(url)
        return io.BytesIO(shard("x"))

    monkeypatch.setitem(wds.gopen_schemes, "memory", opener)
    dataset = wds.WebDataset("memory:x/a.tar", shardshuffle=False, cache_dir=folder)
    assert texts(dataset) == texts(dataset) == [b"x"]
    assert calls == ["memory:x/a.tar"]
