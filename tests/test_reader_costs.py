"""What reading costs: files, bytes and memory; and what is said when an optional package is missing."""

from __future__ import annotations

import bz2
import gc
import io
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import lz4.frame
import pytest

from helpers import TrickleReader, tar_bytes, write_shards
from reading import PATHS, staged
from webdataset.errors import TarError, TruncatedError
from webdataset.handlers import ignore_and_continue
from webdataset.tariterators import expand_and_group, group_by_keys, tar_file_iterator, tarfile_samples

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


class CountingFile(io.FileIO):
    """A file that counts the bytes that are read from it."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(-1 if size is None else size)
        self.count += len(data)
        return data


def sources(*streams: Any) -> list[dict[str, Any]]:
    """What an opener gives."""
    return [{"url": f"shard-{number}", "stream": stream} for number, stream in enumerate(streams)]


def keys(samples: Any) -> list[str]:
    """The keys of samples, in order."""
    return [sample["__key__"] for sample in samples]


def open_files() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/dev/fd"))


def test_unselected_large_members_are_not_read(tmp_path: Path) -> None:
    """In a file that can seek, the bytes of large members that nobody wants are passed over."""
    large = {f"{n}.{field}": b"x" * (1 << 20 if field == "bin" else 9) for n in range(8) for field in ("bin", "txt")}
    path = tmp_path / "large.tar"
    path.write_bytes(tar_bytes(large))
    stream = CountingFile(path)
    samples = list(staged(sources(stream), select_files=lambda name: name.endswith(".txt")))
    assert [list(sample) for sample in samples] == [["__key__", "__url__", "txt"]] * 8
    assert stream.count < 1 << 19
    assert stream.closed


def test_unselected_large_members_of_a_stream_are_not_kept() -> None:
    """In a stream that cannot seek they are read, but never held in memory as a whole."""
    archive = tar_bytes({"a.bin": bytes(32 << 20), "a.txt": b"small"})
    stream = TrickleReader(archive, seed=3)
    stream.random.choice = lambda sizes: sizes[-1]  # type: ignore[method-assign, assignment]
    tracemalloc.start()
    try:
        (sample,) = staged(sources(stream), select_files=lambda name: name.endswith(".txt"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sample["txt"] == b"small"
    assert peak < 8 << 20


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("size", "count"), [(100, 1000), (600_000, 6)])
def test_a_file_that_shrinks_while_it_is_read(path: str, size: int, count: int, tmp_path: Path) -> None:
    """A file that gets shorter under the reader gives an error behind the samples that are still whole."""
    file = tmp_path / "shrinking.tar"
    members = {f"{n:05d}.{field}": b"x" * size for n in range(count) for field in ("bin", "txt")}
    file.write_bytes(tar_bytes(members))
    samples = PATHS[path](sources(file.open("rb")))
    got = [next(samples)]
    os.truncate(file, file.stat().st_size // 2 + 700)
    with pytest.raises(TruncatedError) as caught:
        got.extend(samples)
    assert caught.value.offset is not None
    assert len(got) > 1
    assert all(len(sample["bin"]) == len(sample["txt"]) == size for sample in got)
    assert keys(got) == [f"{n:05d}" for n in range(len(got))]


class SlowStream(io.BytesIO):
    """A stream that gives 500 bytes in 5 ms."""

    def read1(self, size: int | None = -1, /) -> bytes:
        time.sleep(0.005)
        return super().read1(500)


def test_a_sample_of_a_slow_stream_does_not_wait_for_the_next_one() -> None:
    """A sample comes when the header behind it has come, and not when the next member has; all come, as ever."""
    members = {f"{number}.{field}": bytes(20_000) for number in range(3) for field in ("jpg", "cls")}
    stream = SlowStream(tar_bytes(members))
    samples = expand_and_group(sources(stream))
    assert next(samples)["__key__"] == "0"
    assert stream.tell() < 2 * (20_000 + 1024) + 1500
    rest = list(samples)
    assert keys(rest) == ["1", "2"]
    assert all(len(sample["jpg"]) == len(sample["cls"]) == 20_000 for sample in rest)


def test_nothing_stays_open(tmp_path: Path) -> None:
    """Whole passes, early stops and errors leave no file open."""
    urls = [{"url": url} for url in write_shards(tmp_path, 3, 5)]
    broken = tmp_path / "broken.tar"
    broken.write_bytes(tar_bytes({f"{n}.txt": b"x" for n in range(3)})[: 2 * 1024 + 512])
    before = open_files()
    for _ in range(20):
        assert len(list(tarfile_samples(urls))) == 15
        next(iter(tarfile_samples(urls)))
        next(iter(tarfile_samples(urls, select_files=lambda name: True)))
        with pytest.raises(TarError):
            list(tarfile_samples([*urls, {"url": str(broken)}]))
        assert len(list(tarfile_samples([{"url": str(broken)}, *urls], handler=ignore_and_continue))) == 17
    assert open_files() == before


@pytest.mark.parametrize("path", PATHS)
def test_memory_stays_flat(path: str, tmp_path: Path) -> None:
    """Epoch after epoch nothing piles up."""
    file = tmp_path / "shard.tar"
    file.write_bytes(tar_bytes({f"{n:05d}.{field}": b"x" * 300 for n in range(300) for field in ("cls", "txt")}))

    def epoch() -> int:
        count = sum(1 for _ in PATHS[path](sources(file.open("rb"))))
        assert count == 300
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        for _ in range(3):
            warm = epoch()
        for _ in range(10):
            last = epoch()
    finally:
        tracemalloc.stop()
    assert last - warm < 20_000


def test_memory_is_that_of_one_member() -> None:
    """A stream of many large samples never takes more than a few of them at a time."""
    one = tar_bytes({"k.bin": bytes(1 << 20)})[: 512 + (1 << 20)]
    archive = one * 24

    def numbered(stream: Any) -> Any:
        for number, file in enumerate(tar_file_iterator(stream)):
            yield {**file, "fname": f"{number}.bin", "__url__": "u"}

    stream = io.BytesIO(archive + bytes(1024))
    tracemalloc.start()
    try:
        sizes = [len(sample["bin"]) for sample in group_by_keys(numbered(stream))]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sizes == [1 << 20] * 24
    assert peak < 5 << 20


PROGRAM = """
import sys
class Missing:
    def find_spec(self, name, *rest):
        if name == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
from webdataset.tariterators import expand_and_group
try:
    print(*(sample["__key__"] for sample in expand_and_group([{{"url": {path!r}, "stream": open({path!r}, "rb")}}])))
except ImportError as error:
    print(type(error).__name__, error)
"""


def without(package: str, path: Path) -> str:
    """What a process prints that reads a shard without a package."""
    program = PROGRAM.format(package=package, path=str(path))
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="zstd is in the standard library")
def test_zstd_without_its_package(tmp_path: Path) -> None:
    """Without backports.zstd a zstd shard gives one line that says what to install."""
    path = tmp_path / "shard.tar.zst"
    path.write_bytes(zstd.compress(tar_bytes({"a.txt": b"1"})))
    message = "MissingDependencyError reading zstd shards needs backports.zstd: pip install backports.zstd"
    assert without("backports.zstd", path) == message
    assert without("lz4", path) == "a"


def test_lz4_without_its_package(tmp_path: Path) -> None:
    """Without lz4 an lz4 shard gives one line that says what to install."""
    path = tmp_path / "shard.tar.lz4"
    path.write_bytes(lz4.frame.compress(tar_bytes({"a.txt": b"1"})))
    assert without("lz4", path) == "MissingDependencyError reading lz4 shards needs lz4: pip install lz4"
    assert without("backports.zstd", path) == "a"


def test_the_standard_library_reads_the_rest(tmp_path: Path) -> None:
    """gzip needs no isal, bzip2 no package at all."""
    path = tmp_path / "shard.tar.bz2"
    path.write_bytes(bz2.compress(tar_bytes({"a.txt": b"1"})))
    assert without("lz4", path) == "a"
