"""Stages that change which samples come and when: shuffle, detshuffle, slice, rsample, info, log_keys."""

from __future__ import annotations

import inspect
import io
import logging
import multiprocessing
import os
import pickle
import random
import subprocess
import sys

import pytest

from contracts import StageCase, run, stage_contract
from webdataset import filters
from webdataset.order.seeds import epoch_random

SAMPLES = [{"__key__": str(i), "__url__": "a.tar", "x": i} for i in range(12)]

CASES = {
    "shuffle": StageCase(lambda: filters.shuffle(5, initial=3), SAMPLES, buffers=4),
    "shuffle-all": StageCase(lambda: filters.shuffle(1000, seed=3), SAMPLES, buffers=200),
    "detshuffle": StageCase(lambda: filters.detshuffle(5, 3), SAMPLES, buffers=4),
    "slice": StageCase(lambda: filters.slice(1, 600, 2), SAMPLES),
    "rsample": StageCase(lambda: filters.rsample(0.5), SAMPLES, buffers=10),
    "info": StageCase(lambda: filters.info(n=0), SAMPLES),
    "log_keys": StageCase(filters.log_keys, SAMPLES),
}


@stage_contract(CASES)
def test_stages_keep_the_contract(case, check):
    """Each of these stages is lazy, closes, pickles, repeats and leaves samples alone."""
    check(case)


def numbers(text: str) -> list[int]:
    return [int(number) for number in text.split()]


# shuffle

GOLDEN = [
    (20, {"bufsize": 5, "initial": 2, "seed": 0}, "1 2 0 4 8 6 9 7 10 11 14 3 16 15 13 17 5 18 19 12"),
    (20, {"bufsize": 10, "initial": 10, "seed": 0}, "6 9 0 4 8 7 10 12 14 5 19 3 2 17 1 11 15 13 16 18"),
    (12, {"seed": 42}, "10 1 0 4 3 11 6 9 8 2 5 7"),
]


@pytest.mark.parametrize(("count", "options", "order"), GOLDEN)
def test_epoch_0_of_a_seed_has_the_published_order(count, options, order):
    """For the stage, the plain function, and lists as well as iterators."""
    assert list(filters.shuffle(**options)(range(count))) == numbers(order)
    assert list(filters._shuffle(iter(range(count)), **options)) == numbers(order)


def test_each_epoch_and_each_reader_has_its_own_order():
    """Passes count by themselves; `start` tells epoch and reader; the generator is that of (seed, epoch, reader)."""
    stage = filters.shuffle(100, seed=5)
    epochs = [list(stage(range(50))) for _ in range(3)]
    assert len({tuple(order) for order in epochs}) == 3
    assert all(sorted(order) == list(range(50)) for order in epochs)
    told = filters.shuffle(100, seed=5)
    told.start(2, 0)
    assert list(told(range(50))) == epochs[2]
    told.start(1, 3)
    assert list(told(range(50))) == list(filters._shuffle(range(50), 100, rng=epoch_random(5, 1, 3)))
    assert list(told(range(50))) == list(filters._shuffle(range(50), 100, rng=epoch_random(5, 2, 3)))


def test_without_a_seed_the_environment_decides(monkeypatch):
    """No seed means WDS_SEED or 0, read when a pass begins; a word in it is an error."""
    stage = filters.shuffle(5, 2)
    assert list(stage(range(20))) == numbers(GOLDEN[0][2])
    monkeypatch.setenv("WDS_SEED", "42")
    assert list(filters.shuffle()(range(12))) == numbers(GOLDEN[2][2])
    monkeypatch.setenv("WDS_SEED", "many")
    with pytest.raises(ValueError, match="WDS_SEED must be an integer, got 'many'"):
        filters.shuffle()(range(12))


def test_orders_do_not_depend_on_the_process():
    """Another interpreter with another hash seed gives the same later epochs."""
    script = (
        "from webdataset import filters; s = filters.shuffle(100, seed=7); s.start(4, 2); print(list(s(range(40))))"
    )
    stage = filters.shuffle(100, seed=7)
    stage.start(4, 2)
    expected = str(list(stage(range(40))))
    for hash_seed in ("1", "2"):
        out = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert out.stdout.strip() == expected


def test_a_random_seed_is_drawn_once_logged_and_shared(caplog):
    """Copies of the stage in other processes agree; the log tells the seed; two stages differ."""
    with caplog.at_level(logging.WARNING):
        stage = filters.shuffle(100, seed="random")
    seed = stage.kw["seed"]
    assert f"seed={seed}" in caplog.text
    assert list(pickle.loads(pickle.dumps(stage))(range(50))) == list(filters.shuffle(100, seed=seed)(range(50)))
    assert filters.shuffle(100, 100, None, "random").kw["seed"] != seed


def test_a_generator_is_used_as_it_is():
    """`rng` is the caller's: no reseeding between passes."""
    rng, twin = random.Random(1), random.Random(1)
    stage = filters.shuffle(5, rng=rng)
    for _ in range(2):
        assert list(stage(range(20))) == list(filters._shuffle(range(20), 5, rng=twin))


def test_a_slice_looks_as_published():
    """The text of the stage is that of islice, whatever the function is called here; it pickles."""
    stage = pickle.loads(pickle.dumps(filters.slice(3)))
    assert str(stage) == "<islice (3,) {}>"
    assert list(stage(range(9))) == [0, 1, 2]


def test_a_shuffle_looks_as_published():
    """Its text is searched for by programs; it is a curried filter with f, args and kw."""
    stage = filters.shuffle(10, seed=0)
    assert str(stage) == repr(stage) == "<_shuffle (10,) {'seed': 0}>"
    assert (stage.f, stage.args, stage.kw) == (filters._shuffle, (10,), {"seed": 0})
    assert isinstance(stage, filters.FilterFunction)
    assert isinstance(stage, filters.ShuffleStage)
    assert filters.shuffle.__name__ == "_shuffle"


@pytest.mark.parametrize("bufsize", [0, 1, False, -3])
def test_a_shuffle_of_at_most_one_sample_is_none(bufsize):
    """The order stays."""
    assert list(filters.shuffle(bufsize)(range(30))) == list(range(30))
    assert list(filters._shuffle([])) == []


def test_wrong_arguments_are_told_where_the_stage_is_made():
    """Seed and rng at once, unknown keywords; a buffer that is no number when a pass begins."""
    with pytest.raises(ValueError, match="shuffle: give seed or rng, not both"):
        filters.shuffle(10, seed=1, rng=random.Random())
    with pytest.raises(ValueError, match="give seed or rng, not both"):
        filters._shuffle(range(3), 10, seed=1, rng=random.Random())
    with pytest.raises(TypeError, match=r"shuffle: unknown argument 'size' \(did you mean 'bufsize'\?\)"):
        filters.shuffle(size=10)
    with pytest.raises(TypeError, match="shuffle: bufsize must be a number of samples, got '10'"):
        filters.shuffle("10")(range(3))
    with pytest.raises(TypeError, match='seed must be an integer, None or "random"'):
        filters.shuffle(10, seed="five")(range(3))


def test_signatures_are_the_published_ones():
    """Ours come last and by keyword only."""
    published = "(data, bufsize=1000, initial=100, rng=None, seed=None, handler=None, *, max_bytes=None)"
    assert signature_without_types(filters._shuffle) == published
    assert (
        signature_without_types(filters.detshuffle)
        == "(bufsize=1000, initial=100, seed=0, epoch=-1, *, max_bytes=None)"
    )
    assert signature_without_types(filters._rsample) == "(data, p=0.5, *, seed=None, rng=None)"
    assert signature_without_types(filters._log_keys) == "(data, logfile=None)"
    assert list(inspect.signature(filters.info).parameters) == ["data", "fmt", "n", "every", "width", "stream", "name"]


def signature_without_types(f) -> str:
    signature = inspect.signature(f)
    bare = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=signature.empty))


# detshuffle


def test_detshuffle_has_the_published_orders():
    """Seed 3, two epochs; the epoch is an attribute; a copy goes on from there."""
    stage = filters.detshuffle(5, seed=3)
    assert list(stage.run(range(10))) == numbers("1 5 6 4 2 9 3 8 0 7")
    twin = pickle.loads(pickle.dumps(stage))
    for same in (stage, twin):
        assert list(same.run(range(10))) == numbers("1 2 0 3 7 4 6 8 5 9")
        assert same.epoch == 1
    assert isinstance(stage, filters.PipelineStage)


def test_detshuffle_follows_the_pipeline_unless_the_program_sets_its_epoch():
    """`start` names the epoch, alike for all readers; an epoch that is assigned counts on."""
    golden = [list(filters.detshuffle(5, seed=3, epoch=epoch).run(range(10))) for epoch in range(-1, 9)]
    stage = filters.detshuffle(5, seed=3)
    stage.start(4, 7)
    assert list(stage.run(range(10))) == golden[4]
    stage.epoch = 6
    assert list(stage.run(range(10))) == golden[7]
    stage.start(5, 7)
    stage.epoch = -1
    stage.start(6, 7)
    assert list(stage.run(range(10))) == golden[0]
    stage.start(7, 7)
    assert list(stage.run(range(10))) == golden[1]


def test_detshuffle_without_a_seed_takes_that_of_the_environment(monkeypatch):
    """None is accepted."""
    monkeypatch.setenv("WDS_SEED", "3")
    assert list(filters.detshuffle(5, seed=None).run(range(10))) == numbers("1 5 6 4 2 9 3 8 0 7")


# slice, rsample


def test_slice_takes_the_arguments_of_islice():
    """And reads no more than it gives."""
    assert list(filters.slice(3)(range(6))) == [0, 1, 2]
    assert list(filters.slice(1, None, 2)(range(6))) == [1, 3, 5]
    source = iter(range(6))
    assert list(filters.slice(3)(source)) == [0, 1, 2]
    assert next(source) == 3


def test_slice_closes_its_source_at_its_end():
    """What was opened for the samples after the slice is closed too."""
    closed = []

    def source():
        try:
            yield from range(100)
        finally:
            closed.append(True)

    behind = source()
    assert list(filters.slice(3)(behind)) == [0, 1, 2]
    assert closed


def test_rsample_keeps_a_share():
    """The share is near p, 0 and 1 are exact, epochs and seeds differ, a seed repeats."""
    stage = filters.rsample(0.3)
    first, second = list(stage(range(10_000))), list(stage(range(10_000)))
    assert 2700 < len(first) < 3300
    assert first != second
    assert first == list(filters.rsample(p=0.3, seed=0)(range(10_000)))
    assert first != list(filters.rsample(0.3, seed=1)(range(10_000)))
    assert list(filters.rsample(0)(range(9))) == []
    assert list(filters.rsample(1.0)(range(9))) == list(range(9))
    with pytest.raises(ValueError, match=r"p must be a probability from 0 to 1, got 1\.5"):
        list(filters.rsample(1.5)([1]))


# info, log_keys


@pytest.mark.parametrize(
    ("n", "every", "printed"), [(2, 3, [0, 1, 2, 5]), (0, 3, [2, 5]), (3, -1, [0, 1, 2]), (0, -1, [])]
)
def test_info_prints_the_first_samples_and_each_nth(n, every, printed):
    """A line for the name, one for each field."""
    out = io.StringIO()
    assert list(filters.info(n=n, every=every, stream=out, name="N")(SAMPLES[:7])) == SAMPLES[:7]
    expected = [f"--- N\n__key__ {str(i)!r}\n__url__ 'a.tar'\nx {i}\n" for i in printed]
    assert out.getvalue() == "".join(expected)


def test_info_cuts_values_and_takes_a_format():
    """`width` bounds the text of a value; `fmt` is filled with the fields; tuples are shown too."""
    out = io.StringIO()
    list(filters.info(n=1, width=10, stream=out)([{"x": b"0" * 100}]))
    list(filters.info("{x}|{__key__}", n=1, stream=out, name="N")(SAMPLES))
    list(filters.info(n=1, stream=out, name="T")([(1, 2)]))
    assert out.getvalue() == "--- \nx b'00000000\n0|0\n--- T\n(1, 2)\n"


def test_info_prints_to_standard_error(capsys):
    """To the one of the moment, so that redirections work."""
    list(filters.info(n=1, name="here")(SAMPLES))
    assert capsys.readouterr().err.startswith("--- here\n")


def test_log_keys_appends_a_line_for_each_sample(tmp_path):
    """Index, worker, rank, key, before the sample goes on; without a file nothing happens."""
    log = tmp_path / "keys"
    log.write_text("before\n")
    stream = filters.log_keys(str(log))([{"__key__": "a"}, {"__key__": "b", "__worker__": 1, "__rank__": 2}])
    next(stream)
    assert log.read_text() == "before\n0\tNone\tNone\ta\n"
    next(stream)
    assert log.read_text() == "before\n0\tNone\tNone\ta\n1\t1\t2\tb\n"
    assert list(filters.log_keys("")(SAMPLES)) == SAMPLES


def write_log(path, name):
    list(filters.log_keys(path)({"__key__": name * 50} for _ in range(200)))


def test_log_keys_of_several_processes_do_not_mix(tmp_path):
    """Four processes, 800 whole lines."""
    context = multiprocessing.get_context("spawn")
    path = str(tmp_path / "keys")
    writers = [context.Process(target=write_log, args=(path, name)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    lines = (tmp_path / "keys").read_text().splitlines()
    whole = {f"{i}\tNone\tNone\t{name * 50}" for i in range(200) for name in "abcd"}
    assert len(lines) == 800
    assert set(lines) == whole


def test_a_shuffle_can_stand_in_a_chain_that_is_closed_early():
    """Stages behind stages close down to the first source."""
    closed = []

    def source():
        try:
            while True:
                yield {"x": 1}
        finally:
            closed.append(True)

    stream = source()
    behind = stream
    for stage in (
        filters.shuffle(50),
        filters.map(dict),
        filters.to_tuple("x"),
        filters.batched(4),
        filters.unbatched(),
    ):
        behind = run(stage, behind)
    assert next(behind) == (1,)
    behind.close()
    assert closed
