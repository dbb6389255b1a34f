"""Lists of shards: patterns, variables, order, splitting, drawing."""

from __future__ import annotations

import logging
import pickle
import re
from itertools import islice
from pathlib import Path

import pytest
import torch.utils.data

from webdataset import shardlists
from webdataset.errors import EmptyDatasetError, ShardListError
from webdataset.shardlists import (
    ResampledShardList,
    ResampledShards,
    SimpleShardList,
    expand_source,
    expand_urls,
    make_seed,
    non_empty,
    resampled,
    single_node_only,
    split_by_node,
    split_by_worker,
)

DIGITS = [str(n) for n in range(10)]


def urls_of(shards) -> list[str]:
    return [shard["url"] for shard in shards]


@pytest.fixture
def reader(monkeypatch):
    """Makes this process a given reader."""

    def become(rank=0, world_size=1, worker=0, num_workers=1):
        for name, value in (
            ("RANK", rank),
            ("WORLD_SIZE", world_size),
            ("WORKER", worker),
            ("NUM_WORKERS", num_workers),
        ):
            monkeypatch.setenv(name, str(value))

    return become


# patterns


def test_pieces_braces_and_variables_expand_in_this_order(monkeypatch):
    """`::` separates, `${NAME}` comes from WDS_NAME, variables may hold variables and braces."""
    monkeypatch.setenv("WDS_ROOT", "/data/${SET}")
    monkeypatch.setenv("WDS_SET", "{train,val}")
    assert expand_urls("${ROOT}-{0..1}.tar::b.tar") == [
        "/data/train-0.tar",
        "/data/train-1.tar",
        "/data/val-0.tar",
        "/data/val-1.tar",
        "b.tar",
    ]
    assert expand_urls("$ROOT/a::") == ["$ROOT/a", ""]


def test_a_missing_variable_is_named(monkeypatch):
    """The message holds the pattern, the place and the variable of the environment."""
    monkeypatch.delenv("WDS_NOWHERE", raising=False)
    with pytest.raises(ValueError, match=re.escape("${NOWHERE}/a.tar: ${NOWHERE} stands for")) as info:
        expand_urls("${NOWHERE}/a.tar")
    assert "WDS_NOWHERE, which is not set" in str(info.value)


def test_variables_that_grow_for_ever_are_an_error(monkeypatch):
    """A variable that holds itself and more ends after ten rounds, with a word."""
    monkeypatch.setenv("WDS_LOOP", "x${LOOP}")
    with pytest.raises(ShardListError, match="after 10 rounds"):
        expand_urls("${LOOP}")


def test_lists_are_copied_and_not_expanded():
    """The items of a list, tuple or generator are shards already; paths become strings."""
    urls = ["a-{0..1}.tar", "b::c"]
    assert expand_urls(urls) == urls
    assert expand_urls(urls) is not urls
    assert expand_urls(("a.tar", Path("d", "b.tar"))) == ["a.tar", str(Path("d", "b.tar"))]
    assert expand_urls(name for name in "ab") == ["a", "b"]


def test_a_path_is_a_pattern_of_braces():
    """pathlib.Path works where a string does; without braces it is a name, whatever characters it has."""
    assert expand_urls(Path("d/x-{0..1}.tar")) == ["d/x-0.tar", "d/x-1.tar"]
    assert expand_urls(Path("a::b.tar")) == ["a::b.tar"]


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        (["a.tar", 7], "a shard must be a str or a path, got int at position 1"),
        ([b"a.tar"], "a shard must be a str or a path, got bytes at position 0"),
        (b"a.tar", "cannot handle <class 'bytes'>: shards are a pattern"),
        (7, "cannot handle <class 'int'>: shards are a pattern"),
        (None, "cannot handle <class 'NoneType'>"),
    ],
)
def test_what_is_no_shard_is_a_type_error(urls, message):
    """One line: where, got, expected."""
    with pytest.raises(TypeError, match=re.escape(message)):
        SimpleShardList(urls)


def test_messages_hide_passwords():
    """An unbalanced pattern with credentials is shown without them."""
    with pytest.raises(ShardListError) as info:
        expand_urls("https://me:secret@host/a-{0..9.tar")
    assert "secret" not in str(info.value)
    assert "host/a-{0..9.tar" in str(info.value)


def test_a_brace_that_was_never_opened_is_an_error():
    """A slip such as `train-000..999}.tar` is told, not looked for as a name; lists hold names."""
    with pytest.raises(
        ShardListError, match=r"train-000\.\.999}\.tar: unbalanced braces: '}' at position 14 closes nothing"
    ):
        expand_urls("train-000..999}.tar")
    assert ["a}.tar"] == expand_urls(["a}.tar"]) == expand_urls("a\\}.tar")


def test_expand_source_keeps_lists_and_bounds_iterables():
    """A list is the same object, an endless iterable is cut, a number is a ValueError."""
    urls = ["a", "b"]
    assert expand_source(urls) is urls
    assert expand_source("x{0..2}") == ["x0", "x1", "x2"]
    assert expand_source((str(n) for n in range(10)), 3) == ["0", "1", "2"]
    with pytest.raises(ValueError, match="cannot handle <class 'int'>"):
        expand_source(5)


# SimpleShardList


def test_a_list_is_given_in_order_without_a_seed():
    """Each pass gives all shards in the order of the pattern."""
    shards = SimpleShardList("{0..9}")
    assert len(shards) == 10
    assert urls_of(shards) == urls_of(shards) == shards.urls == DIGITS
    assert shards.seed is None


def test_a_seed_has_the_published_order_first_and_then_another_in_each_epoch():
    """Epoch 0 is golden; epochs differ, and a second object repeats them."""
    shards = SimpleShardList(DIGITS, seed=17)
    epochs = [urls_of(shards) for _ in range(4)]
    assert " ".join(epochs[0]) == "7 3 0 5 1 9 2 4 6 8"
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert all(sorted(epoch) == DIGITS for epoch in epochs)
    again = SimpleShardList(DIGITS, seed=17)
    again.start(2, reader=5)
    assert urls_of(again) == epochs[2]
    assert urls_of(again) == epochs[3]
    assert shards.urls == DIGITS


def test_the_seed_of_a_list_may_be_set_later():
    """`seed` is an attribute that programs set between passes."""
    shards = SimpleShardList(DIGITS)
    shards.seed = 17
    assert " ".join(urls_of(shards)) == "7 3 0 5 1 9 2 4 6 8"


@pytest.mark.parametrize("seed", [True, "random"])
def test_a_drawn_seed_is_logged_and_shared_by_copies(seed, caplog):
    """The seed is drawn once: copies in worker processes agree, and the log tells how to repeat it."""
    with caplog.at_level(logging.WARNING):
        shards = SimpleShardList(DIGITS, seed=seed)
    assert f"seed={shards.seed}" in caplog.text
    assert urls_of(pickle.loads(pickle.dumps(shards))) == urls_of(shards)


@pytest.mark.parametrize("urls", ["", [], (), "${EMPTY}", iter(())])
def test_an_empty_list_names_what_was_given(urls, monkeypatch):
    """No shards at all is an error where the list is made."""
    monkeypatch.setenv("WDS_EMPTY", "")
    for make in (SimpleShardList, ResampledShards):
        with pytest.raises(EmptyDatasetError, match="no shards") as info:
            make(urls)
        assert (repr(urls) if isinstance(urls, str) else type(urls).__name__) in str(info.value)


def test_shard_lists_are_torch_data_sets():
    """Programs ask with isinstance; a DataLoader iterates over them."""
    for shards in (SimpleShardList(DIGITS), ResampledShards(DIGITS, nshards=10)):
        assert isinstance(shards, torch.utils.data.IterableDataset)
        assert len(list(torch.utils.data.DataLoader(shards, batch_size=None))) == 10


# splitting


@pytest.mark.parametrize(("nodes", "workers"), [(1, 1), (2, 1), (1, 3), (2, 3), (3, 8)])
def test_splits_deal_out_each_shard_once(reader, nodes, workers):
    """Over all nodes and workers every shard comes exactly once, also with more readers than shards."""
    parts = []
    for rank in range(nodes):
        for worker in range(workers):
            reader(rank, nodes, worker, workers)
            parts.append(urls_of(split_by_worker(split_by_node(SimpleShardList(DIGITS)))))
    assert sorted(url for part in parts for url in part) == DIGITS
    assert parts[0] == DIGITS[:: nodes * workers]


def test_splits_say_that_they_split():
    """The pipeline looks for this attribute to number the readers of what follows."""
    assert split_by_node.splits_readers
    assert split_by_worker.splits_readers
    assert ResampledShards("a").splits_readers
    assert resampled(3).splits_readers
    for passes_all in (single_node_only, non_empty, SimpleShardList("a")):
        assert not getattr(passes_all, "splits_readers", False)


@pytest.mark.parametrize("stage", [split_by_node, split_by_worker, single_node_only, non_empty])
def test_splits_close_their_source(stage):
    """Closing the stage closes the generator behind it at once."""
    closed = []

    def source():
        try:
            yield from DIGITS
        finally:
            closed.append(True)

    behind = source()
    stream = stage(behind)
    assert next(stream) == "0"
    assert not closed
    stream.close()
    assert closed


def test_single_node_only_complains_when_iteration_begins(reader):
    """One node: everything. Two nodes: a ValueError that says what to pass, not before iteration."""
    assert list(single_node_only([1, 2])) == [1, 2]
    reader(rank=1, world_size=2)
    stream = single_node_only([1, 2])
    with pytest.raises(ValueError, match=r"2 nodes: pass nodesplitter=webdataset\.split_by_node"):
        next(stream)


def test_non_empty_wants_an_item_unless_other_readers_may_have_them(reader):
    """Nothing at all is an error; a further reader without a share is none."""
    assert list(non_empty([1])) == [1]
    with pytest.raises(ValueError, match="received no data"):
        list(non_empty([]))
    reader(worker=1, num_workers=2)
    assert list(non_empty([])) == []


# drawing


def test_make_seed_gives_the_published_numbers():
    """Two published values."""
    assert make_seed(1003, 0, 5) == 963888
    assert make_seed(1, 2, 3) == 1026


def test_deterministic_draws_are_the_published_ones(reader):
    """Rank 1, worker 3, seed 5: two epochs, and the same ones through `start`."""
    reader(rank=1, world_size=2, worker=3, num_workers=4)
    shards = ResampledShards(DIGITS, nshards=12, seed=5, deterministic=True)
    golden = ["5 3 6 6 2 0 9 9 1 3 0 8", "5 8 8 5 5 4 1 5 6 6 2 2"]
    assert shards.epoch == -1
    assert [" ".join(urls_of(shards)) for _ in range(2)] == golden
    assert shards.epoch == 1
    copy = ResampledShardList(DIGITS, 12, 5, deterministic=True)
    copy.start(1, reader=7)
    assert " ".join(urls_of(copy)) == golden[1]


def test_draws_differ_from_pass_to_pass_unless_deterministic():
    """By default process, time and entropy take part."""
    shards = ResampledShards("{000..999}", nshards=50, worker_seed=lambda: 3)
    passes = [urls_of(ResampledShards(shards.urls, nshards=50)) for _ in range(3)] + [urls_of(shards)]
    assert len({tuple(urls) for urls in passes}) == 4
    assert set(passes[0]) <= set(shards.urls)


def test_the_draws_go_on_for_ever_and_the_seed_can_be_shown(monkeypatch, capsys):
    """Without `nshards` there is no end; WDS_SHOW_SEED=1 prints a line per pass."""
    monkeypatch.setenv("WDS_SHOW_SEED", "1")
    shards = ResampledShards("a", deterministic=True)
    assert len(list(islice(shards, 1000))) == 1000
    assert capsys.readouterr().out == "# ResampledShards seed 0\n"
    assert shards.rng.getstate()


def test_an_unchecked_empty_list_draws_nothing():
    """`empty_check=False` gives empty passes."""
    assert list(ResampledShards([], empty_check=False)) == []


def test_an_epoch_that_the_program_sets_counts_on(reader):
    """`epoch` may be assigned; the numbers go on from there, also under a pipeline."""
    shards = ResampledShards(DIGITS, nshards=5, deterministic=True)
    expected = [urls_of(shards) for _ in range(9)]
    shards = ResampledShards(DIGITS, nshards=5, deterministic=True)
    shards.start(0, 0)
    assert urls_of(shards) == expected[0]
    shards.epoch = 5
    shards.start(1, 0)
    assert urls_of(shards) == expected[6]
    shards.start(2, 0)
    assert urls_of(shards) == expected[7]


def test_resampled_repeats_for_a_seed_and_differs_between_epochs_and_readers(reader):
    """Any source, n draws of it: reproducible, another order in each epoch and each reader."""
    stage = resampled(40)
    first, second = list(stage(DIGITS)), list(stage(DIGITS))
    assert len(first) == 40
    assert set(first) <= set(DIGITS)
    assert first != second
    assert list(resampled(40)(DIGITS)) == first
    assert list(resampled(40, seed=1)(DIGITS)) != first
    reader(worker=1, num_workers=2)
    stage = resampled(40)
    stage.start(0, reader=0)
    assert list(stage(DIGITS)) != first
    assert list(resampled(3)([])) == []


def test_resampled_is_a_stage_like_others():
    """It prints its arguments, pickles, and refuses unknown ones where it is made."""
    assert str(resampled(3)) == "<resampled_ (3,) {}>"
    copy = pickle.loads(pickle.dumps(resampled(3, seed=4)))
    assert list(copy(DIGITS)) == list(resampled(3, seed=4)(DIGITS)) == list(shardlists.resampled_(DIGITS, 3, seed=4))
    with pytest.raises(TypeError, match=r"resampled: unknown argument 'sed' \(did you mean 'seed'\?\)"):
        resampled(3, sed=4)
