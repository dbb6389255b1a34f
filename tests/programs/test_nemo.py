"""NeMo's data sets: braces of their own, filters that are methods, edited pipelines, own openers, an own epoch."""

from __future__ import annotations

import glob
import io
import itertools
import random
from pathlib import Path

import pytest
from PIL import Image
from torch.utils.data import IterableDataset

import webdataset as wds
from helpers import tar_bytes, write_picture_shards
from webdataset import warn_and_continue
from webdataset.filters import _shuffle
from webdataset.utils import pytorch_worker_info

SHARDS, SAMPLES = 4, 5
AUDIO = ";".join(["wav", "mp3", "flac", "opus"])


def expand(pattern):
    """`_OP_0..3_CL_` is `{0..3}`, for tools that do not like braces."""
    for opening, closing in (("(", ")"), ("[", "]"), ("<", ">"), ("_OP_", "_CL_")):
        if opening in pattern:
            pattern = pattern.replace(opening, "{").replace(closing, "}")
    return wds.shardlists.expand_urls(pattern)


@pytest.fixture
def speech(tmp_path):
    """Shards of sounds of several kinds, deep in folders; some have two parts of one recording."""
    for shard in range(SHARDS):
        members = {}
        for number in range(SAMPLES):
            kind = ("wav", "flac", "mp3")[number % 3]
            members[f"clips/{shard}-{number}.{kind}"] = f"sound {shard} {number}".encode()
        (tmp_path / f"audio_{shard}.tar").write_bytes(tar_bytes(members))
    return str(tmp_path / f"audio__OP_0..{SHARDS - 1}_CL_.tar")


class Speech(IterableDataset):
    """Tarred audio with a manifest: sounds that it does not name are left out, some are used several times."""

    def __init__(self, pattern, manifest, shuffle_n=0):
        self.manifest = manifest
        urls = expand(pattern)
        self.dataset = wds.DataPipeline(
            wds.SimpleShardList(urls=urls),
            self._split_by_worker,
            wds.shuffle(shuffle_n),
            wds.tarfile_to_samples(),
            wds.rename(audio=AUDIO, key="__key__"),
            wds.to_tuple("audio", "key"),
            self._filter,
            self._loop_offsets,
            wds.map(self._build),
        )

    @staticmethod
    def _split_by_worker(src):
        _, _, worker, workers = pytorch_worker_info()
        return itertools.islice(src, worker, None, workers)

    def _filter(self, iterator):
        class Filtered:
            def __init__(self, manifest):
                self.manifest = manifest

            def __iter__(self):
                return self

            def __next__(self):
                while True:
                    audio, key = next(iterator)
                    if Path(key).name in self.manifest:
                        return audio, Path(key).name

        return Filtered(self.manifest)

    def _loop_offsets(self, iterator):
        for audio, name in iterator:
            for offset in range(self.manifest[name]):
                yield audio, name, offset

    def _build(self, item):
        audio, name, offset = item
        return {"audio": audio.decode(), "name": name, "offset": offset}

    def __iter__(self):
        return iter(self.dataset)

    def __len__(self):
        return sum(self.manifest.values())


def test_tarred_audio_with_a_manifest(speech, load):
    """rename makes the key a field, to_tuple drops the others; methods that return iterators are stages."""
    manifest = {f"{shard}-{number}": 1 + number % 2 for shard in range(SHARDS) for number in range(1, SAMPLES)}
    items = load(Speech(speech, manifest, shuffle_n=10))
    expected = [(name, offset) for name, count in manifest.items() for offset in range(count)]
    assert sorted(expected) == sorted((item["name"], item["offset"]) for item in items)
    assert all(item["audio"] == "sound " + item["name"].replace("-", " ") for item in items)


def test_the_fluid_way_to_the_same(speech, load):
    """WebDataset(urls=..., nodesplitter=None), and methods composed as stages."""
    ds = wds.WebDataset(urls=expand(speech), nodesplitter=None, shardshuffle=False)
    ds = ds.shuffle(5).rename(audio=AUDIO, key="__key__").to_tuple("audio", "key").map(f=lambda item: item[1])
    assert SHARDS * SAMPLES == len(set(load(ds)))


class OwnShuffle(wds.PipelineStage):
    def __init__(self, bufsize=1000, initial=100, seed=0, epoch=-1):
        self.bufsize, self.initial, self.seed, self.epoch = bufsize, initial, seed, epoch

    def run(self, src):
        self.epoch += 1
        rng = random.Random()
        rng.seed(self.seed + self.epoch + 100 * pytorch_worker_info()[0])
        return _shuffle(src, self.bufsize, self.initial, rng)


def load_picture(key, data):
    if key.rpartition(".")[2].lower() not in ["jpg", "jpeg", "png"]:
        return None
    with io.BytesIO(data) as stream:
        picture = Image.open(stream)
        picture.load()
    return picture.convert("RGB")


def texts(samples):
    for sample in samples:
        yield sample["width"], sample["caption"]


class Pictures(IterableDataset):
    """WebDatasetCommon: patterns from a list, an own shuffle, decoder, filter, map, then generator functions."""

    def __init__(self, patterns, compose_fn, infinite=False, workers=0):
        patterns = glob.glob(patterns) if "*" in patterns else [patterns]
        urls = list(itertools.chain.from_iterable(map(wds.shardlists.expand_urls, patterns)))
        ds = wds.WebDataset(sorted(urls), handler=warn_and_continue, resampled=infinite, shardshuffle=False)
        ds = ds.compose(OwnShuffle(bufsize=8))
        ds = ds.decode(load_picture, handler=warn_and_continue)
        ds = ds.select(lambda sample: sample["jpg"].size[0] >= 8)
        ds = ds.map(
            lambda sample: {"width": sample["jpg"].size[0], "caption": sample["txt"]}, handler=warn_and_continue
        )
        for function in compose_fn if isinstance(compose_fn, list) else [compose_fn]:
            ds = ds.compose(function)
        ds.total_images = len(urls) * SAMPLES
        if infinite:
            ds = ds.with_epoch(nbatches=ds.total_images // max(workers, 1))
        self._dataset = ds

    def __iter__(self):
        return self._dataset.__iter__()

    def __len__(self):
        return self._dataset.total_images


@pytest.mark.parametrize("infinite", [False, True])
def test_pictures_once_or_without_end(tmp_path, load, workers, infinite):
    """Attributes set on a data set stay with it through with_epoch; stages of the program mix with ours."""
    write_picture_shards(tmp_path, SHARDS, SAMPLES)
    ds = Pictures(str(tmp_path / "*.tar"), [texts, iter], infinite=infinite, workers=workers)
    items = load(ds)
    assert len(ds) == len(items) == SHARDS * SAMPLES
    assert all(width == 8 + int(caption.split()[1]) % 5 for width, caption in items)
    if not infinite:
        assert len(items) == len({caption for _, caption in items})


def shards_of_worker(src):
    return itertools.islice(src, pytorch_worker_info()[2], None, pytorch_worker_info()[3])


def test_edits_of_the_list_of_stages(tmp_path, load):
    """insert, pop, append, slices and assignments: the list is the pipeline, before and after the first loop."""
    urls = write_picture_shards(tmp_path, SHARDS, SAMPLES)
    ds = wds.WebDataset(urls, shardshuffle=False)
    assert 8 == len(ds.pipeline)
    ds.pipeline.pop()  # the check for emptiness
    ds.pipeline[2] = shards_of_worker
    ds.pipeline.insert(3, wds.shuffle(10))
    ds.append(wds.decode("pil", only=["txt", "cls"]))
    everything = [f"picture {number}" for number in range(SHARDS * SAMPLES)]
    assert sorted(everything) == sorted(sample["txt"] for sample in load(ds))
    ds.pipeline.append(wds.batched(3, collation_fn=None))
    assert SHARDS * SAMPLES == sum(len(batch) for batch in load(ds, collate_fn=lambda batch: batch))
    ds.pipeline = [*ds.pipeline[:-1], wds.to_tuple("cls")]
    assert SHARDS * SAMPLES == len(load(ds))
    samples = wds.WebDataset(urls, shardshuffle=False)
    del samples.pipeline[4:]
    samples.append(wds.tariterators.tarfile_to_samples(handler=warn_and_continue))
    assert SHARDS * SAMPLES == len(load(samples))
    assert urls[0] == ds.pipeline[0].urls[0] == ds.stage(0).urls[0]


def test_an_opener_of_the_program_for_its_store(tmp_path, load, monkeypatch):
    """NeMo replaces `webdataset.tariterators.url_opener` for object stores, and adds the url to each error."""
    urls = write_picture_shards(tmp_path, SHARDS, SAMPLES)

    def opener(data, handler, **kw):
        for sample in data:
            try:
                if "0001" in sample["url"]:
                    raise OSError("no such object")
                stream = io.BytesIO(Path(sample["url"].removeprefix("store://")).read_bytes())
                sample.update(stream=stream)
                yield sample
            except Exception as exn:
                exn.args = (*exn.args, sample["url"])
                if not handler(exn):
                    break

    monkeypatch.setattr(wds.tariterators, "url_opener", opener)
    ds = wds.DataPipeline(
        wds.SimpleShardList([f"store://{url}" for url in urls]),
        shards_of_worker,
        wds.tarfile_to_samples(handler=wds.ignore_and_continue),
    )
    assert (SHARDS - 1) * SAMPLES == len(load(ds))
