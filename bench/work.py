"""One measurement in a process of its own: `python bench/work.py WORK SET` prints a line of JSON.

It runs under the published package and under this project, whichever the interpreter has, so it uses
only what both have. With `--check` it adds a digest of all that was read or written, which must be
the same on both sides; the time of such a run does not count.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

import access
import data
import records
from access import status

Numbers = dict[str, Any]


def _digest(samples: Iterable[dict[str, Any]]) -> int:
    """A sum over the samples, so that their order does not matter."""
    total = 0
    for sample in samples:
        fields = sorted((name, value) for name, value in sample.items() if not name.startswith("__"))
        text = repr([sample["__key__"], [(n, v.tobytes() if isinstance(v, np.ndarray) else v) for n, v in fields]])
        total += int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    return total % 2**64


def _read(name: str, prepare: Callable[[Any], Any], check: bool) -> Numbers:
    import webdataset as wds

    shards = sorted(str(path) for path in (data.DATA / name).iterdir())
    dataset = prepare(wds.WebDataset(shards, shardshuffle=False))
    if check:
        return {"digest": _digest(dataset)}
    start = time.perf_counter()
    count = sum(1 for _ in dataset)
    return {"seconds": time.perf_counter() - start, "samples": count}


def read(name: str, check: bool) -> Numbers:
    """All samples of a set, as bytes."""
    return _read(name, lambda dataset: dataset, check)


def _remote(place: str) -> list[str]:
    """Urls of the shards of the set that a url ends with; the published package reads S3 through the aws command."""
    import webdataset as wds

    urls = [f"{place}/{path.name}" for path in sorted((data.DATA / place.rpartition("/")[2]).iterdir())]
    if place.startswith("s3:") and "s3" not in wds.gopen_schemes:
        aws = Path(sys.executable).parent / "aws"
        urls = [f"pipe:{aws} s3 cp {url} -" for url in urls]
    return urls


def remote(place: str, check: bool) -> Numbers:
    """All samples of a set behind a url, as bytes, two epochs of them."""
    import webdataset as wds

    urls = _remote(place)
    if check:
        return {"digest": _digest(wds.WebDataset(urls, shardshuffle=False))}
    dataset = wds.WebDataset(urls * 2, shardshuffle=False)
    start = time.perf_counter()
    count = sum(1 for _ in dataset)
    return {"seconds": time.perf_counter() - start, "samples": count}


def first(place: str, check: bool) -> Numbers:
    """Seconds to the first sample of a set behind a url."""
    import webdataset as wds

    dataset = wds.WebDataset(_remote(place)[:1], shardshuffle=False)
    start = time.perf_counter()
    sample = next(iter(dataset))
    return {"seconds": time.perf_counter() - start, "samples": 1, "digest": _digest([sample])}


def curl(place: str, check: bool) -> Numbers:
    """The shards of a set behind a url, by the curl command, thrown away; as often as `remote` reads them."""
    command = ["curl", "--silent", "--fail"]
    for url in _remote(place) * 2:
        command += ["--output", "/dev/null", url]
    start = time.perf_counter()
    subprocess.run(command, check=True)
    return {"seconds": time.perf_counter() - start, "samples": 2 * data.PHOTOS, "digest": 0}


def cached(place: str, check: bool) -> Numbers:
    """All samples of a set through a cache that holds its shards."""
    import webdataset as wds

    folder = data.DATA / "cached"
    folder.mkdir(exist_ok=True)
    dataset = wds.WebDataset(_remote(place), shardshuffle=False, cache_dir=str(folder))
    if check:
        return {"digest": _digest(dataset)}
    start = time.perf_counter()
    count = sum(1 for _ in dataset)
    return {"seconds": time.perf_counter() - start, "samples": count}


def decode(name: str, check: bool) -> Numbers:
    """All samples of a set, decoded by their names."""
    return _read(name, lambda dataset: dataset.decode(), check)


def shuffle(name: str, check: bool) -> Numbers:
    """Seconds that a shuffle buffer of 10,000 adds to a pass: a shuffled pass between two plain ones."""
    if check:
        return _read(name, lambda dataset: dataset.shuffle(10_000), check)
    before = read(name, check)
    mixed = _read(name, lambda dataset: dataset.shuffle(10_000), check)
    after = read(name, check)
    added = mixed["seconds"] - (before["seconds"] + after["seconds"]) / 2
    return {"seconds": added, "samples": mixed["samples"]}


def indexed(name: str, check: bool) -> Numbers:
    """The samples of a set, from memory into shards with their index."""
    return write(name, check, index=True)


def write(name: str, check: bool, **options: Any) -> Numbers:
    """The samples of a set, from memory into shards."""
    import webdataset as wds

    samples = list(data.small_samples(range(data.SMALL)) if name == "ustar" else data.photo_samples())
    folder = data.DATA / f"written-{os.getpid()}"
    folder.mkdir()
    try:
        start = time.perf_counter()
        with wds.ShardWriter(f"{folder}/%04d.tar", maxcount=len(samples) // 4, verbose=0, **options) as sink:
            for sample in samples:
                sink.write(sample)
        seconds = time.perf_counter() - start
        if not check:
            return {"seconds": seconds, "samples": len(samples)}
        return {"digest": _digest(chain.from_iterable(map(_members, sorted(folder.glob("*.tar")))))}
    finally:
        shutil.rmtree(folder)


def _members(path: Path) -> Iterable[dict[str, Any]]:
    with tarfile.open(path) as tar:
        for member in tar:
            stream = tar.extractfile(member)
            yield {"__key__": member.name, "data": stream and stream.read()}


def imports(name: str, check: bool) -> Numbers:
    """What `import webdataset` costs when numpy is there already."""
    start = time.perf_counter()
    import webdataset  # noqa: F401

    return {"seconds": time.perf_counter() - start, "torch": "torch" in sys.modules, "digest": 0}


def million(name: str, check: bool) -> Numbers:
    """From a brace list of a million shards to the first sample; peak memory of the whole process."""
    import webdataset as wds

    start = time.perf_counter()
    dataset = wds.WebDataset(f"{data.DATA}/million/shard-{{000000..999999}}.tar", shardshuffle=False)
    sample = next(iter(dataset))
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak": status("VmHWM"), "digest": _digest([sample])}


def epochs(name: str, check: bool) -> Numbers:
    """Resident memory and open files after each of eight epochs of one data set object."""
    import webdataset as wds

    dataset = wds.WebDataset(sorted(str(path) for path in (data.DATA / name).iterdir())[:4], shardshuffle=100)
    dataset = dataset.shuffle(1000)
    memory, files = [], []
    for _ in range(8):
        for _ in dataset:
            pass
        memory.append(status("VmRSS"))
        files.append(len(os.listdir("/proc/self/fd")))
    return {"memory": memory, "files": files, "digest": 0}


def loose(name: str, check: bool) -> Numbers:
    """The images as loose files in a shuffled order, out of the page cache."""
    paths = sorted((data.DATA / "loose").iterdir())
    random.Random(0).shuffle(paths)
    cached = _drop(paths)
    start = time.perf_counter()
    count = total = 0
    for path in paths:
        total += len(path.read_bytes())
        count += 1
    return {"seconds": time.perf_counter() - start, "samples": count, "bytes": total, "cached": cached}


def packed(name: str, check: bool) -> Numbers:
    """The same images from shards, shuffled shards and a shuffle buffer of 1,000, out of the page cache."""
    import webdataset as wds

    paths = sorted((data.DATA / "jpg").iterdir())
    dataset = wds.WebDataset(list(map(str, paths)), shardshuffle=100).shuffle(1000)
    cached = _drop(paths)
    start = time.perf_counter()
    count = total = 0
    for sample in dataset:
        total += len(sample["jpg"])
        count += 1
    return {"seconds": time.perf_counter() - start, "samples": count, "bytes": total, "cached": cached}


def _drop(paths: list[Path]) -> float:
    """Ask the system to forget the files' pages; the share of pages, from 0 to 1, that it kept all the same."""
    import ctypes
    import mmap

    libc = ctypes.CDLL(None, use_errno=True)
    os.sync()
    kept = pages = 0
    for path in paths:
        with path.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            size = os.fstat(stream.fileno()).st_size
            with mmap.mmap(stream.fileno(), size, access=mmap.ACCESS_COPY) as view:
                flags = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
                address = (ctypes.c_char * size).from_buffer(view)
                libc.mincore(ctypes.c_void_p(ctypes.addressof(address)), ctypes.c_size_t(size), flags)
                del address
            kept += sum(flag & 1 for flag in flags)
            pages += len(flags)
    return kept / pages


REMOTE = (remote, first, curl, cached)
LOCAL = (read, decode, shuffle, write, indexed, imports, million, epochs, loose, packed)
WORKS = {f.__name__: f for f in (*REMOTE, *LOCAL, *access.WORKS, *records.WORKS)}

if __name__ == "__main__":
    work, name, *options = sys.argv[1:]
    print(json.dumps(WORKS[work](name, "--check" in options)))
