"""Downloads of wids, names of copies, the cache of open things, and cleaning up: real files, servers, processes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import time
from pathlib import Path

import pytest

from helpers import tar_bytes
from servers import Page, serve
from webdataset.errors import NotFoundError, OpenError, UnknownSchemeError
from wids.localnames import cache_localname, default_localname, hash_localname
from wids.wids_cleanup import ExclusiveLock, create_cleanup_background_process, keep_most_recent_files
from wids.wids_dl import ULockFile, default_cmds, download_and_open, download_file, recent_downloads
from wids.wids_lru import LRUCache

DATA = tar_bytes({"a.txt": b"text" * 100_000})


def test_a_download_is_whole_or_absent(tmp_path):
    """What a server gives is there under its name; what breaks off, or is not there, is not."""
    cut = Page(DATA, cut=1000, ranges=False)
    local = tmp_path / "new" / "a.tar"
    with serve({"/a.tar": DATA, "/cut.tar": cut}) as server:
        assert download_file(server.url("/a.tar"), str(local)) == str(local)
        assert local.read_bytes() == DATA
        assert recent_downloads[-1] == (server.url("/a.tar"), str(local))
        for name, error in (("/cut.tar", OpenError), ("/none.tar", NotFoundError)):
            with pytest.raises(error):
                download_file(server.url(name), str(tmp_path / "b.tar"))
            assert not (tmp_path / "b.tar").exists()


def test_names_that_a_shell_would_misread(tmp_path):
    """Quotes, blanks and dollars in urls and paths are only names."""
    source = tmp_path / "it's $HOME; touch x.tar"
    source.write_bytes(DATA)
    local = tmp_path / "copy $(touch y) 'b'.tar"
    download_file(str(source), str(local))
    assert local.read_bytes() == DATA
    assert {path.name for path in tmp_path.iterdir()} == {source.name, local.name}


def test_commands_of_a_program(tmp_path):
    """A command with {local} writes the file, one without it to its output; one that fails leaves nothing."""
    (tmp_path / "a.tar").write_bytes(DATA)
    for command in ("pipe:cat a.tar > {local}", "pipe:cat a.tar"):
        local = tmp_path / "copy.tar"
        download_file(command.replace("a.tar", str(tmp_path / "a.tar")), str(local))
        assert local.read_bytes() == DATA
        local.unlink()
    for command in (f"pipe:cat {tmp_path}/a.tar > {{local}}; exit 3", "pipe:true {local}"):
        with pytest.raises(OpenError):
            download_file(command, str(tmp_path / "copy.tar"))
        assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


def test_handlers_of_a_program(tmp_path):
    """A table of one's own has functions or commands, which run without a shell; other schemes are unknown."""
    (tmp_path / "a.tar").write_bytes(DATA)
    handlers = {"my": f"cp {tmp_path}/a.tar {{local}}", "bad": "false {url}"}
    local = str(tmp_path / "b; touch c.tar")
    download_file("my:thing", local, handlers)
    assert Path(local).read_bytes() == DATA
    with pytest.raises(OpenError, match="exit status 1"):
        download_file("bad:thing", str(tmp_path / "d.tar"), handlers)
    with pytest.raises(UnknownSchemeError, match="Unknown schema: xyz"):
        download_file("xyz:thing", str(tmp_path / "d.tar"), handlers)
    assert {"posixpath", "file", "pipe", "http", "https", "gs", "s3"} <= default_cmds.keys()
    assert len(list(tmp_path.iterdir())) == 2


def _open_many(url: str, folder: str, count: int) -> None:
    for number in range(count):
        with download_and_open(url, os.path.join(folder, f"{number % 3}.tar")) as stream:
            if stream.read() != DATA:
                os._exit(3)


def test_many_processes_open_whole_files(tmp_path):
    """500 openings by 10 processes see complete data, and each file is downloaded once."""
    context = multiprocessing.get_context("fork" if os.name == "posix" else "spawn")
    with serve({"/a.tar": Page(DATA, piece=10_000, pace=0.0005)}) as server:
        url = server.url("/a.tar")
        workers = [context.Process(target=_open_many, args=(url, str(tmp_path), 50)) for _ in range(10)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0] * 10
        assert len([request for request in server.requests if request.sent]) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.tar", "1.tar", "2.tar"]


def test_too_many_open_files(tmp_path):
    """The 101st file that is open at a time is an error; closed ones do not count."""
    (tmp_path / "a.tar").write_bytes(DATA)
    source = str(tmp_path / "a.tar")
    files = [download_and_open(source, source) for _ in range(100)]
    with pytest.raises(RuntimeError, match="Too many open objects"):
        download_and_open(source, source)
    files[0].close()
    files.append(download_and_open(source, source))
    for file in files:
        file.close()


def test_a_lock_file_is_gone_afterwards(tmp_path):
    """The file of a lock is there as long as somebody holds it."""
    path = tmp_path / "x.lock"
    with ULockFile(path):
        assert path.exists()
    assert not path.exists()


@pytest.mark.parametrize("make", [cache_localname, default_localname, hash_localname])
def test_names_of_copies(tmp_path, make):
    """Names tell urls apart, hold no secrets, travel to other processes, and nothing is made on disk."""
    name = pickle.loads(pickle.dumps(make(tmp_path / "none")))
    urls = ["http://h/a/x.tar", "http://h/b/x.tar", "http://h/a/x.tar?v=2", "pipe:cat x.tar", "/a/x.tar", "a/x.tar"]
    paths = [name(url) for url in urls]
    assert len(set(paths)) == len(urls)
    assert {os.path.dirname(path) for path in paths} == {str(tmp_path / "none")}
    assert "secret" not in name("http://user:secret@h/x.tar?token=secret")
    assert not (tmp_path / "none").exists()


def test_the_folder_of_the_environment(tmp_path, monkeypatch):
    """WIDS_CACHE says where copies are, else it is a folder among the temporary files."""
    monkeypatch.setenv("WIDS_CACHE", str(tmp_path))
    assert default_localname().folder == str(tmp_path)
    monkeypatch.delenv("WIDS_CACHE")
    assert os.path.basename(default_localname().folder) == "_wids_cache"


def test_what_was_used_last_stays():
    """Each value that goes is told once, whether it is evicted, replaced, deleted or cleared."""
    gone: list[tuple[int, int]] = []
    cache = LRUCache(2, lambda key, value: gone.append((key, value)))
    cache[1], cache[2] = 10, 20
    assert cache[1] == 10
    cache[3] = 30
    assert gone == [(2, 20)]
    assert (cache[2], 2 in cache, len(cache)) == (None, False, 2)
    cache[1] = 11
    del cache[3]
    del cache[99]
    assert gone == [(2, 20), (1, 10), (3, 30)]
    cache[4] = 40
    assert (list(cache.keys()), list(cache.values()), list(cache.items())) == ([1, 4], [11, 40], [(1, 11), (4, 40)])
    cache.clear()
    del cache
    assert gone == [(2, 20), (1, 10), (3, 30), (1, 11), (4, 40)]


def make_files(folder: Path, count: int) -> None:
    for number in range(count):
        path = folder / f"{number}.tar"
        path.write_bytes(b"x" * 100)
        os.utime(path, (number, number))


def test_the_newest_files_stay(tmp_path):
    """By number and by size, the files that changed last stay; other names too."""
    make_files(tmp_path, 6)
    (tmp_path / "other").write_bytes(b"")
    keep_most_recent_files(str(tmp_path / "*.tar"), maxfiles=4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2.tar", "3.tar", "4.tar", "5.tar", "other"]
    keep_most_recent_files(str(tmp_path / "*.tar"), maxsize=250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4.tar", "5.tar", "other"]


def test_a_file_that_is_read_stays(tmp_path):
    """What `download_and_open` has open is not removed."""
    make_files(tmp_path, 2)
    with download_and_open("x", str(tmp_path / "0.tar")):
        keep_most_recent_files(str(tmp_path / "*.tar"), maxfiles=0)
        assert [path.name for path in tmp_path.iterdir()] == ["0.tar"]


def test_an_exclusive_lock(tmp_path):
    """One has it, others do not, until it is given back."""
    first, second = ExclusiveLock(tmp_path / "lock"), ExclusiveLock(tmp_path / "lock")
    assert first.try_lock()
    assert first.try_lock()
    assert not second.try_lock()
    first.release_lock()
    first.release_lock()
    assert second.try_lock()
    second.release_lock()


def test_a_process_that_cleans_up(tmp_path):
    """A folder is kept small while the process runs; it ends when it is told to."""
    make_files(tmp_path, 5)
    process = create_cleanup_background_process(str(tmp_path / "*.tar"), maxfiles=2, every=0.05)
    try:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("*.tar"))) > 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert sorted(path.name for path in tmp_path.glob("*.tar")) == ["3.tar", "4.tar"]
    finally:
        process.terminate()
        process.join()
        process.close()
