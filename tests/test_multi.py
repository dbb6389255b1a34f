"""MultiLoader: real worker processes, real sockets, and what goes wrong with them."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import pickle
import signal
import socket
import stat
import subprocess
import sys
import time
from collections import Counter

import pytest
import zmq

import webdataset as wds
from helpers import write_shards
from webdataset.errors import DecodingError, EmptyDatasetError, MissingDependencyError
from webdataset.multi import EOF, MultiLoader, all_pids, reader


class Numbers:
    """Without end: (worker, process, number)."""

    def __iter__(self):
        number = 0
        while True:
            yield int(os.environ["WORKER"]), os.getpid(), number
            number += 1


class Counted:
    """The numbers to 30."""

    def __iter__(self):
        return iter(range(30))


class Failing:
    """One sample a worker; worker 1 raises what it was made with, or calls it."""

    def __init__(self, what):
        self.what = what

    def __iter__(self):
        yield int(os.environ["WORKER"])
        if os.environ["WORKER"] == "1":
            if isinstance(self.what, Exception):
                raise self.what
            self.what()


class TwoArguments(Exception):
    """Cannot be unpickled, because its text is not its arguments."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def gone(pid: int) -> bool:
    """Whether there is no such process, within a few seconds."""
    for _ in range(500):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def prefix(tmp_path, tmp_path_factory):
    """Where the sockets go; nothing is left there at the end, and no process."""
    yield str(tmp_path / "s-")
    gc.collect()
    assert list(tmp_path.iterdir()) == []
    assert all_pids == set()
    assert multiprocessing.active_children() == []


@pytest.fixture
def urls(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"), 7, 10)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_each_sample_once_and_epochs_advance(urls, prefix, method, monkeypatch):
    """Workers split the shards by WORKER and NUM_WORKERS; each iteration is the next epoch, in its own order."""
    context = multiprocessing.get_context(method)
    monkeypatch.setattr(multiprocessing, "Process", context.Process)
    dataset = wds.WebDataset(urls, shardshuffle=7)
    plain = wds.WebDataset(urls, shardshuffle=7)
    loader = MultiLoader(dataset, workers=2, prefix=prefix)
    for epoch in range(3):
        mine: dict[str, list] = {}
        keys = []
        for sample in loader:
            keys.append(sample["__key__"])
            mine.setdefault(sample["__url__"], []).append(sample["__key__"])
        assert sorted(keys) == [f"{n:06d}" for n in range(70)]
        assert all(keys == sorted(keys) for keys in mine.values())
        assert dataset.epoch == epoch + 1
    shards = []
    for number in range(3):
        plain.set_epoch(number)
        shards.append(list(dict.fromkeys(sample["__url__"] for sample in plain)))
    dataset.set_epoch(1)
    single = list(dict.fromkeys(sample["__url__"] for sample in MultiLoader(dataset, workers=1, prefix=prefix)))
    assert single == shards[1] != shards[0]


WRAPPED = """
import multiprocessing, sys
import webdataset as wds
from webdataset.multi import MultiLoader

class Wrapper:  # the program's own; it says nothing of what is in it
    def __init__(self, parts):
        self.parts = parts

    def __iter__(self):
        for part in self.parts:
            yield from part

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    parts = [wds.DataPipeline(range(20), wds.shuffle(50)), wds.DataPipeline(range(20), wds.shuffle(50))]
    loader = MultiLoader(Wrapper(parts), workers=1)
    print(len({tuple(loader) for _ in range(3)}), parts[1].epoch, "torch" in sys.modules)
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_data_sets_in_a_wrapper_of_the_program_repeated_epoch_0(tmp_path, method):
    """Also without torch, what is somewhere in an iterable of the program counts its passes in all workers."""
    script = tmp_path / "program.py"
    script.write_text(WRAPPED)
    done = subprocess.run([sys.executable, script, method], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["3", "3", "False"]


def test_what_cannot_be_pickled_is_forked(prefix, monkeypatch):
    """Where processes are usually spawned, a data set with a lambda in it gets forks."""
    spawn = multiprocessing.get_context("spawn")
    monkeypatch.setattr(multiprocessing, "Process", spawn.Process)
    monkeypatch.setattr(multiprocessing, "get_start_method", spawn.get_start_method)
    dataset = wds.DataPipeline(lambda: iter([1, 2]), wds.map(lambda x: -x))
    assert Counter(MultiLoader(dataset, workers=2, prefix=prefix)) == {-1: 2, -2: 2}


def test_an_error_keeps_class_and_place(tmp_path_factory, prefix):
    """A damaged field raises the same error as without workers, with shard, key, field and reader."""
    urls = write_shards(tmp_path_factory.mktemp("shards"), 2, 3)
    dataset = wds.WebDataset(urls, shardshuffle=False).rename(json="txt").decode()
    with pytest.raises(DecodingError) as caught:
        list(MultiLoader(dataset, workers=2, prefix=prefix))
    assert caught.value.url in urls
    assert caught.value.field == "json"
    assert caught.value.worker in ("0/0", "0/1")
    assert "of 2 of a MultiLoader:\nTraceback" in caught.value.__notes__[-1]


@pytest.mark.parametrize(
    ("raised", "kind", "text"),
    [
        (KeyError("lost"), KeyError, "'lost'"),
        (TwoArguments("a", "b"), RuntimeError, "TwoArguments: a and b"),
    ],
)
def test_errors_of_the_program(prefix, raised, kind, text):
    """They come as their class, or, if that does not survive pickling, as a RuntimeError that names it."""
    with pytest.raises(kind) as caught:
        list(MultiLoader(Failing(raised), workers=2, prefix=prefix))
    assert str(caught.value) == text
    assert "worker 1 of 2" in caught.value.__notes__[-1]


def test_a_sample_that_cannot_be_pickled(prefix):
    """It is an error in the consumer."""
    with pytest.raises((AttributeError, TypeError), match="pickle"):
        list(MultiLoader(wds.DataPipeline(lambda: iter([lambda: 1])), workers=1, prefix=prefix))


def kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


def leave_in_peace():
    os._exit(0)


@pytest.mark.parametrize(
    ("how", "text"),
    [(kill_self, "of signal 9"), (leave_in_peace, "with exit status 0"), (sys.exit, "with exit status 0")],
)
def test_a_worker_that_ends_without_a_word(prefix, how, text):
    """It is an error that names the worker, not a hang."""
    with pytest.raises(RuntimeError, match=rf"worker 1 of 3 of a MultiLoader \(process \d+\) died {text}"):
        list(MultiLoader(Failing(how), workers=3, prefix=prefix))


def test_a_killed_worker_among_endless_ones(prefix):
    """Its death is noticed though the others go on sending."""
    samples = iter(MultiLoader(Numbers(), workers=3, prefix=prefix))
    pids: dict[int, int] = {}
    while len(pids) < 3:
        worker, pid, _ = next(samples)
        pids[worker] = pid
    os.kill(pids[2], signal.SIGKILL)
    with pytest.raises(RuntimeError, match=rf"worker 2 of 3 of a MultiLoader \(process {pids[2]}\) died of signal 9"):
        for _ in samples:
            pass
    assert all(gone(pid) for pid in pids.values())


def test_leaving_early(prefix, tmp_path):
    """Closing, dropping and killing end the processes and remove the socket, whose folder is private."""
    loader = MultiLoader(Numbers(), workers=2, prefix=prefix)
    for leave in ("close the iterator", "drop it", "close the loader"):
        samples = iter(loader)
        _, pid, _ = next(samples)
        (folder,) = tmp_path.iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        if leave == "close the iterator":
            samples.close()
        elif leave == "drop it":
            del samples
            gc.collect()
        else:
            loader.close()
            with pytest.raises(RuntimeError, match="was ended by close"):
                list(samples)
        assert gone(pid)
        assert list(tmp_path.iterdir()) == []


def test_nokill(prefix):
    """A new iteration ends the one before, unless nokill is set."""
    loader = MultiLoader(Numbers(), workers=1, prefix=prefix)
    first, second = iter(loader), iter(loader)
    next(second)
    with pytest.raises(RuntimeError, match="a later iteration"):
        next(first)
    loader.kill()
    both = MultiLoader(Numbers(), workers=1, nokill=True, prefix=prefix)
    first, second = iter(both), iter(both)
    assert next(first)[1] != next(second)[1]
    both.kill()


def goes_on_in_a_fork(samples) -> str:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = "went on"
        try:
            next(samples)
        except RuntimeError as exn:
            said = str(exn)
        os.write(writing, said.encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with open(reading) as stream:
        return stream.read()


def test_a_fork_took_samples_of_its_parent(prefix):
    """An iteration goes on only in the process that began it; there nothing is missing."""
    loader = MultiLoader(Counted(), workers=2, prefix=prefix)
    samples = iter(loader)
    assert "began in another process: begin one here" in goes_on_in_a_fork(samples)
    first = next(samples)
    assert "began in another process: begin one here" in goes_on_in_a_fork(samples)
    assert sorted([first, *samples]) == sorted([*range(30)] * 2)


PROGRAM = """
import os, sys, time
from test_multi import Numbers
from webdataset.multi import MultiLoader
if __name__ == "__main__":
    samples = iter(MultiLoader(Numbers(), workers=2, prefix=sys.argv[1]))
    print(next(samples)[1], flush=True)
    if sys.argv[2] == "wait":
        for _ in samples:
            time.sleep(0.01)
"""


@pytest.mark.parametrize("signum", [None, signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_the_program(prefix, tmp_path, signum):
    """However it ends, also by Ctrl-C and by kill -9, nothing of it stays: no process, no folder."""
    command = [sys.executable, "-c", PROGRAM, prefix, "leave" if signum is None else "wait"]
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as program:
        pid = int(program.stdout.readline())
        if signum == signal.SIGINT:
            os.killpg(program.pid, signum)  # as a terminal does
        elif signum is not None:
            program.send_signal(signum)
        assert program.wait(60) == (0 if signum is None else -signum)
        assert gone(pid)
        said = program.stderr.read()
    for _ in range(500):
        if not list(tmp_path.iterdir()):
            break
        time.sleep(0.01)
    assert list(tmp_path.iterdir()) == []
    if signum == signal.SIGINT:  # a worker that was only starting may say it, too
        assert "KeyboardInterrupt" in said
    else:
        assert "Traceback" not in said


def test_a_data_set_without_samples(tmp_path_factory, prefix):
    """If no worker gets a sample, that is the error that it is without workers; one idle worker is none."""
    empty = write_shards(tmp_path_factory.mktemp("empty"), 2, 0)
    with pytest.raises(EmptyDatasetError, match="no sample found"):
        list(MultiLoader(wds.WebDataset(empty, shardshuffle=False), workers=2, prefix=prefix))
    one = write_shards(tmp_path_factory.mktemp("one"), 1, 5)
    assert len(list(MultiLoader(wds.WebDataset(one, shardshuffle=False), workers=3, prefix=prefix))) == 5


def test_verbose(prefix, caplog):
    """The processes that begin and end are logged, with their numbers."""
    with caplog.at_level(logging.INFO, "webdataset.multi"):
        assert sorted(MultiLoader([1, 2], workers=2, verbose=True, prefix=prefix)) == [1, 1, 2, 2]
    said = caplog.text
    assert said.count(" of 2 is process ") == said.count(" has ended") == 2


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ([b"no pickle"], "9 bytes that is no sample: UnpicklingError: invalid load key"),
        ([b""], "0 bytes that is no sample: EOFError"),
        (
            [pickle.dumps(list(range(100)))[:50]],
            "50 bytes that is no sample: UnpicklingError: pickle data was truncated",
        ),
        ([pickle.dumps(1), b""], "it has 2 parts, expected 1"),
        ([pickle.dumps(EOF(index=7))], "it is the end of worker 7, which was not expected"),
        ([pickle.dumps(EOF())], "it is the end of worker None"),
    ],
)
def test_messages_that_are_no_samples(prefix, tmp_path, frames, said):
    """Half a pickle, something else, the end of nobody: an error that says what came, and no process stays."""
    samples = iter(MultiLoader(Numbers(), workers=1, prefix=prefix))
    next(samples)
    (folder,) = tmp_path.iterdir()
    with zmq.Context() as context, context.socket(zmq.PUSH) as stranger:
        stranger.connect(f"ipc://{folder}/socket")
        stranger.send_multipart(frames)
        with pytest.raises(RuntimeError, match=said):
            for _ in samples:
                pass


def test_a_stranger_who_leaves_in_the_middle_of_a_handshake(prefix, tmp_path):
    """A peer that vanishes takes nothing away: all samples come."""
    samples = iter(MultiLoader(range(500), workers=1, prefix=prefix))
    next(samples)
    (folder,) = tmp_path.iterdir()
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(f"{folder}/socket")
        stranger.send(b"\xff\x00\x00")
    assert list(samples) == list(range(1, 500))


class Unloadable:
    """Pickles, and raises when it is unpickled."""

    def __reduce__(self):
        return (int, ("x",))


def test_what_cannot_be_unpickled_here(prefix):
    """It is an error that says so, with the reason."""
    with pytest.raises(RuntimeError, match="no sample: ValueError: invalid literal for int") as caught:
        list(MultiLoader([Unloadable()], workers=1, prefix=prefix))
    assert isinstance(caught.value.__cause__, ValueError)


class Nested:
    """Starts workers in a worker."""

    def __iter__(self):
        return iter(MultiLoader([1], workers=1))


def test_a_worker_starts_no_workers(prefix):
    """That is an error with what to do instead."""
    with pytest.raises(RuntimeError, match="use ThreadedLoader in it"):
        list(MultiLoader(Nested(), workers=1, prefix=prefix))


def test_arguments(monkeypatch, tmp_path):
    """A data set, at least one worker; without pyzmq, the error says how to install it."""
    with pytest.raises(ValueError, match="workers"):
        MultiLoader([], workers=0)
    for wrong in (3, None, "train.tar"):
        with pytest.raises(TypeError, match="MultiLoader: dataset must be a data set"):
            MultiLoader(wrong)
    with pytest.raises(ValueError, match="prefix must have at most 88 bytes"):
        list(MultiLoader([1], prefix=str(tmp_path / ("x" * 90))))
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setitem(sys.modules, "zmq", None)
    with pytest.raises(MissingDependencyError, match="pip install pyzmq"):
        iter(MultiLoader([1]))
    with pytest.raises(MissingDependencyError, match="pip install pyzmq"):
        reader([1], "ipc:///nowhere", 0, 1)
    assert vars(EOF(index=3)) == {"index": 3}
