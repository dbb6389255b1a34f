"""ErrorPolicy: what it skips, what it never skips, when it stops, what it writes and says."""

from __future__ import annotations

import json
import logging
import pickle
import random
import warnings

import pytest
from torch.utils.data import DataLoader

import webdataset as wds
from helpers import loaded, tar_bytes, write_shards
from webdataset.errors import DataError, DecodingError, ErrorBudgetError
from webdataset.policy import PROGRAMMING_ERRORS


def shards_with_bad_json(folder, samples, bad, shards=1):
    """Shards of `samples` samples each, with broken JSON where the running number is in `bad`."""
    urls = []
    for shard in range(shards):
        numbers = range(shard * samples, (shard + 1) * samples)
        members = [(f"{number:06d}.json", b"{" if number in bad else b"{}") for number in numbers]
        path = folder / f"shard-{shard}.tar"
        path.write_bytes(tar_bytes(members))
        urls.append(str(path))
    return urls


def keys(dataset):
    return [sample["__key__"] for sample in dataset]


def pipeline(items, *stages):
    return wds.DataPipeline(lambda: iter(items), *stages)


def until_stopped(data, text):
    """What came before ErrorBudgetError, and the error."""
    came = []
    with pytest.raises(ErrorBudgetError, match=text) as caught:
        came.extend(iter_into(came, data))
    return came, caught.value


def iter_into(came, data):
    for item in data:
        came.append(item)
    return ()


def fails(error):
    """A function for `map` that raises for odd numbers."""

    def f(number):
        if number % 2:
            raise error
        return number

    return f


def test_few_errors_are_skipped_counted_and_listed(tmp_path, caplog):
    """One percent passes: the others come, the list and the log have exactly the bad keys, one line says so."""
    bad = range(50, 2000, 100)
    urls = shards_with_bad_json(tmp_path, 2000, bad)
    log = tmp_path / "skipped.jsonl"
    policy = wds.ErrorPolicy(max_fraction=0.01, log=log)
    dataset = wds.WebDataset(urls, handler=policy).decode(handler=policy)
    assert [f"{number:06d}" for number in range(2000) if number not in bad] == keys(dataset)
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [f"{number:06d}" for number in bad] == [record["key"] for record in records]
    first = records[0]
    assert ("DecodingError", urls[0], "json", "decode", None) == (
        *(first["error"], first["url"], first["field"], first["stage"], first["worker"]),
    )
    assert "invalid JSON" in first["message"]
    assert isinstance(first["time"], float)
    assert {"DecodingError in decode": 20} == policy.counts
    assert [record["key"] for record in records] == [record["key"] for record in policy.skipped]
    (line,) = caplog.messages
    assert f"epoch 0: skipped 20 of 2000 items (1 %): 20 DecodingError in decode; listed in {log}" == line


def test_too_large_a_share_stops(tmp_path):
    """Two percent stop the pass as soon as it is sure, with a line that says counts, limit and the last error."""
    urls = shards_with_bad_json(tmp_path, 3000, range(0, 3000, 50))
    policy = wds.ErrorPolicy(max_fraction=0.01)
    came, error = until_stopped(
        wds.WebDataset(urls).decode(handler=policy),
        r"skipped 47 of 2301 items .*max_fraction=0\.01.*shard-0\.tar!002300",
    )
    assert 2254 == len(came)
    assert isinstance(error.__cause__, DecodingError)


def test_a_small_share_of_few_items_does_not_stop():
    """The share is one of at least `after` items, so that an early error does not end the run."""
    stage = wds.map(fails(ValueError("odd")), handler=wds.ErrorPolicy(0.01, after=100))
    assert [0, 2, 4] == list(pipeline([0, *[1] * 6, 2, 4], stage))
    with pytest.raises(ErrorBudgetError, match=r"skipped 7 of 8 items \(88 %\).*max_fraction=0.01 allows 6 so far"):
        list(pipeline([0, *[1] * 7, 2, 4], stage))
    everything = wds.map(fails(ValueError("odd")), handler=wds.ErrorPolicy(1.0, max_run=1))
    assert [0, 2] == list(pipeline([0, 1, 2, 3], everything))
    nothing = wds.map(fails(ValueError("odd")), handler=wds.ErrorPolicy(0))
    with pytest.raises(ErrorBudgetError):
        list(pipeline([0, 1], nothing))


def test_a_long_run_stops():
    """`max_run` errors in a row are allowed, one more is not, and an item that goes well begins anew."""
    numbers = [0, *[1] * 5, 2, *[1] * 5, 4, *[1] * 6, 6]
    stage = wds.map(fails(ValueError("odd")), handler=wds.ErrorPolicy(1.0, max_run=5))
    came, _ = until_stopped(pipeline(numbers, stage), "6 errors in a row; max_run=5")
    assert [0, 2, 4] == came


def test_runs_are_those_of_one_stage():
    """What goes well in the stage before does not hide a run, and a buffer behind does not make one."""
    policy = wds.ErrorPolicy(1.0, max_run=5)
    good_first = pipeline([1] * 20, wds.map(int, handler=policy), wds.map(fails(ValueError()), handler=policy))
    with pytest.raises(ErrorBudgetError, match="6 errors in a row"):
        list(good_first)
    half = list(range(40))
    buffered = [
        wds.map(fails(ValueError()), handler=policy),
        wds.shuffle(100, initial=100),
        wds.map(int, handler=policy),
    ]
    assert set(range(0, 40, 2)) == set(pipeline(half, *buffered))


@pytest.mark.parametrize("kind", [NameError, AttributeError, TypeError, ImportError, ModuleNotFoundError])
def test_programming_errors_are_raised(kind):
    """What a mistake in the program raises is not skipped, unless the program says so."""
    stage = wds.map(fails(kind("typo")), handler=wds.ErrorPolicy(1.0))
    with pytest.raises(kind, match="typo"):
        list(pipeline(range(4), stage))
    lenient = wds.map(fails(kind("typo")), handler=wds.ErrorPolicy(1.0, never_skip=()))
    assert [0, 2] == list(pipeline(range(4), lenient))
    assert issubclass(kind, PROGRAMMING_ERRORS)


def test_only_the_named_errors_are_skipped():
    """`skip` narrows what may be skipped."""
    policy = wds.ErrorPolicy(1.0, skip=(KeyError, DataError))
    assert [0, 2] == list(pipeline(range(4), wds.map(fails(KeyError("odd")), handler=policy)))
    with pytest.raises(ValueError, match="odd"):
        list(pipeline(range(4), wds.map(fails(ValueError("odd")), handler=policy)))


def test_chance_does_not_stop_a_run():
    """Random errors at the allowed share pass in a hundred long streams; at twice the share all of them stop."""
    draw = random.Random(4).random
    for rate, stops in ((0.01, 0), (0.02, 100)):
        stopped = 0
        for _ in range(100):
            stage = wds.map(fails(ValueError()), handler=wds.ErrorPolicy(0.01, remember=0))
            try:
                list(pipeline((int(draw() < rate) for _ in range(10_000)), stage))
            except ErrorBudgetError:
                stopped += 1
        assert stops == stopped


@pytest.mark.parametrize("kind", [NameError, ModuleNotFoundError])
def test_missing_names_in_decoders_are_no_bad_data(tmp_path, kind):
    """A decoder that lacks a name or a module is a mistake in the program, though it comes as DecodingError."""

    def decoder(key, data):
        raise kind("forgotten")

    urls = shards_with_bad_json(tmp_path, 10, ())
    with pytest.raises(DecodingError, match="forgotten"):
        list(wds.WebDataset(urls).decode(decoder, handler=wds.ErrorPolicy(1.0)))


def test_damaged_shards_are_skipped_and_the_next_goes_on(tmp_path, caplog):
    """A shard that is missing and one that is cut count as one item each; the other shards are read."""
    urls = write_shards(tmp_path, shards=3, samples=20)
    whole = (tmp_path / "shard-0001.tar").read_bytes()
    (tmp_path / "shard-0001.tar").write_bytes(whole[:1300])
    policy = wds.ErrorPolicy()
    came = keys(wds.WebDataset([str(tmp_path / "absent.tar"), *urls], handler=policy))
    assert [f"{n:06d}" for n in [*range(20), *range(40, 60)]] == [key for key in came if not "000020" <= key < "000040"]
    assert {"NotFoundError in open": 1, "TruncatedError in read": 1} == policy.counts
    assert [str(tmp_path / "absent.tar"), urls[1]] == [record["url"] for record in policy.skipped]
    assert 1 == len(caplog.messages)


def test_each_pass_is_judged_and_reported_by_itself(caplog):
    """Counts of a pass begin at 0; what the process skipped adds up; a pass without errors says nothing."""
    policy = wds.ErrorPolicy(1.0, remember=3)
    twice = pipeline(range(4), wds.map(fails(ValueError("odd")), handler=policy))
    for _ in range(2):
        list(twice)
    list(pipeline([0, 2], wds.map(fails(ValueError("odd")), handler=policy)))
    assert [f"epoch {epoch}: skipped 2 of 4 items (50 %): 2 ValueError in map" for epoch in range(2)] == caplog.messages
    assert {"ValueError in map": 4} == policy.counts
    assert 3 == len(policy.skipped)


def test_a_pass_that_is_left_early_reports_too(caplog):
    """The line comes when the iterator is closed."""
    items = iter(pipeline(range(9), wds.map(fails(ValueError("odd")), handler=wds.ErrorPolicy(1.0))))
    assert [0, 2] == [next(items), next(items)]
    assert [] == caplog.messages
    items.close()
    assert ["epoch 0: skipped 1 of 3 items (33 %): 1 ValueError in map"] == caplog.messages


def test_passes_side_by_side_count_apart(caplog):
    """Two iterators over one pipeline each judge and report what they saw."""
    twice = pipeline(range(4), wds.map(fails(ValueError("odd")), handler=wds.ErrorPolicy(1.0)))
    assert [(0, 0), (2, 2)] == list(zip(twice, twice, strict=True))
    assert 2 == len(caplog.messages)
    assert all("skipped 2 of 4 items" in message for message in caplog.messages)


def test_a_plain_call_skips_and_counts():
    """Outside a pipeline it is a handler too; `count` tells it what went well."""
    policy = wds.ErrorPolicy(0.01)
    assert all(policy(ValueError()) for _ in range(6))
    with pytest.raises(ErrorBudgetError, match=r"skipped 7 of 7 items \(100 %\)"):
        policy(ValueError("one too many"))
    told = wds.ErrorPolicy(0.01)
    told.count(1000)
    assert all(told(ValueError()) for _ in range(25))


def test_policies_pickle_without_their_counts():
    """A copy has the same rules and begins to count anew."""
    policy = wds.ErrorPolicy(0.5, 3, skip=ValueError, never_skip=KeyError, log="x.jsonl", after=5, remember=6)
    policy.log = None
    policy(ValueError("1"))
    copy = pickle.loads(pickle.dumps(policy))
    assert ([], {}) == (copy.skipped, copy.counts)
    for name in ("max_fraction", "max_run", "skip", "never_skip", "log", "after", "remember"):
        assert getattr(policy, name) == getattr(copy, name)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_each_worker_counts_for_itself(tmp_path, start, capfd):
    """Every worker skips, writes to the same log, and says its own line; the parent's counts stay empty."""
    urls = shards_with_bad_json(tmp_path, 30, range(0, 60, 10), shards=2)
    log = tmp_path / "skipped.jsonl"
    policy = wds.ErrorPolicy(log=log)
    dataset = wds.WebDataset(urls, handler=policy).decode(handler=policy)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
        came = keys(DataLoader(dataset, batch_size=None, num_workers=2, multiprocessing_context=start))
    assert 54 == len(came)
    records = [json.loads(line) for line in log.read_text().splitlines()]
    assert [f"{number:06d}" for number in range(0, 60, 10)] == sorted(record["key"] for record in records)
    assert ["0/0"] * 3 + ["0/1"] * 3 == sorted(record["worker"] for record in records)
    assert {} == policy.counts
    said = capfd.readouterr().err
    for worker in range(2 if start == "spawn" else 0):  # forks have the test's own logging
        assert f"reader 0/{worker} skipped 3 of 30 items (10 %)" in said


def test_a_worker_that_stops_raises_in_the_parent(tmp_path):
    """The budget's error comes out of the DataLoader, with its line."""
    urls = shards_with_bad_json(tmp_path, 30, range(30))
    dataset = wds.WebDataset(urls).decode(handler=wds.ErrorPolicy(max_fraction=1, max_run=5))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
        with pytest.raises(ErrorBudgetError, match="6 errors in a row; max_run=5"):
            loaded(DataLoader(dataset, batch_size=None, num_workers=1))


def test_the_sample_that_was_good_is_not_changed_by_counting(tmp_path):
    """With a policy that never acts, the samples and their order are those without one."""
    urls = write_shards(tmp_path, shards=3, samples=50)
    plain = wds.WebDataset(urls, shardshuffle=3).shuffle(20).decode()
    policy = wds.ErrorPolicy()
    watched = wds.WebDataset(urls, shardshuffle=3, handler=policy).shuffle(20).decode(handler=policy)
    for _ in range(2):
        assert list(plain) == list(watched)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"max_fraction": 1.5}, "max_fraction must be a share from 0 to 1, got 1.5"),
        ({"max_fraction": "1%"}, "max_fraction must be a share"),
        ({"max_run": -1}, "max_run must be a number of items, 0 or more, got -1"),
        ({"after": 1.5}, "after must be a number of items"),
        ({"skip": "ValueError"}, "skip must be an exception class, or a tuple of them, got 'ValueError'"),
        ({"never_skip": (KeyError, KeyboardInterrupt)}, "never_skip must be an exception class"),
        ({"log": 3}, "log must be a path"),
    ],
)
def test_wrong_arguments_are_told(arguments, text):
    """One line says which argument, what it must be and what it is."""
    with pytest.raises((TypeError, ValueError), match=f"^ErrorPolicy: {text}"):
        wds.ErrorPolicy(**arguments)


def test_the_log_is_the_library_s(caplog):
    """The line is a warning of a logger below `webdataset`."""
    list(pipeline([1], wds.map(fails(ValueError()), handler=wds.ErrorPolicy(1.0))))
    (record,) = caplog.records
    assert ("webdataset.policy", logging.WARNING) == (record.name, record.levelno)


def test_items_dropped_on_purpose_count_as_seen():
    """Where a stage drops most items, the share of errors is still that of all items."""

    def wanted(number):
        if number % 100 == 1:
            raise ValueError("bad row")
        return number % 100 == 2

    policy = wds.ErrorPolicy(max_fraction=0.02)
    assert 100 == len(list(wds.DataPipeline(lambda: iter(range(10_000)), wds.select(wanted, handler=policy))))
