"""Large objects from slow connections: several ranges at a time, in order, bounded, of one version."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time

import pytest

from opener_contract import descriptors, eventually
from servers import Page, serve
from webdataset.errors import OpenError
from webdataset.storage.options import storage_options
from webdataset.storage.places import open_read

BIG = os.urandom(1 << 16) * 128  # 8 MiB
VERSION = {"ETag": '"one"', "Accept-Ranges": "bytes"}


def slow(**kw) -> Page:
    """At most 6 MB/s a connection."""
    return Page(BIG, piece=1 << 15, pace=0.005, **{"headers": VERSION, **kw})


def ranges_of(server) -> list[str]:
    return [request.headers["Range"] for request in server.requests if request.headers.get("Range")]


def fetchers() -> int:
    return sum(thread.name == "webdataset range" for thread in threading.enumerate())


@pytest.mark.parametrize("size", [-1, 1000, 1 << 20, (1 << 20) + 7])
def test_a_slow_object_comes_over_several_connections_in_order(size):
    """The bytes are the object's; ranges of it were asked for by version, each byte of them once."""
    with serve({"/a": slow()}) as server:
        with open_read(server.url("/a")) as stream:
            data = b"".join(iter(lambda: stream.read(size), b""))
        assert data == BIG
        assert stream.got == stream.length == len(BIG)
        asked = sorted(tuple(map(int, text[6:].split("-"))) for text in ranges_of(server))
        assert len(asked) > 1
        assert all(request.headers["If-Match"] == '"one"' for request in server.requests[1:])
        assert [stop + 1 for _, stop in asked] == [*(start for start, _ in asked[1:]), len(BIG)]
    assert fetchers() == 0


def test_the_next_object_of_a_slow_server_is_spread_at_once():
    """A server that was slow is taken for slow: one large read of the next object is right, and comes in ranges."""
    with serve({"/a": slow(), "/b": slow()}) as server:
        with open_read(server.url("/a")) as stream:
            assert stream.read() == BIG
        before = len(server.requests)
        with open_read(server.url("/b")) as stream:
            assert stream.read(len(BIG)) == BIG
        assert len(server.requests) > before + 1


def test_a_fast_object_comes_over_one_connection():
    """Where the reader is the slower one, a single request is sent."""
    got = []
    with serve({"/a": Page(BIG, headers=VERSION)}) as server, open_read(server.url("/a")) as stream:
        for piece in iter(lambda: stream.read(1 << 18), b""):
            got.append(piece)
            time.sleep(0.02)  # training
        assert b"".join(got) == BIG
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "headers", [{"Accept-Ranges": "bytes"}, {"ETag": '"one"'}, {"ETag": 'W/"one"'} | VERSION | {"ETag": 'W/"1"'}]
)
def test_nothing_is_spread_without_a_version_or_ranges(headers):
    """A server that gives no strong ETag, or no ranges, is read over one connection."""
    with serve({"/a": slow(headers=headers)}) as server, open_read(server.url("/a")) as stream:
        assert stream.read() == BIG
        assert len(server.requests) == 1


def test_one_connection_when_that_is_asked_for():
    """`connections=1` never sends a second request."""
    with serve({"/a": slow()}) as server, open_read(server.url("/a"), storage_options(connections=1)) as stream:
        assert stream.read() == BIG
        assert len(server.requests) == 1


def test_pieces_that_break_go_on():
    """A connection that is cut in the middle of a piece goes on there."""
    with serve({"/a": slow(cut=700_000)}) as server, open_read(server.url("/a")) as stream:
        assert stream.read() == BIG


def test_an_object_that_is_replaced_is_an_error():
    """Pieces of another version never get into the stream."""
    pages = {"/a": slow()}
    with serve(pages) as server, open_read(server.url("/a"), storage_options(ahead=1 << 20)) as stream:
        got = [stream.read(3 << 20)]
        assert eventually(lambda: len(ranges_of(server)) > 0)
        pages["/a"] = slow(status=412)
        with pytest.raises(OpenError, match="replaced while it was read"):
            got.extend(iter(lambda: stream.read(1 << 16), b""))
        assert BIG.startswith(b"".join(got))


def test_memory_is_bounded():
    """Not more than `ahead` bytes are asked for before they are read."""
    options = storage_options(ahead=4 << 20)
    with serve({"/a": slow()}) as server, open_read(server.url("/a"), options) as stream:
        stream.read(2 << 20)
        stream.read(1)
        assert eventually(lambda: len(ranges_of(server)) >= 2)
        assert not eventually(lambda: len(ranges_of(server)) * (1 << 20) > (5 << 20), 1.0)


@pytest.mark.parametrize("read", [1, 2 << 20, 4 << 20])
def test_closing_early_leaves_nothing(read):
    """A stream that is closed in the middle leaves no thread and no connection."""
    with serve({"/a": slow()}) as server:
        open_read(server.url("/a")).close()
        before = descriptors()
        stream = open_read(server.url("/a"))
        stream.read(read)
        stream.close()
        assert eventually(lambda: fetchers() == 0 and descriptors() <= before + 2)
        with pytest.raises(ValueError, match="closed"):
            stream.read(1)


def test_a_forgotten_stream_leaves_nothing():
    """A stream that is dropped in the middle ends its threads."""
    with serve({"/a": slow()}) as server:
        stream = open_read(server.url("/a"))
        stream.read(4 << 20)
        del stream
        assert eventually(lambda: fetchers() == 0)


@pytest.mark.parametrize("read", [1000, 4 << 20])
def test_a_forked_copy_reads_on(read):
    """A process forked in the middle reads the rest over a connection of its own; so does the parent, unharmed."""
    program = f"""
import os, sys
from webdataset.storage.places import open_read
stream = open_read(sys.argv[1])
stream.read({read})
child = os.fork()
rest = stream.read()
stream.close()
print(len(rest), hash(rest), flush=True)
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""
    with serve({"/a": slow()}) as server:
        command = [sys.executable, "-W", "error", "-c", program, server.url("/a")]
        done = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
    one, other = done.stdout.splitlines()
    assert one == other
    assert one.split()[0] == str(len(BIG) - read)


def test_a_piece_that_never_comes_is_an_error():
    """When a piece fails for good, the reader is told how far the object had come."""
    pages = {"/a": slow()}
    with serve(pages) as server, open_read(server.url("/a"), storage_options(ahead=1 << 20)) as stream:
        stream.read(3 << 20)
        pages["/a"] = slow(status=500)
        with pytest.raises(OpenError, match="HTTP 500"):
            list(iter(lambda: stream.read(1 << 16), b""))
        with pytest.raises(OpenError):
            stream.read(1)


@pytest.mark.parametrize("limit", [1, 2])
def test_a_server_that_takes_few_connections(limit):
    """A server that refuses further connections of one client is read over as many as it takes."""
    lock = threading.Lock()
    answered = []

    def answer(request) -> Page:
        with lock:
            if sum(not other.done for other in answered) >= limit:
                return Page(status=429)
            answered.append(request)
            return slow()

    options = storage_options(attempts=7, backoff=0.02)
    with serve(answer) as server, open_read(server.url("/a"), options) as stream:
        assert stream.read() == BIG
        assert len(answered) < len(server.requests)
    assert fetchers() == 0


def test_a_server_that_takes_one_connection_and_a_slow_reader():
    """Threads that gave up while the first connection was open do not end the read: what is left is asked for again."""
    answered = []

    def answer(request) -> Page:
        if not all(other.done for other in answered):
            return Page(status=429)
        answered.append(request)
        return slow()

    with serve(answer) as server, open_read(server.url("/a"), storage_options(attempts=2, backoff=0.02)) as stream:
        begin = stream.read(1 << 20)
        while not fetchers() and len(begin) < len(BIG):
            begin += stream.read(1 << 16)
        assert eventually(lambda: fetchers() == 0)
        assert len(begin) < len(BIG)
        assert begin + stream.read() == BIG


def test_faults_everywhere():
    """Pieces that are cut, reset, refused and stalled, in any order: the bytes are the object's."""
    chance = random.Random(3)

    def answer(request) -> Page:
        cut = chance.randint(0, 400_000)
        faults = [slow(), slow(cut=cut), slow(cut=cut, reset=True), slow(cut=cut, stall=60), Page(status=503)]
        return chance.choice(faults)

    options = storage_options(attempts=20, backoff=0.001, read_timeout=0.3)
    with serve(answer) as server, open_read(server.url("/a"), options) as stream:
        assert stream.read() == BIG
        assert len(server.requests) > 4


def test_connections_that_bring_nothing_are_given_up():
    """A server that is slow as a whole is read over one connection in the end; its next object, from the beginning."""
    page = Page(BIG * 3, headers=VERSION, piece=1 << 15, pace=0.002, gate=threading.Lock())
    with serve({"/a": page, "/b": page}) as server:
        with open_read(server.url("/a")) as stream:
            assert stream.read() == BIG * 3
        asked = len(server.requests)
        assert asked > 1
        with open_read(server.url("/b")) as stream:
            assert stream.read() == BIG * 3
        assert len(server.requests) == asked + 1
