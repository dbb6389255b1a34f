"""lhotse, CogVideo and their like: stages and openers of their own, lazy iterators, fields from beside the shards."""

from __future__ import annotations

import importlib
import io
import json
import pickle
import subprocess
import sys
import tarfile
from functools import partial
from pathlib import Path

import pytest
from torch.utils.data import IterableDataset

import webdataset as wds
from helpers import tar_bytes, write_shards
from webdataset import DataPipeline, ResampledShards, tarfile_to_samples
from webdataset.filters import pipelinefilter
from webdataset.gopen import Pipe, gopen, gopen_pipe, gopen_schemes
from webdataset.handlers import reraise_exception
from webdataset.tariterators import group_by_keys

SHARDS, SAMPLES = 3, 4
COUNT = SHARDS * SAMPLES


@pytest.fixture
def urls(tmp_path):
    return write_shards(tmp_path, SHARDS, SAMPLES)


@pytest.fixture
def schemes():
    """The table of openers, as it was afterwards."""
    saved = dict(gopen_schemes)
    yield gopen_schemes
    gopen_schemes.clear()
    gopen_schemes.update(saved)


def keys(samples):
    return sorted(sample["__key__"] for sample in samples)


class LazyItems:
    """Pickled objects from an archive, one by one; it pickles as its path, and begins anew in each loop."""

    def __init__(self, path):
        self.path = path

    def __getstate__(self):
        return {"path": self.path}

    def __iter__(self):
        self._ds = wds.WebDataset(str(self.path), shardshuffle=False)
        self._ds_iter = iter(self._ds)
        return self

    def __next__(self):
        return pickle.loads(next(self._ds_iter)["data"])

    def values(self):
        yield from self


class Items(IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return self.items.values()


def test_objects_in_archives(tmp_path, load, workers):
    """Bytes under a name without meaning go through TarWriter and WebDataset as they are, `data` is no extension."""
    path = (tmp_path / "cuts").with_suffix(".tar")
    with wds.TarWriter(str(path)) as sink:
        for number in range(5):
            sink.write({"__key__": f"cut-{number}", "data": pickle.dumps({"id": number, "duration": number / 4})})
    items = pickle.loads(pickle.dumps(LazyItems(path)))
    assert [{"id": number, "duration": number / 4} for number in range(5)] == list(items) == list(items)
    if workers == 0:
        assert [0, 1, 2, 3, 4] == [item["id"] for item in load(Items(items))]
    else:  # each worker reads its share of the one shard: a single one has it
        assert [0, 1, 2, 3, 4] == [item["id"] for item in load(Items(items), num_workers=1)]


class Windows(wds.PipelineStage):
    """Pairs of neighbours; a stage with state, as programs write them."""

    def __init__(self, size):
        self.size, self.seen = size, 0

    def run(self, src):
        window = []
        for sample in src:
            self.seen += 1
            window.append(sample)
            if len(window) == self.size:
                yield {"__key__": window[0]["__key__"], "keys": [sample["__key__"] for sample in window]}
                window = []


def _renamed(data, prefix="", suffix="", handler=reraise_exception):
    for sample in data:
        try:
            sample["__key__"] = prefix + sample["__key__"] + suffix
            yield sample
        except Exception as exn:
            if not handler(exn):
                break


renamed = pipelinefilter(_renamed)
with_mark = pipelinefilter(partial(_renamed, suffix="!"))


def test_stages_of_every_kind(urls, load):
    """A PipelineStage, pipelinefilter of a function and of a partial, a pipeline as source of another."""
    first = DataPipeline(wds.SimpleShardList(urls[:2]), wds.split_by_worker, tarfile_to_samples(), renamed(prefix="a-"))
    second = DataPipeline(wds.SimpleShardList(urls[2:]), tarfile_to_samples(), renamed("b-", suffix="?"), with_mark())
    windows = load(first.compose(Windows(2)))
    assert [f"a-{number:06d}" for number in range(0, 8, 2)] == keys(windows)
    both = wds.RoundRobin([first, second], longest=True)
    found = keys(load(DataPipeline(both, wds.map(dict)), num_workers=0))
    assert [*(f"a-{number:06d}" for number in range(8)), *(f"b-{number:06d}?!" for number in range(8, 12))] == found
    assert "_renamed" in str(renamed(prefix="a"))
    assert 3 == len(list(pickle.loads(pickle.dumps(first.compose(Windows(2), wds.slice(3))))))


def test_openers_that_the_program_registers(urls, schemes, load):
    """gopen_schemes takes functions of url, mode and bufsize that give any stream; `__default__` takes the rest."""

    def read_memory(url, mode="rb", bufsize=8192, **kw):
        assert (mode, url[:9]) == ("rb", "memory://")
        return io.BytesIO(Path(url.removeprefix("memory://")).read_bytes())

    def read_by_command(url, mode="rb", bufsize=8192 * 4):
        path = url.removeprefix("command://")
        if mode[0] == "r":
            return Pipe(f"cat '{path}'", mode=mode, shell=True, bufsize=bufsize, ignore_status=[141, 23])
        if mode[0] == "w":
            return Pipe(["tee", path], mode=mode, bufsize=bufsize, stdout=subprocess.DEVNULL)
        raise ValueError(f"{mode}: unknown mode")

    schemes["memory"] = wds.gopen_schemes["command"] = read_by_command
    importlib.import_module("webdataset.gopen").gopen_schemes["memory"] = read_memory
    schemes["__default__"] = lambda url, mode="rb", bufsize=8192, **kw: gopen_pipe(f"pipe:cat {url[7:]}", mode, bufsize)
    shards = [f"{scheme}://{url}" for scheme, url in zip(["memory", "command", "other"], urls, strict=True)]
    shards[2] = "other:/" + shards[2].removeprefix("other://")
    for ds in (
        DataPipeline(wds.SimpleShardList(shards), wds.split_by_worker, tarfile_to_samples()),
        wds.WebDataset(shards, shardshuffle=False),
    ):
        assert [f"{number:06d}" for number in range(COUNT)] == keys(load(ds))
    copy = f"{urls[0]}.copy"
    with wds.TarWriter(f"command://{copy}") as sink:
        sink.write({"__key__": "a", "txt": "text"})
    assert ["a"] == [sample["__key__"] for sample in wds.WebDataset(copy, shardshuffle=False)]


def test_gopen_is_a_function_that_gives_context_managers(urls, tmp_path):
    """`with wds.gopen(url) as stream`, for files and commands, for reading and writing."""
    (tmp_path / "info.json").write_text('{"num": 7}')
    with wds.gopen(str(tmp_path / "info.json")) as stream:
        assert {"num": 7} == json.load(stream)
    with gopen(f"pipe:cat {tmp_path / 'info.json'}", "rb") as stream:
        assert isinstance(stream, Pipe)
        assert b'{"num": 7}' == stream.read()
    with wds.gopen(str(tmp_path / "out.txt"), "wb") as stream:
        stream.write(b"written")
    assert b"written" == (tmp_path / "out.txt").read_bytes()
    with pytest.raises(IOError), wds.gopen("pipe:exit 3") as stream:
        stream.read()


def members_with_meta(fileobj, names):
    """Members of an archive, and after each one of kind `.txt` fields from a JSON lines file beside it."""
    lines = Path(fileobj.name).with_suffix(".meta.jsonl").read_text().splitlines()
    table = {item["key"]: item for item in map(json.loads, lines)}
    with tarfile.open(fileobj=fileobj, mode="r|*") as stream:
        for member in stream:
            yield {"fname": member.name, "data": stream.extractfile(member).read()}
            key, _, suffix = member.name.partition(".")
            if suffix == "txt":
                yield from ({"fname": f"{key}.{name}", "data": table.get(key, {}).get(name)} for name in names)
            stream.members = []


def expander_with_meta(data, names, handler=reraise_exception):
    for source in data:
        try:
            with source["stream"] as stream:
                for file in members_with_meta(stream, names):
                    file["__url__"] = source["url"]
                    yield file
        except Exception as exn:
            exn.args = (*exn.args, source.get("stream"), source.get("url"))
            if not handler(exn):
                break


def samples_with_meta(src, names, handler=reraise_exception):
    streams = wds.tariterators.url_opener(src, handler=handler)
    return group_by_keys(expander_with_meta(streams, names, handler), handler=handler)


class WithMeta(DataPipeline):
    def __init__(self, urls, process_fn, names, nshards=sys.maxsize):
        to_samples = pipelinefilter(partial(samples_with_meta, names=names))
        super().__init__(ResampledShards(urls, nshards, deterministic=True), to_samples(), wds.shuffle(5), process_fn)


def test_fields_from_a_file_beside_the_shard(urls, load, workers):
    """The program's own expander feeds our group_by_keys, with values that are no bytes; streams have a name."""
    for url in urls:
        lines = [json.dumps({"key": f"{number:06d}", "score": number}) for number in range(COUNT)]
        Path(url).with_suffix(".meta.jsonl").write_text("\n".join(lines))

    def process(samples):
        for sample in samples:
            yield int(sample["__key__"]), sample["score"], sample["missing"] is None

    items = load(WithMeta(urls, process, ["score", "missing"], nshards=2))
    assert 2 * SAMPLES * max(workers, 1) == len(items)
    assert all(number == score and missing for number, score, missing in items)


def test_an_expander_that_marks_the_end_of_shards(urls, load):
    """group_by_keys takes the empty items of old expanders, and streams of files grouped shard by shard."""
    expand = pipelinefilter(partial(wds.tariterators.tar_file_expander, eof_value={}))
    opener = pipelinefilter(wds.tariterators.url_opener)
    group = pipelinefilter(group_by_keys)
    ds = DataPipeline(wds.SimpleShardList(urls), wds.split_by_worker, opener(), expand(), group(suffixes={"txt"}))
    samples = load(ds)
    assert [f"{number:06d}" for number in range(COUNT)] == keys(samples)
    assert {"__key__", "__url__", "txt"} == {name for sample in samples for name in sample}
    same = [urls[0], urls[0]]
    ds = DataPipeline(
        wds.SimpleShardList(same), wds.tariterators.url_opener, expand(), partial(group_by_keys, lcase=False)
    )
    assert 2 * SAMPLES == len(load(ds, num_workers=0))


def test_members_by_hand(tmp_path):
    """tar_file_iterator over a stream of the program, as its tests and tools do."""
    stream = io.BytesIO(tar_bytes({"a.txt": b"1", "__meta__/x.json": b"", "a.jpg": b"2", "b.txt": b"3"}))
    files = wds.tariterators.tar_file_iterator(stream, select_files=lambda name: name.endswith(".txt"))
    assert [("a.txt", b"1"), ("b.txt", b"3")] == [(file["fname"], file["data"]) for file in files]
    assert ("__", "__") == (wds.tariterators.meta_prefix, wds.tariterators.meta_suffix)
