"""open_clip's loader: files grouped by the program itself, shards drawn by weight, a WebLoader that knows its size."""

from __future__ import annotations

import ast
import json
import logging
import math
import random
import sys
from dataclasses import dataclass
from multiprocessing import Value
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset, get_worker_info

import webdataset as wds
from helpers import tar_bytes, write_picture_shards
from webdataset.filters import _shuffle
from webdataset.tariterators import base_plus_ext, tar_file_expander, url_opener, valid_sample

SHARDS, SAMPLES = 4, 6

logger = logging.getLogger(__name__)


class SharedEpoch:
    def __init__(self, epoch: int = 0):
        self.shared_epoch = Value("i", epoch)

    def set_value(self, epoch):
        self.shared_epoch.value = epoch

    def get_value(self):
        return self.shared_epoch.value


@dataclass
class DataInfo:
    dataloader: Any
    shared_epoch: SharedEpoch

    def set_epoch(self, epoch):
        self.shared_epoch.set_value(epoch)


def log_and_continue(exn):
    logger.warning("Handling webdataset error (%r). Ignoring.", exn)
    return True


def size_of(shards):
    names = wds.shardlists.expand_urls(shards)
    folder = Path(names[0]).parent
    if (folder / "sizes.json").exists():
        sizes = json.loads((folder / "sizes.json").read_text())
        return sum(int(sizes[Path(name).name]) for name in names), len(names)
    return ast.literal_eval((folder / "__len__").read_text()), len(names)


def group_without_errors(data, keys=base_plus_ext, lcase=True, suffixes=None, handler=None):
    """The program's own grouping: a doubled suffix begins a new sample. It knows no markers between shards."""
    current = None
    for filesample in data:
        assert isinstance(filesample, dict)
        prefix, suffix = keys(filesample["fname"])
        if prefix is None:
            continue
        suffix = suffix.lower() if lcase else suffix
        if current is None or prefix != current["__key__"] or suffix in current:
            if valid_sample(current):
                yield current
            current = {"__key__": prefix, "__url__": filesample["__url__"]}
        if suffixes is None or suffix in suffixes:
            current[suffix] = filesample["data"]
    if valid_sample(current):
        yield current


def tarfile_to_samples_nothrow(src, handler=log_and_continue):
    streams = url_opener(src, handler=handler)
    files = tar_file_expander(streams, handler=handler)
    return group_without_errors(files, handler=handler)


def worker_seed(increment=0):
    info = get_worker_info()
    if info is None:
        return wds.utils.pytorch_worker_seed()
    return info.seed + increment * max(1, info.num_workers)


class detshuffle2(wds.PipelineStage):  # noqa: N801 -- what such programs call it
    def __init__(self, bufsize=1000, initial=100, seed=0, epoch=-1):
        self.bufsize, self.initial, self.seed, self.epoch = bufsize, initial, seed, epoch

    def run(self, src):
        if isinstance(self.epoch, SharedEpoch):
            epoch = self.epoch.get_value()
        else:
            self.epoch += 1
            epoch = self.epoch
        rng = random.Random()
        rng.seed(worker_seed(epoch) if self.seed < 0 else self.seed + epoch)
        return _shuffle(src, self.bufsize, self.initial, rng)


class ResampledShards2(IterableDataset):
    def __init__(self, urls, weights=None, nshards=sys.maxsize, deterministic=False, epoch=-1):
        super().__init__()
        self.urls = wds.shardlists.expand_urls(urls)
        self.weights = weights
        assert weights is None or len(self.urls) == len(weights)
        self.nshards, self.deterministic, self.epoch = nshards, deterministic, epoch
        self.rng = random.Random()

    def __iter__(self):
        if self.deterministic:
            self.rng.seed(worker_seed(self.epoch.get_value()))
        for _ in range(self.nshards):
            if self.weights is None:
                yield {"url": self.rng.choice(self.urls)}
            else:
                yield {"url": self.rng.choices(self.urls, weights=self.weights, k=1)[0]}


def has_both(sample):
    return "txt" in sample and any(name in sample for name in ("png", "jpg", "jpeg", "webp"))


def as_array(picture):
    return torch.from_numpy(np.array(picture.resize((8, 8))).copy())


def tokenize(text):
    return torch.tensor([len(text), len(text.split())])


def get_wds_dataset(shards, is_train, workers, batch_size=4, resampled=False, weights=None, num_samples=None):
    shared_epoch = SharedEpoch(epoch=0)
    num_samples, num_shards = (num_samples, 1) if num_samples else size_of(shards)
    if resampled:
        pipeline = [ResampledShards2(shards, weights=weights, deterministic=True, epoch=shared_epoch)]
    else:
        pipeline = [wds.SimpleShardList(shards)]
    if is_train:
        if not resampled:
            pipeline.extend(
                [detshuffle2(2000, 500, seed=7, epoch=shared_epoch), wds.split_by_node, wds.split_by_worker]
            )
        pipeline.extend([tarfile_to_samples_nothrow, wds.shuffle(bufsize=50, initial=10)])
    else:
        pipeline.extend([wds.split_by_worker, wds.tarfile_to_samples(handler=log_and_continue)])
    pipeline.extend(
        [
            wds.select(has_both),
            wds.decode("pilrgb", handler=log_and_continue),
            wds.rename(image="jpg;png;jpeg;webp", text="txt"),
            wds.map_dict(image=as_array, text=tokenize),
            wds.to_tuple("image", "text"),
            wds.batched(batch_size, partial=not is_train),
        ]
    )
    dataset = wds.DataPipeline(*pipeline)
    if is_train:
        assert resampled or num_shards >= workers
        num_batches = math.ceil(num_samples / batch_size)
        num_worker_batches = math.ceil(num_batches / max(1, workers))
        num_batches = num_worker_batches * max(1, workers)
        num_samples = num_batches * batch_size
        dataset = dataset.with_epoch(num_worker_batches)
    else:
        num_batches = math.ceil(num_samples / batch_size)
    dataloader = wds.WebLoader(
        dataset, batch_size=None, shuffle=False, num_workers=workers, persistent_workers=workers > 0
    )
    dataloader.num_batches = num_batches
    dataloader.num_samples = num_samples
    return DataInfo(dataloader=dataloader, shared_epoch=shared_epoch)


@pytest.fixture
def shards(tmp_path):
    urls = write_picture_shards(tmp_path, SHARDS, SAMPLES)
    (tmp_path / "sizes.json").write_text(json.dumps({Path(url).name: SAMPLES for url in urls}))
    return str(tmp_path / f"pictures-{{0000..{SHARDS - 1:04d}}}.tar")


def test_evaluation_has_every_sample_once_in_batches(shards, workers):
    """Batches of tensors, the last ones partial, and the sizes that the program set on the loader."""
    data = get_wds_dataset(shards, is_train=False, workers=workers)
    batches = list(data.dataloader)
    assert (6, SHARDS * SAMPLES) == (data.dataloader.num_batches, data.dataloader.num_samples)
    for images, texts in batches:
        assert isinstance(images, torch.Tensor)
        assert (len(images), 8, 8, 3) == images.shape
        assert (len(images), 2) == texts.shape
    lengths = sorted(length for _, texts in batches for length, _ in texts.tolist())
    assert sorted(len(f"picture {number}") for number in range(SHARDS * SAMPLES)) == lengths


def test_training_has_the_promised_number_of_full_batches(shards, workers):
    """with_epoch on the pipeline holds for every worker, and in every epoch of one loader."""
    data = get_wds_dataset(shards, is_train=True, workers=workers)
    for epoch in range(2):
        data.set_epoch(epoch)
        batches = list(data.dataloader)
        assert data.dataloader.num_batches == len(batches)
        assert {4} == {len(images) for images, _ in batches}


def test_training_on_drawn_shards_with_weights(shards, workers):
    """Shards of weight 0 are never drawn; the stream is as long as with_epoch says."""
    data = get_wds_dataset(shards, True, workers, resampled=True, weights=[0, 1, 0, 0], num_samples=40)
    batches = list(data.dataloader)
    assert data.dataloader.num_batches == len(batches)
    assert {(len(f"picture {number}"), 2) for number in range(SAMPLES, 2 * SAMPLES)} == {
        tuple(text) for _, texts in batches for text in texts.tolist()
    }


def test_a_loader_counts_its_batches_again_after_with_epoch(shards, workers):
    """with_epoch on the loader itself bounds what all workers give together."""
    loader = get_wds_dataset(shards, is_train=False, workers=workers, batch_size=2).dataloader
    loader = loader.unbatched().shuffle(10).batched(5)
    loader = loader.with_epoch(3)
    assert [5, 5, 5] == [len(images) for images, _ in loader]


def test_equal_keys_at_the_border_of_shards_are_two_samples(tmp_path):
    """No marker comes between shards: the program's own grouping reads `fname` of every item that there is."""
    for number in range(2):
        members = {"same.jpg": b"%d" % number, "same.txt": b"text"}
        (tmp_path / f"{number}.tar").write_bytes(tar_bytes(members))
    ds = wds.DataPipeline(wds.SimpleShardList(str(tmp_path / "{0..1}.tar")), tarfile_to_samples_nothrow)
    samples = [(sample["__key__"], sample["jpg"]) for sample in ds]
    assert [("same", b"0"), ("same", b"1")] == samples


def test_a_damaged_shard_is_logged_and_the_others_are_read(shards, workers, caplog):
    """A handler of the program skips a shard that is no archive, and a picture that is none."""
    path = Path(shards).parent / "pictures-0002.tar"
    path.write_bytes(b"<html>no such object</html>" * 100)
    data = get_wds_dataset(shards, is_train=False, workers=workers)
    assert (SHARDS - 1) * SAMPLES == sum(len(images) for images, _ in data.dataloader)
    if workers == 0:
        assert "pictures-0002.tar" in caplog.text


def test_the_number_of_samples_may_be_in_a_file_of_its_own(tmp_path):
    """`__len__` beside the shards is a file like any other."""
    write_picture_shards(tmp_path, 1, 2)
    (tmp_path / "__len__").write_text("2")
    assert (2, 1) == size_of(str(tmp_path / "pictures-0000.tar"))
