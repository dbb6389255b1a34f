"""Reading as programs write it: every line must type-check."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

import webdataset as wds
from webdataset.shardlists import expand_urls

urls: list[str] = expand_urls("train-{000..099}.tar")
dataset = wds.WebDataset(
    "train-{000..099}.tar::more/*.tar",
    handler=wds.warn_and_continue,
    shardshuffle=100,
    nodesplitter=wds.split_by_node,
    workersplitter=None,
    select_files=lambda name: name.endswith(".jpg"),
    seed="random",
    require=("jpg;png", "cls"),
    on_missing="skip",
    keys="last-dot",
)
wds.WebDataset(urls, seed=3)
wds.WebDataset(Path("train.tar"))
wds.WebDataset((Path("a.tar"), "b.tar"), keys=lambda name: (name, "txt"))
wds.WebDataset({"datasets": [{"name": "books", "shards": "books-{0..9}.tar"}]})

chained = (
    dataset.shuffle(1000, initial=100, seed=3, max_bytes=1e9)
    .decode("rgb", wds.torch_audio, wds.handle_extension("csv", bytes.split), only="jpg cls", handler=wds.ErrorPolicy())
    .rename(image="jpg;png", keep=False)
    .map_dict(image=lambda image: image.sum())
    .select(lambda sample: sample["cls"] > 0)
    .to_tuple("image", ["cls", "label"], missing_is_error=False)
    .map_tuple(None, int)
    .batched(16, partial=False)
    .slice(10)
)
assert_type(chained, wds.WebDataset)
assert_type(chained.with_epoch(10).with_length(10).repeat(2), wds.WebDataset)
assert_type(len(chained), int)
for images, labels in chained:
    print(images.shape, labels)

with wds.WebDataset("train.tar").decode() as opened:
    for sample in opened:
        key: str = sample["__key__"]

mixed = wds.RandomMix([dataset, wds.WebDataset("b.tar")], probs=[0.9, 0.1], longest=True)
rounds = wds.RoundRobin([dataset, mixed])
first: Any = next(iter(rounds))


def only_red(stream: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """An own stage, as annotated by its author."""
    for sample in stream:
        if sample["colour"] == "red":
            yield sample


own = dataset.compose(only_red, wds.shuffle(10))
own.append(wds.batched(10))
own.pipeline[0] = wds.SimpleShardList(urls)

with wds.gopen("train.tar") as stream:
    head: bytes = stream.read(512)

batch = wds.filters.default_collation_fn([(1, "a"), (2, "b")])
assert_type(batch, list[Any])
assert_type(wds.filters.default_collation_fn([{"x": 1}]), dict[str, Any])
decoder = wds.Decoder([wds.imagehandler("rgb8")], only=["jpg"])
decoded: dict[str, Any] = decoder({"__key__": "a", "jpg": b""})

classic = wds.Dataset(urls, length=10, opener="cat", prepare_for_worker=False).shuffle(10).decode("rgb").pipe(only_red)
assert_type(classic.to_tuple("jpg;png", "cls").map_tuple(str, None).batched(4), wds.Dataset)
assert_type(len(classic), int)
assert_type(wds.imagehandler("rgb"), wds.autodecode.ImageHandler)
pixels = wds.imagehandler(b"...", "rgb8")
