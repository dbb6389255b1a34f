"""A command that measures how fast samples come: `python -m wids.wids_bench wids|wds DATASET`.

`wids` reads a wids JSON by index, in the order of `ShardListSampler`; `wds` streams shards.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterable
from typing import Any

from webdataset._commandline import in_one_line


def _by_index(source: str) -> Iterable[Any]:
    from .dataset import ShardListDataset
    from .samplers import ShardListSampler

    dataset = ShardListDataset(source, transformations=[])
    return (dataset[index] for index in ShardListSampler(dataset))


def _streamed(source: str) -> Iterable[Any]:
    from webdataset import WebDataset

    return WebDataset(source, shardshuffle=False)


WAYS = {"wids": _by_index, "wds": _streamed}


def main(args: list[str] | None = None) -> None:
    """Print samples a second; errors end the program with status 1 and one line."""
    parser = argparse.ArgumentParser(
        "python -m wids.wids_bench",
        description="Measure how fast samples come.",
        epilog="example: python -m wids.wids_bench wids train.json -n 1000",
    )
    parser.add_argument("way", choices=WAYS, help="by number in the order of ShardListSampler, or as a stream")
    parser.add_argument("dataset", help="a wids JSON; for wds also shards")
    parser.add_argument("-n", "--samples", type=int, default=10000, help="so many samples at most")
    given = parser.parse_args(args)
    with in_one_line(parser.prog):
        samples = WAYS[given.way](given.dataset)
        begun = time.perf_counter()
        count = sum(1 for _ in itertools.islice(samples, given.samples))
        seconds = time.perf_counter() - begun
    sys.stdout.write(f"{count} samples in {seconds:.2f} s: {count / max(seconds, 1e-9):.0f} samples/s\n")


if __name__ == "__main__":
    main()


__all__ = ["main"]
