"""Random access: the i-th sample is the i-th one of a stream, whatever the shard and wherever its index comes from."""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import webdataset as wds
from helpers import foreign_data, tar_bytes
from reading import SCANS, fused, golden_names, read
from test_reader_property import Spec, build, several, specs
from webdataset.errors import (
    DuplicateFieldError,
    EmptyDatasetError,
    NotFoundError,
    SampleError,
    ShardListError,
    StaleIndexError,
    TruncatedError,
)
from webdataset.handlers import ignore_and_continue
from webdataset.sampleindex import scan_samples
from webdataset.samples import METADATA
from webdataset.shardindex import dali_name, energon_name, write_sidecar
from webdataset.shardopening import open_shard
from webdataset.shardsamples import ShardSamples

ALL = sorted({*golden_names("expected.json"), *golden_names("expected_corrupt.json")})


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes are cached in a folder of the test."""
    monkeypatch.setenv("WDS_CACHE", str(tmp_path / "cache"))


def as_pairs(samples: Any) -> list[tuple[str, dict[str, bytes]]]:
    """Samples as (key, fields)."""
    return [
        (sample["__key__"], {name: value for name, value in sample.items() if name not in METADATA})
        for sample in samples
    ]


def streamed(path: Path) -> list[tuple[str, dict[str, bytes]]]:
    """What a stream gives that goes on after faults."""
    return read(fused, path.open("rb"), handler=ignore_and_continue).samples


def samples(count: int, size: int = 100) -> dict[str, bytes]:
    """Members of so many samples with a text and a class."""
    return {
        f"{i:06d}.{field}": (f"{i}{field}" * size)[:size].encode() for i in range(count) for field in ("txt", "cls")
    }


def write_shards(folder: Path, *counts: int, size: int = 100) -> list[str]:
    """Shards a-0.tar, a-1.tar, ... with so many samples each."""
    folder.mkdir(exist_ok=True)
    paths = []
    for number, count in enumerate(counts):
        path = folder / f"a-{number}.tar"
        path.write_bytes(tar_bytes({f"{number}-{name}": data for name, data in samples(count, size).items()}))
        paths.append(str(path))
    return paths


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("name", ALL)
def test_golden_archives_give_the_streamed_samples(
    name: str, scan: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ds[i]` is the i-th streamed sample of every golden archive, whole or damaged, plain or compressed."""
    path = tmp_path / Path(name).name
    shutil.copy(foreign_data() / name, path)
    expected = streamed(path)
    SCANS[scan](monkeypatch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of streams that end oddly, as when they are read
        ds = wds.IndexedDataset([str(path)], handler=ignore_and_continue)
    assert [ds[i]["__key__"] for i in range(len(ds))] == [key for key, _ in expected]
    assert as_pairs(ds[i] for i in range(len(ds))) == expected
    assert as_pairs(ds) == expected
    assert as_pairs(ds.fetch(range(len(ds) - 1, -1, -1))) == expected[::-1]
    ds.close()


@several
@given(spec=specs(), chosen=st.integers(0, 1 << 30))
def test_an_index_gives_what_a_stream_gives(spec: Spec, chosen: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Archives that hypothesis thinks of, indexed anew, cached, or by Energon's offsets, give the streamed samples."""
    path = tmp_path_factory.mktemp("property") / "a.tar"
    path.write_bytes(build(spec))
    expected = streamed(path)
    for setting in SCANS.values():
        with pytest.MonkeyPatch.context() as monkeypatch, path.open("rb") as stream:
            setting(monkeypatch)
            index = scan_samples(stream, handler=ignore_and_continue)
        with contextlib.closing(open_shard(str(path), "")) as shard:
            samples = ShardSamples(shard, index)
            assert as_pairs(samples.read(i) for i in range(len(samples))) == expected
    for _ in range(2):
        ds = wds.IndexedDataset([str(path)], handler=ignore_and_continue, cache_dir=str(path.parent))
        assert as_pairs(ds[i] for i in range(len(ds))) == expected
        assert as_pairs(ds) == expected
    fields = sorted({field for _, sample in expected for field in sample})[chosen % 2 :: 2]
    some = wds.IndexedDataset([str(path)], fields, handler=ignore_and_continue, cache_dir=str(path.parent))
    assert as_pairs(some) == [(key, {f: data[f] for f in data if f in fields}) for key, data in expected]
    try:
        write_sidecar(path)
    except DuplicateFieldError:
        return
    assert as_pairs(wds.IndexedDataset([str(path)], cache_dir="")) == expected


@pytest.mark.parametrize("mixed", ["fields", "cases", "duplicates", "metadata", "bad"])
def test_long_runs_of_odd_samples(mixed: str, tmp_path: Path) -> None:
    """Among thousands of plain samples, those with other fields, doubled, left out or marked bad are as in a stream."""
    odd = {
        "fields": ["a.seg.png", "x"],
        "cases": ["TXT2", "Cls2"],
        "duplicates": ["TXT"],
        "metadata": ["__key__", "__url__"],
        "bad": ["__bad__"],
    }[mixed]
    members = {}
    for i in range(3000):
        members |= {f"{i % 7 * 'd/'}{i}.txt": b"t" * (i % 600), f"{i % 7 * 'd/'}{i}.cls": b"1"}
        if i % 100 == 50:
            members |= {f"{i % 7 * 'd/'}{i}.{field}": b"odd" for field in odd}
    path = tmp_path / "a.tar"
    path.write_bytes(tar_bytes(members))
    ds = wds.IndexedDataset([str(path)], handler=ignore_and_continue)
    assert as_pairs(ds) == streamed(path)


def test_numbers_slices_and_keys(tmp_path: Path) -> None:
    """Numbers count from either end, slices and subsets are data sets, keys lead to samples, all across shards."""
    ds = wds.IndexedDataset(write_shards(tmp_path, 3, 5, 1))
    keys = [sample["__key__"] for sample in ds]
    assert len(ds) == 9
    assert ds.all_keys() == keys
    assert ds[-1] == ds[8]
    assert ds[np.int64(3)]["__key__"] == "1-000000"
    assert [sample["__key__"] for sample in ds[2:7:2]] == keys[2:7:2]
    assert [sample["__key__"] for sample in ds[::-1]] == keys[::-1]
    assert ds[2:7][1:][-1]["__key__"] == keys[6]
    assert ds["1-000002"] == ds[5]
    assert "1-000002" in ds
    assert "1-000002" not in ds[:5]
    assert ds[5] in ds
    assert repr(ds[2:7]) == "<IndexedDataset: 5 samples of 3 shards>"
    assert ds[4:]["1-000002"] == ds[4:][1]
    assert ds.subset([5, 5])[1] == ds[5]
    assert [sample["__key__"] for sample in ds.fetch([8, 0, 8])] == [keys[8], keys[0], keys[8]]
    for wrong in (9, -10):
        with pytest.raises(IndexError, match="of a data set that has 9"):
            ds[wrong]
    with pytest.raises(KeyError):
        ds["absent"]
    with pytest.raises(KeyError):
        ds[4:][keys[0]]
    with pytest.raises(TypeError):
        ds[1.0]  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"keys must be a list of keys, got '1-000002'; write \['1-000002'\]"):
        ds.with_keys("1-000002")
    with pytest.raises(TypeError, match=r"unknown argument 'field' \(did you mean 'fields'"):
        wds.IndexedDataset(str(tmp_path), field=["x"])  # type: ignore[call-arg]


def test_splits_by_key(tmp_path: Path) -> None:
    """A split takes each sample once, in about the shares, the same part for a key whatever else there is."""
    paths = write_shards(tmp_path, 300, 300)
    both, one = (wds.IndexedDataset(shards).split(train=0.8, val=0.1, test=0.1) for shards in (paths, paths[1:]))
    assert sorted(key for part in both.values() for key in part.all_keys()) == wds.IndexedDataset(paths).all_keys()
    assert [len(both[name]) for name in ("train", "val", "test")] == pytest.approx([480, 60, 60], abs=25)
    assert {name: set(part.all_keys()) <= set(both[name].all_keys()) for name, part in one.items()} == dict.fromkeys(
        one, True
    )
    other = wds.IndexedDataset(paths).split(train=0.8, salt="x")["train"]
    assert other.all_keys() != both["train"].all_keys()
    assert wds.IndexedDataset(paths).with_keys(["1-000001", "0-000000"]).all_keys() == ["1-000001", "0-000000"]
    for shares in ({}, {"a": 0.9, "b": 0.2}, {"a": -0.1}):
        with pytest.raises(ValueError, match="sum to at most 1"):
            one["val"].split(**shares)


def test_several_processes_index_at_once(tmp_path: Path) -> None:
    """Processes that open the same shards at the same time all get the samples, and leave one whole index a shard."""
    paths = write_shards(tmp_path, 500, 500, 500)
    code = "import sys, webdataset as wds; print(sum(len(s['txt']) for s in wds.IndexedDataset(sys.argv[1:])))"
    command = [sys.executable, "-c", code, *paths]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    assert {process.communicate()[0] for process in started} == {"150000\n"}
    assert all(process.returncode == 0 for process in started)
    names = [file.name for file in (tmp_path / "cache" / "index").iterdir()]
    assert sorted(name.endswith(".index") for name in names) == [True] * 3


def test_a_key_of_two_samples_is_no_key(tmp_path: Path) -> None:
    """A key that two samples have is told with their numbers."""
    path = tmp_path / "a.tar"
    shutil.copy(foreign_data() / "corrupt/amber-key-comes-back.tar", path)
    with pytest.raises(SampleError, match="samples 0 and 2 have one key"):
        wds.IndexedDataset(str(path))["pebble0000"]


def test_stages_apply_on_access(tmp_path: Path) -> None:
    """decode, map and to_tuple make other data sets; the first one stays as it was."""
    ds = wds.IndexedDataset(write_shards(tmp_path, 2, size=1))
    assert ds.decode().to_tuple("cls", "__key__")[1] == (1, "0-000001")
    assert ds.map(lambda sample: sample["txt"])[:1].fetch([0]) == [b"0"]
    assert ds[0]["cls"] == b"0"
    with pytest.raises(SampleError, match="gave nothing"):
        ds.compose(wds.select(lambda sample: False))[0]


def test_a_pickled_data_set_opens_its_own_shards(tmp_path: Path) -> None:
    """A copy through pickle gives the same samples."""
    ds = wds.IndexedDataset(write_shards(tmp_path, 3, 2))
    assert as_pairs(pickle.loads(pickle.dumps(ds[1:]))) == as_pairs(ds[1:])


def test_cached_indexes_are_used_checked_and_made_anew(tmp_path: Path) -> None:
    """An index is cached once; one of an older state of the shard, or with a wrong byte, is replaced."""
    (path,) = map(Path, write_shards(tmp_path, 4))
    folder = tmp_path / "cache" / "index"
    for data in (samples(4), samples(3), samples(5, 700)):
        path.write_bytes(tar_bytes(data))
        assert len(wds.IndexedDataset(str(path))) == len(data) // 2
        (file,) = folder.iterdir()
        before = file.stat().st_mtime_ns, file.read_bytes()
        assert as_pairs(wds.IndexedDataset(str(path))) == streamed(path)
        assert (file.stat().st_mtime_ns, file.read_bytes()) == before
        for at in range(0, len(before[1]), len(before[1]) // 7):
            file.write_bytes(before[1][:at] + bytes([before[1][at] ^ 1]) + before[1][at + 1 :])
            assert as_pairs(wds.IndexedDataset(str(path))) == streamed(path)
            file.write_bytes(before[1][:at])
            assert as_pairs(wds.IndexedDataset(str(path))) == streamed(path)
    assert file.read_bytes() == before[1]


def test_without_a_place_for_files_indexes_are_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no cache can be written, everything works and nothing is written."""
    (path,) = write_shards(tmp_path / "data", 4)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("WDS_CACHE", str(tmp_path / "file" / "below"))
    assert len(list(wds.IndexedDataset(path))) == 4
    monkeypatch.delenv("WDS_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "")
    assert len(list(wds.IndexedDataset(path))) == 4
    assert sorted(item.name for item in tmp_path.rglob("*")) == ["a-0.tar", "data", "file"]


def test_a_shard_that_changes_or_shrinks_gives_an_error(tmp_path: Path) -> None:
    """A file that changes after it was opened gives StaleIndexError; opened anew, it gives what is there."""
    (path,) = map(Path, write_shards(tmp_path, 4))
    ds = wds.IndexedDataset(str(path))
    assert len(list(ds)) == 4
    with path.open("r+b") as file:
        file.truncate(3000)
    with pytest.raises(StaleIndexError, match="changed after it was opened"):
        ds[3]
    with pytest.raises(TruncatedError):
        wds.IndexedDataset(str(path))


def write_json(path: Path, **index: Any) -> str:
    """A wids JSON."""
    path.write_text(json.dumps({"wids_version": 1, **index}))
    return str(path)


def test_a_json_says_how_many_samples_there_are(tmp_path: Path) -> None:
    """With counts nothing is opened before a sample is asked for; urls are relative to the JSON, or to its base."""
    write_shards(tmp_path / "data", 2, 3)
    shards = [{"url": f"data/a-{i}.tar", "nsamples": count} for i, count in enumerate((2, 3))]
    ds = wds.IndexedDataset(write_json(tmp_path / "a.json", shardlist=shards))
    assert len(ds) == 5
    assert not (tmp_path / "cache").exists()
    assert ds[4]["__key__"] == "1-000002"
    bare = [{**shard, "url": Path(shard["url"]).name} for shard in shards]
    based = wds.IndexedDataset(write_json(tmp_path / "b.json", shardlist=bare, base="data"))
    assert as_pairs(based) == as_pairs(ds)
    nested = [{"source_url": "b.json"}, {"shardlist": shards[:1]}]
    assert len(list(wds.IndexedDataset(write_json(tmp_path / "c.json", datasets=nested)))) == 7
    assert len(wds.IndexedDataset([{"url": str(tmp_path / "absent.tar"), "nsamples": 3}])) == 3


@pytest.mark.parametrize("name", ["amber", "amber-minimal", "amber-datasets"])
def test_wids_jsons(name: str) -> None:
    """The JSON files that wids writes are read, the samples those of the shards."""
    home = foreign_data() / "wids"
    expected = [sample for path in sorted((home / "shards").glob("*.tar")) for sample in streamed(path)]
    ds = wds.IndexedDataset(str(home / f"{name}.json"))
    assert as_pairs(ds)[: len(expected)] == expected
    assert len(ds) == len(list(ds))


def test_a_json_that_is_wrong_is_told_with_file_and_field(tmp_path: Path) -> None:
    """A wrong count, a missing shard, a count that is none, a command: errors that name the entry."""
    (path,) = write_shards(tmp_path, 4)
    index = write_json(tmp_path / "a.json", shardlist=[{"url": path, "nsamples": 3}])
    with pytest.raises(StaleIndexError, match=r"a\.json: shardlist\[0\] says nsamples 3, the shard has 4"):
        wds.IndexedDataset(index)[0]
    absent = wds.IndexedDataset(write_json(tmp_path / "b.json", shardlist=[{"url": "no.tar", "nsamples": 3}]))
    with pytest.raises(NotFoundError, match=r"no\.tar"):
        absent[0]
    for shards in ([{"url": path, "nsamples": "3"}], [{"url": path, "nsamples": -1}], [{"nsamples": 1}], [7], {}):
        with pytest.raises(ShardListError, match=r"c\.json: shardlist"):
            wds.IndexedDataset(write_json(tmp_path / "c.json", shardlist=shards))
    with pytest.raises(wds.WebDatasetError, match="does not run"):
        wds.IndexedDataset(write_json(tmp_path / "d.json", shardlist=[{"url": "pipe:cat x", "nsamples": 1}]))
    with pytest.raises(EmptyDatasetError):
        wds.IndexedDataset([])
    (tmp_path / "e.json").write_text("{")
    with pytest.raises(ShardListError, match=r"e\.json: cannot be read as JSON"):
        wds.IndexedDataset(str(tmp_path / "e.json"))
    with pytest.raises(TypeError, match="a list of names"):
        wds.IndexedDataset(path, "jpg")


def test_names_of_sidecars() -> None:
    """Energon puts `.tar.idx` in place of the last suffix, DALI `.idx` in place of all."""
    assert energon_name("a.b/c.0.tar") == "a.b/c.0.tar.idx"
    assert dali_name("a.b/c.0.tar") == "a.b/c.idx"
    assert energon_name("https://host/a.tar?x=1") is dali_name("https://host/a.tar?x=1") is None


def test_a_folder_of_shards_was_no_file(tmp_path):
    """A folder stands for the archives in it, as for a stream; where there are none, the error says what there is."""
    (tmp_path / "cache").mkdir()
    for number in range(2):
        (tmp_path / f"{number}.tar").write_bytes(tar_bytes({f"{number}{i}.txt": b"x" for i in range(3)}))
    keys = [sample["__key__"] for sample in wds.WebDataset(str(tmp_path))]
    assert (
        [sample["__key__"] for sample in wds.IndexedDataset(tmp_path)] == keys == ["00", "01", "02", "10", "11", "12"]
    )

    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "0.mp").touch()
    for data in (wds.IndexedDataset, wds.WebDataset):
        with pytest.raises(EmptyDatasetError, match=r"1 are named \.mp: the pattern for those is FOLDER/\*\.mp$"):
            data(str(tmp_path / "records"))


def test_a_list_of_numbers_was_told_that_it_is_no_integer(tmp_path):
    """Indices, fields and conditions of a wrong kind are told with what to write."""
    (tmp_path / "a.tar").write_bytes(tar_bytes({"a.jpg": b"x", "a.cls": b"1"}))
    ds = wds.IndexedDataset(str(tmp_path / "a.tar"))
    for numbers in ([0], (0,), np.array([0, 0]), np.array([True, False])):
        with pytest.raises(TypeError, match=r"by number or key, got .*; several: ds\.subset\(numbers\)"):
            ds[numbers]
    with pytest.raises(TypeError, match=r"by number or key, got 0\.0$"):
        ds[0.0]
    with pytest.raises(TypeError, match=r"condition must be a function, got 'jpg\.size > 3'"):
        ds.where("jpg.size > 3")
    with pytest.raises(TypeError, match=r"write \['jpg', 'cls'\]"):
        wds.IndexedDataset(str(tmp_path / "a.tar"), fields="jpg cls")
