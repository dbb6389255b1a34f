"""Archives and streams that the tests are made of."""

from __future__ import annotations

import io
import json
import os
import random
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path


def tar_bytes(
    members: Mapping[str, bytes] | list[tuple[str, bytes]], format: int = tarfile.USTAR_FORMAT, **info
) -> bytes:
    """An archive with these members, written by the standard tarfile (the oracle)."""
    out = io.BytesIO()
    items = members.items() if isinstance(members, Mapping) else members
    with tarfile.open(fileobj=out, mode="w", format=format) as tar:
        for name, data in items:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            for attribute, value in info.items():
                setattr(member, attribute, value)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def loaded(loader: Iterable) -> list:
    """All that a DataLoader gives; where it fails its workers end at once, and torch does not wait 5 s for each."""
    iterator = iter(loader)
    try:
        return list(iterator)
    except BaseException:
        getattr(iterator, "_shutdown_workers", int)()
        raise


def names_in(folder: Path) -> list[str]:
    """The files below a folder, sorted, their paths relative to it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def foreign_data() -> Path:
    """The folder of archives written by other tools: tests/golden, or `foreign` in WDS_TESTDATA."""
    elsewhere = os.environ.get("WDS_TESTDATA")
    return Path(elsewhere) / "foreign" if elsewhere else Path(__file__).resolve().parent / "golden"


def upstream_data() -> Path:
    """The folder of test archives of the published package; a test that needs one is skipped where there are none."""
    from tools import need

    elsewhere = os.environ.get("WDS_TESTDATA")
    folder = (Path(elsewhere) if elsewhere else Path(__file__).resolve().parents[2] / "shared" / "data") / "upstream"
    need(folder.is_dir(), f"{folder} has no archives of the published package; WDS_TESTDATA names another place")
    return folder


def write_shards(folder: Path, shards: int, samples: int, pattern: str = "shard-{:04d}.tar") -> list[str]:
    """Shards of samples `{txt, cls}`; keys and texts count through, so each sample is told from every other."""
    urls = []
    for shard in range(shards):
        members = {}
        for number in range(shard * samples, (shard + 1) * samples):
            members[f"{number:06d}.cls"] = str(number % 10).encode()
            members[f"{number:06d}.txt"] = f"text {number}".encode()
        path = Path(folder) / pattern.format(shard)
        path.write_bytes(tar_bytes(members))
        urls.append(str(path))
    return urls


class TrickleReader:
    """A stream that gives short reads, seeded, biased to small ones; it has `read` and `close` only."""

    def __init__(self, data: bytes, seed: int = 0) -> None:
        self.stream = io.BytesIO(data)
        self.random = random.Random(seed)
        self.closed = False

    def read(self, size: int = -1) -> bytes:
        if size is None or size < 0:
            return self.stream.read()
        limit = self.random.choice([1, 7, 100, 511, 512, 513, 4096, size])
        return self.stream.read(min(size, limit))

    def close(self) -> None:
        self.closed = True


class FailAfter(TrickleReader):
    """A stream that raises OSError after `count` bytes."""

    def __init__(self, data: bytes, count: int, seed: int = 0) -> None:
        super().__init__(data[:count], seed)

    def read(self, size: int = -1) -> bytes:
        data = super().read(size)
        if not data and size != 0:
            raise OSError("connection reset by the test")
        return data


def write_picture_shards(folder: Path, shards: int, samples: int, image: str = "jpg") -> list[str]:
    """Shards of samples `{image, txt, cls, json}`; number n has (8 + n % 5) x 6 pixels, the caption "picture n"."""
    from PIL import Image

    urls = []
    for shard in range(shards):
        members = {}
        for number in range(shard * samples, (shard + 1) * samples):
            stream = io.BytesIO()
            size = (8 + number % 5, 6)
            Image.new("RGB", size, (number * 7 % 256, 40, 200)).save(
                stream, "JPEG" if image == "jpg" else image.upper()
            )
            members[f"{number:06d}.cls"] = str(number % 10).encode()
            members[f"{number:06d}.{image}"] = stream.getvalue()
            members[f"{number:06d}.json"] = json.dumps({"number": number, "width": size[0], "height": 6}).encode()
            members[f"{number:06d}.txt"] = f"picture {number}".encode()
        path = Path(folder) / f"pictures-{shard:04d}.tar"
        path.write_bytes(tar_bytes(members))
        urls.append(str(path))
    return urls
