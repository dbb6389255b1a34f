"""Subsets: chosen by keys, by what indexes and tables tell, by a hash of the key; what is left out is never read."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import webdataset as wds
from helpers import foreign_data, tar_bytes
from nginx import Nginx
from test_indexed import as_pairs, streamed, write_shards
from webdataset.errors import MissingFieldError, NotFoundError, SampleError, StaleIndexError
from webdataset.img2dataset import stats_name, table_name
from webdataset.shardindex import write_sidecar

AMBER = foreign_data() / "img2dataset-amber"


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes are cached in a folder of the test."""
    monkeypatch.setenv("WDS_CACHE", str(tmp_path / "cache"))


def write_images(path: Path, count: int, table: dict[str, list[Any]] | None = None) -> str:
    """A shard of samples with jpg (100 bytes more each time), some with txt; and its table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    members = {}
    for i in range(count):
        members[f"{i:04d}.jpg"] = b"j" * (100 * i)
        if i % 3:
            members[f"{i:04d}.txt"] = b"text"
    path.write_bytes(tar_bytes(members))
    if table is not None:
        pq.write_table(pa.table(table), path.with_suffix(".parquet"))
    return str(path)


def keys(ds: Any) -> list[str]:
    """The keys of the samples, as they are read."""
    return [sample["__key__"] for sample in ds]


def named(numbers: Any) -> list[str]:
    """The keys of these numbers."""
    return [f"{i:04d}" for i in numbers]


def test_where_asks_sizes_fields_keys_and_urls(tmp_path: Path) -> None:
    """Conditions of what the index tells, with whole columns or sample by sample, give the same samples as a loop."""
    paths = [write_images(tmp_path / name / "a.tar", 20) for name in ("one", "two")]
    ds = wds.IndexedDataset(paths)
    assert keys(ds.where(lambda row: row["jpg.size"] < 500)) == named(range(5)) * 2
    assert keys(ds.where(lambda row: row["jpg.size"] >= 100 and row["jpg.size"] < 500)) == named(range(1, 5)) * 2
    assert keys(ds.where(lambda row: row["txt.size"] == 4)) == named(i for i in range(20) if i % 3) * 2
    assert keys(ds.where(lambda row: "txt" not in row["__fields__"])) == named(range(0, 20, 3)) * 2
    assert keys(ds.where(lambda row: row["__key__"].endswith("7"))) == named([7, 17]) * 2
    assert keys(ds.where(lambda row: row["__url__"] == paths[1])) == named(range(20))
    assert keys(ds.where(lambda row: np.isin(row["__key__"], ["0003", "0019"]))) == named([3, 19]) * 2
    assert len(ds.where(lambda row: row["no.size"] > 0)) == len(ds.where(lambda row: False)) == 0
    assert ds.where(lambda row: True).all_keys() == ds.all_keys()


@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_fields_are_compared_with_a_tuple_as_a_whole(count: int, tmp_path: Path) -> None:
    """`row["__fields__"] == ("jpg",)` asks each sample whether it has just this field, in shards of any length."""
    ds = wds.IndexedDataset(write_images(tmp_path / "a.tar", count))
    alone = named(range(0, count, 3))
    assert keys(ds.where(lambda row: row["__fields__"] == ("jpg",))) == alone
    assert keys(ds.where(lambda row: row["__fields__"] != ("jpg", "txt"))) == alone
    pairs = ds.where(lambda row: np.array([len(names) for names in row["__fields__"]]) == 2)
    assert keys(pairs) == named(i for i in range(count) if i % 3)


def test_subsets_of_subsets_keep_their_order(tmp_path: Path) -> None:
    """where, with_keys, split and slices of a subset choose among its samples, in its order."""
    ds = wds.IndexedDataset(write_shards(tmp_path, 30, 30))
    some = ds[::-1].where(lambda row: row["__key__"] >= "0-000020")
    assert keys(some) == ds.all_keys()[:19:-1]
    assert keys(some[5:].where(lambda row: row["__url__"] == ds.shards[0].url)) == ds.all_keys()[29:19:-1]
    assert keys(some.with_keys(["0-000021", "1-000003"])) == ["0-000021", "1-000003"]
    assert some.index_of("1-000029") == 0
    with pytest.raises(KeyError, match="0-000001"):
        some.with_keys(["1-000003", "0-000001"])
    with pytest.raises(SampleError, match="samples 0 and 1 have one key"):
        ds.subset([3, 3]).index_of("0-000003")
    parts, all_parts = some.split(a=0.5, b=0.5), ds.split(a=0.5, b=0.5)
    assert sorted(keys(parts["a"]) + keys(parts["b"])) == sorted(keys(some))
    assert set(keys(parts["a"])) <= set(all_parts["a"].all_keys())
    assert keys(parts["a"]) == [key for key in keys(some) if key in set(keys(parts["a"]))]


def test_tables_of_img2dataset_are_columns() -> None:
    """Columns of the parquet beside each shard are found by key; rows of images that failed belong to no sample."""
    ds = wds.IndexedDataset(str(AMBER / "{00000..00001}.tar"), cache_dir="")
    rows = {
        row["key"]: row for name in ("00000", "00001") for row in pq.read_table(AMBER / f"{name}.parquet").to_pylist()
    }
    assert len(rows) == 8
    assert len(ds) == 6
    for column in ("width", "original_height"):
        limit = sorted(rows[key][column] for key in ds.all_keys())[3]
        expected = [key for key in ds.all_keys() if rows[key][column] >= limit]
        assert keys(ds.where(lambda row, c=column, least=limit: row[c] >= least)) == expected
    assert keys(ds.where(lambda row: row["status"] == "success")) == ds.all_keys()
    assert keys(ds.where(lambda row: row["caption"] is None)) == [
        k for k in ds.all_keys() if rows[k]["caption"] is None
    ]
    with pytest.raises(MissingFieldError, match=r"00000\.parquet.*no column 'similarity', only caption, url, key"):
        ds.where(lambda row: row["similarity"] > 0.3)


def test_tables_of_any_kind(tmp_path: Path) -> None:
    """Numbers, texts, truths and times in any order, with gaps and rows of other keys, decide for their own samples."""
    order = [7, 2, 9, 11, 3, 5, 0]
    path = write_images(
        tmp_path / "a.tar",
        10,
        {
            "__key__": named(order),
            "score": [i / 10 for i in order],
            "label": [None if i == 3 else i for i in order],
            "good": [i % 2 == 0 for i in order],
            "words": [["a"] * i for i in order],
            "day": [datetime.date(2020, 1, 1 + i) for i in order],
        },
    )
    ds = wds.IndexedDataset(path)
    assert keys(ds.where(lambda row: row["score"] > 0.4)) == named([5, 7, 9])
    assert keys(ds.where(lambda row: row["label"] <= 5)) == named([0, 2, 5])
    assert keys(ds.where(lambda row: row["good"])) == named([0, 2])
    assert keys(ds.where(lambda row: row["words"] is not None and len(row["words"]) == 3)) == named([3])
    assert keys(ds.where(lambda row: row["day"] > np.datetime64("2020-01-06"))) == named([7, 9])
    assert keys(ds.where(lambda row: (row["score"] > 0.2) & (row["jpg.size"] < 600))) == named([3, 5])


def test_what_is_wrong_with_a_table_is_told(tmp_path: Path) -> None:
    """No table, a damaged one, one without keys: an error that names the file."""
    path = Path(write_images(tmp_path / "a.tar", 3))
    table = path.with_suffix(".parquet")
    ds = wds.IndexedDataset(str(path))
    with pytest.raises(NotFoundError, match=r"a\.parquet.*so there is no column 'x', only __key__.*, jpg\.size"):
        ds.where(lambda row: row["x"] > 1)
    table.write_bytes(b"PAR1 this is none")
    with pytest.raises(StaleIndexError, match=r"a\.parquet.*cannot be read as Parquet"):
        ds.where(lambda row: row["x"] > 1)
    pq.write_table(pa.table({"x": [1, 2, 3]}), table)
    with pytest.raises(StaleIndexError, match=r"a\.parquet.*no column __key__ or key, only x"):
        ds.where(lambda row: row["x"] > 1)
    pq.write_table(pa.table({"key": named(range(3)), "x": list(range(3))}), table)
    data = table.read_bytes()
    table.write_bytes(data[:4] + bytes(40) + data[44:])
    with pytest.raises(StaleIndexError, match=r"a\.parquet.*cannot be read as Parquet"):
        ds.where(lambda row: row["x"] > 1)
    with pytest.raises(ZeroDivisionError):
        ds.where(lambda row: 1 / 0)


def test_without_pyarrow_the_error_says_what_to_install(tmp_path: Path) -> None:
    """A table needs pyarrow; all other subsets do not."""
    path = write_images(tmp_path / "a.tar", 3, {"key": named(range(3)), "x": [1, 2, 3]})
    code = (
        "import sys; sys.modules['pyarrow'] = sys.modules['pyarrow.parquet'] = None\n"
        "import webdataset as wds\n"
        "ds = wds.IndexedDataset(sys.argv[1])\n"
        "assert len(ds.where(lambda row: row['jpg.size'] > 0)) == 2\n"
        "ds.where(lambda row: row['x'] > 1)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert done.stderr.rstrip().endswith("reading tables beside shards needs pyarrow: pip install pyarrow")


def test_counts_of_img2dataset_are_used_and_checked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`successes` of the stats beside a shard counts it, unopened; a wrong, old or damaged one is told or not used."""
    for name in ("00000", "00001"):
        for ending in (".tar", ".parquet", "_stats.json"):
            shutil.copy(AMBER / f"{name}{ending}", tmp_path)
    urls = str(tmp_path / "{00000..00001}.tar")
    ds = wds.IndexedDataset(urls)
    assert len(ds) == 6
    assert not (tmp_path / "cache").exists()
    assert as_pairs(ds) == [sample for name in ("00000", "00001") for sample in streamed(tmp_path / f"{name}.tar")]
    stats = tmp_path / "00000_stats.json"
    stats.write_text(json.dumps({"count": 5, "successes": 5}))
    with pytest.raises(StaleIndexError, match=r"00000_stats\.json: successes says nsamples 5, the shard has 3"):
        wds.IndexedDataset(urls)[0]
    assert len(wds.IndexedDataset(urls, sidecars=False)) == 6
    for damaged in ("{", "[]", '{"successes": "3"}', '{"successes": -1}', "{}"):
        caplog.clear()
        stats.write_text(damaged)
        assert len(wds.IndexedDataset(urls)) == 6
        assert "00000_stats.json: not used as the count of the shard" in caplog.text
    stats.write_text(json.dumps({"successes": 5}))
    os.utime(stats, (1, 1))
    assert len(wds.IndexedDataset(urls)) == 6


def test_subsets_of_remote_shards_read_indexes_and_tables_only(nginx: Nginx) -> None:
    """Conditions, keys and splits of remote shards take no byte of their samples once they are indexed."""
    folder = nginx.folder / "subsets"
    path = Path(write_images(folder / "a.tar", 60, {"key": named(range(60)), "score": [i / 60 for i in range(60)]}))
    (folder / "a_stats.json").write_text('{"successes": 60}')
    write_sidecar(path, "dali")
    ds = wds.IndexedDataset(nginx.url("subsets/a.tar"))
    assert (len(ds), nginx.asked("/subsets/a.tar")) == (60, [])
    some = ds.where(lambda row: (row["score"] > 0.5) & (row["jpg.size"] < 4000))
    assert len(some.split(a=0.5, b=0.5)["a"]) + len(ds.with_keys(named([3, 4]))) > 2
    assert sum(request.bytes for request in nginx.asked("/subsets/a.tar") if request.method == "GET") < 4096
    assert as_pairs(some) == [sample for sample in streamed(path) if "0030" < sample[0] < "0040"]
    taken = sum(request.bytes for request in nginx.asked("/subsets/a.tar") if request.method == "GET")
    assert taken < path.stat().st_size / 2


def test_subsets_read_no_sample_of_a_local_shard(tmp_path: Path) -> None:
    """A shard whose samples were overwritten, but whose cached index stands, gives the same subsets."""
    path = Path(write_images(tmp_path / "a.tar", 30))
    whole = wds.IndexedDataset(str(path))
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    ds = wds.IndexedDataset([{"url": str(path), "nsamples": 30}])
    assert ds.where(lambda row: row["jpg.size"] < 500).all_keys() == named(range(5))
    assert ds.with_keys(["0007"]).all_keys() == ["0007"]
    assert ds.split(a=1)["a"].all_keys() == whole.all_keys()


@pytest.mark.parametrize(
    ("url", "stats", "table"),
    [
        ("a.b/00000.tar", "a.b/00000_stats.json", "a.b/00000.parquet"),
        ("s3://b/00000.tar.gz", "s3://b/00000_stats.json", "s3://b/00000.parquet"),
        ("00000.tgz", "00000_stats.json", "00000.parquet"),
        ("http://h/00000.tar?x=1", None, None),
    ],
)
def test_names_beside_shards(url: str, stats: str | None, table: str | None) -> None:
    """Stats and tables lie where img2dataset leaves them."""
    assert (stats_name(url), table_name(url)) == (stats, table)
