"""Conversions: several writers side by side, uploads in the background, and going on after kill -9."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from servers import Page, serve
from store_relay import relay
from webdataset import ShardWriter, TarWriter
from webdataset.errors import OpenError
from webdataset.headway import Headway, read_headway


def samples(count: int, size: int = 10):
    return [{"__key__": f"{number:04d}", "bin": bytes([number % 256]) * size} for number in range(count)]


def shards_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def shards_on(s3, prefix: str = "") -> dict[str, bytes]:
    listed = s3.client.list_objects_v2(Bucket=s3.bucket, Prefix=prefix).get("Contents", [])
    return {item["Key"].removeprefix(prefix): s3.get(item["Key"]) for item in listed}


def write_all(sink: ShardWriter, items) -> None:
    with sink:
        for sample in items:
            sink.write(sample)


# Uploads in the background


def test_the_same_bytes_on_a_server_and_in_a_folder(s3, tmp_path):
    """Where shards are written to makes no difference to them; small ones and those in parts alike."""
    (tmp_path / "d").mkdir()
    items = [*samples(7), {"__key__": "large", "bin": random.Random(3).randbytes(18 << 20)}, *samples(3)]
    for pattern in (f"{tmp_path}/d/a-%03d.tar", s3.url("d/a-%03d.tar"), s3.url("z/a-%03d.tar.gz")):
        write_all(ShardWriter(pattern, maxcount=4), items)
    with TarWriter(s3.url("one.tar")) as sink:
        for sample in items[:4]:
            sink.write(sample)
    assert shards_on(s3, "d/") == shards_in(tmp_path / "d")
    assert [data[:2] for data in shards_on(s3, "z/").values()] == [b"\x1f\x8b"] * 3
    assert s3.get("one.tar") == (tmp_path / "d" / "a-000.tar").read_bytes()


def test_post_is_called_when_the_shard_is_there_in_order_in_the_thread_of_the_program(s3, monkeypatch):
    """Whichever upload ends first; the log says when one has ended."""
    seen = []

    def first_last(request):
        if request.path.endswith("a-0.tar") and request.method == "PUT":
            time.sleep(0.3)

    def post(name):
        seen.append((name, len(s3.get(name.rpartition("/")[2])), threading.current_thread()))

    with relay(s3.endpoint) as between:
        between.lock, between.fault = contextlib.nullcontext(), first_last
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.base)
        write_all(ShardWriter(s3.url("a-%d.tar"), maxcount=1, post=post, uploads=4), samples(5))
    assert seen == [(s3.url(f"a-{number}.tar"), 10240, threading.main_thread()) for number in range(5)]


def test_the_program_writes_on_while_shards_are_uploaded():
    """Two shards may be on their way besides the one that is being written; with one more, the writer waits."""
    there, go_on = [], threading.Event()

    class Slow(dict):
        def get(self, path, default=None):
            there.append(path)
            go_on.wait(30)
            return default

    with serve(Slow()) as server:
        sink = ShardWriter(server.url("/a-%d.tar"), maxcount=1, overwrite=True, uploads=2)
        for sample in samples(3):
            sink.write(sample)
        waiting = threading.Thread(target=sink.write, args=(samples(4)[3],))
        waiting.start()
        while len(there) < 2:
            assert waiting.is_alive()
            time.sleep(0.01)
        assert server.uploads == {}
        assert sink.fname == server.url("/a-2.tar")
        go_on.set()
        waiting.join()
        sink.close()
        assert sorted(server.uploads) == [f"/a-{number}.tar" for number in range(4)]


def test_an_upload_that_fails_comes_out_of_the_next_write_or_of_close(caplog):
    """With the name of its shard; nothing later is posted, and the writer takes no more."""
    for count in (1, 3):
        posted = []
        with serve({"/a-1.tar": Page(status=403)}) as server:
            sink = ShardWriter(server.url("/a-%d.tar"), maxcount=1, overwrite=True, post=posted.append)
            sink.write(samples(1)[0])

            def go_on(sink=sink, count=count):
                for sample in samples(count):
                    sink.write(sample)
                sink.close()

            with pytest.raises(OpenError, match=r"/a-1\.tar: HTTP 403"):
                go_on()
            if count > 1:
                with pytest.raises((OpenError, ValueError), match=r"HTTP 403|closed"):
                    sink.write(samples(1)[0])
            sink.close()
            assert posted == [server.url("/a-0.tar")]
            assert set(server.uploads) <= {"/a-0.tar", "/a-2.tar"}


def test_an_exception_gives_up_what_is_on_its_way(s3, monkeypatch):
    """A shard whose upload has not ended is given up with the one that is being written; what is there stays."""
    stuck = threading.Event()

    def hold(request):
        if request.path.endswith("a-1.tar") and request.query.get("partNumber"):
            stuck.wait(30)

    def fail(sink):
        with sink:
            for sample in samples(3, size=20_000_000):
                sink.write(sample)
            threading.Timer(1, stuck.set).start()
            raise KeyError

    with relay(s3.endpoint) as between:
        between.lock, between.fault = contextlib.nullcontext(), hold
        monkeypatch.setenv("AWS_ENDPOINT_URL", between.base)
        with pytest.raises(KeyError):
            fail(ShardWriter(s3.url("a-%d.tar"), maxcount=1))
    assert set(shards_on(s3)) <= {"a-0.tar"}


def test_progress_is_told(s3, caplog):
    """The function is called with the bytes of the shard that were sent so far, up to all of them."""
    told: dict[str, list[int]] = {}
    caplog.set_level(logging.INFO, "webdataset")
    sink = ShardWriter(
        s3.url("a-%d.tar"), maxcount=1, progress=lambda name, sent: told.setdefault(name, []).append(sent)
    )
    write_all(sink, samples(2, size=9_000_000))
    size = len(s3.get("a-0.tar"))
    assert {name: max(sent) for name, sent in told.items()} == {s3.url(f"a-{number}.tar"): size for number in (0, 1)}
    assert all(sent == sorted(sent) for sent in told.values())
    lines = [record.getMessage() for record in caplog.records]
    assert lines[-1] == f"uploaded {s3.url('a-1.tar')}"


def test_shards_on_a_server_stay(s3):
    """A shard that is there is an error when its turn comes; overwrite=True replaces it."""
    s3.put("a-1.tar", b"precious")
    with pytest.raises(OpenError, match=r"a-1.tar: it exists; .* overwrite=True"):
        write_all(ShardWriter(s3.url("a-%d.tar"), maxcount=1), samples(3))
    assert s3.get("a-1.tar") == b"precious"
    write_all(ShardWriter(s3.url("a-%d.tar"), maxcount=1, overwrite=True), samples(3))
    assert s3.get("a-1.tar") != b"precious"


def test_a_forked_copy_of_a_writer_does_nothing(tmp_path):
    """A child that ends, or that writes, leaves the files of its parent as they are."""
    sink = ShardWriter(f"{tmp_path}/a-%d.tar")
    sink.write(samples(1)[0])
    child = os.fork()
    if child == 0:
        try:
            sink.close()
        except OpenError as exn:
            sink.__del__()
            os._exit(0 if "forked" in str(exn) else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    write_all(sink, samples(3)[1:])
    write_all(ShardWriter(f"{tmp_path}/b-%d.tar"), samples(3))
    assert (tmp_path / "a-0.tar").read_bytes() == (tmp_path / "b-0.tar").read_bytes()


# Several writers


def test_several_writers_divide_the_numbers(tmp_path):
    """Writer r of n writes the shards r, r + n, r + 2 n, ... from start_shard on."""
    for rank in range(3):
        write_all(ShardWriter(f"{tmp_path}/a-%d.tar", maxcount=1, start_shard=5, rank=rank, world_size=3), samples(2))
    assert sorted(shards_in(tmp_path)) == sorted(f"a-{number}.tar" for number in range(5, 11))
    with pytest.raises(ValueError, match="rank must be less than world_size, which is 3, got 3"):
        ShardWriter(f"{tmp_path}/a-%d.tar", rank=3, world_size=3)


# Going on


def converted(item: int):
    """The samples of an item: none, one or several."""
    return [{"__key__": f"{item:05d}-{part}", "bin": bytes([item % 256]) * 900} for part in range(item % 4)]


def convert(sink: ShardWriter, items, stop_after: int | None = None) -> int:
    """Write the samples of the items; after some of them, fail. The result is how many items were converted."""
    asked = 0
    with sink:
        for item in sink.remaining(items):
            asked += 1
            for sample in converted(item):
                if stop_after is not None and sink.total >= stop_after:
                    raise KeyError
                sink.write(sample)
    return asked


@pytest.mark.parametrize("maxcount", [1, 4, 7])
@pytest.mark.parametrize("stop_after", [0, 1, 3, 4, 5, 8, 20, 28, 29])
def test_a_conversion_goes_on_in_the_middle_of_an_item(tmp_path, maxcount, stop_after):
    """However many samples an item gives, the shards are those of a conversion that was not stopped, and items whose
    samples are there are not converted again."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    convert(ShardWriter(f"{tmp_path}/a/%02d.tar", maxcount=maxcount), range(20))
    with pytest.raises(KeyError):
        convert(ShardWriter(f"{tmp_path}/b/%02d.tar", maxcount=maxcount, resume=True), range(20), stop_after)
    again = ShardWriter(f"{tmp_path}/b/%02d.tar", maxcount=maxcount, resume=True)
    there = stop_after // maxcount * maxcount if stop_after else 0
    there -= maxcount if there and there == stop_after else 0  # the shard was full, and nobody had asked for the next
    assert again.total == there
    asked = convert(again, range(20))
    assert asked == 20 - again.done
    assert sum(len(converted(item)) for item in range(again.done)) <= there
    assert again.total == 30
    record = (tmp_path / "b" / "00.tar.progress").read_bytes()
    assert shards_in(tmp_path / "b") == {**shards_in(tmp_path / "a"), "00.tar.progress": record}


def test_a_conversion_that_has_ended_has_nothing_left(tmp_path):
    """Started once more it converts nothing; items that came at the end go to new shards."""
    for end, asked in ((10, 10), (10, 0), (12, 2)):
        assert convert(ShardWriter(f"{tmp_path}/%02d.tar", maxcount=100, resume=True), range(end)) == asked
    assert sorted(shards_in(tmp_path)) == ["00.tar", "00.tar.progress", "01.tar"]


def test_without_remaining_an_item_is_a_sample(tmp_path):
    """`done` says how many samples need not be written again, for programs that skip them themselves."""
    items = samples(10)
    sink = ShardWriter(f"{tmp_path}/%02d.tar", maxcount=3, resume=True)
    for sample in items[:8]:
        sink.write(sample)
    sink._abandon()
    sink._closed = True
    again = ShardWriter(f"{tmp_path}/%02d.tar", maxcount=3, resume=True)
    assert (again.done, again.total, again.shard) == (6, 6, 2)
    write_all(again, items[again.done :])
    assert len(shards_in(tmp_path)) == 5


def test_shards_of_others_are_not_replaced(tmp_path):
    """Only a shard that the stopped writer had begun may be there; any other one is an error as ever."""
    (tmp_path / "00.tar").write_bytes(b"precious")
    with pytest.raises(OpenError, match="it exists"):
        ShardWriter(f"{tmp_path}/%02d.tar", resume=True)
    (tmp_path / "00.tar").rename(tmp_path / "03.tar")
    with pytest.raises(KeyError):
        convert(ShardWriter(f"{tmp_path}/%02d.tar", maxcount=2, resume=True), range(20), 3)
    (tmp_path / "01.tar").write_bytes(b"it was begun, and is there, but nobody wrote that down")
    with pytest.raises(OpenError, match=r"03\.tar: it exists"):
        convert(ShardWriter(f"{tmp_path}/%02d.tar", maxcount=2, resume=True), range(20))
    assert (tmp_path / "03.tar").read_bytes() == b"precious"
    assert len((tmp_path / "01.tar").read_bytes()) == 10240


def test_what_cannot_be_resumed_is_refused(tmp_path):
    """Commands and openers, another number of writers, a record that is none: each is one line."""
    for arguments in ({"pattern": "pipe:cat > %d.tar"}, {"pattern": "%d.tar", "opener": open}):
        with pytest.raises(ValueError, match="resume=True needs a path, or a url"):
            ShardWriter(**arguments, resume=True)
    convert(ShardWriter(f"{tmp_path}/%02d.tar", resume=True, world_size=2), range(4))
    with pytest.raises(ValueError, match=r"00.tar.progress: that conversion has world_size=2, this writer 3"):
        ShardWriter(f"{tmp_path}/%02d.tar", resume=True, world_size=3)
    (tmp_path / "01.tar.progress").write_text("{}")
    with pytest.raises(OpenError, match=r"01.tar.progress: this is no record of how far"):
        ShardWriter(f"{tmp_path}/%02d.tar", resume=True, world_size=2, rank=1)
    assert read_headway(f"{tmp_path}/00.tar.progress") == Headway(2, 0, 6, 4, 0, 2)


CONVERSION = """
import sys
import webdataset as wds

def sample_of(number):
    return {"__key__": f"{number:06d}", "bin": bytes([number % 256]) * 40_000}

with wds.ShardWriter(sys.argv[1], maxcount=10, resume=True, index=True) as sink:
    for number in sink.remaining(range(400)):
        sink.write(sample_of(number))
        print(number, flush=True)
"""


def convert_with_kills(pattern: str) -> int:
    """Run the conversion, killed again and again, until it ends; how often it was killed."""
    rng = random.Random(11)
    kills = 0
    while True:
        command = [sys.executable, "-c", CONVERSION, pattern]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            for _ in range(rng.randrange(30, 70)):
                if not process.stdout.readline():
                    break
            else:
                time.sleep(rng.uniform(0, 0.02))
                process.send_signal(signal.SIGKILL)
                kills += 1
            error = process.communicate()[1].decode()
        if process.returncode == 0:
            return kills
        assert process.returncode == -signal.SIGKILL, error


@pytest.fixture
def whole(tmp_path) -> dict[str, bytes]:
    """The shards of the conversion, which nobody killed, with their index."""
    (tmp_path / "whole").mkdir()
    command = [sys.executable, "-c", CONVERSION, f"{tmp_path}/whole/train-%06d.tar"]
    subprocess.run(command, check=True, capture_output=True)
    return shards_in(tmp_path / "whole")


def test_a_conversion_that_is_killed_again_and_again_gives_the_same_shards(whole, tmp_path):
    """kill -9 at random moments; the program is just started again, and the files are those of one that was not."""
    (tmp_path / "killed").mkdir()
    assert convert_with_kills(f"{tmp_path}/killed/train-%06d.tar") >= 2
    assert shards_in(tmp_path / "killed") == whole


@pytest.mark.parametrize("s3", ["moto"], indirect=True)
def test_a_conversion_to_a_server_that_is_killed_again_and_again(whole, s3):
    """The same on a server: uploads that were cut off are done again, and nothing else.

    Not with s3rver: unlike S3 it shows an object while it is being put, and so may leave half a record.
    """
    assert convert_with_kills(s3.url("train-%06d.tar")) >= 2
    assert shards_on(s3) == whole


WORKERS = """
import sys
import torch
import webdataset as wds

class Source(torch.utils.data.IterableDataset):
    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        with wds.ShardWriter(sys.argv[1], maxcount=3, rank=info.id, world_size=info.num_workers) as sink:
            for number in range(info.id, 20, info.num_workers):
                sink.write({"__key__": f"{number:03d}", "cls": number})
        yield sink.total

print(sum(torch.utils.data.DataLoader(Source(), batch_size=None, num_workers=3)))
"""


def test_workers_of_a_dataloader_write_disjoint_shards(s3):
    """Each takes its number among the workers as rank; together they write all samples, none twice."""
    import webdataset as wds

    done = subprocess.run([sys.executable, "-c", WORKERS, s3.url("w-%02d.tar")], capture_output=True, check=True)
    assert done.stdout == b"20\n"
    names = sorted(shards_on(s3))
    assert names == [f"w-{number:02d}.tar" for number in range(8)]
    stream = wds.WebDataset([s3.url(name) for name in names], shardshuffle=False)
    assert sorted(sample["__key__"] for sample in stream) == [f"{number:03d}" for number in range(20)]
