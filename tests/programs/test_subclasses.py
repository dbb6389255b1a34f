"""Classes that programs derive from WebDataset, DataPipeline, WebLoader, ResampledShards and the shard lists."""

from __future__ import annotations

import itertools
import random
from functools import partial
from multiprocessing import Value

import numpy as np
import pytest
from torch.utils.data import DataLoader, IterableDataset

import webdataset as wds
from helpers import write_shards

SHARDS, SAMPLES = 4, 5
KEYS = [f"{number:06d}" for number in range(SHARDS * SAMPLES)]


@pytest.fixture
def urls(tmp_path):
    return write_shards(tmp_path, SHARDS, SAMPLES)


def keys(samples):
    return sorted(sample["__key__"] for sample in samples)


class EndlessShards(IterableDataset):
    """Shards that go on where an earlier run stopped, in the order of seed and epoch."""

    def __init__(self, urls, seed=None, done=0, endless=False):
        super().__init__()
        self.urls, self.seed, self.endless = urls, seed, endless
        self.epoch, self.done = Value("i", 0), Value("i", done)

    def __iter__(self):
        urls = list(self.urls)
        if self.seed is not None:
            random.Random(self.seed + self.epoch.value).shuffle(urls)
        yield from ({"url": url} for url in urls[self.done.value :])
        while self.endless:
            yield from ({"url": url} for url in urls)


class ResumedWebDataset(wds.WebDataset):
    """The pipeline put together anew, past the constructor of WebDataset."""

    def __init__(self, urls, **shards):
        super(wds.WebDataset, self).__init__()
        self.shardlist = EndlessShards(urls, **shards)
        self.expander = wds.pipelinefilter(wds.tariterators.tar_file_expander)
        self.grouper = wds.pipelinefilter(wds.tariterators.group_by_keys)
        self.append(self.shardlist)
        self.append(wds.split_by_node)
        self.append(wds.split_by_worker)
        self.append(wds.cache.StreamingOpen())
        self.append(self.expander())
        self.append(self.grouper())
        self.append(wds.compat.check_empty)


def test_a_pipeline_of_parts_past_the_constructor(urls, load):
    """A subclass that appends opener, expander, grouper and check itself has all fluid methods and all samples."""
    ds = ResumedWebDataset(urls, seed=3).decode().to_tuple("__key__", "cls")
    assert [(key, int(key) % 10) for key in KEYS] == sorted((key, label) for key, label in load(ds))
    assert SHARDS * SAMPLES - SAMPLES == len(load(ResumedWebDataset(urls, done=1)))
    assert 12 == len(list(ResumedWebDataset(urls, endless=True).slice(12)))


class WithoutSome(wds.WebDataset):
    def iterator(self):
        for _ in range(self.repetitions):
            for sample in self.iterator1():
                if sample["cls"] != b"3":
                    yield sample


class Decoded(wds.WebDataset):
    def __init__(self, *args, wanted=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.wanted = wanted

    def __iter__(self):
        for sample in super().__iter__():
            if self.wanted is None or self.wanted(sample):
                yield sample["__key__"], int(sample["cls"])


class Forever(wds.WebDataset):
    """Goes on from where the last loop stopped."""

    def __iter__(self):
        while True:
            if getattr(self, "running", None) is None:
                self.running = self.iterator()
            try:
                yield next(self.running)
            except StopIteration:
                self.running = None


def test_an_own_iterator(urls, load):
    """`iterator` and `__iter__` may be overridden; the passes are counted as ever."""
    ds = WithoutSome(urls, shardshuffle=False)
    assert [key for key in KEYS if key[-1] != "3"] == keys(load(ds))
    assert [key for key in sorted(KEYS * 2) if key[-1] != "3"] == keys(load(ds.repeat(2)))
    small = Decoded(urls=urls, shardshuffle=False, wanted=lambda sample: sample["cls"] < b"2")
    assert [(key, int(key[-1])) for key in KEYS if key[-1] < "2"] == sorted(map(tuple, load(small)))


def test_an_iterator_kept_between_loops(urls):
    """A data set that never ends continues where the last loop stopped."""
    ds = Forever(urls, shardshuffle=False)
    first = [sample["__key__"] for sample in itertools.islice(ds, 7)]
    second = [sample["__key__"] for sample in itertools.islice(ds, 20)]
    assert KEYS[:7] == first
    assert KEYS[7:] + KEYS[:7] == second


class Resumable(wds.DataPipeline):
    """An epoch is so many samples of one long stream."""

    def __init__(self, *args):
        super().__init__(*args)
        self.stream = None

    def iterator1(self):
        assert self.nsamples > 0
        if self.stream is None:
            self.stream = itertools.chain.from_iterable(super(Resumable, self).iterator1() for _ in itertools.count())
        return self.stream


def test_an_own_pass(urls):
    """`iterator1` may be overridden: epochs of with_epoch then go on in one stream."""
    ds = Resumable(wds.SimpleShardList(urls), wds.tarfile_to_samples(), wds.to_tuple("__key__")).with_epoch(8)
    epochs = [[key for (key,) in ds] for _ in range(3)]
    assert [*KEYS, *KEYS[:4]] == [key for epoch in epochs for key in epoch]


class Mixed(IterableDataset):
    """Draws from several pipelines."""

    def __init__(self, sources, rates):
        self.sources, self.rates = sources, np.array(rates) / sum(rates)

    def __iter__(self):
        rng = random.Random(1)
        iterators = [iter(source.repeat()) for source in self.sources]
        while True:
            yield next(iterators[rng.choices(range(len(iterators)), self.rates)[0]])


class Unprepared(wds.DataPipeline):
    """Never calls the constructor of its base."""

    def __init__(self, urls):
        self.urls = urls

    def __iter__(self):
        return iter(wds.SimpleShardList(self.urls))


def test_mixtures(urls, load, workers):
    """Pipelines inside a data set of the program, and a pipeline class that never calls our constructor."""
    first = wds.WebDataset(urls[:2], shardshuffle=False)
    second = wds.WebDataset(urls[2:], shardshuffle=False)
    own = wds.DataPipeline(Mixed([first, second], [3, 1]), wds.slice(30), wds.to_tuple("__key__"))
    found = {key for (key,) in load(own)}
    assert found & set(KEYS[:10])
    assert found & set(KEYS[10:])
    assert SHARDS * max(workers, 1) == len(load(Unprepared(urls)))


def test_random_mixtures(urls, load):
    """RandomMix is a stage like others, also in a data set that skips the constructor of WebDataset."""
    mix = wds.RandomMix([wds.WebDataset([url], shardshuffle=False) for url in urls[:2]], [1, 1], longest=True)
    assert KEYS[:10] == keys(load(wds.DataPipeline(mix, wds.map(dict)), num_workers=0))
    mixed = wds.WebDataset.__new__(wds.WebDataset)
    super(wds.WebDataset, mixed).__init__()
    sources = [wds.WebDataset(half, shardshuffle=False) for half in (urls[:2], urls[2:])]
    mixed.append(wds.RandomMix(sources, np.array([0.5, 0.5]), longest=True))
    assert KEYS == keys(load(mixed.map(dict), num_workers=0))


class LoaderWithLength(wds.WebLoader):
    """A length where the data set has one, as programs ask: by `__len__`."""

    def __init__(self, dataset, batch_size=1, **kwargs):
        super().__init__(dataset, batch_size=None, **kwargs)
        self.dataset = dataset
        if hasattr(dataset, "__len__"):
            self.length = (len(dataset) + batch_size - 1) // batch_size

    def __len__(self):
        return self.length


class WithLength(wds.WebDataset):
    def with_len(self, length):
        self.length = length
        return self

    def __len__(self):
        return self.length


def test_lengths(urls, workers):
    """`hasattr(ds, "__len__")` says whether there is a length; subclasses have their own."""
    ds = wds.WebDataset(urls, shardshuffle=False)
    assert not hasattr(ds, "__len__")
    assert -1 == LoaderWithLength(ds).length
    with pytest.raises(TypeError):
        len(ds)
    assert SHARDS * SAMPLES == len(list(ds))
    sized = ds.batched(4).with_length(5)
    loader = LoaderWithLength(sized, batch_size=2, num_workers=workers)
    assert (5, 3) == (len(sized), len(loader))
    assert SHARDS * SAMPLES == sum(len(batch) if isinstance(batch, list) else len(batch["cls"]) for batch in loader)
    assert 20 == len(WithLength(urls, shardshuffle=False).with_len(20).map(dict))
    assert 20 == len(DataLoader(WithLength(urls, shardshuffle=False).with_len(20), batch_size=None))


def seeded(number, seed):
    return number * 1000 + seed


class ConfiguredShards(wds.ResampledShards):
    """Draws seeded by the program's own number of the reader."""

    def __init__(self, urls, seed, nshards, deterministic=True):
        super().__init__(urls, nshards=nshards, worker_seed=partial(seeded, 7, seed), deterministic=deterministic)


class WeightedShards(wds.SimpleShardList):
    def __init__(self, urls, weights, nshards):
        super().__init__(urls)
        self.weights, self.nshards = weights, nshards

    def __iter__(self):
        for url in random.Random(5).choices(self.urls, self.weights, k=self.nshards):
            yield {"url": url}


class Distributed(wds.DataPipeline):
    """A source, samples, a shuffle, and a generator function of the program that may be many stages in one."""

    def __init__(self, path, process_fn, seed, shuffle_buffer=10):
        super().__init__(
            ConfiguredShards(path, seed, nshards=6), wds.tarfile_to_samples(), wds.shuffle(shuffle_buffer), process_fn
        )


def texts_of(samples, suffix):
    for sample in samples:
        yield {"text": sample["txt"].decode() + suffix, "key": sample["__key__"]}


def test_shard_lists_of_the_program(urls, load, workers):
    """Subclasses of ResampledShards and SimpleShardList; a partial generator function as the last stage."""
    items = load(Distributed(urls, partial(texts_of, suffix="!"), seed=3))
    assert 6 * SAMPLES * max(workers, 1) == len(items)
    assert all(item["text"] == f"text {int(item['key'])}!" for item in items)
    draws = [shard["url"] for shard in ConfiguredShards(urls, 3, 8)]
    assert draws == [shard["url"] for shard in ConfiguredShards(urls, 3, 8)]
    weighted = wds.DataPipeline(WeightedShards(urls, [0, 1, 1, 0], 6), wds.tarfile_to_samples())
    assert set(keys(load(weighted))) <= set(KEYS[5:15])


class Timed:
    """A stage of the program that happens to have a method `start`, and attributes named as ours."""

    def __init__(self):
        self.started = self.epoch = self.reader = None

    def start(self):
        self.started = True

    def __call__(self, src):
        self.start()
        return iter(src)


def test_stages_may_have_methods_of_any_name(urls, load):
    """The pipeline asks nothing of a stage of the program but that it can be called."""
    ds = wds.DataPipeline(wds.SimpleShardList(urls), wds.split_by_worker, Timed(), wds.tarfile_to_samples(), Timed())
    assert KEYS == keys(load(ds))
