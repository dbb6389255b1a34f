"""`ShardListDataset` in worker processes: in whose memory shards are, compressed shards, sparse members."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
from pathlib import Path

import pytest
import torch

import webdataset as wds
import wids
from helpers import foreign_data, tar_bytes
from servers import Page, serve

MEGABYTE = 1 << 20
WORKERS = 4


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WIDS_CACHE", str(tmp_path / "copies"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def measured(sample: dict) -> tuple[int, int, int, bool]:
    """Number of a worker, bytes of its sample, those of memory that only it has, whether a shard is mapped there."""
    info = torch.utils.data.get_worker_info()
    size = len(sample[".bin"].getvalue())
    del sample
    private = 0
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("Private_Clean", "Private_Dirty"):
            private += int(value.split()[0]) * 1024
    return info.id, size, private, ".tar" in Path("/proc/self/maps").read_text()


def everything_for_each(count: int) -> list[list[int]]:
    """Batches for as many workers as there are, in turns, of which each has all samples."""
    return [[number] for number in range(count) for _ in range(WORKERS)]


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_workers_have_no_copies_of_shards(tmp_path, context, suffix):
    """Four workers that each read all of 64 MB of shards, plain or compressed, take less than half of that each.

    Of a compressed shard that cannot be read in parts there is one plain file for all.
    """
    rng = random.Random(5)
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in range(4):
        with wds.TarWriter(str(folder / f"{shard}.tar{suffix}")) as sink:
            for number in range(16):
                sink.write({"__key__": f"{shard}-{number:03d}", "bin": rng.randbytes(MEGABYTE)})
    shards = [{"url": str(path), "nsamples": 16} for path in sorted(folder.iterdir())]
    first = wids.ShardListDataset(shards)
    assert all(first.get_shard(16 * number) for number in range(4))  # makes the indexes and plain copies of packed ones
    first.close()
    dataset = wids.ShardListDataset(shards, transformations=[]).add_transform(measured)
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_sampler=everything_for_each(64),
        collate_fn=list,
        num_workers=WORKERS,
        multiprocessing_context=context,
    )
    seen: dict[int, list[int]] = {}
    read = 0
    for ((worker, size, private, mapped),) in loader:
        seen.setdefault(worker, []).append(private)
        read += size
        assert not mapped
    assert read == WORKERS * 64 * MEGABYTE
    assert sorted(seen) == list(range(WORKERS))
    # the first sample has the modules imported that reading needs; a fork copies pages of its parent as it goes on
    assert [max(memory) - memory[1] < 32 * MEGABYTE for memory in seen.values()] == [True] * WORKERS, seen
    copies = [path for path in (tmp_path / "cache").rglob("*") if path.stat().st_size > MEGABYTE]
    assert len(copies) == (4 if suffix == ".zst" else 0)


def contents(sample: dict) -> dict:
    return {name: value.getvalue() if isinstance(value, io.BytesIO) else value for name, value in sample.items()}


def in_workers(shards: list[dict], context: str) -> list[dict]:
    """All samples, as raw bytes, by way of two workers."""
    dataset = wids.ShardListDataset(shards, transformations=[]).add_transform(contents)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=2, multiprocessing_context=context, sampler=range(len(dataset))
    )
    return list(loader)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_sparse_members_and_compressed_shards_in_workers(context):
    """Shards with sparse members, and packed with every program, give in workers what a stream gives."""
    paths = sorted((foreign_data() / "gnutar").glob("amber-sparse-*.tar"))
    paths += [foreign_data() / "compressed" / f"amber.{kind}" for kind in ("tar.gz", "tgz", "tar.zst", "tar.bz2")]
    assert len(paths) == 8
    expected = [list(wds.WebDataset(str(path), shardshuffle=False, lcase=False)) for path in paths]
    shards = [{"url": str(path), "nsamples": len(some)} for path, some in zip(paths, expected, strict=True)]
    found = in_workers(shards, context)
    assert len(found) == sum(map(len, expected))
    for sample, wanted in zip(found, (sample for some in expected for sample in some), strict=True):
        fields = {f".{name}": value for name, value in wanted.items() if not name.startswith("__")}
        assert {name: value for name, value in sample.items() if name.startswith(".")} == fields
        assert (sample["__key__"], sample["__shard__"]) == (wanted["__key__"], wanted["__url__"])


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_remote_compressed_shards_in_workers(tmp_path, context):
    """A packed shard on a server is copied once for all workers, checked by its MD5 as it came."""
    data = gzip.compress(tar_bytes({f"{number:02d}.cls": b"%d" % number for number in range(40)}))
    with serve({f"/{name}.tar.gz": Page(data) for name in "ab"}) as server:
        digest = hashlib.md5(data).hexdigest()
        shards = [
            {"url": server.url(f"/{name}.tar.gz"), "nsamples": 40, "md5sum": digest, "filesize": len(data)}
            for name in "ab"
        ]
        found = in_workers(shards, context)
        assert [sample[".cls"] for sample in found] == [b"%d" % number for number in (*range(40), *range(40))]
        assert len([request for request in server.requests if request.sent]) == 2
