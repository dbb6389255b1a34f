"""What every opener must do. Subclass OpenerContract and say how bytes get to a url, and where written ones went."""

from __future__ import annotations

import contextlib
import io
import os
import random
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import tar_bytes
from stores import STARTED
from webdataset.errors import OpenError
from webdataset.gopen import gopen

DATA = b"".join(b"%d: line\n" % number for number in range(30_000))


def descriptors() -> int:
    """Descriptors that this process has open."""
    return len(os.listdir("/proc/self/fd"))


def children() -> set[int]:
    """Processes whose parent is this process, zombies too; not multiprocessing's tracker, which stays once started,
    nor the servers of the tests."""
    from multiprocessing.resource_tracker import _resource_tracker

    tracker = getattr(_resource_tracker, "_pid", None)
    found = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) not in STARTED:
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{entry}/stat").read_text()
                if int(stat.rpartition(")")[2].split()[1]) == os.getpid() and int(entry) != tracker:
                    found.add(int(entry))
    return found


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether the condition comes true: what another process or thread does takes its time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


class ReaderContract:
    """Fixtures to give: `url_of(data)` makes a url that reads as data; `missing` is a url of nothing."""

    def test_reads_everything(self, url_of):
        """read() gives all bytes, and then none, as often as it is asked."""
        with gopen(url_of(DATA)) as stream:
            assert stream.read() == DATA
            assert stream.read() == b""
            assert stream.read(5) == b""

    def test_reads_nothing_from_nothing(self, url_of):
        """An empty object is no error."""
        with gopen(url_of(b"")) as stream:
            assert stream.read(100) == b""

    def test_read_gives_what_is_asked_for(self, url_of):
        """read(n) gives n bytes unless the data ends."""
        sizes = random.Random(5)
        rest = DATA
        with gopen(url_of(DATA)) as stream:
            while rest:
                size = sizes.choice([0, 1, 511, 512, 8192, 8193, 100_000])
                assert stream.read(size) == rest[:size]
                rest = rest[size:]
            assert stream.read(1) == b""

    def test_read1_gives_what_is_there(self, url_of):
        """read1(n) gives at most n bytes, and none only at the end."""
        pieces = []
        with gopen(url_of(DATA)) as stream:
            while piece := stream.read1(10_000):
                assert len(piece) <= 10_000
                pieces.append(piece)
            assert stream.read1(1) == b""
        assert b"".join(pieces) == DATA

    def test_readinto_fills_the_buffer(self, url_of):
        """readinto fills the whole buffer, and says how much it was at the end."""
        buffer = bytearray(len(DATA) - 10)
        with gopen(url_of(DATA)) as stream:
            assert stream.readinto(buffer) == len(buffer)
            assert buffer == DATA[:-10]
            assert stream.readinto(buffer) == 10
            assert buffer[:10] == DATA[-10:]
            assert stream.readinto(buffer) == 0

    def test_iterates_over_lines(self, url_of):
        """Iteration and readline give lines."""
        lines = DATA[:9000].splitlines(keepends=True)
        with gopen(url_of(DATA[:9000])) as stream:
            assert stream.readline() == lines[0]
            assert list(stream) == lines[1:]

    def test_wraps_as_text(self, url_of):
        """The stream is enough of a file for io.TextIOWrapper."""
        with io.TextIOWrapper(gopen(url_of("größer\n".encode())), encoding="utf-8") as text:
            assert text.read() == "größer\n"

    def test_reads_as_tar(self, url_of):
        """The stream is enough of a file for the standard tarfile."""
        archive = tar_bytes({f"{number}.txt": b"x" * number for number in range(200)})
        with gopen(url_of(archive)) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
            assert [(member.name, member.size) for member in tar] == [(f"{n}.txt", n) for n in range(200)]

    def test_closes(self, url_of):
        """The block closes the stream, closing twice is fine, and reading afterwards is an error."""
        with gopen(url_of(DATA)) as stream:
            assert stream.readable()
            assert not stream.closed
        assert stream.closed
        stream.close()
        with pytest.raises(ValueError, match="closed"):
            stream.read(1)

    def test_closed_early_leaves_nothing(self, url_of):
        """After closing early, again and again, no descriptor, child process or thread of ours is left."""
        big = DATA * 20
        url = url_of(big)
        with gopen(url) as stream:
            stream.read(1)
        assert eventually(lambda: not children())
        before = descriptors()
        for _ in range(20):
            with gopen(url) as stream:
                assert stream.read(10) == big[:10]
        assert children() == set()
        assert eventually(lambda: descriptors() <= before)

    def test_read_whole_leaves_nothing(self, url_of):
        """After reading to the end, again and again, no descriptor or child process is left."""
        url = url_of(DATA)
        with gopen(url) as stream:
            stream.read()
        before = descriptors()
        for _ in range(20):
            with gopen(url) as stream:
                assert len(stream.read()) == len(DATA)
        assert children() == set()
        assert eventually(lambda: descriptors() <= before)

    def test_nothing_there(self, missing):
        """Opening what is not there, or reading it, is an OpenError that names the url."""

        def read() -> bytes:
            with gopen(missing) as stream:
                return stream.read()

        before = descriptors()
        with pytest.raises(OpenError) as caught:
            read()
        assert str(caught.value).startswith(missing)
        assert "\n" not in str(caught.value)
        assert children() == set()
        assert eventually(lambda: descriptors() <= before + 2)  # one connection may be kept, and both ends are here


class OpenerContract(ReaderContract):
    """One fixture more: `target` is (url to write, function that gives what was written)."""

    def test_writes(self, target):
        """What is written, in pieces of any size and kind, is there after closing."""
        url, written = target
        pieces = [DATA[:1], DATA[1:513], b"", bytearray(DATA[513:2000]), memoryview(DATA)[2000:]]
        with gopen(url, "wb") as stream:
            assert stream.writable()
            for piece in pieces:
                assert stream.write(piece) == len(piece)
        assert stream.closed
        assert written() == DATA
        assert children() == set()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("webdataset")]
