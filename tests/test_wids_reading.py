"""How `ShardListDataset` reads: quickly or not, from indexes that are cached, with shards that come and go."""

from __future__ import annotations

import io
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

import webdataset as wds
import wids
from helpers import foreign_data, tar_bytes, write_shards
from webdataset.errors import DataError, StaleIndexError
from webdataset.sampleindex import scan_samples
from webdataset.shardindex import index_folder
from wids.wids import IndexedTarSamples, default_decoder

ADDED = ("__dataset__", "__index__", "__shard__", "__shardindex__")
"""What a data set adds to a sample of a shard."""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WIDS_CACHE", str(tmp_path / "cache"))


def listed(urls: list[str], count: int) -> list[dict]:
    return [{"url": url, "nsamples": count} for url in urls]


def comparable(value: object) -> object:
    return value.getvalue() if isinstance(value, io.BytesIO) else repr(getattr(value, "tolist", lambda: value)())


def test_quick_reads_give_what_the_usual_way_gives():
    """For each archive that other tools wrote, samples are the same read quickly, decoded or not, with dots or not."""
    quick = 0
    for path in sorted(foreign_data().rglob("*.tar*")):
        if path.suffix in (".json", ".idx", ".index", ".md") or "corrupt" in path.parts:
            continue
        try:
            samples = IndexedTarSamples(path=path)
        except DataError:
            continue
        ways = [([], True), ([default_decoder], False), (["numpy"], True)]
        if find_spec("torch") is None and any(".pth" in sample for sample in samples):
            ways = ways[:1]  # what torch wrote, torch decodes
        for transformations, dots in ways:
            dataset = wids.ShardListDataset(
                listed([str(path)], len(samples)), transformations=transformations, dots=dots
            )
            for number in [0, 0, *range(len(samples))] if len(samples) else []:
                found = dataset[number]
                expected = {key if dots else key.removeprefix("."): value for key, value in samples[number].items()}
                expected |= {"__dataset__": None, "__index__": number, "__shard__": str(path), "__shardindex__": number}
                for transform in dataset.transformations:
                    expected = transform(expected)
                assert list(found) == list(expected)
                assert [comparable(value) for value in found.values()] == list(map(comparable, expected.values()))
            quick += len(dataset.cache.quick)
            dataset.close()
            assert not dataset.cache.quick
        samples.close()
    assert quick > 100


def file_of(fd: str) -> str:
    """The name of an open file, "" when it is not open any more."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        return ""


def test_samples_of_all_sizes_and_orders(tmp_path):
    """Fields in any order, missing, empty or large, and keys of any length, read quickly and not."""
    rng = random.Random(3)
    members = []
    for number in range(200):
        fields = rng.sample(["cls", "txt", "a.bin", "JSON"], rng.randrange(1, 5))
        key = "k" * rng.randrange(60) + f"{number:04d}"
        members += [(f"{key}.{field}", rng.randbytes(rng.choice([0, 1, 700, 70_000]))) for field in fields]
    (tmp_path / "a.tar").write_bytes(tar_bytes(members))
    samples = IndexedTarSamples(path=tmp_path / "a.tar")
    dataset = wids.ShardListDataset(listed([str(tmp_path / "a.tar")], 200), transformations=[])
    assert dataset[0]["__key__"] == dataset[0]["__key__"] == samples[0]["__key__"]
    assert dataset.cache.quick
    for number in range(200):
        found = {key: comparable(value) for key, value in dataset[number].items() if key not in ADDED}
        assert found == {key: comparable(value) for key, value in samples[number].items()}
    samples.close()
    dataset.close()


def test_a_shard_that_is_replaced_while_it_is_read(tmp_path):
    """Bytes that change in the open file are an error, not another sample; a renamed file changes nothing."""
    path = Path(write_shards(tmp_path, 1, 50)[0])
    other = Path(write_shards(tmp_path, 1, 50, "other-{:04d}.tar")[0]).read_bytes()
    dataset = wids.ShardListDataset(listed([str(path)], 50))
    assert [dataset[number][".cls"] for number in range(3)] == [0, 1, 2]
    path.rename(tmp_path / "kept.tar")
    path.write_bytes(other)
    assert dataset[3]["__key__"] == "000003"
    with open(tmp_path / "kept.tar", "r+b") as file:
        file.write(other[::-1])
    time.sleep(0.01)
    with pytest.raises(StaleIndexError, match="changed after it was opened"):
        dataset[4]


def test_indexes_are_cached_and_never_of_another_shard(tmp_path, monkeypatch):
    """The second opening reads no headers; where the shard is another one by now, its own are read."""
    monkeypatch.setenv("WDS_CACHE", str(tmp_path / "cache"))
    path = Path(write_shards(tmp_path, 1, 5)[0])
    first = IndexedTarSamples(path=path, index_dir=index_folder())
    scanned = []
    monkeypatch.setattr(
        "webdataset.shardindex.scan_samples", lambda *a, **k: scanned.append(a) or scan_samples(*a, **k)
    )
    assert len(wids.ShardListDataset(listed([str(path)], 5))[4]) == len(first[4]) + 4
    first.close()
    assert len(wds.IndexedDataset(str(path))) == 5
    assert scanned == []
    path.write_bytes(tar_bytes({"a.JPG": b"1", "a.jpg": b"2", "b.JPG": b"3"}))
    shards = listed([str(path)], 2)
    raw = wids.ShardListDataset(shards, transformations=[])
    assert [comparable(raw[0][name]) for name in (".JPG", ".jpg")] == [b"1", b"2"]
    assert len(scanned) == 1
    with pytest.raises(wds.errors.DuplicateFieldError):
        wds.IndexedDataset(str(path))
    assert wids.ShardListDataset(shards, transformations=[])[1].keys() >= {".JPG"}
    path.write_bytes(tar_bytes({"a.JPG": b"1", "b.Txt": b"2"}))
    assert [sorted(sample) for sample in wds.IndexedDataset(str(path), fields=["jpg", "txt"])] == [
        ["__key__", "__url__", "jpg"],
        ["__key__", "__url__", "txt"],
    ]
    assert wids.ShardListDataset(shards, transformations=[])[1].keys() >= {".Txt"}


def test_what_was_used_last_stays_open(tmp_path):
    """Quick reads count as uses: the shard that goes is the one that was used longest ago."""
    dataset = wids.ShardListDataset(listed(write_shards(tmp_path, 3, 3), 3), lru_size=2)
    for number in (0, 3, 0, 1, 3, 2, 0, 6, 7):
        dataset[number]
    assert [Path(url).name for url, _ in dataset.cache.lru.items()] == ["shard-0000.tar", "shard-0002.tar"]
    assert sorted(map(os.path.basename, dataset.cache.quick)) == ["shard-0000.tar", "shard-0002.tar"]
    assert dataset.get_stats() == (9, 3)
    dataset.cache.reset_stats()
    dataset[3]
    assert [Path(url).name for url, _ in dataset.cache.lru.items()] == ["shard-0002.tar", "shard-0001.tar"]
    assert dataset.get_stats() == (1, 1)


def test_threads_with_few_open_shards(tmp_path):
    """A shard that goes while another thread reads from it gives the right sample still."""
    dataset = wids.ShardListDataset(listed(write_shards(tmp_path, 4, 3), 3), lru_size=1)
    wanted = random.Random(2).choices(range(12), k=2000)
    with ThreadPoolExecutor(8) as pool:
        assert [sample[".cls"] for sample in pool.map(dataset.__getitem__, wanted)] == [n % 10 for n in wanted]
    dataset.close()
    assert not [name for name in map(file_of, os.listdir("/proc/self/fd")) if name.startswith(str(tmp_path))]
