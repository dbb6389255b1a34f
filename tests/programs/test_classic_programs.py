"""Programs of 2020: subclasses of the classic Dataset, metadata in front of a shard, epochs of a chosen length."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader, IterableDataset

import webdataset as wds
from helpers import tar_bytes, write_picture_shards
from webdataset.dataset import group_by_keys
from webdataset.webdataset import WebDataset

META = "_about.meta.pickle"


class Trajectories(wds.Dataset):
    """Steps of trajectories; what is about a shard stands in its first member."""

    def __init__(self, urls, **kw):
        super().__init__(urls, initial_pipeline=[self.take_meta, group_by_keys()], **kw)
        self.seen = None

    def take_meta(self, members):
        for member in members:
            name, data = member
            assert isinstance(member, tuple)
            if name == META:
                self.seen = pickle.loads(data)
            else:
                yield member

    @property
    def meta(self):
        if self.seen is None:
            next(iter(self))
        return self.seen


def short_names(samples):
    for sample in samples:
        yield {name.partition(".")[0]: value for name, value in sample.items()}


@pytest.fixture
def steps(tmp_path):
    """Two shards of five steps each, behind what is about them."""
    urls = []
    for shard in range(2):
        members = [(META, pickle.dumps({"agent": "a", "shards": 2}))]
        for step in range(5):
            members.append((f"t{shard}-{step}.obs.pickle", pickle.dumps(np.arange(3) + step)))
            members.append((f"t{shard}-{step}.done.pyd", pickle.dumps(step == 4)))
        (tmp_path / f"{shard}.tar").write_bytes(tar_bytes(members))
        urls.append(f"file:{tmp_path}/{shard}.tar")
    return urls


def test_a_subclass_that_takes_members_out_of_the_stream(steps, load):
    """Its own first stage sees names and bytes; what it lets through is grouped, decoded, and changed in place."""
    data = Trajectories(steps).decode().pipe(short_names)
    assert data.meta == {"agent": "a", "shards": 2}
    assert [{*sample} for sample in data] == [{"__key__", "obs", "done"}] * 10
    data.shuffle(1024)
    found = load(data)
    assert sorted(sample["__key__"] for sample in found) == [
        f"t{shard}-{step}" for shard in range(2) for step in range(5)
    ]
    assert sum(sample["done"] for sample in found) == 2


class Interleaved(IterableDataset):
    """Items of several data sets in turn, each begun again when it ends."""

    def __init__(self, datasets, length):
        super().__init__()
        self.datasets, self.length = datasets, length
        self.running = [None] * len(datasets)

    def __iter__(self):
        for i in range(self.length):
            turn = i % len(self.datasets)
            if self.running[turn] is None:
                self.running[turn] = iter(self.datasets[turn])
            try:
                item = next(self.running[turn])
            except StopIteration:
                self.running[turn] = iter(self.datasets[turn])
                item = next(self.running[turn])
            yield item


def test_classic_data_sets_inside_another_one(steps):
    """An own data set passes over them again and again."""
    parts = [Trajectories(steps[:1]).decode().pipe(short_names), Trajectories(steps[1:]).decode().pipe(short_names)]
    loader = DataLoader(Interleaved(parts, 24), batch_size=4)
    keys = [key for batch in loader for key in batch["__key__"]]
    assert len(keys) == 24
    assert {key[:2] for key in keys[::2]} == {"t0"}


def as_array(image):
    return np.asarray(image, np.float32).transpose(2, 0, 1).mean(axis=(1, 2))


def test_epochs_of_a_chosen_length(tmp_path):
    """A training loop of that time: shuffle, decode to Pillow, tuples, a nominal length for the progress bar."""
    url = write_picture_shards(tmp_path, 4, 6)[0].replace("0000", "{0000..0003}")
    data = wds.Dataset(url).shuffle(50).decode("pil").to_tuple("ppm;jpg;png", "cls").map_tuple(as_array, int)
    chopped = wds.ChoppedDataset(data, 8, nominal=4)
    loader = DataLoader(chopped, batch_size=4, num_workers=2)
    for _ in range(3):
        shapes = [tuple(images.shape) for images, _ in loader]
        assert shapes == [(4, 3)] * 4
    assert len(chopped) == 4


def batches(size, samples):
    batch = []
    for sample in samples:
        batch.append(sample)
        if len(batch) == size:
            yield [np.stack(column) for column in zip(*batch, strict=True)]
            batch = []


def test_all_as_arguments(tmp_path, load):
    """The other class: extensions, transforms, a batching pipeline, an opener that is a command."""
    urls = write_picture_shards(tmp_path, 2, 8)
    for url in urls:
        Path(url).rename(f"{url}.hidden")
    data = WebDataset(
        urls,
        extensions="jpg;png cls",
        decoder="rgb8",
        transforms=[partial(np.mean, axis=(0, 1)), None],
        pipeline=partial(batches, 4),
        opener="cat {}.hidden",
        shuffle=20,
        length=4,
    )
    found = load(data)
    assert len(data) == 4
    assert [(images.shape, labels.shape) for images, labels in found] == [((4, 3), (4,))] * 4
    assert sorted(label for _, labels in found for label in labels) == sorted(number % 10 for number in range(16))


def test_copying_with_changes(tmp_path):
    """Read, rename, change, write with `dwrite` into a .tgz, read again."""
    [url] = write_picture_shards(tmp_path, 1, 5)
    sink = wds.TarWriter(str(tmp_path / "out.tgz"))
    for sample in wds.Dataset(url).decode("l").rename(__key__="__key__", image="png;jpg", cls="cls"):
        sink.dwrite(sample["__key__"], page_png=1 - sample["image"], cls=sample["cls"])
    sink.close()
    images = list(wds.Dataset(str(tmp_path / "out.tgz")).decode("l8").to_tuple("page.png", "cls"))
    assert [label for _, label in images] == [0, 1, 2, 3, 4]
    assert images[0][0].shape == (6, 8)
