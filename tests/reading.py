"""Ways to read an archive, all of which must give the same: the tests of the reader run through each of them."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from helpers import TrickleReader, foreign_data
from webdataset.errors import DataError
from webdataset.handlers import reraise_exception
from webdataset.samples import decode_name
from webdataset.tar import reader
from webdataset.tar.reader import ArchiveReader
from webdataset.tar.scan import Run
from webdataset.tariterators import expand_and_group, group_by_keys, tar_file_expander

Samples = list[tuple[str, dict[str, Any]]]


@dataclass
class Reading:
    """What came of one pass: samples as (key, fields), the error that ended it, the warnings on the way."""

    samples: Samples = field(default_factory=list)
    error: Exception | None = None
    warnings: list[str] = field(default_factory=list)


def fused(sources: Any, handler: Any = reraise_exception, **options: Any) -> Iterator[dict[str, Any]]:
    """Expanding and grouping in one."""
    return expand_and_group(sources, handler, **options)


def staged(sources: Any, handler: Any = reraise_exception, **options: Any) -> Iterator[dict[str, Any]]:
    """Expanding and grouping as two stages."""
    return group_by_keys(tar_file_expander(sources, handler, **options), handler=handler)


PATHS: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {"fused": fused, "staged": staged}


class CommandOutput(io.BufferedReader):
    """The buffered standard output of a command, as a plain pipe."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0)
        super().__init__(self.process.stdout)  # type: ignore[arg-type]

    def close(self) -> None:
        super().close()
        self.process.wait()


STREAMS: dict[str, Callable[[Path], Any]] = {
    "file": lambda path: path.open("rb"),
    "trickle": lambda path: TrickleReader(path.read_bytes()),
    "pipe": lambda path: CommandOutput("cat", str(path)),
}


def read(
    path: Callable[..., Iterator[dict[str, Any]]], *streams: Any, handler: Any = reraise_exception, **options: Any
):
    """Read streams, named shard-0, shard-1, ..., to the end or to the first error."""
    reading = Reading()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            for sample in path([{"url": f"shard-{n}", "stream": s} for n, s in enumerate(streams)], handler, **options):
                assert sample["__url__"].startswith("shard-")
                fields = {name: value for name, value in sample.items() if name not in ("__key__", "__url__")}
                reading.samples.append((sample["__key__"], fields))
        except DataError as error:
            reading.error = error
    reading.warnings = [str(warning.message) for warning in caught]
    return reading


def hashed(samples: Samples) -> list[tuple[str, dict[str, str]]]:
    """Samples with a digest for each field, as the golden files have them."""
    return [(key, {name: hashlib.sha256(data).hexdigest() for name, data in fields.items()}) for key, fields in samples]


def members_of(stream: Any, **options: Any) -> tuple[list[tuple[str, bytes | None, int]], int]:
    """(name, data, offset) of each member, and how many of them came in runs; closes the stream."""
    members: list[tuple[str, bytes | None, int]] = []
    in_runs = 0
    archive = ArchiveReader(stream, **options)
    for item in archive:
        if not isinstance(item, Run):
            raw, data, offset = item
            members.append((decode_name(raw), data, offset))
            continue
        in_runs += len(item.sizes)
        for at, begin, size in zip(item.headers.tolist(), item.begins.tolist(), item.sizes.tolist(), strict=True):
            name = decode_name(item.window[at : at + 100].partition(b"\0")[0])
            members.append((name, item.window[at + 512 : at + 512 + size], archive.window_start + begin))
    archive.finish()
    archive.close()
    stream.close()
    return members, in_runs


def scan_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the vectorised scan run wherever there is a block, and never lose patience."""
    monkeypatch.setattr(reader, "WORTH_SCANNING", 512)
    monkeypatch.setattr(reader, "SHORT_RUN", 0)


def scan_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read every member by itself."""
    monkeypatch.setattr(reader, "WORTH_SCANNING", 1 << 60)


def no_short_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read every member by itself, the way that all other ways must agree with."""
    scan_nothing(monkeypatch)
    monkeypatch.setattr(ArchiveReader, "_plain_member", lambda self, source: None)


SCANS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "runs": scan_everything,
    "singles": scan_nothing,
    "no short cuts": no_short_cuts,
}


@cache
def golden(table: str) -> dict[str, Any]:
    """A table of the golden files, such as expected.json, without what is no archive."""
    listed = json.loads((foreign_data() / table).read_text(encoding="utf-8"))
    return {name: expected for name, expected in listed.items() if not name.startswith("streams/")}


def golden_names(table: str) -> list[str]:
    """Names of the archives in a table, for parametrising."""
    return list(golden(table))


def as_samples(listed: list[Any]) -> list[tuple[str, dict[str, str]]]:
    """Samples as the golden tables list them."""
    return [(key, fields) for key, fields in listed]
