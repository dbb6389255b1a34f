"""The examples of the package's best-known README, line by line, on stand-in data behind the published urls."""

from __future__ import annotations

import subprocess
import tarfile
from collections import Counter

import numpy as np
import pytest
import torch.utils.data
from PIL import Image

import standin
import webdataset as wds
from servers import serve

BUCKET = "https://storage.googleapis.com/webdataset/testdata/"
URL = BUCKET + "publaynet-train-{000000..000009}.tar"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The folder of the stand-in shards and the keys of their samples."""
    folder = tmp_path_factory.mktemp("pages")
    return folder, standin.write_shards(folder)


@pytest.fixture
def keys(pages, monkeypatch):
    """Keys of all samples, while a server on loopback answers for the published urls."""
    folder, keys = pages
    with serve(folder) as server:
        monkeypatch.setenv("GOPEN_REWRITE", f"{BUCKET}={server.url('/')}")
        yield keys


def preproc(image):
    """What the example does with torchvision (Resize, ToTensor, 1 - x), with Pillow and torch alone."""
    pixels = np.asarray(image.resize((224, 224)), np.float32) / 255
    return 1 - torch.from_numpy(pixels).permute(2, 0, 1)


def preprocess(sample):
    image, json = sample
    try:
        label = json["annotations"][0]["category_id"]
    except Exception:
        label = 0
    return preproc(image), label


def fluid():
    return wds.WebDataset(URL).shuffle(1000).decode("pil").to_tuple("png", "json")


def test_the_archive_lists_as_the_example_shows(pages):
    """`tar tf` of the first shard begins with the ten names that the example prints."""
    folder, _ = pages
    listed = subprocess.run(
        ["tar", "tf", folder / "publaynet-train-000000.tar"], stdout=subprocess.PIPE, check=True, text=True
    ).stdout.split()
    assert listed[:4] == [
        "PMC4991227_00003.json",
        "PMC4991227_00003.png",
        "PMC4537884_00002.json",
        "PMC4537884_00002.png",
    ]
    assert listed[8:10] == ["PMC5592712_00002.json", "PMC5592712_00002.png"]


def test_the_stand_in_is_the_same_each_time(pages, tmp_path):
    """Written twice, the shards have equal bytes."""
    folder, keys = pages
    assert standin.write_shards(tmp_path) == keys
    for path in sorted(folder.iterdir()):
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()


def test_fluid_example(keys):
    """The fluid pipeline is an IterableDataset whose samples are a Pillow image and the parsed annotations."""
    pil_dataset = wds.WebDataset(URL).shuffle(1000).decode("pil").to_tuple("png", "json")
    assert isinstance(pil_dataset, torch.utils.data.IterableDataset)
    for image, json in pil_dataset:  # noqa: B007
        break
    assert isinstance(image, Image.Image)
    assert image.size == (json["width"], json["height"])
    names = [json["file_name"].removesuffix(".jpg") for _, json in pil_dataset]
    assert names != keys
    assert sorted(names) == sorted(keys)


def test_map_onto_an_existing_pipeline(keys):
    """`.map(preprocess)` gives tensors of 3 x 224 x 224 in [0, 1] with a label, and leaves the first pipeline alone."""
    pil_dataset = fluid()
    dataset = pil_dataset.map(preprocess)
    for image, label in dataset:  # noqa: B007
        break
    assert image.numpy().transpose(1, 2, 0).shape == (224, 224, 3)
    assert 0 <= image.min() < image.max() <= 1
    assert label in standin.CATEGORIES
    assert isinstance(next(iter(pil_dataset))[0], Image.Image)


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_fluid_example_in_a_dataloader(keys, workers):
    """A standard DataLoader gives every sample once, with any number of workers."""
    dataset = fluid().map(name_and_shape)
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=workers)
    assert sorted(name for name, _ in loader) == sorted(keys)


def name_and_shape(sample):
    image, json = sample
    return json["file_name"].removesuffix(".jpg"), tuple(preproc(image).shape)


def test_pipeline_example(keys):
    """The pipeline interface gives the batch that the example prints."""
    dataset = wds.DataPipeline(
        wds.SimpleShardList(URL),
        # at this point we have an iterator over all the shards
        wds.shuffle(100),
        # add wds.split_by_node here if you are using multiple nodes
        wds.split_by_worker,
        # at this point, we have an iterator over the shards assigned to each worker
        wds.tarfile_to_samples(),
        # this shuffles the samples in memory
        wds.shuffle(1000),
        # this decodes the images and json
        wds.decode("pil"),
        wds.to_tuple("png", "json"),
        wds.map(preprocess),
        wds.shuffle(1000),
        wds.batched(16),
    )
    batch = next(iter(dataset))
    assert batch[0].shape == torch.Size([16, 3, 224, 224])
    assert batch[1].shape == (16,)
    assert sum(len(labels) for _, labels in dataset) == len(keys)


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_shuffle_before_the_split_delivers_each_sample_once(keys, workers):
    """All workers shuffle the shards alike before they divide them, so nothing is lost and nothing comes twice."""
    dataset = wds.DataPipeline(
        wds.SimpleShardList(URL),
        wds.shuffle(100),
        wds.split_by_worker,
        wds.tarfile_to_samples(),
        wds.shuffle(1000),
        wds.decode("pil"),
        wds.to_tuple("__key__", "png", "json"),
        wds.batched(16, collation_fn=None),
    )
    loader = torch.utils.data.DataLoader(dataset, batch_size=None, num_workers=workers, collate_fn=names_only)
    for _ in range(2):
        seen = Counter(name for names in loader for name in names)
        assert seen == Counter(keys)


def names_only(batch):
    return [key for key, _, _ in batch]


def test_shards_are_what_the_standard_library_reads(pages):
    """tarfile finds every sample as a json and a png, in that order."""
    folder, keys = pages
    names = []
    for path in sorted(folder.iterdir()):
        with tarfile.open(path) as tar:
            names.extend(tar.getnames())
    assert names == [f"{key}.{field}" for key in keys for field in ("json", "png")]
