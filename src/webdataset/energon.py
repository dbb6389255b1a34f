"""Shards below a folder -> what Megatron-Energon wants beside them: `.nv-meta/`, and a `.tar.idx` for each.

Energon reads its own files only: counts in `.info.json`, whose order numbers the shards; parts in `split.yaml`; every
sample and member in `index.sqlite`, whose tables must have exactly these columns; `index.uuid`, new with every index.
Files appear complete or not at all, the index last. Field names keep their capital letters, as Energon does.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence

from .errors import NotFoundError, SampleError, ShardListError
from .indexfiles import format_offsets
from .sampleindex import SampleIndex, scan_samples
from .shardindex import energon_name
from .shardopening import open_shard
from .storage.atomic import write_file

VERSION = "7.4.1"
"""The version of Energon whose files these are."""

TABLES = """
CREATE TABLE samples (
    tar_file_id INTEGER NOT NULL,
    sample_key TEXT NOT NULL UNIQUE,
    sample_index INTEGER NOT NULL,
    byte_offset INTEGER,
    byte_size INTEGER
);
CREATE TABLE sample_parts (
    tar_file_id INTEGER,
    sample_index INTEGER,
    part_name TEXT,
    content_byte_offset INTEGER,
    content_byte_size INTEGER
);
"""
INDEXES = """
CREATE INDEX idx_samples_by_tar_and_idx ON samples(tar_file_id, sample_index);
CREATE INDEX idx_sample_parts_seq ON sample_parts(tar_file_id, sample_index, content_byte_offset);
CREATE INDEX idx_sample_parts_full
    ON sample_parts(tar_file_id, sample_index, part_name, content_byte_offset, content_byte_size);
"""

DATASET = "__module__: megatron.energon\n__class__: CrudeWebdataset\n"
"""`dataset.yaml` where the user has not written one."""


def prepare_energon(
    root: str | os.PathLike[str], shards: Iterable[str], parts: Mapping[str, Sequence[str]] | None = None
) -> dict[str, int]:
    """Write Energon's files for these shards; the result is how many samples each has.

    Args:
        root: the folder of the data set; `.nv-meta` is made in it.
        shards: paths below it, with `/`, uncompressed; their order is that of the data set.
        parts: the shards of `train`, `val` and `test`; None: all are `train`.

    Raises:
        NotFoundError: a shard is missing.
        ShardListError: no shards, one of them twice, or a part has a shard that is none of these.
        SampleError: a key is there twice, a sparse member, a compressed shard: Energon cannot have them.
        DataError: a shard is damaged.
    """
    for what in (shards, *(parts or {}).values()):
        if isinstance(what, (str, int, float)):
            raise TypeError(f"prepare_energon: shards, and those of each part, are lists of paths, got {what!r}")
    root, shards = os.fspath(root), list(shards)
    parts = {"train": shards, "val": [], "test": []} if parts is None else parts
    _check(shards, parts)
    meta = os.path.join(root, ".nv-meta")
    os.makedirs(meta, exist_ok=True)
    temporary = os.path.join(meta, f"index.sqlite.{uuid.uuid4().hex}.partial")
    counts: dict[str, int] = {}
    try:
        with contextlib.closing(sqlite3.connect(temporary)) as database:
            database.executescript(TABLES)
            for number, shard in enumerate(shards):
                path = os.path.join(root, *shard.split("/"))
                index = _scan(path)
                _insert(database, number, index, path)
                counts[shard] = len(index)
                name = energon_name(path)
                assert name is not None
                write_file(name, format_offsets(index))
            database.executescript(INDEXES)
            database.commit()
        _write_texts(meta, counts, parts)
        os.replace(temporary, os.path.join(meta, "index.sqlite"))
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    return counts


def _check(shards: list[str], parts: Mapping[str, Sequence[str]]) -> None:
    if not shards or len(set(shards)) < len(shards):
        raise ShardListError("prepare_energon: shards must be at least one path, none of them twice")
    unknown = [shard for part in parts.values() for shard in part if shard not in set(shards)]
    if unknown:
        raise ShardListError(f"prepare_energon: parts names {unknown[0]!r}, which is none of the shards")


def _scan(path: str) -> SampleIndex:
    if not os.path.exists(path):
        raise NotFoundError("no such shard", url=path)
    with contextlib.closing(open_shard(path, "")) as shard:
        if shard.size != shard.version.size:
            raise SampleError("Energon reads no samples out of compressed shards", url=path)
        with contextlib.closing(shard.stream()) as stream:
            return scan_samples(stream, path, lcase=False)


def _insert(database: sqlite3.Connection, number: int, index: SampleIndex, path: str) -> None:
    members = index.members
    assert members is not None
    if members.wrapped:
        raise SampleError("Energon reads no sparse members", url=path)
    ends = index.offsets.tolist()
    rows = zip(members.all_keys(), ends[:-1], ends[1:], strict=True)
    try:
        database.executemany(
            "INSERT INTO samples VALUES (?, ?, ?, ?, ?)",
            ((number, key, i, begin, end - begin) for i, (key, begin, end) in enumerate(rows)),
        )
    except sqlite3.IntegrityError as exn:
        known = {key for (key,) in database.execute("SELECT sample_key FROM samples WHERE tar_file_id < ?", (number,))}
        twice = _first_twice(members.all_keys(), known)
        fact = "the key is there twice; Energon wants one of its own for each sample"
        raise SampleError(fact, url=path, key=twice) from exn
    except UnicodeEncodeError as exn:
        raise SampleError("a key is not UTF-8, which Energon's database cannot hold", url=path) from exn
    database.executemany("INSERT INTO sample_parts VALUES (?, ?, ?, ?, ?)", _parts(number, index))


def _first_twice(keys: list[str], known: set[str]) -> str | None:
    for key in keys:
        if key in known:
            return key
        known.add(key)
    return None


def _parts(number: int, index: SampleIndex) -> Iterator[tuple[int, int, str, int, int]]:
    assert index.members is not None
    for i in range(len(index)):
        for field, start, size, _ in index.members.rows(i):
            yield number, i, field, start, size


def _write_texts(meta: str, counts: dict[str, int], parts: Mapping[str, Sequence[str]]) -> None:
    info = {"energon_version": VERSION, "shard_counts": counts}
    lines = ["split_parts:"]
    for part, shards in parts.items():
        lines.append(f"  {json.dumps(part)}:" + ("" if shards else " []"))
        lines += [f"  - {json.dumps(shard)}" for shard in shards]
    write_file(os.path.join(meta, ".info.json"), json.dumps(info, indent=2).encode())
    write_file(os.path.join(meta, "split.yaml"), ("\n".join([*lines, "exclude: []"]) + "\n").encode())
    write_file(os.path.join(meta, "index.uuid"), str(uuid.uuid4()).encode())
    if not os.path.exists(os.path.join(meta, "dataset.yaml")):
        write_file(os.path.join(meta, "dataset.yaml"), DATASET.encode())
