"""Streams over a wids JSON: which shards it means, and what becomes of counts that are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import webdataset as wds
from helpers import write_shards
from servers import serve
from webdataset.energon import prepare_energon
from webdataset.errors import EmptyDatasetError, NotFoundError, ShardListError, StaleIndexError


def write_json(path: Path, **index: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(index))
    return str(path)


def keys(urls: Any, **options: Any) -> list[str]:
    return [sample["__key__"] for sample in wds.WebDataset(urls, **options)]


def entries(*names: str, nsamples: int = 3) -> list[dict[str, Any]]:
    return [{"url": name, "nsamples": nsamples} for name in names]


def test_every_form_of_a_wids_json(tmp_path: Path) -> None:
    """Shardlist, base, info, datasets with lists of their own and with further JSONs: all shards come, in order."""
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        write_shards(tmp_path / folder, 2, 3)
    names = ("shard-0000.tar", "shard-0001.tar")
    expected = keys([f"{tmp_path}/a/{name}" for name in names])
    plain = write_json(tmp_path / "a" / "plain.json", wids_version=1, name="a", info="text", shardlist=entries(*names))
    assert keys(plain) == expected
    based = write_json(tmp_path / "based.json", base="b", shardlist=entries(*names))
    assert keys(based) == expected
    parts = [
        {"name": "c", "base": "c", "shardlist": entries(*names)},
        {"name": "a", "source_url": "a/plain.json", "weight": 2},
    ]
    only_datasets = write_json(tmp_path / "parts.json", wids_version=1, datasets=parts)
    urls = [sample["__url__"] for sample in wds.WebDataset(only_datasets)]
    assert list(dict.fromkeys(urls)) == [f"{tmp_path}/{folder}/{name}" for folder in "ca" for name in names]
    assert keys(only_datasets) == 2 * expected
    both = write_json(tmp_path / "both.json", shardlist=entries("b/shard-0000.tar"), datasets=parts[1:])
    assert keys(both) == expected[:3] + expected
    assert keys(Path(plain)) == expected
    assert sorted(keys(plain, shardshuffle=10, seed=3)) == expected


def test_counts_of_energon(tmp_path: Path) -> None:
    """The `.nv-meta/.info.json` of Megatron-Energon names the shards of the folder above, with their counts."""
    write_shards(tmp_path, 2, 3)
    prepare_energon(tmp_path, ["shard-0000.tar", "shard-0001.tar"])
    ds = wds.WebDataset(tmp_path / ".nv-meta" / ".info.json")
    assert len(ds) == len(list(ds)) == 6


def test_indexes_that_are_no_files(tmp_path: Path) -> None:
    """A list of shards with their counts, and an index as a dict, are what they would be in a JSON."""
    urls = write_shards(tmp_path, 2, 3)
    expected = keys(urls)
    assert keys(entries(*urls)) == keys(tuple(entries(*urls))) == expected
    assert keys([urls[0], {"url": urls[1]}]) == expected
    assert keys({"shardlist": entries(*urls)}) == expected
    drawn = iter(wds.WebDataset(entries(*urls), resampled=True))
    assert {next(drawn)["__key__"] for _ in range(100)} == set(expected)


def test_a_json_on_a_server(tmp_path: Path) -> None:
    """Urls in a JSON on a server are relative to it, also those of a JSON that it names."""
    data = Path(write_shards(tmp_path, 1, 3)[0]).read_bytes()
    inner = json.dumps({"shardlist": entries("../s/a.tar")}).encode()
    outer = json.dumps({"datasets": [{"source_url": "deep/inner.json"}, {"shardlist": entries("s/a.tar")}]}).encode()
    with serve({"/outer.json": outer, "/deep/inner.json": inner, "/s/a.tar": data}) as server:
        assert keys(server.url("/outer.json")) == 2 * ["000000", "000001", "000002"]


@pytest.mark.parametrize("said", [2, 4])
def test_a_wrong_count_is_an_error_where_the_shard_ends(said: int, tmp_path: Path) -> None:
    """A shard with another number of samples than the JSON says: all its samples, then an error with file and field."""
    write_shards(tmp_path, 2, 3)
    path = write_json(
        tmp_path / "wrong.json",
        shardlist=[*entries("shard-0000.tar", nsamples=said), *entries("shard-0001.tar")],
    )
    found = []
    where = rf"shard-0000.tar: .*wrong.json: shardlist\[0\] says nsamples {said}, the shard has 3"
    with pytest.raises(StaleIndexError, match=where):
        found.extend(sample["__key__"] for sample in wds.WebDataset(path))
    assert found == ["000000", "000001", "000002"]
    with pytest.warns(UserWarning, match=where):
        assert len(keys(path, handler=wds.warn_and_continue)) == 6
    assert len(keys(path, select_files=lambda name: True)) == 6


def test_an_empty_shard_that_should_not_be(tmp_path: Path) -> None:
    """A shard without a sample that the JSON says has some is an error, and one of which it says so is none."""
    write_shards(tmp_path, 2, 3)
    (tmp_path / "shard-0000.tar").write_bytes(bytes(10240))
    for count in (0, None, 3):
        shards = [{"url": "shard-0000.tar", "nsamples": count}, *entries("shard-0001.tar")]
        path = write_json(tmp_path / "index.json", shardlist=shards)
        if count != 3:
            assert len(keys(path)) == 3
            continue
        with pytest.raises(StaleIndexError, match=r"says nsamples 3, the shard has 0"):
            keys(path)


def test_a_shard_with_a_fault_is_told_once(tmp_path: Path) -> None:
    """Samples that the handler left out are not missed again by the count."""
    (path,) = write_shards(tmp_path, 1, 3)
    data = bytearray(Path(path).read_bytes())
    data[1024:1536] = data[0:512]  # the text of the first sample is its class again
    Path(path).write_bytes(data)
    asked: list[Exception] = []
    index = write_json(tmp_path / "index.json", shardlist=entries("shard-0000.tar"))
    assert len(keys(index, handler=lambda exn: not asked.append(exn))) == 2
    assert [type(exn).__name__ for exn in asked] == ["DuplicateFieldError"]


def test_json_files_that_lead_nowhere(tmp_path: Path) -> None:
    """A missing shard, a missing JSON, a chain of JSONs, a count that is none: errors that name their place."""
    missing = write_json(tmp_path / "missing.json", shardlist=entries("gone.tar"))
    with pytest.raises(NotFoundError, match=r"gone[.]tar"):
        keys(missing)
    with pytest.raises(NotFoundError, match=r"gone[.]json"):
        keys(write_json(tmp_path / "a.json", datasets=[{"source_url": "gone.json"}]))
    write_json(tmp_path / "b.json", datasets=[{"source_url": "missing.json"}])
    with pytest.raises(ShardListError, match=r"names no further one"):
        keys(write_json(tmp_path / "c.json", datasets=[{"source_url": "b.json"}]))
    with pytest.raises(EmptyDatasetError, match=r"no shards: .*empty.json names none"):
        keys(write_json(tmp_path / "empty.json", shardlist=[]))
    with pytest.raises(ShardListError, match=r"d.json: shardlist\[0\]: nsamples must be a number of samples, got 'x'"):
        keys(write_json(tmp_path / "d.json", shardlist=[{"url": "a.tar", "nsamples": "x"}]))


def test_two_shards_of_one_base_name(tmp_path: Path) -> None:
    """Shards in two folders with one name are two shards, each with its own count."""
    for folder, samples in (("x", 2), ("y", 4)):
        (tmp_path / folder).mkdir()
        write_shards(tmp_path / folder, 1, samples)
    shards = [*entries("x/shard-0000.tar", nsamples=2), *entries("y/shard-0000.tar", nsamples=4)]
    assert len(keys(write_json(tmp_path / "index.json", shardlist=shards))) == 6
