"""Remote shards in the workers of a DataLoader: the samples of local files, one listing, one warning."""

from __future__ import annotations

import warnings
from pathlib import Path
from random import Random
from typing import Any

import pytest
from torch.utils.data import DataLoader

import webdataset as wds
from helpers import tar_bytes, write_shards
from servers import Page, Request, serve


def samples_of(dataset: Any, workers: int) -> list[tuple[str, bytes]]:
    """Key and text of all samples, sorted."""
    samples = DataLoader(dataset.to_tuple("__key__", "txt"), batch_size=None, num_workers=workers)
    return sorted(map(tuple, samples))


@pytest.mark.parametrize("workers", [0, 2])
def test_servers_that_cut(tmp_path: Path, workers: int) -> None:
    """A server that breaks every connection after some kilobytes gives the samples that local files give."""
    paths = [Path(path) for path in write_shards(tmp_path, 6, 40)]
    random = Random(7)

    def answer(request: Request) -> Page:
        data = (tmp_path / request.path.lstrip("/")).read_bytes()
        return Page(data, cut=random.randint(1, 30_000), reset=random.random() < 0.5, headers={"ETag": '"1"'})

    local = samples_of(wds.WebDataset([str(path) for path in paths], shardshuffle=False), 0)
    with serve(answer) as server:
        remote = wds.WebDataset([server.url(f"/{path.name}") for path in paths], shardshuffle=False)
        assert samples_of(remote, workers) == local
        assert len(server.requests) > 2 * len(paths)


def test_one_listing_and_one_warning_for_all_workers() -> None:
    """The store is asked what there is once, and what is missing is told once, however many workers read."""
    names = "".join(f"<Contents><Key>b/{number}.tar</Key><Size>1</Size></Contents>" for number in (0, 1, 3))
    listing = f"<ListBucketResult>{names}</ListBucketResult>".encode()

    def answer(request: Request) -> Page:
        listed = "list-type=2" in request.path
        return Page(listing if listed else tar_bytes({f"{request.path[-5]}.txt": b"x"}))

    with serve(answer) as server, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        options = {"endpoint": server.base, "anonymous": True}
        dataset = wds.WebDataset("s3://bucket/b/*.tar", shardshuffle=False, storage_options=options)
        for _ in range(2):
            assert samples_of(dataset, 2) == [("0", b"x"), ("1", b"x"), ("3", b"x")]
        assert sum("list-type=2" in request.path for request in server.requests) == 1
    assert [str(warning.message) for warning in caught] == [
        "s3://bucket/b/*.tar: 1 shard of a numbered sequence is missing: s3://bucket/b/2.tar"
    ]
