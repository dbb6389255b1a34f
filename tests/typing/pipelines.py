"""Pipelines, own stages, handlers and loaders as programs write them: every line must type-check."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, assert_type

from torch.utils.data import DataLoader, IterableDataset

import webdataset as wds


@wds.pipelinefilter
def every(data: Iterable[Any], n: int, offset: int = 0) -> Iterator[Any]:
    """A curried stage."""
    for i, sample in enumerate(data):
        if i % n == offset:
            yield sample


class Counting(wds.PipelineStage):
    """A stage with state."""

    def __init__(self) -> None:
        self.count = 0

    def run(self, src: Iterable[Any]) -> Iterator[Any]:
        for sample in src:
            self.count += 1
            yield sample


class Numbering(wds.PipelineStage):
    """A stage whose author wants an iterator, and names it otherwise."""

    def run(self, source: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for i, sample in enumerate(source):
            yield {**sample, "number": i}


def plain(src: Iterable[Any]) -> Iterator[Any]:
    """A plain stage."""
    yield from src


def skip_value_errors(exn: Exception) -> bool:
    """A handler."""
    return isinstance(exn, ValueError)


dataset = wds.DataPipeline(
    wds.SimpleShardList("train-{0..9}.tar", seed=5),
    wds.split_by_node,
    wds.split_by_worker,
    wds.tarfile_to_samples(handler=skip_value_errors),
    every(2, offset=1),
    Counting(),
    Numbering(),
    plain,
    wds.shuffle(100, initial=10),
    wds.decode("rgb", handler=wds.ignore_and_continue),
    wds.map(lambda sample: sample),
    wds.to_tuple("jpg;png", "cls"),
    wds.batched(16, partial=False),
)
assert_type(dataset.with_epoch(100), wds.DataPipeline)
assert_type(dataset.compose(Counting()), wds.DataPipeline)
wds.DataPipeline(lambda: iter([1, 2, 3]), [wds.slice(2), wds.info()])
wds.DataPipeline(dataset, None, wds.detshuffle(10))

loader: DataLoader[Any] = DataLoader(dataset, batch_size=None, num_workers=4)
also: IterableDataset[Any] = wds.WebDataset("train.tar")
webloader = wds.WebLoader(wds.WebDataset("train.tar").batched(16), batch_size=None, num_workers=4)
assert_type(webloader.unbatched().shuffle(1000).batched(32).with_epoch(100), wds.WebLoader)
wrapped = wds.FluidWrapper([{"__key__": "a"}]).map(lambda sample: sample["__key__"])
for key in wrapped:
    print(key)

try:
    next(iter(dataset))
except wds.DecodingError as error:
    place: tuple[str | None, str | None, int | None] = (error.url, error.field, error.offset)
except wds.WebDatasetError:
    pass


class OwnHandler:
    """A handler with state."""

    def __call__(self, exn: Exception) -> bool:
        return True


class Reader(wds.FluidInterface, wds.DataPipeline):
    """A data set of one's own."""

    def __init__(self, urls: list[str]) -> None:
        super().__init__(wds.ResampledShards(urls, deterministic=True), wds.tarfile_to_samples(handler=OwnHandler()))


assert_type(Reader(["a.tar"]).decode().batched(3), Reader)
