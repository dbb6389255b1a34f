"""ThreadedLoader: real threads over real shards, what goes wrong in them, and how they end."""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import webdataset as wds
from helpers import tar_bytes, write_shards
from opener_contract import eventually
from webdataset.crew import Crew, Shared
from webdataset.errors import DecodingError, EmptyDatasetError, NotFoundError, TarError


@pytest.fixture(autouse=True)
def no_thread_stays():
    """At the end of a test all threads of all loaders are gone."""
    yield
    gc.collect()
    assert threads() == []


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("webdataset thread")]


@pytest.fixture(scope="module")
def urls(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"), 8, 10)


def key_of(sample):
    return sample["__key__"]


def plain(urls, **kw):
    return wds.WebDataset(urls, shardshuffle=False, **kw)


KEYS = [f"{number:06d}" for number in range(80)]


@settings(max_examples=60, deadline=None)
@given(
    num_threads=st.integers(1, 6),
    shards=st.lists(st.integers(0, 7), max_size=9),
    delays=st.lists(st.integers(0, 3), min_size=1, max_size=9),
    ahead=st.integers(1, 9),
    ordered=st.booleans(),
    max_bytes=st.sampled_from([None, 1, 50]),
    split=st.booleans(),
)
def test_every_sample_comes_once(urls, num_threads, shards, delays, ahead, ordered, max_bytes, split):
    """Whatever takes how long where, the samples are those that come without threads, and in order if asked."""

    def dawdle(sample):
        time.sleep(delays[int(sample["__key__"]) % len(delays)] / 3000)
        return sample

    dataset = plain([urls[shard] for shard in shards] or [urls[0]]).map(dawdle)
    if split:
        dataset = dataset.shuffle(5, seed=1).decode()
    dataset = dataset.select(lambda sample: int(sample["__key__"]) % 7).map(key_of)
    expected = list(dataset)
    dataset.set_epoch(0)
    loader = wds.ThreadedLoader(dataset, num_threads, ordered=ordered, ahead=ahead, max_bytes=max_bytes)
    got = list(loader)
    assert Counter(got) == Counter(expected)
    if ordered:
        assert got == expected


def test_a_thousand_shards(tmp_path):
    """With few samples each, and empty ones between; a sample comes once."""
    urls = write_shards(tmp_path, 1000, 2)
    for i in range(0, 1000, 50):
        Path(urls[i]).write_bytes(tar_bytes({}))
    keys = Counter(wds.ThreadedLoader(plain(urls).map(key_of), 8, ahead=7))
    assert keys == Counter(plain(urls).map(key_of))
    assert len(keys) == 1960


class Asked:
    """No items; counts how often it was asked for one."""

    def __init__(self):
        self.times = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.times += 1
        raise StopIteration


def test_a_thousand_threads_took_minutes_to_end():
    """A source that has ended is not asked again by each of the other threads."""
    asked = [Asked() for _ in range(200)]
    sources = [Shared(one) for one in asked]
    assert list(Crew(sources, Shared(iter(())), iter, 200).results()) == []
    assert [one.times for one in asked] == [1] * 200


def test_idle_threads_take_what_is_left_of_one_shard(tmp_path):
    """Four threads and one shard: all four work on its samples at once, otherwise none would get past the barrier."""
    together = threading.Barrier(4)

    def meet(sample):
        together.wait(60)
        return threading.current_thread().name

    names = list(wds.ThreadedLoader(plain(write_shards(tmp_path, 1, 40)).map(meet), 4))
    assert len(names) == 40
    assert len(set(names)) == 4


def test_a_slow_shard_holds_nobody_up(tmp_path):
    """While a shard is stuck in the middle, all samples of the others come."""
    urls = write_shards(tmp_path, 5, 10)
    pipe = tmp_path / "slow.tar"
    os.mkfifo(pipe)
    data = Path(urls[0]).read_bytes()
    seen: list[str] = []
    with wds.ThreadedLoader(plain([str(pipe), *urls[1:]]).map(key_of), 2) as loader:
        writer = threading.Thread(target=write_slowly, args=(pipe, data, seen))
        writer.start()
        seen.extend(loader)
        writer.join()
    assert sorted(seen) == KEYS[:50]
    assert set(KEYS[10:50]) <= set(seen[:43])


def write_slowly(pipe, data, seen):
    """Write a part, then wait until all other samples have been seen, then the rest."""
    with open(pipe, "wb") as stream:
        stream.write(data[:3000])
        stream.flush()
        while len(seen) < 40:
            time.sleep(0.001)
        stream.write(data[3000:])


def test_other_stages_see_one_stream(urls):
    """Batches are full, a slice is exact, one buffer shuffles, a stage of the program sees all samples."""
    counted: list[int] = []

    def counting(samples):
        counted.append(0)
        for sample in samples:
            counted[-1] += 1
            yield sample

    dataset = plain(urls).decode().shuffle(20).to_tuple("cls").compose(counting).batched(32)
    loader = wds.ThreadedLoader(dataset, 3)
    assert [len(labels) for (labels,) in loader] == [32, 32, 16]
    assert counted == [80]
    assert len(list(wds.ThreadedLoader(plain(urls).slice(13).map(key_of), 3))) == 13
    stages = [stage for stage in loader.pipeline if "threads" in str(stage)]
    assert [str(stage).count("_decode") for stage in stages] == [1, 0]
    assert [len(batch) for batch in wds.ThreadedLoader(plain(urls).map(key_of), 3).listed(50)] == [50, 30]


def test_epochs(urls):
    """The loader counts epochs with its data set; passes, lengths and repetitions are those of the data set."""
    shuffled = wds.WebDataset(urls, shardshuffle=8).shuffle(30).map(key_of)
    expected = [list(shuffled) for _ in range(3)]
    shuffled.set_epoch(0)
    loader = wds.ThreadedLoader(shuffled, 3, ordered=True)
    assert [list(loader) for _ in range(3)] == expected
    assert shuffled.epoch == loader.epoch == 3
    loader.set_epoch(1)
    assert list(loader) == expected[1]
    assert len(list(wds.ThreadedLoader(plain(urls[:2]).map(key_of).repeat(2), 3))) == 40
    assert len(list(wds.ThreadedLoader(plain(urls).map(key_of).with_epoch(100), 3))) == 100
    assert len(list(wds.ThreadedLoader(plain(urls), 2).with_epoch(90))) == 90
    assert len(wds.ThreadedLoader(plain(urls).with_length(80), 2)) == 80
    endless = wds.WebDataset(urls, resampled=True).map(key_of)
    assert len(list(wds.ThreadedLoader(endless, 2).slice(300))) == 300


def test_numbers_and_lengths_are_those_of_the_data_set(tmp_path):
    """What the data set knows of its samples, the loader knows too."""
    dataset = plain(write_shards(tmp_path, 3, 4)).decode()
    loader = wds.ThreadedLoader(dataset, 2)
    assert loader[5]["txt"] == dataset[5]["txt"] == "text 5"
    assert len(loader) == len(dataset) == 12
    with pytest.raises(TypeError, match="the stage batched may change"):
        len(loader.batched(2))


def test_any_pipeline(urls):
    """Also one that is not made of tar shards, or reads by other stages; without work for threads it is as it was."""
    square = wds.FluidWrapper(range(100)).map(lambda x: x * x)
    assert list(wds.ThreadedLoader(square, 4, ordered=True)) == [x * x for x in range(100)]
    stages = wds.DataPipeline(wds.SimpleShardList(urls), wds.tarfile_to_samples(), wds.map(key_of))
    assert sorted(wds.ThreadedLoader(stages)) == KEYS
    stages = wds.DataPipeline(wds.SimpleShardList(urls), wds.cached_tarfile_to_samples(), wds.map(key_of))
    assert sorted(wds.ThreadedLoader(stages)) == KEYS
    assert list(wds.ThreadedLoader(wds.FluidWrapper(range(9)).shuffle(1), 4)) == list(range(9))
    with pytest.raises(TypeError, match=r"FluidWrapper\(source\)"):
        wds.ThreadedLoader([1, 2])


@pytest.mark.parametrize("num_threads", [0, 3])
def test_samples_of_a_classic_data_set_have_no_place(urls, num_threads):
    """What a classic data set gives, `__key__` and its fields alone, it gives in threads, and behind rules."""
    plain_samples = wds.Dataset(urls).decode()
    by_rules = wds.Dataset(urls).map([("", None)])
    for dataset in (plain_samples, by_rules):
        expected = list(dataset)
        assert not {"__url__", "__local_path__"}.intersection(*expected)
        assert list(wds.ThreadedLoader(dataset, num_threads, ordered=True)) == expected


def test_without_threads(urls):
    """With num_threads=0 everything runs where it is asked for, so a traceback leads from the loop to the fault."""
    where: list[threading.Thread] = []

    def note(sample):
        where.append(threading.current_thread())
        assert len(where) < 5
        return sample

    loader = wds.ThreadedLoader(plain(urls).map(note).map(key_of), num_threads=0)
    got: list[str] = []
    with pytest.raises(AssertionError) as caught:
        got.extend(loader)
    assert got == KEYS[:4]
    assert set(where) == {threading.main_thread()}
    assert caught.traceback[0].name == "test_without_threads"
    assert caught.traceback[-1].name == "note"


@pytest.mark.parametrize("num_threads", [0, 1, 4])
@pytest.mark.parametrize("ordered", [False, True])
def test_an_error_keeps_class_and_place(tmp_path, num_threads, ordered):
    """It comes once, as without threads, and those after it do not hang; what was ready before comes first."""
    urls = write_shards(tmp_path, 4, 10)
    Path(urls[2]).write_bytes(tar_bytes({"bad.json": b"?"}))
    got: list[str] = []
    dataset = plain(urls).decode().map(key_of)
    with pytest.raises(DecodingError, match=r"shard-0002\.tar!bad\.json: invalid JSON at byte 0") as caught:
        got.extend(wds.ThreadedLoader(dataset, num_threads, ordered=ordered))
    assert (caught.value.url, caught.value.key, caught.value.field) == (urls[2], "bad", "json")
    if ordered:
        assert got == KEYS[:20]
    assert len(set(got)) == len(got)


def failing_list(urls):
    yield from ({"url": url} for url in urls)
    raise LookupError("the list breaks off")


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda urls: plain([*urls, urls[0] + ".absent"]), NotFoundError),
        (lambda urls: plain([*urls, __file__]), TarError),
        (lambda urls: wds.DataPipeline(lambda: failing_list(urls), wds.tarfile_to_samples()), LookupError),
        (lambda urls: plain(urls).shuffle(9).compose(failing_list).map(key_of), LookupError),
        (lambda urls: plain(urls).map(sys.exit), SystemExit),
        (lambda urls: plain(urls).map(key_of).map(next), TypeError),
    ],
)
def test_errors_anywhere(urls, make, kind):
    """Of opening, reading, the list, a stage between, the program's own functions: they reach the consumer."""
    with pytest.raises(kind):
        list(wds.ThreadedLoader(make(urls), 3))


def test_handlers(tmp_path, caplog):
    """What is skipped is skipped, what stops stops, and an ErrorPolicy counts all threads together."""
    urls = write_shards(tmp_path, 6, 50)
    for url in urls[1::2]:
        members = {f"{url[-8]}{i:03d}.json": b"?" if i < 2 else b"1" for i in range(50)}
        Path(url).write_bytes(tar_bytes(members))
    good = 3 * 50 + 3 * 48
    dataset = plain(urls).decode(handler=wds.ignore_and_continue)
    assert len(list(wds.ThreadedLoader(dataset, 4))) == good
    policy = wds.ErrorPolicy(max_fraction=0.1)
    with caplog.at_level(logging.WARNING):
        assert len(list(wds.ThreadedLoader(plain(urls).decode(handler=policy), 4))) == good
    assert "skipped 6 of 300 items (2 %): 6 DecodingError in decode" in caplog.text
    assert sum(policy.counts.values()) == 6
    stopped = list(wds.ThreadedLoader(plain(urls).decode(handler=wds.ignore_and_stop).map(key_of), 4, ordered=True))
    assert stopped == KEYS[:50]
    assert len(list(wds.ThreadedLoader(plain(urls).decode(handler=wds.ignore_and_stop), 4))) < good
    missing = [*urls, str(tmp_path / "absent.tar")]
    assert len(list(wds.ThreadedLoader(plain(missing, handler=wds.ignore_and_continue), 4))) == 300
    wrong = wds.ErrorPolicy(max_fraction=0.1, max_run=3)
    with pytest.raises(wds.ErrorBudgetError):
        list(wds.ThreadedLoader(plain(urls).map(len).map(next, handler=wds.ErrorPolicy(never_skip=(), max_run=3)), 4))
    assert wrong.counts == {}


def test_no_sample_at_all(tmp_path):
    """That is an error, also where shards are drawn without end; samples that a later stage drops are none."""
    empty = write_shards(tmp_path, 3, 0)
    with pytest.raises(EmptyDatasetError, match="no sample found"):
        list(wds.ThreadedLoader(plain(empty), 2))
    with pytest.raises(EmptyDatasetError, match="shards in a row"):
        list(wds.ThreadedLoader(wds.WebDataset(empty, resampled=True), 2))
    full = write_shards(tmp_path, 3, 4)
    with pytest.raises(EmptyDatasetError, match="shards in a row"):
        list(wds.ThreadedLoader(wds.WebDataset(full, resampled=True, require="jpg", on_missing="skip"), 2))
    assert list(wds.ThreadedLoader(plain(full).select(lambda sample: False), 2)) == []


def test_nothing_happens_before_the_first_sample_is_asked_for(urls):
    """No thread is started by making a loader or its iterator."""
    loader = wds.ThreadedLoader(plain(urls), 2, ahead=5)
    iterator = iter(loader)
    assert threads() == []
    next(iterator)
    assert len(threads()) == 2
    iterator.close()


@pytest.mark.parametrize("leave", ["break", "close the iterator", "drop it", "close the loader", "an error"])
def test_leaving_early(urls, leave):
    """However an iteration is left, its threads end and its shards are closed."""
    gc.collect()  # what other tests left
    files = open_files()
    loader = wds.ThreadedLoader(wds.WebDataset(urls, resampled=True).shuffle(10).decode(), 3, ahead=5)
    iterator = iter(loader)
    next(iterator)
    assert len(threads()) == 6
    if leave == "break":
        for _ in iterator:
            break
        del iterator
    elif leave == "close the iterator":
        iterator.close()
    elif leave == "drop it":
        del iterator
    elif leave == "close the loader":
        loader.close()
        list(iterator)
    else:
        with pytest.raises(ZeroDivisionError):
            sum(1 / 0 for _ in iterator)
        del iterator
    gc.collect()
    assert threads() == []
    assert open_files() <= files


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(("options", "most"), [({"ahead": 7}, 7), ({"max_bytes": 100}, 13)])
def test_threads_do_not_run_ahead_of_the_consumer(tmp_path, options, most):
    """At most `ahead` samples are drawn and not asked for, or `max_bytes` wait, and one more for each thread."""
    made: list[int] = []
    settled = threading.Event()

    def make(sample):
        made.append(1)
        return {"__key__": sample["__key__"], "x": bytes(10)}

    loader = wds.ThreadedLoader(plain(write_shards(tmp_path, 4, 50)).map(make), 3, **options)
    taken = 0
    for _ in loader:
        taken += 1
        if taken % 40 == 1:
            settled.wait(0.05)
        assert len(made) <= taken + most
    assert taken == 200


def test_a_command_that_said_nothing_outlived_the_loader(tmp_path, urls, caplog):
    """A command for which a thread waits is ended when the iteration is left, and the thread with it."""
    pid = tmp_path / "pid"
    iterator = iter(wds.ThreadedLoader(plain([f"pipe:echo $$ > {pid}; exec sleep 1000", *urls]).map(key_of), 2))
    next(iterator)
    assert eventually(lambda: pid.exists() and pid.read_text())
    number = int(pid.read_text())
    iterator.close()
    assert threads() == []
    assert caplog.text == ""
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_a_busy_thread_is_told(tmp_path, urls, caplog, monkeypatch):
    """One that does not come back is not waited for without end; it ends behind its item."""
    monkeypatch.setattr("webdataset.crew.GRACE", 0.05)
    go = threading.Event()

    def stuck(sample):
        if sample["__key__"] == KEYS[10]:
            go.wait(60)
        return sample

    iterator = iter(wds.ThreadedLoader(plain(urls).map(stuck), 2))
    for _ in range(30):
        next(iterator)
    with caplog.at_level(logging.WARNING):
        iterator.close()
    assert "is still busy after 0.05 seconds" in caplog.text
    assert len(threads()) == 1
    go.set()
    for thread in threading.enumerate():
        if thread.name.startswith("webdataset thread"):
            thread.join(60)


def test_a_cache_serves_all_threads(tmp_path, urls):
    """Threads fill one cache, also with the same shard at once, and read from it."""
    (tmp_path / "cache").mkdir()
    commands = [f"pipe:cat {url}" for url in urls]
    dataset = wds.WebDataset(commands * 3, shardshuffle=False, cache_dir=str(tmp_path / "cache")).map(key_of)
    for _ in range(2):
        assert Counter(wds.ThreadedLoader(dataset, 4)) == dict.fromkeys(KEYS, 3)
    assert len(os.listdir(tmp_path / "cache")) == 8


def test_in_other_processes(urls):
    """A loader can be pickled; an iteration cannot go on in a fork."""
    loader = wds.ThreadedLoader(plain(urls).map(key_of), 2)
    assert sorted(pickle.loads(pickle.dumps(loader))) == KEYS
    iterator = iter(loader)
    next(iterator)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()

    def go_on():
        try:
            list(iterator)
        except RuntimeError as exn:
            answers.put(str(exn))

    process = context.Process(target=go_on)
    process.start()
    assert "began in another process" in answers.get(timeout=60)
    process.join()
    assert process.exitcode == 0
    assert len(list(iterator)) == 79


PROGRAM = """
import sys, time
import webdataset as wds
samples = iter(wds.ThreadedLoader(wds.WebDataset(sys.argv[2:], resampled=True).shuffle(5).decode(), 4))
next(samples)
print("there", flush=True)
if sys.argv[1] == "wait":
    for sample in samples:
        time.sleep(0.001)
"""


@pytest.mark.parametrize("signum", [None, signal.SIGINT, signal.SIGTERM])
def test_the_end_of_the_program(urls, signum):
    """It ends at once, in the middle of an iteration, by itself and by Ctrl-C, and says nothing of threads."""
    command = [sys.executable, "-W", "error", "-c", PROGRAM, "leave" if signum is None else "wait", *urls]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout.readline() == "there\n"
        if signum is not None:
            program.send_signal(signum)
        assert program.wait(60) == (0 if signum is None else -signum)
        said = program.stderr.read()
    assert not any(words in said for words in ("in thread", "ignored in", "Fatal"))
    assert ("KeyboardInterrupt" in said) == (signum == signal.SIGINT)


def test_a_class_with_an_iteration_of_its_own_is_not_passed_by(urls):
    """What a program's own class does to samples is done, or refused with the way to have it."""

    class Twice(wds.WebDataset):
        def __iter__(self):
            for sample in super().__iter__():
                yield from (sample, sample)

    dataset = Twice(urls, shardshuffle=False)
    with pytest.raises(TypeError, match="Twice has an __iter__ of its own"):
        wds.ThreadedLoader(dataset, 2)
    loader = wds.ThreadedLoader(wds.FluidWrapper(dataset).map(key_of), 2)
    assert sorted(loader) == sorted(KEYS * 2)


def test_wrong_arguments(urls):
    """Each is told with what it must be."""
    for options, said in (
        ({"num_threads": -1}, "num_threads must be a whole number of threads, 0 or more, got -1"),
        ({"ahead": 0}, "ahead must be a whole number of samples, 1 or more, got 0"),
        ({"max_bytes": 0}, "max_bytes must be more than 0"),
        ({"ordered": "yes"}, "ordered must be True or False"),
        ({"num_workers": 3}, "unknown argument 'num_workers'"),
    ):
        with pytest.raises((TypeError, ValueError), match=said):
            wds.ThreadedLoader(plain(urls), **options)
