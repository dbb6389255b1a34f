"""timm's reader: shards listed in an info file, an own shuffle of shards, an own split, samples decoded by `map`."""

from __future__ import annotations

import io
import json
import logging
import math
import multiprocessing
import random
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
from PIL import Image
from torch.utils.data import IterableDataset, get_worker_info

import webdataset as wds
from helpers import write_picture_shards
from webdataset.filters import _shuffle, getfirst
from webdataset.shardlists import expand_urls

SHARDS, SAMPLES = 4, 6

logger = logging.getLogger(__name__)


class Count:
    """A number that all worker processes see."""

    def __init__(self, value=0):
        self.shared = multiprocessing.Value("i", value)

    @property
    def value(self):
        return self.shared.value

    @value.setter
    def value(self, value):
        self.shared.value = value


def log_and_go_on(exn):
    logger.warning("webdataset: %r", exn)
    if isinstance(exn, TypeError):
        raise exn
    return True


def seed_of_worker():
    info = get_worker_info()
    return wds.utils.pytorch_worker_seed() if info is None else info.seed


class ShuffleByCount(wds.PipelineStage):
    """Shuffles with the seed of an epoch that the program sets from outside."""

    def __init__(self, bufsize=1000, initial=100, seed=0, epoch=-1):
        self.bufsize, self.initial, self.seed, self.epoch = bufsize, initial, seed, epoch

    def run(self, src):
        if isinstance(self.epoch, Count):
            epoch = self.epoch.value
        else:
            self.epoch += 1
            epoch = self.epoch
        seed = seed_of_worker() if self.seed < 0 else self.seed
        return _shuffle(src, self.bufsize, self.initial, random.Random(seed + epoch))


class DrawnShards(IterableDataset):
    """Shards with replacement, as timm's ResampledShards2: seeded by worker and epoch."""

    def __init__(self, urls, nshards, epoch):
        super().__init__()
        self.urls = wds.shardlists.expand_urls(urls)
        assert isinstance(self.urls[0], str)
        self.nshards, self.epoch = nshards, epoch

    def __iter__(self):
        rng = random.Random(seed_of_worker() + self.epoch.value)
        for _ in range(self.nshards):
            yield {"url": self.urls[rng.randint(0, len(self.urls) - 1)]}


def decode_picture(sample, image_key, image_mode="RGB", target_key="cls", alt_label=""):
    label = int(json.loads(sample["json"])[alt_label]) if alt_label else int(sample[target_key])
    if label < 0:
        return None
    with io.BytesIO(getfirst(sample, image_key)) as stream:
        picture = Image.open(stream)
        picture.load()
    return {"jpg": picture.convert(image_mode), "cls": label, "json": sample.get("json", None)}


def read_info(root):
    """The info file, opened with gopen as a context manager."""
    for name in ("_info.json", "info.json"):
        try:
            with wds.gopen(str(Path(root) / name)) as stream:
                return json.load(stream)
        except Exception as exn:
            logger.info("no %s: %s", name, exn)
    return {}


class Reader(IterableDataset):
    def __init__(self, root, split, is_training, workers, batch_size=1, input_key="png;jpg;webp", **decoding):
        super().__init__()
        info = read_info(root)
        if "tar" in split:
            pattern, _, count = split.partition("|")
            self.names = expand_urls(pattern)
            self.num_samples = int(count) if count else sum(info["sizes"][name] for name in self.names)
        else:
            self.names, self.num_samples = info["splits"][split]["filenames"], info["splits"][split]["num_samples"]
        self.root, self.is_training, self.batch_size = root, is_training, batch_size
        self.num_workers = max(workers, 1)
        self.input_key, self.decoding = input_key, decoding
        self.epoch_count = Count()
        self.ds = None

    def set_epoch(self, epoch):
        self.epoch_count.value = epoch

    def _split(self, src):
        info = get_worker_info()
        yield from src if info is None else islice(src, info.id, None, info.num_workers)

    def _pipeline(self):
        stages = [wds.SimpleShardList([str(Path(self.root) / name) for name in self.names])]
        if self.is_training:
            stages.extend(
                [
                    ShuffleByCount(500, seed=42, epoch=self.epoch_count),
                    self._split,
                    wds.tarfile_to_samples(handler=log_and_go_on),
                    wds.shuffle(bufsize=20, initial=5, rng=random.Random(seed_of_worker())),
                ]
            )
        else:
            stages.extend([self._split, wds.tarfile_to_samples(handler=log_and_go_on)])
        stages.extend(
            [
                wds.map(partial(decode_picture, image_key=self.input_key, **self.decoding), handler=log_and_go_on),
                wds.rename(image=self.input_key, target="cls"),
            ]
        )
        return wds.DataPipeline(*stages)

    def __iter__(self):
        if self.ds is None:
            self.ds = self._pipeline()
        ds = self.ds
        if self.is_training:
            each = math.ceil(self.num_samples / self.num_workers)
            ds = ds.with_epoch(math.ceil(each / self.batch_size) * self.batch_size)
        for sample in ds:
            yield "x".join(map(str, sample["image"].size)), sample["target"]


@pytest.fixture
def root(tmp_path):
    names = [Path(url).name for url in write_picture_shards(tmp_path, SHARDS, SAMPLES)]
    info = {
        "sizes": dict.fromkeys(names, SAMPLES),
        "splits": {"train": {"filenames": names, "num_samples": SHARDS * SAMPLES}},
    }
    (tmp_path / "_info.json").write_text(json.dumps(info))
    return tmp_path


def all_labels():
    return sorted(number % 10 for number in range(SHARDS * SAMPLES))


def test_validation_reads_every_sample_once(root, workers, load):
    """A split given by a pattern of names, its size by the info file, comes whole, images as PIL images."""
    reader = Reader(root, f"pictures-{{0000..{SHARDS - 1:04d}}}.tar", False, workers)
    assert SHARDS * SAMPLES == reader.num_samples
    items = load(reader)
    assert all_labels() == sorted(label for _, label in items)
    assert {f"{8 + number}x6" for number in range(5)} == {size for size, _ in items}


def test_training_has_as_many_samples_as_asked_in_the_order_of_its_epoch(root, workers, load):
    """with_epoch gives whole batches in each worker; an epoch set from outside decides the order of the shards."""
    reader = Reader(root, "train", True, workers, batch_size=7)
    first = load(reader)
    each = math.ceil(SHARDS * SAMPLES / max(workers, 1))
    assert max(workers, 1) * math.ceil(each / 7) * 7 == len(first)
    assert set(all_labels()) == {label for _, label in first}
    assert [label for _, label in first] != sorted(label for _, label in first)


def test_the_epoch_set_from_outside_decides_the_order_of_shards(root, load):
    """A PipelineStage with `run` shuffles the same in the same epoch, and in another one differently."""
    epoch = Count()
    urls = [str(path) for path in sorted(root.glob("*.tar"))]
    shards = wds.DataPipeline(wds.SimpleShardList(urls * 5), ShuffleByCount(500, seed=42, epoch=epoch))
    orders = []
    for epoch.value in (1, 2, 1):
        orders.append([shard["url"] for shard in load(shards, num_workers=0)])
    assert orders[0] == orders[2] != orders[1]
    assert sorted(urls * 5) == sorted(orders[1])


def test_a_split_with_its_size_behind_a_bar_needs_no_info(tmp_path, workers, load):
    """`pattern|count` names the number of samples itself."""
    write_picture_shards(tmp_path, 2, 3)
    reader = Reader(tmp_path, "pictures-{0000..0001}.tar|6", True, workers)
    assert 6 == len(load(reader))


def test_samples_that_map_gives_none_for_are_left_out(tmp_path, workers, load):
    """Labels from the json: negative ones are skipped by returning None from `map`."""
    [url] = write_picture_shards(tmp_path, 1, 5)
    data = Path(url).read_bytes().replace(b'{"number": 3,', b'{"number":-1,')
    Path(url).write_bytes(data)
    reader = Reader(tmp_path, "pictures-0000.tar|5", False, workers, alt_label="number")
    assert [0, 1, 2, 4] == sorted(label for _, label in load(reader))


def test_damaged_pictures_are_logged_and_left_out(tmp_path, workers, load, caplog):
    """A handler of the program sees the error of PIL itself and goes on with the next sample."""
    [url] = write_picture_shards(tmp_path, 1, 4)
    data = bytearray(Path(url).read_bytes())
    data[data.index(b"\xff\xd8\xff") : data.index(b"\xff\xd8\xff") + 3] = b"???"
    Path(url).write_bytes(data)
    reader = Reader(tmp_path, "pictures-0000.tar|4", False, workers)
    assert [1, 2, 3] == sorted(label for _, label in load(reader))
    if workers == 0:
        assert "UnidentifiedImageError" in caplog.text


def test_shards_drawn_with_replacement_feed_a_pipeline(root, workers, load):
    """An IterableDataset of the program is the source of shards; draws differ between workers."""
    urls = str(root / f"pictures-{{0000..{SHARDS - 1:04d}}}.tar")
    ds = wds.DataPipeline(
        DrawnShards(urls, 3, Count(5)), wds.tarfile_to_samples(), wds.decode("rgb8"), wds.to_tuple("jpg", "cls")
    )
    items = load(ds)
    assert 3 * SAMPLES * max(workers, 1) == len(items)
    assert {(6, 8, 3)} <= {tuple(picture.shape) for picture, _ in items}
