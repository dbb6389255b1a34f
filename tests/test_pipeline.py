"""DataPipeline and the fluid interface: stages, epochs, length, fusing, empty data sets."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

import webdataset as wds
from helpers import tar_bytes, write_shards
from webdataset.errors import EmptyDatasetError, NotFoundError, TarError
from webdataset.linking import fuse_stages
from webdataset.pipeline import add_length_method


@pytest.fixture
def urls(tmp_path):
    return write_shards(tmp_path, shards=10, samples=3)


def keys(dataset):
    return [sample["__key__"] for sample in dataset]


def order_of_shards(dataset):
    """Digits of the shards in the order in which their samples come."""
    seen = dict.fromkeys(int(Path(sample["__url__"]).stem.rpartition("-")[2]) for sample in dataset)
    return " ".join(map(str, seen))


def count_to(n):
    yield from range(n)


def plus_one(data):
    for item in data:
        yield item + 1


def test_sources_and_stages_of_every_kind():
    """The first stage may be a list, a callable without arguments or another pipeline; later ones are callables."""
    assert [1, 2] == list(wds.DataPipeline(range(2), plus_one))
    assert [1, 2, 3] == list(wds.DataPipeline(lambda: count_to(3), plus_one))
    inner = wds.DataPipeline(lambda: count_to(3))
    assert [1, 2, 3] == list(wds.DataPipeline(inner, None, plus_one))
    assert [2, 3, 4] == list(wds.DataPipeline(lambda: count_to(3), [plus_one, plus_one]))


def test_a_stage_that_was_not_called_is_named():
    """`wds.shuffle` without parentheses in a pipeline is an error that shows how to write it."""
    with pytest.raises(TypeError, match=r"_shuffle.* was not called|write .*shuffle\(\.\.\.\)"):
        list(wds.DataPipeline(lambda: count_to(3), wds.shuffle))


def test_what_is_no_stage_is_refused_with_its_repr():
    """A number in a pipeline is a ValueError that shows it."""
    with pytest.raises(ValueError, match="17: not a valid pipeline stage"):
        list(wds.DataPipeline(lambda: count_to(3), 17))
    with pytest.raises(IndexError, match="no stages"):
        list(wds.DataPipeline())


def test_builders_leave_the_original_alone_and_setters_do_not(urls):
    """compose and the fluid methods give a new object; with_epoch, repeat and with_length set this one."""
    dataset = wds.WebDataset(urls)
    assert dataset.map(len) is not dataset
    assert len(dataset.pipeline) + 1 == len(dataset.map(len).pipeline)
    for same in (dataset.with_length(7), dataset.repeat(2), dataset.with_epoch(3)):
        assert same is dataset
    assert 7 == len(dataset)
    assert 7 == len(dataset.map(len))


def test_a_stream_has_no_length_but_is_true(urls):
    """len() of a stream is a TypeError that says how to set one; bool() is true; list() works."""
    dataset = wds.WebDataset(urls)
    with pytest.raises(TypeError, match=r"with_length\(n\)"):
        len(dataset)
    assert dataset
    assert 30 == len(list(dataset))


def test_with_length_warns_where_asked():
    """silent=False is the warning of 1.0; without it programs written for 0.2 stay quiet."""
    with pytest.warns(UserWarning, match=r"with_length\(7\) sets len\(\) only"):
        assert 7 == len(wds.DataPipeline(range(3)).with_length(7, silent=False))


def test_with_epoch_cuts_and_repeats(urls):
    """An epoch is as long as asked, shorter or longer than the data; every iteration begins anew."""
    assert 7 == len(list(wds.WebDataset(urls).with_epoch(7)))
    assert 70 == len(list(wds.WebDataset(urls).with_epoch(70)))
    dataset = wds.WebDataset(urls).with_epoch(3)
    assert keys(dataset) == keys(dataset)
    assert 60 == len(list(wds.WebDataset(urls).repeat(2)))
    assert 10 == len(list(wds.WebDataset(urls).repeat(1, nbatches=10)))
    assert 45 == len(list(islice(wds.WebDataset(urls, repeat=True), 45)))


def test_shard_order_follows_the_published_golden_order_and_changes_each_epoch(urls):
    """shardshuffle with seed 5 gives the published order first, another order in each later epoch, the same again."""
    dataset = wds.WebDataset(urls, shardshuffle=10, seed=5)
    orders = [order_of_shards(dataset) for _ in range(3)]
    assert "9 4 5 6 7 8 0 1 3 2" == orders[0]
    assert 3 == len(set(orders))
    again = wds.WebDataset(urls, shardshuffle=10, seed=5)
    assert orders == [order_of_shards(again) for _ in range(3)]
    detshuffled = wds.WebDataset(urls, shardshuffle=10, detshuffle=True, seed=5)
    assert ["9 4 5 6 7 8 0 1 3 2", "9 1 7 6 2 0 4 3 8 5"] == [order_of_shards(detshuffled) for _ in range(2)]


def test_set_epoch_gives_the_order_of_that_epoch(urls):
    """set_epoch(2) makes the next pass the third one; later passes count on."""
    dataset = wds.WebDataset(urls, shardshuffle=10, seed=5)
    orders = [order_of_shards(dataset) for _ in range(4)]
    assert 4 == dataset.epoch
    dataset.set_epoch(2)
    assert orders[2:] == [order_of_shards(dataset) for _ in range(2)]


def test_the_seed_comes_from_the_environment_by_default(urls, monkeypatch):
    """Without a seed WDS_SEED counts, and 0 without that."""
    default = order_of_shards(wds.WebDataset(urls, shardshuffle=10))
    assert default == order_of_shards(wds.WebDataset(urls, shardshuffle=10, seed=0))
    monkeypatch.setenv("WDS_SEED", "5")
    assert "9 4 5 6 7 8 0 1 3 2" == order_of_shards(wds.WebDataset(urls, shardshuffle=10))
    monkeypatch.setenv("WDS_SEED", "five")
    with pytest.raises(ValueError, match="WDS_SEED must be an integer, got 'five'"):
        wds.WebDataset(urls)


def test_the_eight_published_stages_can_be_edited(urls):
    """pipeline holds the eight stages of the published package, and an edited list gives the same samples."""
    dataset = wds.WebDataset(urls, shardshuffle=10)
    assert 8 == len(dataset.pipeline)
    assert "shuffle" in str(dataset.pipeline[3])
    expected = keys(wds.WebDataset(urls))
    edited = wds.WebDataset(urls)
    edited.pipeline.insert(len(edited.pipeline) - 2, lambda files: (file for file in files))
    assert len(fuse_stages(edited.pipeline)) == len(edited.pipeline)
    assert expected == keys(edited)
    plain = wds.WebDataset(urls)
    assert len(fuse_stages(plain.pipeline)) == len(plain.pipeline) - 1


@pytest.mark.parametrize("options", [{}, {"select_files": lambda name: True}], ids=["fused", "stages"])
def test_samples_of_local_shards_have_their_place(urls, options):
    """Samples are dicts of key, url, local path and the fields as bytes, fused or not."""
    sample = next(iter(wds.WebDataset(urls, **options)))
    assert {
        "__key__": "000000",
        "__url__": urls[0],
        "__local_path__": urls[0],
        "cls": b"0",
        "txt": b"text 0",
    } == sample


def test_select_and_rename_files(urls):
    """select_files leaves members out; rename_files changes the names that are grouped."""
    assert {"txt"} == {name for sample in wds.WebDataset(urls, select_files=lambda name: name.endswith("txt"))
                       for name in sample if not name.startswith("__")}  # fmt: skip
    renamed = wds.WebDataset(urls, rename_files=lambda name: name.replace(".txt", ".caption"))
    assert b"text 0" == next(iter(renamed))["caption"]


def test_an_empty_data_set_is_an_error_that_names_it(tmp_path):
    """Shards without a sample end in EmptyDatasetError with the pattern; empty_check=False accepts them."""
    (tmp_path / "none.tar").write_bytes(tar_bytes({"README": b"x"}))
    pattern = str(tmp_path / "{none,none}.tar")
    with pytest.raises(EmptyDatasetError, match=r"none,none}\.tar: no sample found"):
        list(wds.WebDataset(pattern))
    assert [] == list(wds.WebDataset(pattern, empty_check=False))


def test_a_reader_with_nothing_to_do_is_no_error(urls, monkeypatch):
    """With more readers than shards every sample still comes once, and idle readers end quietly."""
    got = []
    for rank in range(4):
        for worker in range(4):
            for name, value in {"RANK": rank, "WORLD_SIZE": 4, "WORKER": worker, "NUM_WORKERS": 4}.items():
                monkeypatch.setenv(name, str(value))
            got += keys(wds.WebDataset(urls))
    assert sorted(keys_of(urls)) == sorted(got)


def keys_of(urls):
    return [f"{number:06d}" for number in range(3 * len(urls))]


def test_shuffling_before_the_split_is_the_same_in_all_readers(urls, monkeypatch):
    """A shuffle in front of split_by_worker draws the same order everywhere, so nothing is lost or doubled."""
    monkeypatch.setenv("NUM_WORKERS", "3")
    got = []
    for worker in range(3):
        monkeypatch.setenv("WORKER", str(worker))
        pipeline = wds.DataPipeline(
            wds.SimpleShardList(urls), wds.shuffle(100), wds.split_by_worker, wds.tarfile_to_samples()
        )
        got += keys(pipeline)
    assert sorted(keys_of(urls)) == sorted(got)


def test_wrong_arguments_say_what_is_right(urls):
    """Wrong values of arguments of WebDataset are refused with the ones that are right."""
    with pytest.raises(ValueError, match='mode must be None or "resampled" or'):
        wds.WebDataset(urls, mode="fast")
    with pytest.raises(ValueError, match='torn must be "warn" or "error"'):
        wds.WebDataset(urls, torn="merge")
    with pytest.raises(TypeError, match="seed must be an integer"):
        wds.WebDataset(urls, seed="five")
    with pytest.raises(TypeError, match="cannot handle"):
        wds.WebDataset(17)
    with pytest.raises(FileNotFoundError, match=r"set\.yaml: no such spec"):
        wds.WebDataset("set.yaml")


def test_specs_and_folders_are_read(urls, tmp_path):
    """A folder stands for its archives, a dict or a file for the shards it names; all may be drawn from."""
    everything = [f"{number:06d}" for number in range(30)]
    assert everything == keys(wds.WebDataset(tmp_path))
    assert everything == keys(wds.WebDataset(f"{tmp_path}/"))
    spec = {"prefix": f"{tmp_path}/", "datasets": [{"name": "a", "shards": "shard-{0000..0009}.tar"}]}
    assert everything == sorted(keys(wds.WebDataset(spec)))
    path = tmp_path / "set.json"
    path.write_text(json.dumps(spec))
    assert everything == sorted(keys(wds.WebDataset(str(path))))
    assert 50 == len(keys(wds.WebDataset(path, resampled=True).with_epoch(50)))
    index = tmp_path / "index.json"
    index.write_text(json.dumps({"shardlist": [{"url": Path(url).name, "nsamples": 3} for url in urls]}))
    assert everything == keys(wds.WebDataset(index))
    (tmp_path / "none").mkdir()
    with pytest.raises(EmptyDatasetError, match=r"none/: no file here is named \.tar"):
        wds.WebDataset(f"{tmp_path}/none/")


def test_a_folder_that_others_fill_is_taken_from(urls, tmp_path):
    """With mode="unlink" every shard goes when it was read."""
    dataset = wds.WebDataset(f"{tmp_path}/", mode="unlink", nodesplitter=None, workersplitter=None)
    assert 30 == len({sample["__key__"] for sample in islice(dataset, 30)})
    assert 1 >= len(list(tmp_path.glob("*.tar*")))


def test_a_folder_is_emptied_only_by_reading(urls, tmp_path, monkeypatch):
    """mode="unlink" loses no shard where there are several readers: a shard goes to whoever takes it."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    dataset = wds.WebDataset(f"{tmp_path}/", mode="unlink", shardshuffle=100)
    assert 30 == len({sample["__key__"] for sample in islice(dataset, 30)})


def test_specs_that_draw_are_not_drawn_from(urls, tmp_path):
    """resampled=True with a spec that chooses shards in each epoch is refused: it would freeze one choice."""
    spec = {"prefix": f"{tmp_path}/", "datasets": [{"name": "a", "shards": "shard-{0000..0009}.tar", "choose": 2}]}
    with pytest.raises(ValueError, match="this spec says itself what to draw"):
        wds.WebDataset(spec, resampled=True)


def test_a_missing_shard_goes_to_the_handler(urls, tmp_path):
    """A shard that is not there is a FileNotFoundError with its path; with a handler the others are read."""
    missing = str(tmp_path / "missing.tar")
    with pytest.raises(FileNotFoundError, match=r"missing\.tar"):
        list(wds.WebDataset([*urls, missing]))
    seen = []
    dataset = wds.WebDataset([missing, *urls], handler=lambda exn: seen.append(exn) or True)
    assert keys_of(urls) == keys(dataset)
    assert [missing] == [exn.url for exn in seen]


def test_pipelines_pickle_whole(urls):
    """A pickled pipeline gives the same samples, its length and epoch too."""
    dataset = wds.WebDataset(urls, shardshuffle=10).shuffle(5).decode().to_tuple("txt", "cls").batched(4).with_length(8)
    first = list(dataset)
    copy = pickle.loads(pickle.dumps(dataset))
    assert (8, 1) == (len(copy), copy.epoch)
    copy.set_epoch(0)
    assert [list(map(list, batch)) for batch in first] == [list(map(list, batch)) for batch in copy]


def test_streams_are_closed_when_the_consumer_stops(urls):
    """After an early break no shard is open any more."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        for _sample in wds.WebDataset(urls).shuffle(4, initial=1).map(lambda sample: sample):
            break
    assert before == len(os.listdir("/proc/self/fd"))


def test_streaming_writes_nothing_anywhere(urls, tmp_path):
    """Without HOME and where nothing may be written, created or made, shards are streamed all the same."""
    program = f"""
import sys, os
def forbid(event, args):
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT
    if event in ("os.mkdir", "os.rename") or (event == "open" and isinstance(args[2], int) and args[2] & writes):
        raise PermissionError(event, args)
sys.dont_write_bytecode = True
sys.addaudithook(forbid)
import webdataset as wds
print(sum(1 for sample in wds.WebDataset({urls!r}, shardshuffle=5).shuffle(5).decode()))
"""
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "TMPDIR")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], env=environment, capture_output=True, text=True, cwd="/"
    )
    assert ("30\n", "") == (done.stdout, done.stderr)


def test_a_thousand_bare_shards_of_any_names(tmp_path):
    """1,000 shards with names of all sorts, without index or metadata, are read as they are listed."""
    names = [f"{'ü#?% '[number % 5]}{number}.{['tar', 'bin', 'x'][number % 3]}" for number in range(1000)]
    data = tar_bytes({"a.txt": b"x"})
    for name in names:
        (tmp_path / name).write_bytes(data)
    urls = [str(tmp_path / name) for name in names]
    assert urls == [sample["__url__"] for sample in wds.WebDataset(urls)]


def test_a_pipeline_given_as_data_may_be_used_again(urls):
    """Stages close the iterators they read from, never a pipeline of the program."""
    shards = wds.DataPipeline(wds.SimpleShardList(urls))
    for _ in range(2):
        assert keys_of(urls) == keys(wds.tarfile_samples(shards))


@wds.pipelinefilter
def doubled(data):
    """A stage of the program, curried in place."""
    for item in data:
        yield item * 2


def test_stages_curried_by_a_decorator_pickle():
    """`@wds.pipelinefilter` may be used as a decorator, as spawned workers need it."""
    stage = pickle.loads(pickle.dumps(doubled()))
    assert [2, 4] == list(stage([1, 2]))
    assert pickle.loads(pickle.dumps(doubled)) is doubled


def test_drawing_shards_that_are_gone_comes_to_an_end(tmp_path):
    """Resampling shards of which none can be opened ends in an error, whatever the handler says."""
    dataset = wds.WebDataset(str(tmp_path / "gone.tar"), resampled=True, handler=wds.ignore_and_continue)
    with pytest.raises(OSError, match=r"gone\.tar: 1000 shards in a row, 1 different, could not be opened"):
        next(iter(dataset))


def test_lists_are_data_for_the_fluid_interface():
    """FluidWrapper around a list iterates over its items."""
    assert [2, 4] == list(wds.FluidWrapper([1, 2]).map(lambda item: item * 2))


class Named(wds.FluidInterface, wds.DataPipeline):
    """A program's own class, with the mixin in front."""


def test_the_fluid_methods_work_whichever_base_comes_first():
    """A class that names FluidInterface before DataPipeline composes all the same."""
    assert [4, 6] == list(Named(range(1, 4)).select(lambda item: item > 1).map(lambda item: item * 2).compose())


def test_resampled_draws_repeat_with_the_seed_and_change_with_the_epoch(urls):
    """Resampling is reproducible by default, in each epoch another draw."""
    dataset = wds.WebDataset(urls, resampled=True, seed=5)
    draws = [[sample["__key__"] for sample in islice(dataset, 40)] for _ in range(2)]
    assert draws[0] != draws[1]
    again = wds.WebDataset(urls, resampled=True, seed=5)
    assert draws == [[sample["__key__"] for sample in islice(again, 40)] for _ in range(2)]


def test_cached_samples_come_from_the_first_pass(urls):
    """mcached() reads the shards once; later passes give the same samples."""
    dataset = wds.WebDataset(urls).mcached()
    first = list(dataset)
    for url in urls:
        os.unlink(url)
    assert first == list(dataset)


def test_a_damaged_shard_of_a_folder_is_not_deleted(urls, tmp_path):
    """With mode="unlink" a shard that could not be read whole is kept under another name, whatever the handler says."""
    damaged = Path(urls[3])
    damaged.write_bytes(damaged.read_bytes()[:2000])
    shards = wds.shardlists.DirectoryShardList(tmp_path, poll=None, mode="unlink")
    samples = list(wds.DataPipeline(shards, wds.tarfile_to_samples(handler=wds.ignore_and_continue)))
    assert 27 <= len(samples) < 30
    assert [f"{damaged.name}._bad_"] == [path.name for path in tmp_path.iterdir()]


def test_one_policy_counts_each_data_set_for_itself(urls, tmp_path):
    """A policy shared by two data sets that run by turns takes no error of one for the other's."""
    policy = wds.ErrorPolicy(max_fraction=0.5, after=5)
    good = iter(wds.WebDataset(urls, handler=policy))
    bad = iter(wds.WebDataset([*urls[:2], str(tmp_path / "gone.tar"), *urls[2:]], handler=policy))
    assert 60 == sum(1 for pair in zip(good, bad, strict=True) for _ in pair)


def test_add_length_method_gives_any_object_a_length():
    """`len()` is the attribute `size` of an object of the program; a pipeline has that without help."""

    class Numbers:
        size = 5

        def __iter__(self):
            return iter(range(self.size))

    numbers = add_length_method(Numbers())
    assert len(numbers) == 5 == len(list(numbers))
    assert isinstance(numbers, Numbers)
    assert type(numbers).__name__ == "Numbers_Length"
    dataset = wds.DataPipeline(range(3)).with_length(3)
    assert add_length_method(dataset) is dataset
    assert type(dataset) is wds.DataPipeline


def test_text_as_a_stage_says_where_shards_go(tmp_path):
    """A list of names in place of a shard list is told what to write; the opener itself takes names, too."""
    (url,) = write_shards(tmp_path, 1, 2)
    for source in (url, [url], [[url]]):
        pipeline = wds.DataPipeline(source, wds.tarfile_to_samples())
        if source == [[url]]:
            assert 2 == len(list(pipeline))
            continue
        with pytest.raises(TypeError, match=r"is no pipeline stage: names of shards go into SimpleShardList\(...\)"):
            list(pipeline)


def test_a_function_of_a_sample_in_compose_is_told_where_it_goes(tmp_path):
    """compose gives the whole stream; the error of a function that wants a sample says so."""
    with pytest.raises(TypeError) as caught:
        list(wds.WebDataset(write_shards(tmp_path, 1, 2)).compose(lambda sample: sample["cls"]))
    (note,) = caught.value.__notes__
    assert note.endswith("called with the whole stream; a function of one sample goes into map()")


@pytest.mark.parametrize(
    ("shards", "hint"),
    [
        (["a-{0..1}.tar"], "; the items of a list are names, not patterns"),
        (["a*.tar"], "; the items of a list are names, not patterns"),
        ("a-{0.1}.tar", r"; braces hold a range, \{000\.\.999\}, or a list, \{a,b\}$"),
        (["a{.tar"], "; braces hold a range"),
        ("~/a.tar", r'; "~" stands for nothing here: os\.path\.expanduser\(path\) replaces it$'),
        ("$DATA/a.tar", '"[$]NAME" for nothing$'),
        ("a?.tar", '; of the special characters of patterns only braces and "\\*" are special$'),
        ("a[01].tar", "; of the special characters"),
        ("a.tar", r"no such file \(relative to [^;]*\)$"),
    ],
)
def test_patterns_that_nobody_expands_are_told(tmp_path, monkeypatch, shards, hint):
    """A name with braces or stars in a list, or with a question mark, is not found, and the error says why."""
    monkeypatch.chdir(tmp_path)
    for pipeline in (wds.WebDataset(shards), wds.DataPipeline(wds.SimpleShardList(shards), wds.tarfile_to_samples())):
        with pytest.raises(NotFoundError, match=hint):
            list(pipeline)


def test_a_list_of_shards_was_a_damaged_archive(tmp_path):
    """A text file given as a shard is no archive, and the error says how the shards that it lists are named."""
    (tmp_path / "list.txt").write_text("a.tar\n")
    with pytest.raises(
        TarError, match=r"it looks like text; '@.*/list\.txt' stands for the shards that this file lists"
    ):
        list(wds.WebDataset(str(tmp_path / "list.txt")))
