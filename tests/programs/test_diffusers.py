"""Training scripts for diffusion models: filters on metadata, renamed fields, endless shards, many kinds of samples."""

from __future__ import annotations

import functools
import itertools
import json
import math

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

import webdataset as wds
from helpers import tar_bytes, write_picture_shards
from webdataset.filters import default_collation_fn
from webdataset.tariterators import base_plus_ext, tar_file_expander, url_opener, valid_sample

SHARDS, SAMPLES = 4, 6


def filter_keys(names):
    def keep(sample):
        return {name: value for name, value in sample.items() if name in names}

    return keep


def group_nothrow(data, keys=base_plus_ext, lcase=True, suffixes=None, handler=None):
    current = None
    for file in data:
        prefix, suffix = keys(file["fname"])
        if prefix is None:
            continue
        suffix = suffix.lower() if lcase else suffix
        if current is None or prefix != current["__key__"] or suffix in current:
            if valid_sample(current):
                yield current
            current = {"__key__": prefix, "__url__": file["__url__"]}
        if suffixes is None or suffix in suffixes:
            current[suffix] = file["data"]
    if valid_sample(current):
        yield current


def tarfile_to_samples_nothrow(src, handler=wds.warn_and_continue):
    return group_nothrow(tar_file_expander(url_opener(src, handler=handler), handler=handler), handler=handler)


class MetadataFilter:
    """Keeps what the json says is large enough; samples whose json is broken are left out."""

    def __init__(self, min_size):
        self.min_size = min_size

    def __call__(self, sample):
        try:
            return json.loads(sample["json"])["width"] >= self.min_size
        except Exception:
            return False


def as_tensor(picture):
    return torch.from_numpy(np.asarray(picture.resize((4, 4))).copy()).permute(2, 0, 1)


class TextToImage:
    """The data set object of such a script: a pipeline, a WebLoader over it, and their sizes."""

    def __init__(self, shards, train_examples, per_batch, workers, min_size=0):
        if not isinstance(shards, str):
            shards = list(itertools.chain.from_iterable(wds.shardlists.expand_urls(part) for part in shards))
        processing = [
            wds.decode("pil", handler=wds.ignore_and_continue),
            wds.rename(image="jpg;png;jpeg;webp", input_ids="text;txt;caption", handler=wds.warn_and_continue),
            wds.map(filter_keys({"image", "input_ids"})),
            wds.map_dict(image=as_tensor, input_ids=len),
            wds.to_tuple("image", "input_ids"),
        ]
        pipeline = [
            wds.ResampledShards(shards),
            tarfile_to_samples_nothrow,
            wds.select(MetadataFilter(min_size)),
            wds.shuffle(10),
            *processing,
            wds.batched(per_batch, partial=False, collation_fn=default_collate),
        ]
        per_worker = math.ceil(train_examples / (per_batch * max(workers, 1)))
        dataset = wds.DataPipeline(*pipeline).with_epoch(per_worker)
        self.loader = wds.WebLoader(
            dataset, batch_size=None, shuffle=False, num_workers=workers, persistent_workers=workers > 0
        )
        self.loader.num_batches = per_worker * max(workers, 1)
        self.loader.num_samples = self.loader.num_batches * per_batch


@pytest.fixture
def shards(tmp_path):
    write_picture_shards(tmp_path, SHARDS, SAMPLES)
    return str(tmp_path / f"pictures-{{0000..{SHARDS - 1:04d}}}.tar")


def test_endless_training_on_filtered_pictures(shards, workers):
    """Drawn shards, an uncalled sample stage, a filter object: as many full batches as the script counts on."""
    data = TextToImage([shards], 24, per_batch=4, workers=workers, min_size=11)
    for _ in range(2):
        batches = list(data.loader)
        assert data.loader.num_batches == len(batches)
        assert {(4, 3, 4, 4)} == {tuple(images.shape) for images, _ in batches}
    wide = {len(f"picture {number}") for number in range(SHARDS * SAMPLES) if 8 + number % 5 >= 11}
    assert {length for _, lengths in batches for length in lengths.tolist()} <= wide


def test_fields_that_a_sample_lacks_go_to_the_handler(tmp_path, shards, load):
    """rename without any of its alternatives is an error that the handler may let pass, with the sample left out."""
    odd = tmp_path / "odd.tar"
    members = {"a.jpg": b"no picture", "a.txt": b"text", "b.txt": b"no image", "c.PNG": b"", "c.txt": b""}
    odd.write_bytes(tar_bytes(members))
    ds = wds.DataPipeline(
        wds.SimpleShardList([*wds.shardlists.expand_urls(shards), str(odd)]),
        wds.split_by_worker,
        wds.tarfile_to_samples(handler=wds.ignore_and_continue),
        wds.decode("pilrgb", handler=wds.ignore_and_continue),
        wds.rename(image="jpg;png;jpeg;webp", text="txt", handler=wds.ignore_and_continue, keep=False),
        wds.map_dict(image=as_tensor, text=str.upper, handler=wds.ignore_and_continue),
        wds.map(lambda sample: {**sample, "image": sample["image"].float() / 255}),
    )
    samples = load(ds)
    assert sorted(f"PICTURE {number}" for number in range(SHARDS * SAMPLES)) == sorted(s["text"] for s in samples)


def test_alternatives_and_missing_fields_in_tuples(tmp_path, load):
    """to_tuple takes lists and `a;b`; missing_is_error=False gives None."""
    for number in range(2):
        members = {"a.png": b"1", "a.txt": b"one", "b.webp": b"2", "b.txt": b"two", "b.mask.png": b"m"}
        (tmp_path / f"{number}.tar").write_bytes(tar_bytes(members))
    ds = wds.WebDataset(str(tmp_path / "{0..1}.tar"), shardshuffle=False)
    tuples = [tuple(item) for item in load(ds.to_tuple(["webp", "png"], "txt"))]
    assert [(b"1", b"one"), (b"1", b"one"), (b"2", b"two"), (b"2", b"two")] == sorted(tuples)
    ds = ds.to_tuple("png;webp mask.png", missing_is_error=False).map_tuple(None, lambda mask: mask or b"none")
    assert [(b"1", b"none"), (b"1", b"none"), (b"2", b"m"), (b"2", b"m")] == sorted(tuple(item) for item in load(ds))


def tensors(data):
    return wds.autodecode.torch_loads(data)


@pytest.fixture
def latents(tmp_path):
    """Precomputed tensors under names with dots, made by the program with a ShardWriter."""
    with wds.ShardWriter(str(tmp_path / "latents-%03d.tar"), maxcount=3, verbose=0) as sink:
        for number in range(9):
            sample = {"__key__": f"{number:05d}", "vae.fp16.pth": torch.full((2, 2), number), "txt": f"n{number}"}
            sink.write({**sample, "aspect.cls": number % 2})
    return str(tmp_path / "latents-{000..002}.tar")


def test_tensors_by_a_handler_for_one_extension(latents, load):
    """handle_extension("pth", torch_loads) in decode; what a checkpoint is called is part of the field's name."""
    name = "VAE/FP16".lower().replace("/", ".")
    ds = wds.DataPipeline(
        wds.SimpleShardList(latents),
        wds.split_by_worker,
        wds.tarfile_to_samples(),
        wds.decode(wds.handle_extension("pth", tensors), handler=wds.warn_and_continue),
        wds.rename(latent=f"{name}.pth", bucket="aspect.cls", handler=wds.warn_and_continue),
        wds.map(filter_keys({"latent", "bucket"})),
        wds.to_tuple("latent", "bucket"),
    )
    assert [(number, number % 2) for number in range(9)] == sorted((int(x[0, 0]), bucket) for x, bucket in load(ds))


def _buckets(data, size):
    """Batches of samples that go together."""
    open_buckets = {}
    for sample in data:
        bucket = open_buckets.setdefault(sample["aspect.cls"], [])
        bucket.append(sample)
        if len(bucket) == size:
            yield open_buckets.pop(sample["aspect.cls"])


buckets = wds.filters.RestCurried(_buckets)


def test_buckets_and_collation(latents, load):
    """Filters curried by hand, unlisted, batched with a collation of the library; batches of tuples and of lists."""
    ds = wds.WebDataset(latents, shardshuffle=False).decode().compose(buckets(2))
    pairs = load(ds, collate_fn=lambda pair: pair)
    assert all(len(pair) == 2 and pair[0]["aspect.cls"] == pair[1]["aspect.cls"] for pair in pairs)
    assert 2 * len(pairs) == len(load(ds.unlisted().to_tuple("aspect.cls", "txt")))
    collation = functools.partial(default_collation_fn, combine_tensors=False)
    pairs = wds.WebDataset(latents, shardshuffle=False).decode().to_tuple("vae.fp16.pth", "aspect.cls")
    batch = next(iter(pairs.batched(3, collation_fn=collation)))
    assert 3 == len(batch[0]) == len(batch[1])
    assert isinstance(batch[0][0], torch.Tensor)
    assert isinstance(batch[1], np.ndarray)
    batches = load(pairs.batched(3, partial=True))
    assert 9 == sum(len(images) for images, _ in batches)
    assert all(isinstance(images, torch.Tensor) for images, _ in batches)


def test_classes_set_on_a_data_set_and_decoders_for_some_kinds(shards, load):
    """Programs hang labels on a data set; ImageHandler with its own extensions leaves other images as bytes."""
    ds = wds.WebDataset(shards, nodesplitter=lambda src: src, shardshuffle=False)
    ds = ds.decode(wds.autodecode.ImageHandler("pil", extensions=["webp", "png", "jpg", "jpeg"]))
    ds = ds.to_tuple(["webp", "png", "jpg", "jpeg"], "cls").map_tuple(as_tensor, None)
    ds.classes = ds.templates = ["a", "b"]
    assert ["a", "b"] == ds.batched(2).classes
    assert SHARDS * SAMPLES == sum(len(images) for images, _ in load(ds.batched(2)))
    raw = wds.WebDataset(shards, shardshuffle=False).decode(lambda key, data: wds.autodecode.basichandlers("cls", b"7"))
    assert {(7, 7)} == {(sample["jpg"], sample["cls"]) for sample in load(raw)}


def test_a_function_as_source(load):
    """A function that makes samples is a source too, with the fluid methods around it."""

    def source():
        for number in range(5):
            yield {"__key__": str(number), "txt": b"%d" % number}

    def typed(sample):
        return {**sample, "txt": int(sample["txt"])}

    ds = wds.DataPipeline(source, wds.decode(), wds.to_tuple("txt"), wds.map_tuple(int))
    assert [0, 1, 2, 3, 4] == [number for (number,) in load(ds, num_workers=0)]
    assert [0, 1, 2] == [item["txt"] for item in wds.FluidWrapper(source).decode("pil").map(typed).slice(3)]
    assert 5 == len(ds.with_length(5))
