"""Megatron-Energon's files: what we write is what Energon wrote for the same shards, and what it wrote is read."""

from __future__ import annotations

import contextlib
import itertools
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
from nginx import Nginx
from test_indexed import as_pairs, streamed, write_shards
from webdataset.energon import prepare_energon
from webdataset.errors import DataError, NotFoundError, SampleError, ShardListError, StaleIndexError

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


@pytest.mark.parametrize("name", ["", "/", "/.nv-meta", "/.nv-meta/.info.json", "/.nv-meta/split.yaml"])
def test_a_part_of_a_prepared_data_set(name: str) -> None:
    """`split=` gives the shards that split.yaml names, in its order, whatever file of the set the program names."""
    home = foreign_data() / "energon"
    parts = yaml.safe_load((home / ".nv-meta/split.yaml").read_text())["split_parts"]
    assert sorted(parts) == ["test", "train", "val"]
    for part, names in parts.items():
        ds = wds.IndexedDataset(f"{home}{name}", split=part, cache_dir="")
        assert as_pairs(ds) == [sample for shard in names for sample in streamed(home / shard)]
    if "split" not in name:
        assert len(wds.IndexedDataset(f"{home}{name}")) == 12


def test_shards_of_a_prepared_data_set_have_plain_paths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Urls of samples are those below the folder, without a detour through `.nv-meta`, wherever the program stands."""
    prepare_energon(folder, NAMES)
    monkeypatch.chdir(folder)
    for place in (".", ".nv-meta", ".nv-meta/.info.json"):
        assert wds.IndexedDataset(place)[0]["__url__"] == NAMES[0]
    monkeypatch.chdir(folder / ".nv-meta")
    assert wds.IndexedDataset(".info.json")[0]["__url__"] == f"../{NAMES[0]}"
    assert wds.IndexedDataset(folder)[0]["__url__"] == str(folder / NAMES[0])


def write_split(folder: Path, split: Any, name: str = "split.yaml") -> None:
    """A file of parts, as users write it."""
    (folder / ".nv-meta" / name).write_text(split if isinstance(split, str) else json.dumps(split))


def test_parts_with_braces_and_what_is_excluded(folder: Path) -> None:
    """Names and exclusions have braces; shards and samples that are excluded are left out, and nothing else."""
    prepare_energon(folder, NAMES)
    write_split(
        folder,
        {
            "split_parts": {"train": ["shards/amber-00{0..2}.tar"], "val": ["shards/amber-{002,000}.tar"]},
            "exclude": ["shards/amber-001.tar", "shards/amber-000.tar/pebble000{1,3}", "shards/amber-002.tar/absent"],
        },
    )
    kept = {"pebble0000", "pebble0002"}
    first, last = (streamed(folder / NAMES[i]) for i in (0, 2))
    first = [sample for sample in first if sample[0] in kept]
    train, val = (wds.IndexedDataset(folder, split=part) for part in ("train", "val"))
    assert as_pairs(train) == as_pairs(train[i] for i in range(len(train))) == first + last
    assert as_pairs(val) == last + first
    assert train[1:]["pebble0002"]["__key__"] == "pebble0002"
    with pytest.raises(KeyError):
        train["pebble0001"]
    (folder / ".nv-meta/split.yaml").unlink()
    write_split(folder, {"split_parts": {"all": NAMES}}, "split.json")
    assert len(wds.IndexedDataset(folder, split="all")) == 12


def test_a_prepared_data_set_on_a_server(folder: Path, nginx: Nginx) -> None:
    """Its folder may be a url; shards lie below that, and are read with Energon's offsets."""
    prepare_energon(folder, NAMES, {"train": NAMES[1:], "val": NAMES[:1]})
    home = shutil.copytree(folder, nginx.folder / "prepared")
    ds = wds.IndexedDataset(nginx.url("prepared"), split="val", cache_dir="")
    assert as_pairs(ds) == streamed(home / NAMES[0])
    assert ds[0]["__url__"] == nginx.url(f"prepared/{NAMES[0]}")
    write_split(home, {"split_parts": {"val": ["/etc/passwd"]}})
    info = json.loads((home / ".nv-meta/.info.json").read_text())
    (home / ".nv-meta/.info.json").write_text(json.dumps({"shard_counts": info["shard_counts"] | {"/etc/passwd": 1}}))
    with pytest.raises(ShardListError, match="names no local files"):
        wds.IndexedDataset(nginx.url("prepared"), split="val")


def test_what_is_wrong_with_a_prepared_data_set_is_told(folder: Path) -> None:
    """A part that is not there, files that are none, a shard without a count: an error with file and field."""
    with pytest.raises(NotFoundError, match=r"nv-meta: no \.info\.json: the folder was not prepared by Energon"):
        wds.IndexedDataset(folder, split="train")
    prepare_energon(folder, NAMES)
    for split, message in {
        "]": r"split\.yaml: cannot be read as YAML",
        "[]": r"split\.yaml: it must be a mapping, got list",
        "{}": r"split\.yaml: split_parts: there is no part 'train'",
        "split_parts: {val: []}": r"split\.yaml: split_parts: there is no part 'train', only val",
        "split_parts: {train: 7}": r"split\.yaml: split_parts: train: must be a list of names, got 7",
        "split_parts: {train: [x.tar]}": r"train: x\.tar is not in .*\.info\.json: shard_counts",
        "split_parts: {train: []}": r"split\.yaml: split_parts: train: there are no shards",
        "{split_parts: {train: [shards/amber-000.tar]}, exclude: 1}": r"split\.yaml: exclude: must be a list of names",
    }.items():
        write_split(folder, split)
        with pytest.raises(ValueError, match=message):
            wds.IndexedDataset(folder, split="train")
    with pytest.raises(ShardListError, match="split='train' is for the folder of a set of Energon"):
        wds.IndexedDataset([{"url": "a.tar"}], split="train")
    for info, message in {
        "{": r"info\.json: cannot be read as JSON",
        "{}": r"info\.json: shard_counts must be counts by shard",
        '{"shard_counts": {"a.tar": "3"}}': r"info\.json: shard_counts: a\.tar: nsamples must be a number of samples",
    }.items():
        (folder / ".nv-meta/.info.json").write_text(info)
        with pytest.raises(ShardListError, match=message):
            wds.IndexedDataset(folder)
    (folder / ".nv-meta/.info.json").write_text(json.dumps({"shard_counts": {NAMES[0]: 5}}))
    with pytest.raises(StaleIndexError, match=r"shard_counts: shards/amber-000\.tar says nsamples 5, the shard has 4"):
        wds.IndexedDataset(folder)[0]


def test_the_database_is_an_index(folder: Path) -> None:
    """Without any other index, keys, members and samples come from index.sqlite; no sample is read for a key."""
    prepare_energon(folder, NAMES)
    for name in NAMES:
        (folder / f"{name}.idx").unlink()
    ds = wds.IndexedDataset(folder, cache_dir="")
    assert ds.all_keys() == [key for name in NAMES for key, _ in streamed(folder / name)]
    assert ds["pebble0002"] == ds[2]
    assert ds._open[0].index.told is not None
    assert as_pairs(ds) == [sample for name in NAMES for sample in streamed(folder / name)]


def change_database(folder: Path, change: str) -> None:
    """Run a command of SQL."""
    with contextlib.closing(sqlite3.connect(folder / ".nv-meta/index.sqlite")) as database:
        database.execute(change)
        database.commit()


def test_a_key_that_only_the_database_has_leads_to_no_sample(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong key in index.sqlite is told when the shard is opened, or is an error when its sample is read."""
    (path,) = write_shards(tmp_path, 60)
    expected = streamed(Path(path))
    prepare_energon(tmp_path, ["a-0.tar"])
    change_database(tmp_path, "UPDATE samples SET sample_key = 'other' WHERE sample_index = 5")
    ds = wds.IndexedDataset(tmp_path, cache_dir="")
    with pytest.raises(StaleIndexError, match=r"the index has the key 'other', the shard '0-000005'"):
        ds["other"]
    with pytest.raises(KeyError):
        ds["0-000005"]
    assert as_pairs(ds[6:]) == expected[6:]
    change_database(tmp_path, "UPDATE samples SET sample_key = 'first' WHERE sample_index = 0")
    ds = wds.IndexedDataset(tmp_path, cache_dir="")
    assert ds.all_keys() == [key for key, _ in expected]
    assert "index.sqlite: not used as the index of the shard: sample 0 is 'first', says the index" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE sample_parts",
        "UPDATE sample_parts SET part_name = x'6a' WHERE part_name = 'json'",
        "UPDATE samples SET byte_offset = byte_offset + 512 WHERE sample_index = 2",
        "UPDATE samples SET byte_offset = byte_offset + 1024, byte_size = byte_size - 1024 WHERE sample_index = 2",
        "UPDATE samples SET byte_size = 1 WHERE sample_index = 3",
        "UPDATE samples SET sample_index = 9 WHERE sample_index = 2",
        "UPDATE samples SET tar_file_id = 1 - tar_file_id WHERE tar_file_id < 2",
        "UPDATE samples SET byte_offset = 'x' WHERE sample_index = 2",
        "UPDATE sample_parts SET content_byte_offset = content_byte_offset + 512 WHERE part_name = 'json'",
        "UPDATE sample_parts SET content_byte_size = 3 WHERE part_name = 'json'",
        "UPDATE sample_parts SET part_name = 'txt' WHERE part_name = 'json'",
        "UPDATE sample_parts SET sample_index = 17 WHERE part_name = 'json'",
        "DELETE FROM sample_parts WHERE sample_index = 2",
        "DELETE FROM samples",
        "garbage",
        "cut",
    ],
)
def test_a_database_that_does_not_fit_gives_no_wrong_sample(
    change: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is wrong in index.sqlite, the samples are those of the shards, and the log says what was not used."""
    prepare_energon(folder, NAMES)
    path = folder / ".nv-meta/index.sqlite"
    if change in ("garbage", "cut"):
        data = path.read_bytes()
        path.write_bytes(data[:5000] if change == "cut" else b"no database" + data[11:])
    else:
        change_database(folder, change)
    ds = wds.IndexedDataset(folder, cache_dir="")
    expected = [sample for name in NAMES for sample in streamed(folder / name)]
    assert as_pairs(ds[i] for i in range(len(ds))) == expected
    assert as_pairs(ds) == expected
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert lines
    assert all("not used as the index" in line or "its headers were read instead" in line for line in lines)


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


def test_a_pattern_is_no_list_of_shards(folder: Path) -> None:
    """A str where a list of shards is wanted, or a share, is told, and nothing is written."""
    for wrong in (("a-{0..2}.tar", None), (NAMES, {"train": "a.tar"}), (NAMES, {"train": 0.8})):
        with pytest.raises(TypeError, match=r"are lists of paths, got '?[a0]"):
            prepare_energon(folder / "new", *wrong)  # type: ignore[arg-type]
    assert not (folder / "new").exists()


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


def test_a_database_runs_no_program_of_its_own(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A view that never ends, where a table should be, is not asked; the headers are read."""
    prepare_energon(folder, NAMES)
    for name in NAMES:
        (folder / f"{name}.idx").unlink()
    change_database(folder, "DROP TABLE samples")
    endless = "WITH RECURSIVE n(x) AS (SELECT 0 UNION ALL SELECT x + 1 FROM n)"
    columns = "0 AS tar_file_id, 'a' AS sample_key, x AS sample_index, x AS byte_offset, 1 AS byte_size"
    change_database(folder, f"CREATE VIEW samples AS {endless} SELECT {columns} FROM n")
    ds = wds.IndexedDataset(folder, cache_dir="")
    assert as_pairs(ds) == [sample for name in NAMES for sample in streamed(folder / name)]
    assert "samples and sample_parts must be tables" in caplog.text


def test_a_split_that_unfolds_without_end_is_one_line(folder: Path) -> None:
    """YAML says much in few bytes; an error shows some of it."""
    prepare_energon(folder, NAMES)
    levels = [f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in itertools.pairwise("abcdefghij")]
    text = "\n".join(["a: &a [x, x]", *levels, "split_parts: {train: *j}", "exclude: []", ""])
    (folder / ".nv-meta/split.yaml").write_text(text)
    with pytest.raises(ShardListError, match="train: must be a list of names, got") as caught:
        wds.IndexedDataset(folder, split="train")
    assert len(str(caught.value)) < 500
