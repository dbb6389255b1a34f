"""ShardWriter: shards are complete when they have their names, whatever happens while they are written."""

from __future__ import annotations

import gc
import io
import logging
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from servers import serve
from webdataset.errors import EncodingError, MissingDependencyError, OpenError
from webdataset.storage.atomic import AtomicFile
from webdataset.writer import ShardWriter


def samples(count: int, size: int = 10):
    return [{"__key__": f"{number:04d}", "bin": bytes([number % 256]) * size} for number in range(count)]


def keys_of(archive: Path | bytes) -> list[str]:
    stream = io.BytesIO(archive if isinstance(archive, bytes) else archive.read_bytes())
    with tarfile.open(fileobj=stream) as tar:
        return [name.partition(".")[0] for name in tar.getnames()]


def contents(folder: Path) -> dict[str, list[str]]:
    return {path.name: keys_of(path) for path in sorted(folder.iterdir())}


def write_all(sink: ShardWriter, items) -> None:
    with sink:
        for sample in items:
            sink.write(sample)


def then_raise(items, error):
    yield from items
    raise error


def test_a_new_shard_begins_before_the_sample_that_does_not_fit(tmp_path):
    """Shards hold maxcount samples; the writer rolls over when the next sample comes, so none is empty."""
    write_all(ShardWriter(f"{tmp_path}/a-%03d.tar", maxcount=2), samples(4))
    assert contents(tmp_path) == {"a-000.tar": ["0000", "0001"], "a-001.tar": ["0002", "0003"]}


def test_maxsize_counts_the_bytes_of_data(tmp_path):
    """A shard is full when its data, without headers and padding, reach maxsize."""
    write_all(ShardWriter(f"{tmp_path}/a-%d.tar", maxsize=250), samples(7, size=100))
    assert [len(keys) for keys in contents(tmp_path).values()] == [3, 3, 1]


def test_the_attributes_count(tmp_path):
    """total counts all samples, count and size this shard, shard is the next number, fname this shard's name."""
    sink = ShardWriter(f"{tmp_path}/a-%03d.tar", maxcount=2, start_shard=7)
    assert (sink.total, sink.count, sink.size, sink.shard, sink.fname) == (0, 0, 0, 7, None)
    for sample in samples(3):
        sink.write(sample)
    assert (sink.total, sink.count, sink.size, sink.shard, sink.fname) == (3, 1, 10, 9, f"{tmp_path}/a-008.tar")
    assert (sink.pattern, sink.maxcount, sink.maxsize, sink.post) == (f"{tmp_path}/a-%03d.tar", 2, 3e9, None)
    sink.close()
    assert sorted(contents(tmp_path)) == ["a-007.tar", "a-008.tar"]


def test_without_samples_there_is_no_shard(tmp_path):
    """The first shard is opened with the first sample; one that got none is not left behind."""
    with ShardWriter(f"{tmp_path}/a-%03d.tar"):
        pass
    with ShardWriter(f"{tmp_path}/a-%03d.tar") as sink, pytest.raises(EncodingError):
        sink.write({"__key__": "a.b", "txt": "x"})
    assert list(tmp_path.iterdir()) == []


def test_a_refused_sample_does_not_count(tmp_path):
    """After an encoding error the writer goes on in the same shard."""
    with ShardWriter(f"{tmp_path}/a-%03d.tar", maxcount=2) as sink:
        sink.write(samples(1)[0])
        with pytest.raises(EncodingError):
            sink.write({"__key__": "bad", "json": object()})
        assert (sink.total, sink.count, sink.size) == (1, 1, 10)
        sink.write(samples(2)[1])
    assert contents(tmp_path) == {"a-000.tar": ["0000", "0001"]}


def test_a_shard_has_another_name_while_it_is_written(tmp_path):
    """`.partial` until it is complete, then its own name, and then `post` is called with it."""
    seen = []
    with ShardWriter(
        f"{tmp_path}/a-%d.tar", maxcount=1, post=lambda name: seen.append((name, keys_of(Path(name))))
    ) as sink:
        sink.write(samples(1)[0])
        assert [path.name for path in tmp_path.iterdir()] == ["a-0.tar.partial"]
        assert seen == []
        sink.write(samples(2)[1])
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a-0.tar", "a-1.tar.partial"]
        assert seen == [(f"{tmp_path}/a-0.tar", ["0000"])]
    assert seen[1:] == [(f"{tmp_path}/a-1.tar", ["0001"])]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_complete_shards_only(error, tmp_path):
    """What leaves the with block by an exception, Ctrl-C too, takes the unfinished shard with it, unposted."""
    posted = []
    sink = ShardWriter(f"{tmp_path}/a-%d.tar", maxcount=2, post=posted.append)
    with pytest.raises(error):
        write_all(sink, then_raise(samples(5), error))
    assert contents(tmp_path) == {"a-0.tar": ["0000", "0001"], "a-1.tar": ["0002", "0003"]}
    assert posted == [f"{tmp_path}/a-0.tar", f"{tmp_path}/a-1.tar"]
    with pytest.raises(ValueError, match="closed ShardWriter"):
        sink.write(samples(1)[0])


KILLED = """
import sys
from webdataset.writer import ShardWriter
with ShardWriter(sys.argv[1] + "/a-%03d.tar", maxcount=20) as sink:
    for number in range(10**9):
        sink.write({"__key__": f"{number:09d}", "bin": bytes(10_000)})
        if number == 50:
            print("go", flush=True)
"""


def test_a_writer_that_is_killed_leaves_complete_shards_and_a_partial_one(tmp_path):
    """After kill -9 every file is a whole shard or is called `.partial`."""
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"go\n"
        time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    shards = sorted(tmp_path.glob("*.tar"))
    others = set(tmp_path.iterdir()) - set(shards)
    assert len(shards) >= 2
    assert {path.suffix for path in others} <= {".partial"}
    for number, shard in enumerate(shards):
        assert keys_of(shard) == [f"{n:09d}" for n in range(20 * number, 20 * number + 20)]


def test_an_existing_shard_is_kept(tmp_path):
    """The first shard is looked for at once, later ones when their turn comes; overwrite=True replaces them."""
    (tmp_path / "a-0.tar").write_bytes(b"precious")
    with pytest.raises(OpenError, match=r"a-0.tar: it exists; .* overwrite=True"):
        ShardWriter(f"{tmp_path}/a-%d.tar")
    (tmp_path / "b-1.tar").write_bytes(b"precious")
    with pytest.raises(OpenError, match=r"b-1.tar: it exists"):
        write_all(ShardWriter(f"{tmp_path}/b-%d.tar", maxcount=1), samples(3))
    assert (tmp_path / "b-1.tar").read_bytes() == (tmp_path / "a-0.tar").read_bytes() == b"precious"
    assert keys_of(tmp_path / "b-0.tar") == ["0000"]
    write_all(ShardWriter(f"{tmp_path}/b-%d.tar", maxcount=1, overwrite=True), samples(3))
    assert keys_of(tmp_path / "b-1.tar") == ["0001"]


def test_two_writers_do_not_write_the_same_shard(tmp_path):
    """While one writer is at work on a shard, a second one stops and says so."""
    first = ShardWriter(f"{tmp_path}/a-%d.tar")
    first.write(samples(1)[0])
    second = ShardWriter(f"{tmp_path}/a-%d.tar")
    with pytest.raises(OpenError, match=r"a-0.tar.partial: .*another writer is at work on it"):
        second.write(samples(1)[0])
    second.close()
    first.close()
    assert contents(tmp_path) == {"a-0.tar": ["0000"]}


@pytest.mark.parametrize("pattern", ["shard.tar", "a-%d-%d.tar", "100%.tar", "%q.tar"])
def test_a_pattern_must_have_a_place_for_the_number(pattern, tmp_path):
    """A pattern without exactly one conversion is a ValueError that shows a right one."""
    with pytest.raises(ValueError, match=r"must have one place for the shard's number, as in shard-%06d.tar"):
        ShardWriter(f"{tmp_path}/{pattern}")


@pytest.mark.parametrize("options", [{"maxcount": 0}, {"maxcount": -1}, {"maxsize": 0}, {"maxsize": float("nan")}])
def test_limits_must_be_positive(options, tmp_path):
    """A limit that no sample fits under is a ValueError."""
    with pytest.raises(ValueError, match="must be more than 0"):
        ShardWriter(f"{tmp_path}/a-%d.tar", **options)


def test_wrong_arguments_for_the_archives_are_found_at_once(tmp_path):
    """Keywords go to TarWriter and are checked before the first sample."""
    with pytest.raises(TypeError, match="colour"):
        ShardWriter(f"{tmp_path}/a-%d.tar", colour="red")
    with pytest.raises(ValueError, match="format must be one of"):
        ShardWriter(f"{tmp_path}/a-%d.tar", format="zip")


def test_keywords_go_to_the_archives(tmp_path):
    """mtime, user, compress and the others mean what they mean for TarWriter; names choose the compression."""
    write_all(ShardWriter(f"{tmp_path}/a-%d.tgz", mtime=5, user="me"), samples(2))
    write_all(ShardWriter(f"{tmp_path}/b-%d.tar", compress="xz"), samples(2))
    write_all(ShardWriter(f"{tmp_path}/c-%d.tgz", compress=False), samples(2))
    assert [path.read_bytes()[:2] for path in sorted(tmp_path.iterdir())] == [b"\x1f\x8b", b"\xfd7", b"00"]
    with tarfile.open(tmp_path / "a-0.tgz") as tar:
        member = tar.next()
    assert (member.mtime, member.uname) == (5, "me")


def test_shards_are_logged_not_printed(tmp_path, caplog, capsys):
    """Each shard is a line of the log at level INFO, unless verbose=0; nothing is printed."""
    with caplog.at_level(logging.INFO, logger="webdataset"):
        write_all(ShardWriter(f"{tmp_path}/a-%d.tar", maxcount=2), samples(3))
        write_all(ShardWriter(f"{tmp_path}/b-%d.tar", verbose=0), samples(3))
    assert [record.getMessage() for record in caplog.records] == [
        f"writing {tmp_path}/a-0.tar after 0 samples",
        f"writing {tmp_path}/a-1.tar after 2 samples",
    ]
    assert capsys.readouterr().out == ""


class Kept(io.BytesIO):
    """A stream whose content stays when it is closed."""

    def close(self):
        self.content = self.getvalue()
        super().close()


def test_an_opener_gives_the_streams_and_they_are_closed():
    """opener is called with each name; its object gets a whole archive and is closed before `post`."""
    streams: dict[str, Kept] = {}
    posted = []

    def open_stream(name):
        streams[name] = Kept()
        return streams[name]

    sink = ShardWriter(
        "x-%d.tgz", maxcount=2, opener=open_stream, post=lambda name: posted.append((name, streams[name].closed))
    )
    write_all(sink, samples(3))
    assert {name: keys_of(stream.content) for name, stream in streams.items()} == {
        "x-0.tgz": ["0000", "0001"],
        "x-1.tgz": ["0002"],
    }
    assert streams["x-0.tgz"].content[:2] == b"\x1f\x8b"
    assert posted == [("x-0.tgz", True), ("x-1.tgz", True)]


def test_an_exception_closes_the_stream_of_an_opener_without_an_end_mark():
    """What an opener's stream holds after an exception looks cut off."""
    stream = Kept()
    sink = ShardWriter("x-%d.tar", opener=lambda name: stream)
    with pytest.raises(RuntimeError):
        write_all(sink, then_raise(samples(1, size=1_000_000), RuntimeError))
    assert stream.closed
    assert len(stream.content) < 1_000_000 + 10240


def test_shards_go_through_a_command(tmp_path):
    """`pipe:` runs the command once for each shard, with the number filled in."""
    write_all(ShardWriter(f"pipe:gzip > '{tmp_path}/a-%02d.tar.gz'", maxcount=2, compress=False), samples(3))
    assert contents(tmp_path) == {"a-00.tar.gz": ["0000", "0001"], "a-01.tar.gz": ["0002"]}


def test_a_command_that_fails_is_an_error(tmp_path):
    """The exit status of a shard's command is checked, the shard is not posted and a second close is quiet."""
    posted = []
    sink = ShardWriter("pipe:cat > /dev/null; exit %d", start_shard=3, post=posted.append)
    sink.write(samples(1)[0])
    with pytest.raises(OpenError, match="exit status 3"):
        sink.close()
    sink.close()
    assert posted == []


def test_an_exception_ends_the_command_of_an_unfinished_shard(tmp_path):
    """The command is ended, so that what comes after `cat` in it does not take a part for the whole."""
    pattern = f"pipe:cat > '{tmp_path}/part-%d' && mv '{tmp_path}/part-0' '{tmp_path}/whole'"
    with pytest.raises(RuntimeError):
        write_all(ShardWriter(pattern), then_raise(samples(1, size=1_000_000), RuntimeError))
    assert not (tmp_path / "whole").exists()


def test_shards_go_to_a_web_server():
    """An http url is written with one PUT for each shard."""
    with serve({}) as server:
        write_all(ShardWriter(server.url("/a-%d.tar"), maxcount=2), samples(3))
        uploads = {path.strip("/"): keys_of(body) for path, body in server.uploads.items()}
    assert uploads == {"a-0.tar": ["0000", "0001"], "a-1.tar": ["0002"]}


def test_file_urls_and_paths_are_local(tmp_path):
    """`file:` urls are written like paths, atomically."""
    write_all(ShardWriter(f"file://{tmp_path}/a%%20b-%d.tar"), samples(1))
    write_all(ShardWriter(tmp_path / "c-%d.tar"), samples(1))
    assert contents(tmp_path) == {"a b-0.tar": ["0000"], "c-0.tar": ["0000"]}


def test_a_missing_folder_is_a_clear_error(tmp_path):
    """The error names the file and says what to do."""
    sink = ShardWriter(f"{tmp_path}/nowhere/a-%d.tar")
    with pytest.raises(OpenError, match=r"nowhere/a-0.tar.partial: .*create the folder first"):
        sink.write(samples(1)[0])
    sink.close()


def test_a_full_disk_leaves_no_shard(tmp_path):
    """A shard that cannot be written whole is removed, not named, and not posted."""
    posted = []
    (tmp_path / "a-0.tar.partial").symlink_to("/dev/full")
    sink = ShardWriter(f"{tmp_path}/a-%d.tar", overwrite=True, post=posted.append)
    sink.write(samples(1)[0])
    with pytest.raises(OpenError, match="No space left on device"):
        sink.close()
    assert list(tmp_path.iterdir()) == []
    assert posted == []


def test_a_missing_package_leaves_no_file(tmp_path, monkeypatch):
    """A shard that cannot be compressed as its name asks is not begun; the error says what to install."""
    monkeypatch.setitem(sys.modules, "lz4.frame", None)
    sink = ShardWriter(f"{tmp_path}/a-%d.tar.lz4")
    with pytest.raises(MissingDependencyError, match="pip install lz4"):
        sink.write(samples(1)[0])
    sink.close()
    assert list(tmp_path.iterdir()) == []


def test_two_runs_give_equal_shards(tmp_path):
    """The bytes depend on the samples and the arguments only."""
    for run in "ab":
        (tmp_path / run).mkdir()
        write_all(ShardWriter(f"{tmp_path}/{run}/x-%d.tgz", maxcount=2), samples(5, size=2000))
    first = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert first == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}


def test_an_atomic_file_appears_when_it_is_closed(tmp_path):
    """Nothing has the name before, nothing has the other name afterwards."""
    file = AtomicFile(tmp_path / "a")
    file.write(b"content")
    assert os.listdir(tmp_path) == ["a.partial"]
    file.close()
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"content"


def test_an_atomic_file_that_is_given_up_leaves_nothing(tmp_path):
    """Giving it up removes the file, also a second time and when somebody else has removed it."""
    file = AtomicFile(tmp_path / "a")
    file.abort()
    file.abort()
    assert os.listdir(tmp_path) == []


def test_an_atomic_file_does_not_replace_one_that_came_in_between(tmp_path):
    """A file that appears while another of the same name is written is kept; with overwrite it is replaced."""
    file = AtomicFile(tmp_path / "a")
    (tmp_path / "a").write_bytes(b"other")
    with pytest.raises(OpenError, match="it exists"):
        file.close()
    file.abort()
    assert (tmp_path / "a").read_bytes() == b"other"
    file = AtomicFile(tmp_path / "a", overwrite=True)
    file.write(b"mine")
    file.close()
    assert (tmp_path / "a").read_bytes() == b"mine"


def test_a_shard_whose_write_failed_is_never_completed(tmp_path):
    """When the program goes on after a failed write, close says that there is no shard; none is named or posted."""
    program = f"""
import resource, signal, sys
import webdataset as wds
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
sink = wds.ShardWriter({str(tmp_path)!r} + "/a-%d.tar", post=lambda name: print("posted", name))
for number in range(20):
    try:
        sink.write({{"__key__": str(number), "bin": bytes(300_000)}})
    except OSError as exn:
        print(type(exn).__name__)
        break
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
try:
    sink.close()
except OSError as exn:
    print("earlier write failed" in str(exn))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "OpenError\nTrue\n"
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_taken_over(tmp_path):
    """A `.partial` that nobody is writing any more does not stand in the way."""
    (tmp_path / "a-0.tar.partial").write_bytes(b"half an archive" * 1000)
    with ShardWriter(f"{tmp_path}/a-%d.tar") as sink:
        sink.write(samples(1)[0])
    assert contents(tmp_path) == {"a-0.tar": ["0000"]}


def test_a_command_gets_the_plain_archive(tmp_path):
    """`pipe:gzip > x.tar.gz` is not compressed a second time because of its name."""
    with ShardWriter(f"pipe:gzip > {tmp_path}/a-%d.tar.gz") as sink:
        sink.write(samples(1)[0])
    assert contents(tmp_path) == {"a-0.tar.gz": ["0000"]}


def test_a_writer_that_was_dropped_says_what_is_lost_and_stands_in_no_ones_way(tmp_path):
    """Without close the last shard is not there, and a warning says so; the same program can write it again."""

    def forgetful():
        sink = ShardWriter(f"{tmp_path}/a-%d.tar")
        for sample in samples(3):
            sink.write(sample)

    with pytest.warns(UserWarning, match=r"a-0\.tar: the writer was not closed, so this shard with its 3 samples"):
        forgetful()
    assert list(tmp_path.iterdir()) == []
    sink = ShardWriter(f"{tmp_path}/a-%d.tar")
    sink.write(samples(1)[0])
    sink.loop = sink  # unreachable from now on, and only the garbage collector finds out
    again = ShardWriter(f"{tmp_path}/a-%d.tar")
    gc.disable()  # it comes when the writer asks for it, and not by chance before that
    try:
        del sink
        with pytest.warns(UserWarning, match="was not closed"):
            again.write(samples(1)[0])
    finally:
        gc.enable()
    again.close()
    assert contents(tmp_path) == {"a-0.tar": ["0000"]}
