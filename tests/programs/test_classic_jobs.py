"""Programs of 2020 around the classic Dataset: shards made of files, training, ranks, pipes, tables and openers."""

from __future__ import annotations

import gzip
import io
import itertools
import subprocess
import sys
import tarfile
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, get_worker_info

import webdataset as wds
from helpers import write_shards
from servers import serve
from webdataset.webdataset import WebDataset


@pytest.fixture
def shards(tmp_path) -> str:
    """Three shards of four samples each, made of image files in folders that are called as their class."""
    for number in range(12):
        folder = tmp_path / "images" / str(number % 3)
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (80 * (number % 3), 10 * number, 0)).save(folder / f"{number:04d}.jpg")
    paths = sorted((tmp_path / "images").rglob("*.jpg"), key=lambda path: path.name)
    with wds.ShardWriter(str(tmp_path / "train-%06d.tar"), maxcount=4, maxsize=1e9) as sink:
        for path in paths:
            sink.write({"__key__": path.stem, "jpg": path.read_bytes(), "cls": int(path.parent.name)})
    return str(tmp_path / "train-{000000..000002}.tar")


def as_tensor(image):
    return torch.tensor(np.asarray(image, np.float32).transpose(2, 0, 1) / 255)


def identity(value):
    return value


def test_training(shards, workers):
    """Each epoch has every sample once, in batches of tensors; the loader knows from `length` how many there are."""
    data = wds.Dataset(shards, length=12, handler=wds.warn_and_continue).shuffle(100).decode("pil")
    loader = DataLoader(
        data.to_tuple("jpg;png", "cls").map_tuple(as_tensor, identity), batch_size=4, num_workers=workers
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    for _ in range(3):
        seen = 0
        for images, labels in loader:
            assert images.shape[1:] == (3, 8, 8)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            seen += len(labels)
        assert seen == 12
    assert len(loader) == 3


class Backwards(wds.Dataset):
    """Shards are divided in its own way."""

    def shard_selection(self):
        info = get_worker_info()
        index, total = (info.id, info.num_workers) if info else (0, 1)
        self.urls = self.full_urls[::-1][index::total]


def choose(worker):
    info = get_worker_info()
    info.dataset.subset = (worker, info.num_workers)


def test_shards_are_divided_once(tmp_path, load, workers):
    """By rank with `subset`, by a `worker_init_fn`, by an own `shard_selection`: each sample comes once."""
    urls = write_shards(tmp_path, 6, 2)
    everything = [f"{number:06d}" for number in range(12)]

    def keys(data, **options):
        return sorted(key for [key] in load(data.to_tuple("__key__"), **options))

    ranks = []
    for rank in range(3):
        data = wds.Dataset(urls)
        data.subset = (rank, 3)
        ranks += keys(data, num_workers=min(workers, 1))
    assert sorted(ranks) == everything
    assert keys(wds.Dataset(urls), worker_init_fn=choose) == everything
    assert keys(Backwards(urls)) == everything
    assert next(iter(Backwards(urls)))["__key__"] == "000010"


FILTER = """
import sys, webdataset as wds
sink = wds.TarWriter("-" if sys.argv[1] == "name" else sys.stdout.buffer, encoder=False)
for sample in wds.Dataset("-").map(lambda sample: {**sample, "txt": sample["txt"].upper()}):
    if int(sample["cls"]) % 2:
        sink.write(sample)
sink.close()
"""


@pytest.mark.parametrize("target", ["name", "stream"])
def test_a_program_between_two_pipes(tmp_path, target):
    """An archive comes in at the standard input, and part of it goes out at the standard output."""
    [url] = write_shards(tmp_path, 1, 5)
    with open(url, "rb") as stream:
        done = subprocess.run([sys.executable, "-c", FILTER, target], stdin=stream, capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        assert tar.getnames() == ["000001.cls", "000001.txt", "000003.cls", "000003.txt"]
        assert tar.extractfile("000003.txt").read() == b"TEXT 3"


def means(samples):
    while batch := list(itertools.islice(samples, 3)):
        yield {"mean": float(np.mean([sample["npy"] for sample in batch])), "places": [s["place"] for s in batch]}


def test_a_new_extension_fields_by_key_and_whose_share(tmp_path, load, workers, monkeypatch):
    """The table `rgb` learns `npy`, `associate` knows more of each key, and batches tell which share they are of."""
    monkeypatch.setitem(wds.default_handlers["rgb"], "npy", lambda data: np.load(io.BytesIO(data)))
    for shard in range(2):
        with wds.TarWriter(str(tmp_path / f"{shard}.tgz"), encoder={"npy": wds.numpy_dumps}, mode=0o600) as sink:
            for number in range(3 * shard, 3 * shard + 3):
                sink.dwrite(str(number), npy=np.full(4, number))
    places = {str(number): {"place": f"p{number}"} for number in range(6)}
    data = WebDataset(str(tmp_path / "{0,1}.tgz"), associate=places, pipeline=means)
    data.extra_meta = True
    shares = [(0, 2), (1, 2)] if workers else [None, None]
    assert sorted(load(data, collate_fn=identity), key=lambda batch: batch["mean"]) == [
        {"mean": 1.0, "places": ["p0", "p1", "p2"], "__webdataset__": (shares[0],)},
        {"mean": 4.0, "places": ["p3", "p4", "p5"], "__webdataset__": (shares[1],)},
    ]


def of_a_process(url):
    return subprocess.Popen(["cat", url], stdout=subprocess.PIPE).stdout


def in_memory(url):
    with open(url, "rb") as stream:
        return io.BytesIO(stream.read())


@pytest.mark.parametrize("opener", [gzip.open, of_a_process, in_memory, "gunzip -c {}", "gunzip -c < %s | cat"])
@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
def test_openers_of_that_time(tmp_path, load, opener):
    """Whatever gives a stream of bytes, plain or compressed, serves."""
    [url] = write_shards(tmp_path, 1, 5)
    subprocess.run(["gzip", url], check=True)
    found = load(wds.Dataset(f"{url}.gz", opener=opener).decode().to_tuple("txt", "cls"), collate_fn=identity)
    assert found == [(f"text {number}", number) for number in range(5)]


def test_an_opener_of_the_standard_library(tmp_path, load):
    """`urllib.request.urlopen` serves shards from a server."""
    [url] = write_shards(tmp_path, 1, 5)
    with open(url, "rb") as stream, serve({"/a.tar": stream.read()}) as server:
        keys = load(wds.Dataset(server.url("/a.tar"), opener=urllib.request.urlopen).to_tuple("__key__"))
    assert keys == [[f"{number:06d}"] for number in range(5)]
