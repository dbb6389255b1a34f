"""Data sets from object stores give the samples of local files, in the process and in forked and spawned workers."""

from __future__ import annotations

import pytest
from torch.utils.data import DataLoader

import webdataset as wds
from helpers import tar_bytes

SHARDS = 4


def shards() -> dict[str, bytes]:
    """Name to archive."""
    found = {}
    for shard in range(SHARDS):
        names = [f"{shard}{number}.{field}" for number in range(5) for field in ("a", "b")]
        found[f"train-{shard}.tar"] = tar_bytes([(name, name.encode() * 50) for name in names])
    return found


@pytest.mark.parametrize(("workers", "method"), [(0, None), (2, "fork"), (2, "spawn")])
def test_the_samples_are_those_of_local_files(store, tmp_path, workers, method):
    """Looked at in the parent first, as people do, a data set then reads in a DataLoader, twice, as from files."""
    for name, data in shards().items():
        (tmp_path / name).write_bytes(data)
        store.put(name, data)
    pattern = f"train-{{0..{SHARDS - 1}}}.tar"

    def read(url: str) -> list[list[tuple[str, bytes, bytes]]]:
        dataset = wds.WebDataset(url, shardshuffle=False, seed=1).to_tuple("__key__", "a", "b")
        first = next(iter(dataset))
        loader = DataLoader(dataset, batch_size=None, num_workers=workers, multiprocessing_context=method)
        passes = [list(loader), list(loader)]
        assert list(first) in passes[0]
        return passes

    assert read(store.url(pattern)) == read(str(tmp_path / pattern))
