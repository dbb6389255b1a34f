"""A stream by number: `ds[i]` is the i-th streamed sample, `len` is there where it costs nothing; both say why not."""

from __future__ import annotations

import copy
import json
import operator
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import webdataset as wds
from helpers import foreign_data, names_in, write_shards
from reading import golden_names
from servers import serve
from webdataset import filters
from webdataset.errors import SampleError, StaleIndexError
from webdataset.handlers import ignore_and_continue
from webdataset.shardindex import write_sidecar
from webdataset.shardlists import SimpleShardList
from webdataset.writer import ShardWriter


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Indexes are cached in a folder of the test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.delenv("WDS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def number(sample: dict[str, Any]) -> dict[str, Any]:
    return {**sample, "number": int(sample["__key__"])}


def decimal(data: bytes) -> int:
    return int(data)


def upper(text: Any) -> Any:
    return text.upper()


STAGES: dict[str, Any] = {
    "nothing": lambda ds: ds,
    "decode": lambda ds: ds.decode(),
    "map": lambda ds: ds.map(number),
    "map_dict": lambda ds: ds.map_dict(cls=decimal),
    "tuples": lambda ds: ds.to_tuple("txt", "cls").map_tuple(upper, decimal),
    "rename": lambda ds: ds.rename(text="txt").rename_keys(("t", "text"), ("c", "cls")),
    "extract": lambda ds: ds.xdecode(("*.txt", False), ("*.cls", False)).extract_keys("*.txt"),
    "associate": lambda ds: ds.associate({"000003": {"extra": 1}}),
    "watched": lambda ds: ds.log_keys().compose(filters.info(n=0)).mcached(),
    "required": lambda ds: ds.compose(filters.require_fields(("txt;text", "cls"))),
}


@pytest.mark.parametrize("stages", STAGES.values(), ids=STAGES)
def test_the_ith_sample_is_the_ith_of_the_stream(stages: Any, tmp_path: Path) -> None:
    """With stages that treat each sample alone: by number from either end, by key, in slices; nothing is left out."""
    ds = stages(wds.WebDataset(write_shards(tmp_path, 3, 4)))
    streamed = list(ds)
    assert [ds[i] for i in range(12)] == [ds[i - 12] for i in range(12)] == streamed
    assert ds["000005"] == streamed[5]
    assert list(ds[3:11:2]) == streamed[3:11:2]
    assert len(ds[-2:]) == 2
    assert list(ds) == streamed
    for index in (12, -13):
        with pytest.raises(IndexError, match="12"):
            ds[index]
    with pytest.raises(KeyError, match="gone"):
        ds["gone"]
    ds.close()


@pytest.mark.parametrize("name", sorted(golden_names("expected.json"))[::7])
def test_archives_of_other_tools(name: str) -> None:
    """Number and stream agree on archives that other tools wrote."""
    ds = wds.WebDataset([str(foreign_data() / name)], handler=ignore_and_continue, empty_check=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        streamed = list(ds)
        assert [ds[i] for i in range(len(streamed))] == streamed


def test_other_ways_to_write_a_stream(tmp_path: Path) -> None:
    """Pipelines that are put together by hand, data sets without splitting, and compressed shards have numbers, too."""
    urls = write_shards(tmp_path, 2, 3)
    for ds in (
        wds.WebDataset(urls, nodesplitter=None, workersplitter=None),
        wds.DataPipeline(SimpleShardList(urls), wds.split_by_worker, wds.tarfile_to_samples(), filters.decode()),
        wds.DataPipeline(SimpleShardList(urls), wds.StreamingOpen(), wds.tariterators.expand_and_group),
        wds.WebDataset(f"{tmp_path}/"),
        wds.WebDataset(urls, handler=wds.warn_and_continue),
        wds.WebDataset(urls, cache_dir=str(tmp_path)),
        wds.WebDataset(urls).with_length(7),
    ):
        assert [ds[i] for i in range(6)] == list(ds)


def drop(data: Any) -> Any:
    yield from data


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda urls: wds.WebDataset(urls).shuffle(10), "the stage shuffle gives them in another order"),
        (lambda urls: wds.WebDataset(urls, shardshuffle=3), "the stage shuffle gives them in another order"),
        (lambda urls: wds.WebDataset(urls, shardshuffle=3, detshuffle=True), "the stage detshuffle gives"),
        (lambda urls: wds.WebDataset(urls).batched(2), "the stage batched may change"),
        (lambda urls: wds.WebDataset(urls).batched(2).unbatched(), "the stage batched may change"),
        (lambda urls: wds.WebDataset(urls).select(number), "the stage select may change"),
        (lambda urls: wds.WebDataset(urls).slice(3), "the stage slice may change"),
        (lambda urls: wds.WebDataset(urls).rsample(0.5), "the stage rsample may change"),
        (lambda urls: wds.WebDataset(urls).lmdb_cached("x"), "the stage LMDBCached may change"),
        (lambda urls: wds.WebDataset(urls).compose(drop), "the stage drop may change"),
        (lambda urls: wds.WebDataset(urls).compose(filters.require_fields("x", "skip")), "require_fields may change"),
        (lambda urls: wds.WebDataset(urls, resampled=True), "it reads from a ResampledShards"),
        (lambda urls: wds.WebDataset({"datasets": [{"shards": urls[0]}]}), "it reads from a MultiShardSample"),
        (lambda urls: wds.WebDataset(urls, repeat=True), "with_epoch or repeat"),
        (lambda urls: wds.WebDataset(urls).with_epoch(5), "with_epoch or repeat"),
        (lambda urls: wds.WebDataset(urls, select_files=bool), "select_files makes other samples"),
        (lambda urls: wds.WebDataset(urls, keys="last-dot"), "keys makes other samples"),
        (lambda urls: wds.WebDataset(urls, lcase=False), "lcase makes other samples"),
        (lambda urls: wds.WebDataset(urls, nodesplitter=drop), "the stage drop may change"),
        (lambda urls: wds.DataPipeline(urls, wds.tarfile_to_samples()), "it reads from a str"),
        (lambda urls: wds.DataPipeline(SimpleShardList(urls, seed=3), wds.tarfile_to_samples()), "shuffles the list"),
        (lambda urls: wds.DataPipeline(SimpleShardList(urls)), "no stages that read archives"),
        (lambda urls: wds.DataPipeline(), "it has no stages"),
    ],
)
def test_streams_without_numbers(make: Any, message: str, tmp_path: Path) -> None:
    """What changes which samples come, or their order, is named, and what to do; nothing is read."""
    ds = make(["gone-0.tar", "gone-1.tar"])
    with pytest.raises(NotImplementedError, match=rf"{message}.*; iterate over it, ask the data set before that, or"):
        ds[0]


def test_a_class_of_the_program(tmp_path: Path) -> None:
    """A subclass that iterates otherwise has no numbers, one that adds methods has."""

    class Twice(wds.WebDataset):
        def __iter__(self) -> Any:
            for sample in super().__iter__():
                yield from (sample, sample)

    class Named(wds.WebDataset):
        name = "x"

    urls = write_shards(tmp_path, 1, 3)
    with pytest.raises(NotImplementedError, match="its class has an __iter__ of its own"):
        Twice(urls)[0]
    assert not hasattr(Twice(urls), "__len__")
    assert Named(urls)[2]["__key__"] == "000002"


def test_a_class_that_only_iterates() -> None:
    """A subclass that never called `__init__` is a stream without length and numbers, for `list` too."""

    class Bare(wds.DataPipeline):
        def __init__(self) -> None:
            pass

        def __iter__(self) -> Any:
            return iter([1, 2])

    assert list(Bare()) == [1, 2]
    assert not hasattr(Bare(), "__len__")
    with pytest.raises(TypeError, match="unknown length"):
        len(Bare())
    with pytest.raises(NotImplementedError, match="stream without numbers"):
        Bare()[0]


def test_a_fifo_is_left_alone(tmp_path: Path) -> None:
    """`list` asks for the length first; of a fifo, whose bytes come once, that takes none."""
    (url,) = write_shards(tmp_path, 1, 3)
    fifo = f"{tmp_path}/fifo.tar"
    os.mkfifo(fifo)
    with subprocess.Popen(["cp", url, fifo]) as copying:
        assert [sample["__key__"] for sample in list(wds.WebDataset(fifo))] == ["000000", "000001", "000002"]
    assert copying.returncode == 0


def test_readers_that_share_the_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ranks share the shards there are no numbers, and the length is that of the rank's part."""
    with ShardWriter(f"{tmp_path}/a-%d.tar", maxcount=3, index=True) as sink:
        for i in range(13):
            sink.write({"__key__": f"{i:02d}", "txt": "x"})
    ds = wds.WebDataset(f"{tmp_path}/a.json")
    alone = wds.WebDataset(f"{tmp_path}/a.json", nodesplitter=None)
    assert (len(ds), len(alone)) == (13, 13)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert (len(ds), len(alone)) == (len(list(ds)), 13)
        with pytest.raises(NotImplementedError, match="split_by_node gives each of 2 readers a part of the shards"):
            ds[0]
        assert alone[12]["__key__"] == "12"
        one = wds.WebDataset(f"{tmp_path}/a.json", nodesplitter=wds.single_node_only)
        assert not hasattr(one, "__len__")
        with pytest.raises(NotImplementedError, match="single_node_only"):
            one[0]


def test_a_length_that_costs_nothing(tmp_path: Path, cache: Path) -> None:
    """A list with counts, sidecars, cached indexes, or an index that was asked for give a length; else TypeError."""
    urls = write_shards(tmp_path, 3, 4)
    listed = [{"url": url, "nsamples": 4} for url in urls]
    (tmp_path / "index.json").write_text(json.dumps({"shardlist": listed}))
    assert len(wds.WebDataset(listed)) == len(wds.WebDataset(f"{tmp_path}/index.json")) == 12
    ds = wds.WebDataset(urls)
    with pytest.raises(
        TypeError, match=r"unknown length: not all .* have an index; ds\[0\] makes them.*with_length\(n\)"
    ):
        len(ds)
    assert not hasattr(ds, "__len__")
    assert operator.length_hint(ds, 5) == 5
    write_sidecar(urls[0])
    write_sidecar(urls[1], "dali")
    assert not hasattr(ds, "__len__")
    assert len(wds.WebDataset(urls[:2])) == 8
    assert len(wds.WebDataset([*urls[:2], listed[2]])) == 12
    assert names_in(cache) == []
    ds[0]
    assert len(ds) == len(ds.shuffle(5)) == len(ds.decode()) == len(wds.WebDataset(urls)) == 12
    assert ds.with_length(99)[0] == ds[0]
    assert len(ds) == 99
    with pytest.raises(TypeError, match="the stage batched may change which samples there are"):
        len(wds.WebDataset(listed).batched(2))
    assert not hasattr(wds.WebDataset(listed).with_epoch(5), "__len__")


def test_no_length_where_it_would_cost(tmp_path: Path) -> None:
    """Shards on servers, compressed ones, missing ones, ones with an older sidecar: no length, and nothing is read."""
    (url,) = write_shards(tmp_path, 1, 3)
    data = Path(url).read_bytes()
    with serve({"/a.tar": data}) as server:
        assert not hasattr(wds.WebDataset(server.url("/a.tar")), "__len__")
        assert server.requests == []
    with ShardWriter(f"{tmp_path}/z-%d.tar.gz", index=True) as sink:
        sink.write({"__key__": "a", "txt": "x"})
    assert not hasattr(wds.WebDataset(f"{tmp_path}/z-0.tar.gz"), "__len__")
    assert len(wds.WebDataset(f"{tmp_path}/z.json")) == 1
    assert not hasattr(wds.WebDataset(f"{tmp_path}/gone.tar"), "__len__")
    write_sidecar(url)
    assert len(wds.WebDataset(url)) == 3
    os.utime(f"{url}.idx", (1, 1))
    assert not hasattr(wds.WebDataset(url), "__len__")


OPENED = """
import os, sys
import webdataset as wds
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
ds = wds.WebDataset(sys.argv[1:])
samples = iter(ds)
first = next(samples)
print(*sorted({os.path.basename(path) for path in opened if ".tar" in path or "index" in path}))
list(samples)
print(*sorted({os.path.basename(path) for path in opened if ".tar" in path or "index" in path}))
"""


def test_streaming_opens_no_index(tmp_path: Path, cache: Path) -> None:
    """To its end, a stream opens its shards and nothing else, although each has a sidecar; nothing is cached."""
    urls = write_shards(tmp_path, 3, 4)
    for url in urls:
        write_sidecar(url)
    done = subprocess.run([sys.executable, "-c", OPENED, *urls], stdout=subprocess.PIPE, text=True, check=True)
    first, all_of_them = done.stdout.splitlines()
    assert first == "shard-0000.tar"
    assert all_of_them.split() == ["shard-0000.tar", "shard-0001.tar", "shard-0002.tar"]
    assert names_in(cache) == []


def test_streams_of_records(tmp_path: Path) -> None:
    """Shards of records, which a stream reads by their names, have no index, and are told so."""
    with wds.RecordWriter(f"{tmp_path}/a.mp") as sink:
        sink.write({"__key__": "a", "txt": "x"})
    ds = wds.WebDataset(f"{tmp_path}/a.mp")
    assert [sample["__key__"] for sample in ds] == ["a"]
    with pytest.raises(TypeError, match=r"a\.mp is a stream of records, of which there is no index"):
        len(ds)
    with pytest.raises(NotImplementedError, match=r"a\.mp is a stream of records, of which there is no index"):
        ds[0]
    assert not hasattr(ds, "__len__")
    assert len(wds.WebDataset([{"url": f"{tmp_path}/a.mp", "nsamples": 1}])) == 1


def test_a_json_with_a_wrong_count(tmp_path: Path) -> None:
    """A shard that has another number of samples than its list says is an error with file and field, never a sample."""
    write_shards(tmp_path, 2, 4)
    shards = [{"url": f"shard-000{i}.tar", "nsamples": 4 + i} for i in range(2)]
    (tmp_path / "index.json").write_text(json.dumps({"shardlist": shards}))
    ds = wds.WebDataset(f"{tmp_path}/index.json")
    assert ds[3]["__key__"] == "000003"
    with pytest.raises(StaleIndexError, match=r"index.json: shardlist\[1\] says nsamples 5, the shard has 4"):
        ds[4]


def test_a_stage_that_drops_a_sample(tmp_path: Path) -> None:
    """A function that gives None, or a handler that skips, leaves a number without a sample: an error with its key."""
    ds = wds.WebDataset(write_shards(tmp_path, 1, 3)).map(
        lambda sample: sample if sample["__key__"][-1] != "1" else None
    )
    assert ds[2]["__key__"] == "000002"
    with pytest.raises(SampleError, match=r"000001: a stage gave nothing for this sample"):
        ds[1]


def test_pipelines_that_are_edited(tmp_path: Path) -> None:
    """Numbers and length follow what a program does to stages and shards."""
    urls = write_shards(tmp_path, 3, 4)
    ds = wds.WebDataset(urls)
    assert ds[11]["__key__"] == "000011"
    texts = ds.to_tuple("txt")
    assert texts[11] == (b"text 11",)
    ds.append(filters.to_tuple("cls"))
    assert ds[11] == (b"1",)
    texts.pipeline[0].urls = urls[1:]
    assert texts[0] == (b"text 4",)
    assert len(texts) == 8
    texts.pipeline[0].urls.pop()
    assert len(texts) == len(list(texts)) == 4


def test_copies_and_pickles(tmp_path: Path) -> None:
    """A data set that was asked for numbers is copied and pickled like any other."""
    ds = wds.WebDataset(write_shards(tmp_path, 2, 3)).map(number)
    size = len(pickle.dumps(ds))
    assert ds[5]["number"] == 5
    assert len(pickle.dumps(ds)) < size + 100
    for other in (copy.copy(ds), copy.deepcopy(ds), pickle.loads(pickle.dumps(ds))):
        assert other[5] == ds[5]
        assert list(other) == list(ds)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_loader_iterates_over_it(workers: int, start: str, tmp_path: Path) -> None:
    """A DataLoader takes it as the stream that it is, also with its length, and after numbers were asked for."""
    ds = wds.WebDataset(write_shards(tmp_path, 4, 3)).map(number)
    assert ds[7]["number"] == 7
    assert isinstance(ds, torch.utils.data.IterableDataset)
    options: dict[str, Any] = {"num_workers": workers, "multiprocessing_context": start if workers else None}
    loader = torch.utils.data.DataLoader(ds, batch_size=None, **options)
    assert len(loader) == 12
    assert sorted(sample["number"] for sample in loader) == list(range(12))
    assert ds[7]["number"] == 7
    batches = torch.utils.data.DataLoader(ds.to_tuple("number"), batch_size=4, **options)
    assert len(batches) == 3
    assert sorted(value for (batch,) in batches for value in batch.tolist()) == list(range(12))
    by_number = torch.utils.data.DataLoader(ds[2:10].map(number), batch_size=None, **options)
    assert [sample["number"] for sample in by_number] == list(range(2, 10))
    subset = torch.utils.data.Subset(ds, [3, 1, 4])
    assert [sample["number"] for sample in subset] == [3, 1, 4]


def test_shards_on_a_server(tmp_path: Path) -> None:
    """A remote sample costs one ranged read, also where the stream has a cache of shards."""
    (url,) = write_shards(tmp_path, 1, 500)
    with serve({"/a.tar": Path(url).read_bytes()}) as server:
        ds = wds.WebDataset(server.url("/a.tar"), cache_dir=str(tmp_path))
        assert ds[7]["txt"] == b"text 7"
        count, size = len(server.requests), server.served
        assert ds[450]["txt"] == b"text 450"
        assert len(server.requests) == count + 1
        assert server.served - size < 4096


@pytest.mark.parametrize("shuffle", [False, 0, 1])
def test_a_shuffle_that_shuffles_nothing_keeps_the_numbers(shuffle: Any, tmp_path: Path) -> None:
    """`shardshuffle=False`, which many programs pass, leaves a stream its numbers."""
    ds = wds.WebDataset(write_shards(tmp_path, 3, 4), shardshuffle=shuffle)
    assert [ds[i]["__key__"] for i in range(12)] == [sample["__key__"] for sample in ds]
