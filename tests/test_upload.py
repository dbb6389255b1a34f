"""Uploads: what is written arrives whole or not at all, whatever fails on the way."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping

import pytest

from servers import Page, serve
from webdataset import gopen
from webdataset.errors import OpenError
from webdataset.storage import upload
from webdataset.storage.options import storage_options
from webdataset.storage.places import open_write
from webdataset.storage.target import Target

DATA = random.Random(5).randbytes(3_000_000)
QUICK = storage_options(backoff=0.01, attempts=4)


class Failing(Mapping):
    """Pages of a server that answers the first requests for each path as told, and the later ones well."""

    def __init__(self, *pages: Page) -> None:
        self.pages = pages
        self.asked: dict[str, int] = {}

    def get(self, path, default=None):
        count = self.asked[path] = self.asked.get(path, 0) + 1
        return self.pages[count - 1] if count <= len(self.pages) else default

    def __getitem__(self, path):
        raise KeyError(path)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def threads() -> list[threading.Thread]:
    """Sending threads that are still there."""
    return [thread for thread in threading.enumerate() if thread.name == "webdataset upload"]


def write_in_pieces(stream, data: bytes, piece: int = 300_000) -> None:
    """Write and close."""
    with stream:
        for start in range(0, len(data), piece):
            stream.write(data[start : start + piece])


@pytest.mark.parametrize("size", [0, 10, 3_000_000, 20_000_000])
def test_a_put_is_sent_again(size):
    """A PUT that the server answers with 500 or 503 is sent again, out of memory or of the temporary file."""
    data = (DATA * 7)[:size]
    with serve(Failing(Page(status=500), Page(status=503))) as server:
        write_in_pieces(open_write(server.url("/up"), QUICK), data)
        assert server.uploads == {"/up": data}
        assert [request.headers["Content-Length"] for request in server.requests] == [str(size)] * 3


def test_patience_ends():
    """After all attempts the error says how many there were; nothing is there."""
    with serve(Failing(*[Page(status=503)] * 9)) as server:
        stream = open_write(server.url("/up"), QUICK)
        stream.write(b"data")
        with pytest.raises(OpenError, match=r"/up: HTTP 503 .* \(given up after 4 attempts"):
            stream.close()
        stream.close()
        assert server.uploads == {}


def test_what_is_there_stays_unless_it_may_be_replaced():
    """overwrite=False asks before the first byte whether it exists; the default replaces it."""
    with serve({"/up": b"precious"}) as server:
        with pytest.raises(OpenError, match=r"/up: it exists; .* overwrite=True"):
            gopen(server.url("/up"), "wb", overwrite=False)
        assert server.uploads == {}
        gopen(server.url("/up"), "wb").close()
        assert server.uploads == {"/up": b""}


def test_what_came_in_between_stays():
    """The PUT asks the server to keep what appeared while the object was written; a server that cannot be asked before
    gets it all the same."""
    with serve(Failing(Page(status=403), Page(status=412))) as server:
        stream = gopen(server.url("/up"), "wb", overwrite=False)
        with pytest.raises(OpenError, match=r"/up: it exists; .* overwrite=True"):
            stream.close()
        gopen(server.url("/up"), "wb", overwrite=False).close()
        assert [(request.method, request.headers["If-None-Match"]) for request in server.requests] == [
            ("HEAD", None),
            ("PUT", "*"),
            ("HEAD", None),
            ("PUT", "*"),
        ]
        assert server.uploads == {"/up": b""}


def test_progress_counts_what_was_sent():
    """The function is called with the bytes of each piece that was sent; what is sent again is taken off first."""
    sent = []
    with serve(Failing(Page(status=500))) as server:
        stream = open_write(server.url("/up"), QUICK)
        stream.progress = sent.append
        write_in_pieces(stream, DATA)
    assert sum(sent) == len(DATA)
    assert [count for count in sent if count < 0] == [-len(DATA)]


def test_a_full_temporary_folder_is_one_line(monkeypatch):
    """When what waits to be sent does not fit into the temporary folder, the error names it and says what to do."""

    def full_file(**kw):
        return open("/dev/full", "wb", buffering=0)

    monkeypatch.setattr(tempfile, "TemporaryFile", full_file)
    with serve({}) as server:
        stream = open_write(server.url("/up"))
        with pytest.raises(OpenError, match=r"No space left on device .*let TMPDIR name a roomy folder"):
            write_in_pieces(stream, DATA * 4)
        assert server.uploads == {}


def test_a_forked_copy_does_nothing():
    """A copy of the stream in a forked process can be neither written nor closed; the original goes on."""
    with serve({}) as server:
        stream = open_write(server.url("/up"))
        stream.write(b"mine")
        child = os.fork()
        if child == 0:
            try:
                stream.write(b"theirs")
            except OpenError as exn:
                stream.close()
                os._exit(0 if "forked" in str(exn) else 1)
            os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        stream.close()
        assert server.uploads == {"/up": b"mine"}


class MemoryPlace(upload.Steps):
    """A place in this process that takes parts, several at a time.

    Attributes:
        calls: what was asked of it, in order.
        object: the complete object, None before.
        most: parts that were sent at the same time, at most.
    """

    part_size = 1000
    parallel = 4

    def __init__(self, fail_at: int | None = None, **options) -> None:
        super().__init__(Target("memory://object", ""), storage_options(**options))
        self.calls: list[str] = []
        self.object: bytes | None = None
        self.fail_at = fail_at
        self.most = self.now = 0
        self.lock = threading.Lock()
        self.go_on = threading.Event()
        self.go_on.set()

    def put(self, body):
        self.calls.append("put")
        self.object = bytes(body)

    def begin(self):
        self.calls.append("begin")

    def part(self, number, offset, data, last):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.go_on.wait(10)
        with self.lock:
            self.now -= 1
            self.calls.append(f"part {number} at {offset}{' last' if last else ''}")
        if number == self.fail_at:
            raise OpenError("this part is not wanted", url=self.target.url)
        return bytes(data)

    def complete(self, parts):
        self.calls.append("complete")
        self.object = b"".join(parts)

    def abort(self):
        self.calls.append("abort")


@pytest.mark.parametrize("size", [0, 1, 999, 1000])
def test_what_fits_into_a_part_is_put_at_once(size):
    """No upload in parts is begun for it."""
    place = MemoryPlace()
    write_in_pieces(upload.Upload(place), DATA[:size], 300)
    assert (place.object, place.calls) == (DATA[:size], ["put"])


@pytest.mark.parametrize(("size", "piece"), [(1001, 300), (4000, 1000), (4001, 4001), (9999, 7)])
def test_parts_make_the_object(size, piece):
    """Parts are full but for the last one, which is marked; the object is their sum, in order."""
    place = MemoryPlace()
    write_in_pieces(upload.Upload(place), DATA[:size], piece)
    count = -(-size // 1000)
    parts = [f"part {number} at {1000 * number}{' last' if number == count - 1 else ''}" for number in range(count)]
    assert place.object == DATA[:size]
    assert (place.calls[0], sorted(place.calls[1:-1]), place.calls[-1]) == ("begin", sorted(parts), "complete")


@pytest.mark.parametrize(
    ("options", "most"), [({}, 4), ({"connections": 2}, 2), ({"ahead": 3000}, 3), ({"ahead": 1}, 1)]
)
def test_parts_that_are_under_way_are_bounded(options, most):
    """As many as the place likes, the option connections allows, and fit into the option ahead; the writer waits."""
    place = MemoryPlace(**options)
    place.go_on.clear()
    writer = threading.Thread(target=write_in_pieces, args=(upload.Upload(place), DATA[:20_000], 1000))
    writer.start()
    while place.now < most:
        assert writer.is_alive()
    place.go_on.set()
    writer.join()
    assert (place.most, place.object) == (most, DATA[:20_000])


def test_parts_grow():
    """So that the 10 000 parts which a place takes hold large objects, later parts are larger."""
    place = MemoryPlace()
    place.part_size = 1
    with upload.Upload(place) as stream:
        stream.write(DATA[:8000])
    assert place.object == DATA[:8000]
    assert len(place.calls) == 2 + 1500 + 1500 + (8000 - 4500 + 3) // 4


@pytest.mark.parametrize("number", [0, 5, 19])
def test_a_part_that_fails_fails_the_upload(number):
    """The error comes out of a write or of close, the upload is taken back, and there is no object."""
    place = MemoryPlace(fail_at=number)
    with pytest.raises(OpenError, match="memory://object: this part is not wanted"):
        write_in_pieces(upload.Upload(place), DATA[:20_000], 1000)
    assert (place.object, place.calls[-1]) == (None, "abort")
    assert "complete" not in place.calls
    assert threads() == []


def test_after_a_failed_write_there_is_no_object():
    """A program that goes on hears that there will be none, and close is quiet."""
    place = MemoryPlace(fail_at=0, ahead=1)
    stream = upload.Upload(place)
    with pytest.raises(OpenError, match="not wanted"):
        stream.write(DATA[:5000])
    with pytest.raises(OpenError, match="an earlier write failed"):
        stream.write(b"more")
    stream.close()
    assert (place.object, place.calls[-1]) == (None, "abort")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_takes_the_upload_back(error):
    """What leaves the block by an exception, Ctrl-C too, leaves nothing."""

    def fail_in_the_middle(stream):
        with stream:
            stream.write(DATA[:5000])
            raise error

    place = MemoryPlace()
    with pytest.raises(error):
        fail_in_the_middle(upload.Upload(place))
    assert (place.object, place.calls[-1]) == (None, "abort")
    assert threads() == []


def test_a_forgotten_upload_is_taken_back():
    """The garbage collector is enough."""
    place = MemoryPlace()
    upload.Upload(place).write(DATA[:5000])
    gc.collect()
    assert (place.object, place.calls[-1]) == (None, "abort")
    assert threads() == []


def test_the_end_of_the_program_takes_an_upload_back():
    """A stream that nobody closed is no object; the place is told, while that can still be done."""
    program = """
import sys
sys.path.insert(0, sys.argv[1])
from test_upload import DATA, MemoryPlace, upload
class Place(MemoryPlace):
    def abort(self):
        print("taken back", self.object)
stream = upload.Upload(Place())
stream.write(DATA[:5000])
print("end")
"""
    command = [sys.executable, "-c", program, os.path.dirname(__file__)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "end\ntaken back None\n"
