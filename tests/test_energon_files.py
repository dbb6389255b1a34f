"""Megatron-Energon's files: what we write is what Energon wrote for the same shards, and what it wrote is read."""

from __future__ import annotations

import json
import shutil
import sqlite3
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml

import webdataset as wds
from helpers import foreign_data, tar_bytes
from test_indexed import as_pairs, streamed
from webdataset.energon import prepare_energon
from webdataset.errors import DataError, NotFoundError, SampleError, ShardListError

NAMES = [f"shards/amber-00{i}.tar" for i in range(3)]


def rows(path: Path, table: str) -> list[Any]:
    """All rows of a table."""
    database = sqlite3.connect(path)
    try:
        return database.execute(f"SELECT * FROM {table}").fetchall()
    finally:
        database.close()


def structure(path: Path) -> list[Any]:
    """Tables and indexes, without the white space in them."""
    database = sqlite3.connect(path)
    try:
        found = database.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name").fetchall()
    finally:
        database.close()
    return [(kind, name, "".join((sql or "").split())) for kind, name, sql in found]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The shards of the golden data set, without Energon's files."""
    (tmp_path / "shards").mkdir()
    for name in NAMES:
        shutil.copy(foreign_data() / "energon" / name, tmp_path / name)
    return tmp_path


def test_what_we_write_is_what_energon_wrote(folder: Path) -> None:
    """Tables, indexes, rows, counts, parts and offsets are those that Energon 7.4.1 made of the same shards."""
    theirs = foreign_data() / "energon"
    parts = yaml.safe_load((theirs / ".nv-meta/split.yaml").read_text())["split_parts"]
    assert prepare_energon(folder, NAMES, parts) == dict.fromkeys(NAMES, 4)
    for table in ("samples", "sample_parts"):
        assert rows(folder / ".nv-meta/index.sqlite", table) == rows(theirs / ".nv-meta/index.sqlite", table)
    assert structure(folder / ".nv-meta/index.sqlite") == structure(theirs / ".nv-meta/index.sqlite")
    assert (folder / ".nv-meta/.info.json").read_text() == (theirs / ".nv-meta/.info.json").read_text()
    for name in ("split.yaml", "dataset.yaml"):
        ours, other = (yaml.safe_load((home / ".nv-meta" / name).read_text()) for home in (folder, theirs))
        assert ours == other
    for name in NAMES:
        assert (folder / f"{name}.idx").read_bytes() == (theirs / f"{name}.idx").read_bytes()
    assert str(uuid.UUID((folder / ".nv-meta/index.uuid").read_text()))
    assert sorted(path.name for path in (folder / ".nv-meta").iterdir()) == [
        ".info.json",
        "dataset.yaml",
        "index.sqlite",
        "index.uuid",
        "split.yaml",
    ]


def test_a_prepared_data_set_is_read_by_its_counts() -> None:
    """`IndexedDataset` takes `.nv-meta/.info.json`: the samples of all shards, in its order."""
    home = foreign_data() / "energon"
    ds = wds.IndexedDataset(home / ".nv-meta/.info.json", cache_dir="")
    assert len(ds) == 12
    assert as_pairs(ds) == [sample for name in NAMES for sample in streamed(home / name)]


def test_preparing_again_replaces_the_index_and_keeps_the_users_file(folder: Path) -> None:
    """A second run writes a new index with a new identity; dataset.yaml, which users write, stays."""
    prepare_energon(folder, NAMES)
    before = (folder / ".nv-meta/index.uuid").read_text()
    (folder / ".nv-meta/dataset.yaml").write_text("mine: 1\n")
    prepare_energon(folder, NAMES[:1])
    assert (folder / ".nv-meta/index.uuid").read_text() != before
    assert (folder / ".nv-meta/dataset.yaml").read_text() == "mine: 1\n"
    assert json.loads((folder / ".nv-meta/.info.json").read_text())["shard_counts"] == {NAMES[0]: 4}
    assert len(rows(folder / ".nv-meta/index.sqlite", "samples")) == 4


def test_what_energon_cannot_have_is_told(folder: Path) -> None:
    """A key twice, a compressed, damaged or missing shard, a part of other shards: an error, and no index is left."""
    (folder / "twice.tar").write_bytes(tar_bytes({"pebble0001.txt": b"1"}))
    (folder / "latin.tar").write_bytes(tar_bytes({"gr\udcfcn.txt": b"1"}))
    (folder / "cut.tar").write_bytes(tar_bytes({"a.txt": b"1"})[:700])
    shutil.copy(foreign_data() / "corrupt/amber-bad-crc.tgz", folder / "packed.tgz")
    for shards, error in {
        (NAMES[0], "twice.tar"): SampleError,
        ("latin.tar",): SampleError,
        ("packed.tgz",): DataError,
        ("cut.tar",): DataError,
        ("absent.tar",): NotFoundError,
        (): ShardListError,
        (NAMES[0], NAMES[0]): ShardListError,
    }.items():
        with pytest.raises(error):
            prepare_energon(folder, shards)
    with pytest.raises(SampleError, match="pebble0001"):
        prepare_energon(folder, [NAMES[0], "twice.tar"])
    with pytest.raises(ShardListError, match="none of the shards"):
        prepare_energon(folder, NAMES, {"train": ["x.tar"]})
    assert not list((folder / ".nv-meta").iterdir())
