"""Random access below torch: samplers, workers of either kind, batches fetched at once."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

import webdataset as wds
from helpers import foreign_data
from test_indexed import ALL, as_pairs, streamed, write_shards
from webdataset.handlers import ignore_and_continue


def key_of(sample: dict[str, bytes]) -> str:
    """What workers send."""
    return str(sample["__key__"])


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_share_a_data_set(start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shuffling DataLoader with workers gives every sample once, from shards that are open or not yet indexed."""
    monkeypatch.setenv("WDS_CACHE", str(tmp_path / "cache"))
    paths = write_shards(tmp_path, 30, 40)
    ds = wds.IndexedDataset([{"url": path, "nsamples": count} for path, count in zip(paths, (30, 40), strict=True)])
    assert not isinstance(ds, IterableDataset)
    expected = [ds[0]["__key__"], *(sample["__key__"] for sample in ds[1:])]
    torch.manual_seed(1)
    loader = DataLoader(
        ds.map(key_of), batch_size=8, shuffle=True, num_workers=2, collate_fn=list, multiprocessing_context=start
    )
    for _ in range(2):
        keys = [key for batch in loader for key in batch]
        assert sorted(keys) == expected
        assert keys != expected


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_give_golden_archives_as_a_stream_does(
    start: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All golden archives as one data set, read by workers in batches that are fetched at once, are as in a stream."""
    monkeypatch.setenv("WDS_CACHE", str(tmp_path / "cache"))
    paths, expected = [], []
    for number, name in enumerate(ALL):
        path = tmp_path / f"{number:03d}" / Path(name).name
        path.parent.mkdir()
        shutil.copy(foreign_data() / name, path)
        paths.append(str(path))
        expected += streamed(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of streams that end oddly, as when they are read
        ds = wds.IndexedDataset(paths, handler=ignore_and_continue)
    loader = DataLoader(ds, batch_size=50, num_workers=3, collate_fn=list, multiprocessing_context=start)
    assert as_pairs(sample for batch in loader for sample in batch) == expected
