"""The files that the benchmarks read: `python bench/data.py [SET ...]` makes what is missing, seeded.

A set is a folder under bench/data that gets its name when it is complete. The `pax` set has to come
from the published ShardWriter, so run.py makes it by running this file under the published package.
"""

from __future__ import annotations

import io
import json
import random
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).parent / "data"
SMALL, ARRAYS, PHOTOS, LARGE = 200_000, 50_000, 4_000, 64


def text(number: int) -> str:
    """A text of 200 bytes that tells its sample from the others."""
    return f"sample {number:09d}, ".ljust(200, "the quick brown fox jumps over the lazy dog. "[number % 40])


def small_samples(numbers: Iterable[int]) -> Iterator[dict[str, Any]]:
    """Samples of cls and txt, as a program hands them to a ShardWriter."""
    for number in numbers:
        yield {"__key__": f"{number:09d}", "cls": number % 10, "txt": text(number)}


def _fields(samples: Iterable[dict[str, Any]]) -> Iterator[tuple[str, bytes]]:
    """Their members."""
    return ((f"{s['__key__']}.{field}", str(s[field]).encode()) for s in samples for field in ("cls", "txt"))


def photo_samples(folder: Path = DATA / "loose") -> Iterator[dict[str, Any]]:
    """Samples of jpg, json and cls, as a program hands them to a ShardWriter."""
    for number, path in enumerate(sorted(folder.iterdir())):
        about = {"number": number, "size": [480, 360], "caption": text(number)}
        yield {"__key__": path.stem, "jpg": path.read_bytes(), "json": about, "cls": number % 1000}


def _archive(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.uname, member.gname = len(data), 1_700_000_000, "user", "group"
            tar.addfile(member, io.BytesIO(data))


def ustar(folder: Path, shard: int) -> None:
    """20,000 samples of cls and txt, without PAX records."""
    samples = small_samples(range(shard * 20_000, (shard + 1) * 20_000))
    _archive(folder / f"{shard:04d}.tar", _fields(samples))


def pax(folder: Path, shard: int) -> None:
    """The same samples as the installed ShardWriter writes them; the published one adds a PAX record a member."""
    import webdataset as wds

    with wds.ShardWriter(f"{folder}/%04d.tar", maxcount=20_000, start_shard=shard, verbose=0) as sink:
        for sample in small_samples(range(shard * 20_000, (shard + 1) * 20_000)):
            sink.write(sample)


def npy(folder: Path, shard: int) -> None:
    """5,000 samples of one array of 8 KiB."""
    rng = np.random.default_rng(shard)

    def members() -> Iterator[tuple[str, bytes]]:
        for number in range(shard * 5_000, (shard + 1) * 5_000):
            out = io.BytesIO()
            np.save(out, rng.random((32, 64), np.float32))
            yield f"{number:09d}.npy", out.getvalue()

    _archive(folder / f"{shard:04d}.tar", members())


def loose(folder: Path, part: int) -> None:
    """1,000 files of about 110 kB, 25 different photographs of noise and colour; each file is unlike every other."""
    from PIL import Image

    rng = np.random.default_rng(part)
    pictures = []
    for _ in range(25):
        coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8)).resize(
            (480, 360), Image.Resampling.BICUBIC
        )
        pixels = np.asarray(coarse) + rng.normal(0, 14, (360, 480, 3))
        pictures.append(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
    for number in range(part * 1_000, (part + 1) * 1_000):
        pictures[number % 25].save(folder / f"{number:06d}.jpg", quality=95, comment=f"picture {number}".encode())


def jpg(folder: Path, shard: int) -> None:
    """1,000 samples of jpg, json and cls: the loose files, packed."""
    chosen = (s for n, s in enumerate(photo_samples()) if n // 1_000 == shard)
    encode = {"jpg": bytes, "json": lambda value: json.dumps(value).encode(), "cls": lambda value: str(value).encode()}
    _archive(folder / f"{shard:04d}.tar", ((f"{s['__key__']}.{f}", encode[f](s[f])) for s in chosen for f in encode))


def big(folder: Path, shard: int) -> None:
    """16 samples of 16 MiB."""
    data = random.Random(shard).randbytes(16 << 20)
    _archive(
        folder / f"{shard:04d}.tar", ((f"{number:04d}.bin", data) for number in range(shard * 16, shard * 16 + 16))
    )


def million(folder: Path, shard: int) -> None:
    """The first of a million shards; nobody opens the others."""
    _archive(folder / "shard-000000.tar", [("0.cls", b"0"), ("0.txt", b"the first sample")])


def sidecar(folder: Path, shard: int) -> None:
    """The first set again, with Megatron-Energon's index beside each shard."""
    from webdataset.shardindex import write_sidecar

    path = folder / f"{shard:04d}.tar"
    path.hardlink_to(DATA / "ustar" / path.name)
    write_sidecar(str(path))


def billion(folder: Path, shard: int) -> None:
    """A list of 100,000 shards with 10,000 samples each, and the last one of them."""
    names = [f"shard-{number:06d}.tar" for number in range(100_000)]
    _archive(folder / names[-1], _fields(small_samples(range(10_000))))
    listed = {"wids_version": 1, "shardlist": [{"url": name, "nsamples": 10_000} for name in names]}
    (folder / "shards.json").write_text(json.dumps(listed), encoding="utf-8")


def records(folder: Path, kind: int) -> None:
    """The samples of the first set, and 1,000 of the images, as records; the first kind is CBOR, the second MsgPack."""
    import cbor2
    import msgpack

    dumps, extension = ((cbor2.dumps, "cbors"), (msgpack.packb, "mp"))[kind]
    for name, samples in (("small", small_samples(range(SMALL))), ("jpg", islice(photo_samples(), 1_000))):
        with (folder / f"{name}.{extension}").open("wb") as out:
            out.writelines(dumps(sample) for sample in samples)


SETS: dict[str, tuple[Callable[[Path, int], None], int]] = {
    "ustar": (ustar, 10),
    "pax": (pax, 10),
    "npy": (npy, 10),
    "loose": (loose, 4),
    "jpg": (jpg, 4),
    "big": (big, 4),
    "million": (million, 1),
    "sidecar": (sidecar, 10),
    "records": (records, 2),
    "billion": (billion, 1),
}


def make(name: str) -> None:
    """Make the set unless it is there; its parts are made side by side."""
    folder = DATA / name
    if folder.exists():
        return
    function, parts = SETS[name]
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with ProcessPoolExecutor() as pool:
        list(pool.map(function, [partial] * parts, range(parts)))
    partial.rename(folder)


if __name__ == "__main__":
    for chosen in sys.argv[1:] or SETS:
        make(chosen)
