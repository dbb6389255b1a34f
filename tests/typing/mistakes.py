"""Mistakes in programs: both checkers must report each marked line, and no other."""

from __future__ import annotations

from collections.abc import Iterator

import webdataset as wds

dataset = wds.WebDataset("train.tar")

wds.WebDataset(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
wds.WebDataset("a.tar", shufle=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
wds.WebDataset("a.tar", shardshuffle="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
wds.WebDataset("a.tar", handler=True)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
dataset.shufle(10)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
dataset.shuffle("10")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
dataset.shuffle(10, intial=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
dataset.batched("16")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
dataset.map("f")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
dataset.map_dict(jpg=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
dataset.to_tuple(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
dataset.decode(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
dataset.rename(image=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
dataset.compose(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
wds.DataPipeline(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
wds.shuffle("10")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
wds.batched(16, partal=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
wds.TarWriter(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
wds.TarWriter("a.tar").write([1])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
wds.ShardWriter("a-%d.tar", post=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
wds.gopen("a.tar").write("text")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
wds.ErrorPolicy(max_fraction="1 %")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
wds.Decoder("rgb")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def no_handler(exn: str) -> bool:
    """Takes something else."""
    return True


def no_stage(n: int) -> int:
    """Gives something else."""
    return n


dataset.map(str, handler=no_handler)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
dataset.compose(no_stage)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@wds.pipelinefilter
def every(data: Iterator[int], n: int) -> Iterator[int]:
    """A curried stage."""
    yield from data


every("2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
every()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
