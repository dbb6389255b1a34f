"""Works about record streams and arrays, for work.py: one shard, because the published stage stops after the first one.

The published package has no stage for MsgPack: its side reads the same records as CBOR.
"""

from __future__ import annotations

import io
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

import data

Numbers = dict[str, Any]
SIZES = (1 << 10, 1 << 15, 1 << 20, 1 << 24)
"""Bytes of the arrays."""


def _digest(samples: Iterable[dict[str, Any]]) -> int:
    """A sum over the samples without what only one side adds."""
    total = 0
    for sample in samples:
        fields = sorted((name, value) for name, value in sample.items() if name == "__key__" or name[:2] != "__")
        total += zlib.crc32(repr(fields).encode())
    return total


def _records(url: str, stage: Callable[..., Any], check: bool) -> Numbers:
    import webdataset as wds

    dataset = wds.DataPipeline(wds.SimpleShardList([url]), stage())
    if check:
        return {"digest": _digest(dataset)}
    start = time.perf_counter()
    count = sum(1 for _ in dataset)
    return {"seconds": time.perf_counter() - start, "samples": count}


def records(name: str, check: bool) -> Numbers:
    """All samples of a stream of CBOR records."""
    import webdataset as wds

    return _records(f"{data.DATA}/records/{name}.cbors", wds.cbors_to_samples, check)


def piped(name: str, check: bool) -> Numbers:
    """The same through a pipe."""
    import webdataset as wds

    return _records(f"pipe:cat {data.DATA}/records/{name}.cbors", wds.cbors_to_samples, check)


def packed_records(name: str, check: bool) -> Numbers:
    """All samples of a stream of MsgPack records, of CBOR ones where there is no stage for MsgPack."""
    import webdataset as wds

    stage = getattr(wds, "msgpack_to_samples", None)
    return _records(f"{data.DATA}/records/{name}.mp", stage, check) if stage else records(name, check)


def tensors(name: str, check: bool) -> Numbers:
    """Microseconds to have an array of each of the sizes, `FORMAT PLACE`: npy or ten, from bytes or from a file."""
    from webdataset import tenbin

    form, place = name.split()
    times = []
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            array = np.random.default_rng(size).random(size // 8)
            path = Path(folder) / f"{size}.{form}"
            if form == "npy":
                np.save(path, array)
            else:
                tenbin.save(path, array)
            content = path.read_bytes()
            load: Callable[[], Any]
            if form == "npy":
                load = (lambda p=path: np.load(p)) if place == "file" else (lambda c=content: np.load(io.BytesIO(c)))
            elif place == "file":
                load = lambda p=path: tenbin.load(p)[0]  # noqa: E731
            else:
                load = lambda c=content: tenbin.decode_buffer(c)[0]  # noqa: E731
            if not np.array_equal(load(), array):
                raise SystemExit(f"{form} does not give back what was written")
            repeat = max(5, min(5000, (1 << 26) // size))
            start = time.perf_counter()
            for _ in range(repeat):
                load()
            times.append((time.perf_counter() - start) / repeat * 1e6)
    return {"times": times}


WORKS = (records, piped, packed_records, tensors)
