"""A data set that was prepared for Megatron-Energon -> its shards and counts, the parts of it, and their indexes.

Beside the shards there is a folder `.nv-meta/`. Its `.info.json` (of old, `.info.yaml`) numbers the shards and counts
their samples; `split.yaml` (or `split.json`) says which of them are `train`, `val` and `test`, and what is left out:
names may have braces, and `exclude` names shards, or samples as `shard.tar/key`. `index.sqlite`, read where it is a
local file, tells where each member of each sample lies; it is believed as little as any other sidecar.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from reprlib import repr as shown  # YAML can say a value of any size in few bytes
from typing import Any
from urllib.parse import quote

from .braces import braceexpand
from .countedshards import CountedShard, shards_of_index
from .errors import EmptyDatasetError, NotFoundError, ShardListError, StaleIndexError, public_url
from .gopen import path_of
from .indexfiles import ToldMembers, told_index
from .sampleindex import SampleIndex
from .shardbytes import ShardBytes
from .shardspecs import read_mapping
from .storage.local import local_path
from .storage.options import StorageOptions

META = ".nv-meta"

_SAMPLES = """SELECT sample_index, sample_key, byte_offset, byte_size
    FROM samples WHERE tar_file_id = ? ORDER BY sample_index"""
_PARTS = """SELECT sample_index, part_name, content_byte_offset, content_byte_size
    FROM sample_parts WHERE tar_file_id = ? ORDER BY sample_index, content_byte_offset"""


class PreparedSet:
    """See the module.

    Attributes:
        shards: the shards of the part, in its order.
        excluded: (number in `shards`, key) of the samples that are left out.
        database: the path of `index.sqlite`.
    """

    def __init__(self, shards: list[CountedShard], files: list[int], excluded: set[tuple[int, str]], meta: str) -> None:
        self.shards = shards
        self.excluded = excluded
        self.database = f"{meta}/index.sqlite"
        self._files = files

    def read_index(self, number: int, shard: ShardBytes) -> SampleIndex | None:
        """What the database tells of a shard; None where there is none, or it is not a local file.

        Raises:
            StaleIndexError: it is damaged, older than the shard, or of other tables.
        """
        path = path_of(self.database)
        try:
            state = None if path is None else os.stat(path)
        except OSError:
            return None
        if path is None or state is None:
            return None
        if state.st_mtime_ns < (shard.version.mtime_ns or 0):
            raise StaleIndexError("it is older than the shard")
        try:
            place = f"file:{quote(os.path.abspath(path))}?mode=ro&immutable=1"
            with contextlib.closing(sqlite3.connect(place, uri=True)) as database:
                _check_tables(database)
                return _index_of(database, self._files[number])
        except (sqlite3.Error, ValueError, TypeError, LookupError, AttributeError) as exn:
            raise StaleIndexError(f"it cannot be read as Energon's database: {exn}") from exn


def prepared_set(
    source: Any, split: str | None = None, options: StorageOptions | None = None, allow_pipe: bool | None = None
) -> PreparedSet | None:
    """The set that a program names by its folder, by `.nv-meta`, or by a file in that; None: it names another thing.

    Args:
        split: the part, as `split.yaml` calls it, or as the file does that the program names; None: all shards.

    Raises:
        NotFoundError: it was not prepared.
        ShardListError: a file in `.nv-meta` is not as it must be, or there is no such part.
        EmptyDatasetError: the part has no shards.
    """
    found = _meta_of(source, split)
    if found is None:
        return None
    meta, chosen = found
    path, counts = _counts(meta, options)
    shards = list(shards_of_index({"shard_counts": counts}, path, options, allow_pipe))
    names, excluded = list(counts), set[str]()
    if split is not None:
        names, excluded = _part(meta, chosen, split, counts, path, options)
    file_of = {name: file for file, name in enumerate(counts)}
    files = [file_of[name] for name in names]
    left_out = _samples(excluded, names)
    return PreparedSet([shards[file] for file in files], files, left_out, meta)


def _meta_of(source: Any, split: str | None) -> tuple[str, str | None] | None:
    """Path of `.nv-meta`, and the file of parts that the program names, if it does."""
    if not isinstance(source, (str, os.PathLike)):
        if split is not None:
            raise ShardListError(f"split={split!r} is for the folder of a set of Energon, got {shown(source):.80}")
        return None
    path = os.fspath(source).rstrip("/")
    folder, _, name = path.rpartition("/")
    if name == META:
        return path, None
    if folder.rpartition("/")[2] == META and (split is not None or name.startswith(".info.")):
        return folder, None if name.startswith(".info.") else name
    local = local_path(path)
    if split is not None or (local is not None and os.path.isdir(os.path.join(local, META))):
        return f"{path}/{META}", None
    return None


def _read(meta: str, names: list[str], options: StorageOptions | None) -> tuple[str, dict[str, Any]]:
    """The first of these files that there is: its path, and what it holds."""
    for name in names:
        path = f"{meta}/{name}"
        with contextlib.suppress(NotFoundError):
            return path, read_mapping(path, options)
    raise NotFoundError(f"no {names[0]}: the folder was not prepared by Energon", url=meta)


def _counts(meta: str, options: StorageOptions | None) -> tuple[str, dict[str, Any]]:
    path, info = _read(meta, [".info.json", ".info.yaml"], options)
    counts = info.get("shard_counts")
    if not isinstance(counts, dict) or not counts:
        raise ShardListError(f"{public_url(path)}: shard_counts must be counts by shard, got {shown(counts):.80}")
    return path, counts


def _part(
    meta: str, chosen: str | None, split: str, counts: dict[str, Any], info: str, options: StorageOptions | None
) -> tuple[list[str], set[str]]:
    """The shards of a part, and what is excluded."""
    path, spec = _read(meta, ["split.yaml", "split.json"] if chosen is None else [chosen], options)
    where = public_url(path)
    parts = spec.get("split_parts")
    if not isinstance(parts, dict) or split not in parts:
        there = f", only {', '.join(map(str, parts))}" if isinstance(parts, dict) else ""
        raise ShardListError(f"{where}: split_parts: there is no part {split!r}{there}")
    excluded = set(_names(spec.get("exclude"), f"{where}: exclude"))
    listed = _names(parts[split], f"{where}: split_parts: {split}")
    names = [name for name in listed if name not in excluded]
    unknown = [name for name in names if name not in counts]
    if unknown:
        raise ShardListError(f"{where}: split_parts: {split}: {unknown[0]} is not in {public_url(info)}: shard_counts")
    if not names:
        raise EmptyDatasetError(f"{where}: split_parts: {split}: there are no shards")
    return names, excluded


def _names(value: Any, where: str) -> list[str]:
    value = [] if value is None else value
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ShardListError(f"{where}: must be a list of names, got {shown(value):.80}")
    return [name for pattern in value for name in braceexpand(pattern)]


def _samples(excluded: set[str], names: list[str]) -> set[tuple[int, str]]:
    """Of `shard.tar/key`: number of the shard, and key; both may have slashes."""
    numbers: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        numbers.setdefault(name, []).append(number)
    cuts = ((name, at) for name in excluded for at, mark in enumerate(name) if mark == "/")
    return {(number, name[at + 1 :]) for name, at in cuts for number in numbers.get(name[:at], ())}


def _check_tables(database: sqlite3.Connection) -> None:
    """Nothing but plain tables is asked: a view would be a program of whoever wrote the file."""
    kinds = dict(database.execute("SELECT name, type FROM sqlite_master WHERE name IN ('samples', 'sample_parts')"))
    if kinds != {"samples": "table", "sample_parts": "table"}:
        raise StaleIndexError(f"samples and sample_parts must be tables, there are {shown(kinds):.80}")


def _index_of(database: sqlite3.Connection, file: int) -> SampleIndex:
    samples = database.execute(_SAMPLES, (file,)).fetchall()
    if [number for number, *_ in samples] != list(range(len(samples))):
        raise StaleIndexError("samples: sample_index does not count from 0")
    parts: list[list[tuple[str, int, int]]] = [[] for _ in samples]
    for number, field, start, size in database.execute(_PARTS, (file,)):
        if type(field) is not str:
            raise StaleIndexError(f"sample_parts: part_name must be text, got {shown(field):.80}")
        parts[number].append((field, start, size))
    told = ToldMembers()
    for (_, key, _, _), rows in zip(samples, parts, strict=True):
        told.add(key, rows)
    begins = [begin for _, _, begin, _ in samples]
    return told_index([*begins, samples[-1][2] + samples[-1][3] if samples else 0], told)
