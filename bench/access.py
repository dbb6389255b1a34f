"""Works about samples by number, for work.py: `wids` of either package, and of this one `IndexedDataset`.

Shards are read where they lie: published wids would copy them first, and is told that their folder holds the copies.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import tempfile
import time
import zlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import data

Numbers = dict[str, Any]
COUNTS = {"ustar": 20_000, "sidecar": 20_000, "jpg": 1_000}
"""Samples of each shard of a set."""
READS = {"ustar": 20_000, "jpg": 4_000}
TOGETHER = 256


def _listed(name: str, place: str = "") -> list[dict[str, Any]]:
    paths = sorted((data.DATA / name).glob("*.tar"))
    return [{"url": f"{place}/{path.name}" if place else str(path), "nsamples": COUNTS[name]} for path in paths]


def _numbered(source: Any, folder: Path, cache: str) -> Any:
    """The data set of wids over shards in a folder; what it caches goes to another one."""
    from wids import ShardListDataset

    os.environ["WDS_CACHE"] = cache
    in_place = {"cache_dir": str(folder)} if version("webdataset") == "0.2.100" else {}
    with contextlib.redirect_stderr(io.StringIO()):  # a line about the data set
        return ShardListDataset(source, **in_place)


def _opened(name: str, cache: str) -> Numbers:
    """Seconds from a list of shards to a sample of each."""
    import wids

    wids.ShardListDataset  # noqa: B018  # torch is imported now
    shards = _listed(name)
    start = time.perf_counter()
    dataset = _numbered(shards, data.DATA / name, cache)
    samples = [dataset[number * COUNTS[name]] for number in range(len(shards))]
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "samples": len(dataset), "digest": [sample["__key__"] for sample in samples]}


def opened(name: str, check: bool) -> Numbers:
    """Open all shards of a set, of which no index is cached."""
    with tempfile.TemporaryDirectory() as cache:
        return _opened(name, cache)


def reopened(name: str, check: bool) -> Numbers:
    """Open all shards of a set for the second time."""
    with tempfile.TemporaryDirectory() as cache:
        _opened(name, cache)
        return _opened(name, cache)


def numbered(name: str, check: bool) -> Numbers:
    """Samples of a set at random, decoded; all shards are open, and all has been read before."""
    with tempfile.TemporaryDirectory() as cache:
        shards = _listed(name)
        dataset = _numbered(shards, data.DATA / name, cache)
        rng = random.Random(0)
        numbers = [rng.randrange(len(dataset)) for _ in range(READS[name])]
        if check:
            return {"digest": [_plain(dataset[number]) for number in numbers[:200]]}
        for number in (*range(0, len(dataset), COUNTS[name]), *numbers):
            dataset[number]
        start = time.perf_counter()
        for number in numbers:
            dataset[number]
        return {"seconds": time.perf_counter() - start, "samples": len(numbers)}


def _plain(sample: dict[str, Any]) -> list[Any]:
    """What is in a decoded sample, images as a number."""
    fields = {name: value for name, value in sample.items() if name not in ("__shard__", "__shardindex__")}
    return [
        (name, zlib.crc32(value.tobytes()) if hasattr(value, "tobytes") else value)
        for name, value in sorted(fields.items())
    ]


def together(place: str, check: bool) -> Numbers:
    """Seconds for samples at random from a server, one by one and all at once; where they lie is known."""
    import webdataset as wds

    dataset = wds.IndexedDataset(_listed("sidecar", place), cache_dir="")
    for number in range(0, len(dataset), COUNTS["sidecar"]):
        dataset[number]
    rng = random.Random(time.time_ns())
    numbers = [rng.randrange(len(dataset)) for _ in range(TOGETHER)]
    start = time.perf_counter()
    single = [dataset[number] for number in numbers]
    between = time.perf_counter()
    many = dataset.__getitems__(numbers)
    seconds = time.perf_counter() - between
    assert many == single
    return {"seconds": seconds, "single": between - start, "samples": TOGETHER}


def one(place: str, check: bool) -> Numbers:
    """Bytes that a server sent, by its log, for one sample of which the index is cached; and those of its fields."""
    import webdataset as wds

    url, _, log = place.partition(" ")
    with tempfile.TemporaryDirectory() as cache:
        shards = _listed("jpg", url)
        wds.IndexedDataset(shards, cache_dir=cache)[0]
        before = _sent(log)
        sample = wds.IndexedDataset(shards, cache_dir=cache)[500]
        after = _sent(log)
    size = sum(len(value) for name, value in sample.items() if not name.startswith("__"))
    return {"sent": sum(after) - sum(before), "requests": len(after) - len(before), "bytes": size}


def _sent(log: str) -> list[int]:
    """Bytes of each answer so far, headers included."""
    time.sleep(0.5)
    return [int(line) for line in Path(log).read_text().split()]


def billion(name: str, check: bool) -> Numbers:
    """From a JSON of 100,000 shards with 10,000 samples each to a sample of the last one; memory beyond the imports."""
    import wids

    wids.ShardListDataset  # noqa: B018  # torch is imported now
    folder = data.DATA / "billion"
    before = status("VmRSS")
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        dataset = _numbered(str(folder / "shards.json"), folder, cache)
        length = len(dataset)
        sample = dataset[length - 1]
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak": status("VmHWM"), "before": before, "digest": [length, sample["__key__"]]}


def status(field: str) -> int:
    """A line of /proc/self/status, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


WORKS = (opened, reopened, numbered, together, one, billion)
