"""Remote shards that come next are opened while one is read: in order, few, and closed when they are not wanted."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

import webdataset as wds
from helpers import tar_bytes
from opener_contract import descriptors, eventually
from servers import Page, serve

NUMBER = 12


def shards(**kw) -> dict[str, Page]:
    """Shards of two samples each."""
    pages = {}
    for shard in range(NUMBER):
        members = {f"{shard:02d}-{sample}.txt": b"%d" % shard for sample in range(2)}
        pages[f"/{shard:02d}.tar"] = Page(tar_bytes(members), **kw)
    return pages


def urls(server) -> list[str]:
    return [server.url(f"/{shard:02d}.tar") for shard in range(NUMBER)]


def keys(samples) -> list[str]:
    return [sample["__key__"] for sample in samples]


KEYS = [f"{shard:02d}-{sample}" for shard in range(NUMBER) for sample in range(2)]


def opening() -> int:
    return sum(thread.name == "webdataset open" for thread in threading.enumerate())


def test_samples_come_in_order():
    """Opening ahead changes no order, and each shard is asked for once."""
    with serve(shards(delay=0.02)) as server:
        assert keys(wds.WebDataset(urls(server), shardshuffle=False)) == KEYS
        assert sorted(request.path for request in server.requests) == [f"/{shard:02d}.tar" for shard in range(NUMBER)]


def test_the_first_shard_is_opened_alone():
    """Nothing is asked for beside the first shard, one shard beside the second, two beside the third."""
    with serve(shards()) as server:
        opened = iter(wds.StreamingOpen()(urls(server)))
        asked = []
        for _ in range(4):
            next(opened)["stream"].close()
            assert eventually(lambda: opening() == 0)
            asked.append(len(server.requests))
        opened.close()
    assert asked == [1, 3, 5, 7]


def test_as_many_as_the_options_say():
    """`connections` bounds how many shards wait, and `ahead` how many bytes they may announce."""
    for options, most in (({"connections": 2}, 2), ({"ahead": 1}, 1)):
        with serve(shards()) as server:
            opened = iter(wds.StreamingOpen(storage_options=options)(urls(server)))
            for number in range(1, 9):
                next(opened)["stream"].close()
                assert eventually(lambda: opening() == 0)
                assert len(server.requests) <= number + most
            opened.close()


def test_an_error_comes_in_its_turn():
    """A shard that is not there fails when its turn comes; the handler decides, and the next ones follow."""
    pages = shards()
    del pages["/05.tar"]
    with serve(pages) as server:
        data = iter(wds.WebDataset(urls(server), shardshuffle=False))
        got = [next(data)["__key__"] for _ in range(10)]
        with pytest.raises(FileNotFoundError, match=r"05\.tar: HTTP 404"):
            next(data)
        lenient = wds.WebDataset(urls(server), shardshuffle=False, handler=wds.ignore_and_continue)
        assert keys(lenient) == KEYS[:10] + KEYS[12:]
    assert got == KEYS[:10]


def test_a_list_that_fails_gives_what_came_before():
    """An error of the list of shards comes after the samples of the shards that it gave."""

    def failing(server):
        yield from ({"url": url} for url in urls(server)[:6])
        raise RuntimeError("the list broke")

    with serve(shards()) as server:
        got = []
        with pytest.raises(RuntimeError, match="the list broke"):
            got.extend(sample for sample in wds.tarfile_samples(failing(server)))
    assert len(got) <= 12


def test_leaving_early_closes_what_was_opened():
    """A loop that ends early, or is forgotten, leaves no connection and no thread."""
    with serve(shards(delay=0.05)) as server:
        list(wds.WebDataset(urls(server), shardshuffle=False))
        assert eventually(lambda: opening() == 0)
        before = descriptors()
        for _ in range(5):
            data = iter(wds.WebDataset(urls(server), shardshuffle=False))
            for _ in range(13):
                next(data)
            del data
        assert eventually(lambda: opening() == 0 and descriptors() <= before + 4)


def test_local_lists_are_not_asked_ahead(tmp_path):
    """For local shards, and commands, no further url is taken before its turn: a list may hand out work."""
    path = tmp_path / "a.tar"
    path.write_bytes(tar_bytes({"a.txt": b"1"}))
    for url in (str(path), f"pipe:cat {path}"):
        taken = []

        def handing_out(url=url, taken=taken):
            for number in range(5):
                taken.append(number)
                yield url

        opened = iter(wds.StreamingOpen()(handing_out()))
        for number in range(5):
            next(opened)["stream"].close()
            assert len(taken) == number + 1


def test_own_handlers_open_in_turn(monkeypatch):
    """A handler that the program registered is called in the program's thread, when its shard is read."""
    threads = []

    def mine(url, mode, bufsize, **kw):
        threads.append(threading.current_thread())
        return open(os.devnull, "rb")

    monkeypatch.setitem(wds.gopen_schemes, "http", mine)
    for opened in wds.StreamingOpen()(["http://nowhere.invalid/a", "http://nowhere.invalid/b"]):
        opened["stream"].close()
    assert set(threads) == {threading.current_thread()}


def test_a_forked_copy_opens_its_own():
    """A process forked in the middle of a pass reads on from the shards, over connections of its own."""
    program = """
import os, sys
import webdataset as wds
data = iter(wds.WebDataset(sys.argv[1:], shardshuffle=False))
for _ in range(8):
    next(data)
child = os.fork()
if child == 0:
    print(",".join(sample["__key__"] for sample in data), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(",".join(sample["__key__"] for sample in data))
"""
    with serve(shards()) as server:
        command = [sys.executable, "-W", "error", "-c", program, *urls(server)]
        done = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
    assert done.stdout.split() == [",".join(KEYS[8:])] * 2


def test_options_of_a_data_set():
    """`storage_options` reach the reads of a data set; names that there are not are told."""
    with serve(shards(status=503)) as server, pytest.raises(OSError, match="given up after 2 attempts"):
        next(iter(wds.WebDataset(urls(server), shardshuffle=False, storage_options={"attempts": 2})))
    with pytest.raises(ValueError, match="no storage option 'retries'"):
        wds.WebDataset("a.tar", storage_options={"retries": 2})
