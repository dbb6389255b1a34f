"""Splitting that does no harm: fewer shards than readers, idle readers, empty data sets, one order everywhere."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

import webdataset as wds
from helpers import loaded, tar_bytes, write_shards
from webdataset.errors import EmptyDatasetError, ShardListError


def keys(dataset):
    return [sample["__key__"] for sample in dataset]


def load(dataset, workers, **options):
    """The keys that come out of a DataLoader."""
    gc.collect()  # a loader that failed before would break an import of the fork that collects it (Python 3.11)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
        return keys(loaded(DataLoader(dataset, batch_size=None, num_workers=workers, **options)))


def as_reader(monkeypatch, rank, world_size, worker, num_workers):
    names = ("RANK", "WORLD_SIZE", "WORKER", "NUM_WORKERS")
    for name, value in zip(names, (rank, world_size, worker, num_workers), strict=True):
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
@pytest.mark.parametrize("shards", [1, 2, 3, 7])
def test_every_sample_comes_once_for_every_number_of_workers(tmp_path, shards, workers):
    """Fewer shards than workers, or more: no error, nothing lost, nothing twice."""
    urls = write_shards(tmp_path, shards=shards, samples=4)
    assert sorted(f"{number:06d}" for number in range(4 * shards)) == sorted(load(wds.WebDataset(urls), workers))


@pytest.mark.parametrize("shardshuffle", [None, 10])
@pytest.mark.parametrize(("ranks", "workers"), [(1, 1), (2, 1), (2, 3), (5, 2)])
def test_every_sample_comes_once_for_every_number_of_ranks(tmp_path, monkeypatch, ranks, workers, shardshuffle):
    """All readers together have the data set, in every epoch, also with shuffled shards."""
    urls = write_shards(tmp_path, shards=4, samples=3)
    came: Counter[str] = Counter()
    for rank in range(ranks):
        for worker in range(workers):
            as_reader(monkeypatch, rank, ranks, worker, workers)
            dataset = wds.WebDataset(urls, shardshuffle=shardshuffle).shuffle(5)
            for _ in range(2):
                came.update(keys(dataset))
    assert {f"{number:06d}": 2 for number in range(12)} == came


def test_idle_readers_are_told_once_with_the_numbers(tmp_path, monkeypatch, caplog):
    """The first reader logs it in the first epoch; the others, and later epochs, are quiet."""
    urls = write_shards(tmp_path, shards=3, samples=2)
    as_reader(monkeypatch, 0, 2, 0, 4)
    dataset = wds.WebDataset(urls)
    for _ in range(2):
        list(dataset)
    text = "3 shards for 8 readers (2 ranks with 4 workers each): 5 readers have nothing to do"
    assert [text] == caplog.messages
    as_reader(monkeypatch, 1, 2, 0, 4)
    assert ["000002", "000003"] == keys(wds.WebDataset(urls))
    as_reader(monkeypatch, 1, 2, 3, 4)
    assert [] == keys(wds.WebDataset(urls))
    assert [text] == caplog.messages


def test_only_what_is_split_counts(tmp_path, monkeypatch, caplog):
    """Without a split of nodes only the workers share the shards; enough shards, and drawn ones, say nothing."""
    urls = write_shards(tmp_path, shards=3, samples=2)
    as_reader(monkeypatch, 0, 9, 0, 3)
    assert 2 == len(keys(wds.WebDataset(urls, nodesplitter=None)))
    assert 6 == len(keys(wds.WebDataset(urls, nodesplitter=None, workersplitter=None)))
    assert 4 == len(keys(wds.WebDataset(urls, resampled=True).with_epoch(4)))
    assert [] == caplog.messages


def test_single_node_only_stays_for_those_who_ask(tmp_path, monkeypatch):
    """It refuses several nodes when iteration begins, and says what to pass instead."""
    urls = write_shards(tmp_path, shards=2, samples=2)
    dataset = wds.WebDataset(urls, nodesplitter=wds.single_node_only)
    assert 4 == len(keys(dataset))
    as_reader(monkeypatch, 0, 2, 0, 1)
    with pytest.raises(ShardListError, match=r"2 nodes: pass nodesplitter=webdataset\.split_by_node"):
        keys(dataset)


@pytest.fixture
def nothing(tmp_path):
    """Shards that hold members, but no sample."""
    for number in range(3):
        (tmp_path / f"nothing-{number}.tar").write_bytes(tar_bytes([("README", b"x")]))
    return str(tmp_path / "nothing-{0..2}.tar")


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_an_empty_data_set_is_an_error_that_names_the_pattern(nothing, workers):
    """The last of the workers that got nothing says so; fewer shards than workers make no difference."""
    with pytest.raises(EmptyDatasetError, match=r"nothing-\{0\.\.2\}\.tar: no sample found"):
        load(wds.WebDataset(nothing), workers)


@pytest.mark.parametrize("persistent", [False, True])
def test_an_empty_data_set_is_an_error_in_every_epoch(nothing, persistent, tmp_path):
    """Epochs do not mix: after a pass with samples an empty one raises, and the other way round."""
    (full,) = write_shards(tmp_path, shards=1, samples=4)
    switch = tmp_path / "switch.tar"
    empty = (tmp_path / "nothing-0.tar").read_bytes()
    dataset = wds.WebDataset([str(switch), *[str(tmp_path / "nothing-1.tar")] * 3])
    loader_options = {"persistent_workers": True} if persistent else {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
        loader = DataLoader(dataset, batch_size=None, num_workers=2, **loader_options)
        for _ in range(2):
            switch.write_bytes(Path(full).read_bytes())
            assert 4 == len(keys(loader))
        switch.write_bytes(empty)
        with pytest.raises(EmptyDatasetError):
            loaded(loader)


def test_drawing_from_nothing_ends(nothing):
    """Shards that are drawn without end and hold no sample are an error, not a program that hangs."""
    with pytest.raises(EmptyDatasetError, match=r"nothing-\d\.tar: 100 shards in a row, 3 different, gave no sample"):
        next(iter(wds.WebDataset(nothing, resampled=True)))


LETS_NOTHING_PASS = {
    "select_files": {"select_files": lambda name: False},
    "rename_files": {"rename_files": lambda name: "no-field"},
    "keys": {"keys": lambda name: (None, None)},
    "require": {"require": "jpg", "on_missing": "skip"},
    "handler": {"require": "jpg", "handler": wds.ignore_and_continue},
    "unchecked": {"require": "jpg", "on_missing": "skip", "empty_check": False},
}


@pytest.mark.parametrize("options", LETS_NOTHING_PASS.values(), ids=LETS_NOTHING_PASS)
def test_drawing_spun_for_ever_where_nothing_passed(tmp_path, options):
    """What leaves out every sample of shards that are drawn without end is an error."""
    urls = write_shards(tmp_path, shards=7, samples=3)
    with pytest.raises(EmptyDatasetError, match=r"140 shards in a row, 7 different, gave no sample.*select_files"):
        next(iter(wds.WebDataset(urls, resampled=True, **options)))


DROPS_ALL = {
    "select": lambda dataset: dataset.select(lambda sample: False),
    "shuffle": lambda dataset: dataset.shuffle(20).decode().map(lambda sample: None),
    "detshuffle": lambda dataset: dataset.compose(wds.detshuffle(20)).select(lambda sample: False),
    "handler": lambda dataset: dataset.to_tuple("jpg", handler=wds.ignore_and_continue).batched(2),
}


@pytest.mark.parametrize("threads", [None, 0, 2])
@pytest.mark.parametrize("drop", DROPS_ALL.values(), ids=DROPS_ALL)
def test_drawing_spun_for_ever_where_a_later_stage_dropped_all(tmp_path, drop, threads):
    """Stages that drop every sample of shards that are drawn without end are an error, in threads too."""
    dataset = drop(wds.WebDataset(write_shards(tmp_path, shards=7, samples=3), resampled=True))
    if threads is not None:
        dataset = wds.ThreadedLoader(dataset, threads, ahead=10)
    with pytest.raises(EmptyDatasetError, match=r"shards in a row, 7 different, gave no sample.*select, map"):
        next(iter(dataset))


@pytest.mark.parametrize("threads", [None, 4])
def test_samples_that_wait_raise_no_false_alarm(tmp_path, threads):
    """One sample in all, many in a shuffle buffer or waiting for the loop, and one that passes of 40 shards."""
    (one,) = write_shards(tmp_path, shards=1, samples=1)
    dataset = wds.WebDataset(one, resampled=True).map(dict).shuffle(300, initial=300).select(lambda sample: True)
    urls = write_shards(tmp_path, shards=40, samples=1)
    rare = wds.WebDataset(urls, resampled=True).shuffle(50).select(lambda sample: sample["__key__"] == "000007")
    for data, number in ((dataset, 500), (rare, 5)):
        loader = data if threads is None else wds.ThreadedLoader(data, threads)
        assert len(keys(loader.slice(number))) == number


def test_drawing_nothing_in_other_pipelines_ends_too(tmp_path):
    """Pipelines made by hand, drawing after the list, behind a shuffle, from a folder that others fill."""
    urls = write_shards(tmp_path, shards=2, samples=3)
    samples = wds.tarfile_to_samples(select_files=lambda name: False)
    for stages in (
        [wds.ResampledShards(urls, deterministic=True), wds.shuffle(500, initial=500), samples],
        [wds.SimpleShardList(urls), wds.resampled(), samples, wds.batched(3)],
        [wds.DirectoryShardList(str(tmp_path)), samples],
    ):
        with pytest.raises(EmptyDatasetError, match="100 shards in a row, 2 different, gave no sample"):
            next(iter(wds.DataPipeline(*stages)))


def test_workers_that_draw_nothing_end_too(tmp_path):
    """Each worker notices by itself, and says which one it is."""
    dataset = wds.WebDataset(write_shards(tmp_path, 2, 3), resampled=True, require="jpg", on_missing="skip")
    with pytest.raises(EmptyDatasetError, match="100 shards in a row, 2 different, gave no sample"):
        load(dataset, 2)


@pytest.mark.parametrize("options", [{}, {"select_files": lambda name: name.endswith(".cls")}], ids=["fused", "staged"])
def test_rare_samples_raise_no_false_alarm(tmp_path, options):
    """Shards of one sample, and one sample that passes in one shard of many, are enough."""
    urls = write_shards(tmp_path, shards=40, samples=1)
    dataset = wds.WebDataset(urls, resampled=True, **options)
    assert 1500 == len(keys(dataset.slice(1500)))
    one = wds.WebDataset(urls, resampled=True, select_files=lambda member: member == "000007.txt")
    assert ["000007"] * 25 == keys(one.slice(25))


def test_many_empty_shards_are_passed_over(tmp_path, nothing):
    """Each shard once, however many are empty: the samples behind them come."""
    (full,) = write_shards(tmp_path, shards=1, samples=2)
    empty = [f"{tmp_path}/{'./' * number}nothing-0.tar" for number in range(1200)]
    assert ["000000", "000001"] == keys(wds.WebDataset([*empty, full]))


def test_an_empty_data_set_is_none_where_nobody_checks(nothing):
    """empty_check=False gives an empty stream."""
    assert [] == load(wds.WebDataset(nothing, empty_check=False), 2)
    assert [] == keys(wds.WebDataset(nothing, empty_check=False))


def test_one_of_several_ranks_logs_that_it_got_nothing(nothing, monkeypatch, caplog):
    """What other ranks got it cannot know: no error, one line."""
    as_reader(monkeypatch, 1, 2, 0, 1)
    assert [] == keys(wds.WebDataset(nothing))
    (line,) = caplog.messages
    assert line.endswith("nothing-{0..2}.tar: rank 1 of 2 got no sample")


def test_later_stages_do_not_make_a_data_set_empty(tmp_path):
    """A filter that lets nothing through is the program's affair."""
    urls = write_shards(tmp_path, shards=2, samples=2)
    assert [] == load(wds.WebDataset(urls).select(lambda sample: False), 2)


PROGRAM = """
import sys, webdataset as wds
order = [s["__key__"] for s in wds.WebDataset(sys.argv[1], shardshuffle=10, seed=7).shuffle(20)]
print(",".join(order))
"""


def test_an_order_is_the_same_in_every_process(tmp_path):
    """The same seed gives the same order whatever Python's hash seed is, and another seed another order."""
    write_shards(tmp_path, shards=4, samples=5)
    pattern = str(tmp_path / "shard-{0000..0003}.tar")
    orders = set()
    for hash_seed in ("0", "1"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, pattern], env=environment, capture_output=True, text=True, check=True
        )
        orders.add(done.stdout.strip())
    (order,) = orders
    assert order.split(",") == keys(wds.WebDataset(pattern, shardshuffle=10, seed=7).shuffle(20))
    assert order.split(",") != keys(wds.WebDataset(pattern, shardshuffle=10, seed=8).shuffle(20))


def test_a_shuffle_behind_a_loader_draws_other_numbers_than_those_in_it():
    """A DataLoader counts as the random stages of its data set."""
    inner = wds.FluidWrapper(range(50)).shuffle(100)
    plain = list(wds.FluidWrapper(list(range(50))).shuffle(100))
    outer = wds.WebLoader(inner, batch_size=None).shuffle(100)
    orders = [list(outer), [plain[i] for i in plain]]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == list(range(50))
