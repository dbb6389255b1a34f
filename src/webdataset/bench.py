"""Measuring how fast shards are read: `python -m webdataset.bench DATASET` prints samples and megabytes per second."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from itertools import islice
from typing import Any

from . import pipeline
from ._arguments import check_number
from ._commandline import in_one_line
from .fluid import WebDataset
from .multi import MultiLoader
from .shardlists import SimpleShardList, expand_urls
from .threaded import ThreadedLoader


class TotalSize:
    """Counts what it is called with.

    Attributes:
        count: samples.
        total: bytes in their fields.
    """

    def __init__(self) -> None:
        self.count = 0
        self.total = 0

    def __call__(self, sample: Any) -> Any:
        """Count a sample and return it."""
        self.count += 1
        self.total += sum(_size(value) for value in sample.values())
        return sample


def _size(value: Any) -> int:
    return len(value) if isinstance(value, (bytes, bytearray, str)) else int(getattr(value, "nbytes", 0))


def main(args: Sequence[str]) -> None:
    """Read a data set once and print one line: samples, seconds, samples per second, megabytes (10^6) per second.

    `args` are those of the command line, without the name of the program; `--help` explains them.
    """
    from argparse import ArgumentParser

    parser = ArgumentParser(
        prog="python -m webdataset.bench",
        description="Measure how fast shards are read.",
        epilog='example: python -m webdataset.bench "train-{000..009}.tar" --decode rgb8 --threads 4 --samples 10000',
    )
    parser.add_argument("dataset", nargs="+", help="shards: paths or urls, with {000..999}")
    parser.add_argument("--samples", type=int, help="stop after so many samples")
    parser.add_argument("--decode", metavar="SPEC", help="decode the fields; images as pil, rgb8, torchrgb, ...")
    parser.add_argument("--workers", type=int, default=0, help="processes of a MultiLoader; 0, the default, means none")
    parser.add_argument("--threads", type=int, default=0, help="threads of a ThreadedLoader, in each process; 0: none")
    options = parser.parse_args(list(args))
    with in_one_line(parser.prog):
        _measure(options)


def _measure(options: Any) -> None:
    check_number("bench", "samples", options.samples, "samples", least=1, optional=True)
    urls = [url for pattern in options.dataset for url in expand_urls(pattern)]
    dataset = WebDataset(urls, shardshuffle=False)
    if options.decode:
        dataset = dataset.decode(options.decode, partial=True)
    data: Any = ThreadedLoader(dataset, options.threads)
    if options.workers:
        data = MultiLoader(data, workers=options.workers)
    counter = TotalSize()
    start = time.perf_counter()
    for sample in islice(data, options.samples):
        counter(sample)
    seconds = max(time.perf_counter() - start, 1e-9)
    sys.stdout.write(
        f"{counter.count} samples in {seconds:.3f} s: {counter.count / seconds:.1f} samples/s,"
        f" {counter.total / seconds / 1e6:.1f} MB/s\n"
    )


if __name__ == "__main__":
    main(sys.argv[1:])

__all__ = ["SimpleShardList", "TotalSize", "main", "pipeline"]
