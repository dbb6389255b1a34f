"""wids with torch: its data set in worker processes, its samplers in loaders, ranks of torch.distributed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import wids
from helpers import write_shards
from servers import Page, serve
from wids import ChunkedSampler, ShardListSampler


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WIDS_CACHE", str(tmp_path / "cache"))


def label_of(sample: dict) -> int:
    return sample[".cls"]


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers(tmp_path, context):
    """Four workers with a sampler give every sample once, of remote shards too, each downloaded once."""
    paths = write_shards(tmp_path, 6, 5)
    with serve({f"/{Path(path).name}": Page(Path(path).read_bytes()) for path in paths}) as server:
        urls = [server.url(f"/{Path(path).name}") for path in paths]
        dataset = wids.ShardListDataset([{"url": url, "nsamples": 5} for url in urls]).add_transform(label_of)
        assert isinstance(dataset, torch.utils.data.Dataset)
        assert not isinstance(dataset, torch.utils.data.IterableDataset)
        dataset[0]
        sampler = wids.ShardedSampler(dataset)
        loader = torch.utils.data.DataLoader(
            dataset, sampler=sampler, batch_size=3, num_workers=4, multiprocessing_context=context
        )
        assert len(loader) == 10
        for _ in range(2):
            numbers = torch.cat(list(loader)).tolist()
            assert sorted(numbers) == sorted(n % 10 for n in range(30))
        assert len([request for request in server.requests if request.sent]) == 6


RANK = """
import sys, torch, wids
rank, store = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
print(*sorted(wids.DistributedChunkedSampler(range(9), chunksize=4)))
torch.distributed.barrier()  # who leaves first breaks the other's connecting
torch.distributed.destroy_process_group()
"""


def test_ranks_of_torch_distributed(tmp_path: Path):
    """Two processes of a gloo group get the two halves."""
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    assert [rank.communicate(timeout=100)[0].split() for rank in ranks] == [list("01234"), list("5678")]


def test_they_are_samplers_of_torch():
    """torch takes them for what they are."""
    assert isinstance(ShardListSampler(None, lengths=[1]), torch.utils.data.Sampler)
    loader = torch.utils.data.DataLoader(range(10), sampler=ChunkedSampler(range(10), chunksize=5), batch_size=None)
    assert sorted(loader) == list(range(10))
    assert len(loader) == 10
