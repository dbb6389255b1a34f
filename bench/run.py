"""The published package against this project, on the same files, in the same run.

    make bench                                  # everything; writes bench/RESULTS.md
    make bench BENCH="--only ustar --runs 3"    # a quick look at one row; writes nothing

Each measurement is a fresh process with one thread of Python; the two sides take turns, A B A B,
and the median of each side counts. Before that, each side reads or writes everything once, which
warms the page cache and proves, by a digest, that both deliver the same.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from remote import places

HERE = Path(__file__).parent
Numbers = dict[str, Any]


class Cells(NamedTuple):
    """What a row shows."""

    published: str
    ours: str
    result: str
    reached: bool | None


class Row(NamedTuple):
    """One line of the table: `measure` takes the bench, the row, and gives its cells."""

    name: str
    title: str
    floor: str
    measure: Callable[[Bench, Row], Cells]
    work: tuple[str, str]
    limit: float = 0
    peer: str = "published"


class Bench(NamedTuple):
    """The interpreters of both sides, how often each is asked, and where the remote rows read."""

    published: str
    wids: str
    runs: int
    places: dict[str, str]
    ours: str = sys.executable

    def once(self, python: str, work: tuple[str, str], *options: str) -> Numbers:
        """One measurement in a fresh process, without the user's own settings."""
        work = (work[0], work[1].format(**self.places))
        env = {name: value for name, value in os.environ.items() if not name.startswith(("WDS_", "GOPEN_", "PYTHON"))}
        command = [python, str(HERE / "work.py"), *work, *options]
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(work)} failed, see above: {python}")
        return json.loads(done.stdout)

    def both(self, work: tuple[str, str], *, check: bool = True) -> tuple[list[Numbers], list[Numbers]]:
        """Measurements of the published package and of this project, taken in turns."""
        if check:
            first, second = (self.once(python, work, "--check") for python in (self.published, self.ours))
            if first.get("digest") != second.get("digest"):
                raise SystemExit(f"{work}: the two packages do not deliver the same")
        published, ours = [], []
        for _ in range(self.runs):
            published.append(self.once(self.published, work))
            ours.append(self.once(self.ours, work))
        return published, ours


def _middle(numbers: list[Numbers], field: str = "seconds") -> float:
    return median(n[field] for n in numbers)


def _rates(numbers: list[Numbers]) -> str:
    rates = sorted(n["samples"] / n["seconds"] for n in numbers)
    return f"{median(rates):,.0f}/s ({rates[0]:,.0f} to {rates[-1]:,.0f})"


def ratio(bench: Bench, row: Row) -> Cells:
    """Samples a second, and how many times as many."""
    published, ours = bench.both(row.work)
    times = _middle(published) / _middle(ours)
    return Cells(_rates(published), _rates(ours), f"{times:.1f}x", times >= row.limit)


def added(bench: Bench, row: Row) -> Cells:
    """Microseconds that the work adds to plain reading of the same set, a sample."""
    costs = [_middle(side) / side[0]["samples"] * 1e6 for side in bench.both(row.work)]
    return Cells(f"{costs[0]:.2f} µs", f"{costs[1]:.2f} µs", f"{costs[0] / costs[1]:.1f}x", costs[1] < row.limit)


def imports(bench: Bench, row: Row) -> Cells:
    """Milliseconds of the import, and whether it brings torch."""
    published, ours = bench.both(row.work)
    cells = [
        f"{_middle(side) * 1e3:,.0f} ms, {'imports' if side[0]['torch'] else 'no'} torch" for side in (published, ours)
    ]
    reached = _middle(ours) * 1e3 < row.limit and not ours[0]["torch"]
    return Cells(*cells, f"{_middle(published) / _middle(ours):.0f}x", reached)


def million(bench: Bench, row: Row) -> Cells:
    """Seconds to the first sample, and peak memory."""
    published, ours = bench.both(row.work)
    cells = [f"{_middle(side):.2f} s, {_middle(side, 'peak') / 1e6:,.0f} MB" for side in (published, ours)]
    reached = _middle(ours) < row.limit and _middle(ours, "peak") < 200e6
    return Cells(*cells, f"{_middle(published) / _middle(ours):.1f}x", reached)


def loose(bench: Bench, row: Row) -> Cells:
    """Loose files against shards, both read by this project's interpreter."""
    files, shards = [], []
    for _ in range(bench.runs):
        files.append(bench.once(bench.ours, ("loose", "")))
        shards.append(bench.once(bench.ours, ("packed", "")))
    if files[0]["bytes"] != shards[0]["bytes"]:
        raise SystemExit("the loose files and the shards do not hold the same")
    kept = max(n["cached"] for n in files + shards)
    cells = [f"{name} {_rates(side)}" for name, side in (("loose files", files), ("shards", shards))]
    return Cells(*cells, f"{_middle(files) / _middle(shards):.1f}x; {kept:.0%} of the pages stayed cached", None)


def against_curl(bench: Bench, row: Row) -> Cells:
    """Our reading against the curl command that throws the same shards away."""
    theirs, ours = [], []
    for _ in range(bench.runs):
        theirs.append(bench.once(bench.ours, ("curl", row.work[1])))
        ours.append(bench.once(bench.ours, row.work))
    times = _middle(theirs) / _middle(ours)
    return Cells(f"curl {_rates(theirs)}", _rates(ours), f"{times:.2f}x", times >= row.limit)


def soon(bench: Bench, row: Row) -> Cells:
    """Seconds to the first sample."""
    published, ours = bench.both(row.work)
    cells = [f"{_middle(side):.2f} s" for side in (published, ours)]
    return Cells(*cells, f"{_middle(published) / _middle(ours):.1f}x", _middle(ours) < row.limit)


def through_cache(bench: Bench, row: Row) -> Cells:
    """The set through a filled cache, against the same files where they lie; both by this project."""
    return _more(bench, row, ("read", "jpg"), ("plain files", "cache"))


def with_index(bench: Bench, row: Row) -> Cells:
    """The set written with its index, against without; both by this project."""
    return _more(bench, row, ("write", row.work[1]), ("without", "with"))


def _more(bench: Bench, row: Row, plain: tuple[str, str], names: tuple[str, str]) -> Cells:
    first, second = (bench.once(bench.ours, work, "--check") for work in (plain, row.work))
    if first["digest"] != second["digest"]:
        raise SystemExit(f"{plain} and {row.work} do not deliver the same")
    without, with_it = [], []
    for _ in range(bench.runs):
        without.append(bench.once(bench.ours, plain))
        with_it.append(bench.once(bench.ours, row.work))
    more = _middle(with_it) / _middle(without) - 1
    rates = [f"{name} {_rates(numbers)}" for name, numbers in zip(names, (without, with_it), strict=True)]
    return Cells(*rates, f"{more:+.1%} time", more <= row.limit)


def opening(bench: Bench, row: Row) -> Cells:
    """Seconds to open shards; the published side has no other way than the first one."""
    published, ours = [], []
    for _ in range(bench.runs):
        published.append(bench.once(bench.published, ("opened", "ustar")))
        ours.append(bench.once(bench.ours, row.work))
    if published[0]["digest"] != ours[0]["digest"]:
        raise SystemExit(f"{row.work}: the two packages do not deliver the same")
    times = _middle(published) / _middle(ours)
    return Cells(_seconds(published), _seconds(ours), f"{times:.1f}x", times >= row.limit)


def at_once(bench: Bench, row: Row) -> Cells:
    """Many samples at once against the same ones by one, both by this project."""
    seen = [bench.once(bench.ours, row.work) for _ in range(bench.runs)]
    times = _middle(seen, "single") / _middle(seen)
    return Cells(f"one by one {_seconds(seen, 'single')}", _seconds(seen), f"{times:.1f}x", times >= row.limit)


def sent(bench: Bench, row: Row) -> Cells:
    """Bytes that a server sent for one sample."""
    seen = bench.once(bench.ours, row.work)
    more = seen["sent"] - seen["bytes"]
    ours = f"{seen['sent']:,} bytes in {seen['requests']} answers"
    return Cells("the whole shard", ours, f"the sample's {seen['bytes']:,} + {more:,}", more < row.limit)


def long_list(bench: Bench, row: Row) -> Cells:
    """Seconds to the first sample, and memory beyond what the imports take."""
    published, ours = bench.both(row.work)
    grown = [max(n["peak"] - n["before"] for n in side) for side in (published, ours)]
    cells = [
        f"{_middle(side):.2f} s, {more / 1e6:,.0f} MB" for side, more in zip((published, ours), grown, strict=True)
    ]
    reached = _middle(ours) < row.limit and grown[1] < 300e6
    return Cells(*cells, f"{_middle(published) / _middle(ours):.1f}x", reached)


def against_npy(bench: Bench, row: Row) -> Cells:
    """Microseconds to have arrays of four sizes, by numpy and by tenbin, both in this project's interpreter."""
    theirs, ours = [], []
    for _ in range(bench.runs):
        theirs.append(bench.once(bench.ours, ("tensors", f"npy {row.work[1]}"))["times"])
        ours.append(bench.once(bench.ours, ("tensors", f"ten {row.work[1]}"))["times"])
    middles = [[median(times) for times in zip(*side, strict=True)] for side in (theirs, ours)]
    times = min(npy / ten for npy, ten in zip(*middles, strict=True))
    cells = [", ".join(f"{time:,.0f}" for time in side) + " µs" for side in middles]
    return Cells(f"npy {cells[0]}", f"tenbin {cells[1]}", f"{times:.2f}x at worst", times >= row.limit)


def _seconds(numbers: list[Numbers], field: str = "seconds") -> str:
    seconds = sorted(n[field] for n in numbers)
    return f"{median(seconds):.3f} s ({seconds[0]:.3f} to {seconds[-1]:.3f})"


def flat(bench: Bench, row: Row) -> Cells:
    """Memory and open files of this project after the second and the eighth epoch."""
    seen = bench.once(bench.ours, row.work)
    memory, files = seen["memory"], seen["files"]
    growth = (memory[7] - memory[1]) / 1e6
    cell = f"{memory[1] / 1e6:.0f} and {memory[7] / 1e6:.0f} MB, {files[1]} and {files[7]} open files"
    return Cells("", cell, f"{growth:+.1f} MB", growth < row.limit and files[7] == files[1])


ROWS = [
    Row("ustar", "200,000 samples of cls + 200-byte txt, 10 ustar shards", "20x", ratio, ("read", "ustar"), 20),
    Row("pax", "the same, as the published ShardWriter makes them", "15x", ratio, ("read", "pax"), 15),
    Row("npy", "50,000 samples of one 8 KiB npy, raw", "9x", ratio, ("read", "npy"), 9),
    Row("arrays", "the same, decoded to arrays", "15x", ratio, ("decode", "npy"), 15),
    Row("jpg", "4,000 samples of jpg (110 KB) + json + cls", "5x", ratio, ("read", "jpg"), 5),
    Row("big", "64 samples of 16 MiB", "5x", ratio, ("read", "big"), 5),
    Row("write", "writing the first set", "20x", ratio, ("write", "ustar"), 20),
    Row("write-jpg", "writing the jpg + json + cls set", "5x", ratio, ("write", "jpg"), 5),
    Row("write-index", "the first set written with index=True", "+5% time", with_index, ("indexed", "ustar"), 0.05),
    Row("shuffle", "`.shuffle(10000)` added to the first set, a sample", "under 1 µs", added, ("shuffle", "ustar"), 1),
    Row("import", "`import webdataset` beyond numpy", "under 60 ms, no torch", imports, ("imports", ""), 60),
    Row("million", "brace list of 1,000,000 shards: first sample", "under 1 s, 200 MB", million, ("million", ""), 1),
    Row("loose", "the jpg files loose and shuffled, against shards, page cache dropped", "shown", loose, ("loose", "")),
    Row("http-jpg", "the images from nginx", "4.5x", ratio, ("remote", "{near}/jpg"), 4.5),
    Row("http-ustar", "the first set from nginx", "9x", ratio, ("remote", "{near}/ustar"), 9),
    Row("curl", "the images from nginx, against curl to a sink", "1.2x", against_curl, ("remote", "{near}/jpg"), 1.2),
    Row("far", "the images, 20 ms away, 50 MB/s a connection", "5x", ratio, ("remote", "{far}/jpg"), 5),
    Row("s3", "the images from S3, against `pipe:aws s3 cp`", "12x", ratio, ("remote", "{s3}/jpg"), 12),
    Row("soon", "first image from a server of 200 KB/s", "under 1 s", soon, ("first", "{slow}/jpg"), 1),
    Row("cached", "the images through a filled cache", "+5% time", through_cache, ("cached", "{near}/jpg"), 0.05),
    Row("flat", "memory and open files after epochs 2 and 8", "flat", flat, ("epochs", "ustar"), 8),
    Row("tenbin", "an array of 1 KiB, 32 KiB, 1 MiB, 16 MiB from bytes", "1x", against_npy, ("tensors", "bytes"), 1),
    Row("tenbin-file", "the same from files, ±5 %", "1x", against_npy, ("tensors", "file"), 0.95),
    Row(
        "index",
        "open 10 local shards of 20,000 small samples, no index cached",
        "2x",
        opening,
        ("opened", "ustar"),
        2,
        "wids",
    ),
    Row("reopen", "the same with cached indexes", "50x", opening, ("reopened", "ustar"), 50, "wids"),
    Row(
        "sidecar",
        "the same with indexes of Megatron-Energon beside them",
        "50x",
        opening,
        ("opened", "sidecar"),
        50,
        "wids",
    ),
    Row("number", "their `ds[i]` at random, decoded, all open", "4x", ratio, ("numbered", "ustar"), 4, "wids"),
    Row("number-jpg", "the same over the images", "1x", ratio, ("numbered", "jpg"), 1, "wids"),
    Row(
        "together",
        "256 small samples from a server 20 ms away, `IndexedDataset.__getitems__` against `ds[i]`",
        "10x",
        at_once,
        ("together", "{far}/sidecar"),
        10,
        "wids",
    ),
    Row(
        "sent",
        "bytes from a server for one image's sample, `IndexedDataset`, index cached",
        "+4 KB",
        sent,
        ("one", "{counted}/jpg {sent}"),
        4096,
        "wids",
    ),
    Row("records", "200,000 CBOR records of cls + 200-byte txt, a file", "5x", ratio, ("records", "small"), 5, "wids"),
    Row("records-pipe", "the same through `pipe:cat`", "5x", ratio, ("piped", "small"), 5, "wids"),
    Row("records-mp", "the same as MsgPack, against CBOR", "5x", ratio, ("packed_records", "small"), 5, "wids"),
    Row("records-jpg", "1,000 CBOR records of jpg (110 KB) + json + cls", "5x", ratio, ("records", "jpg"), 5, "wids"),
    Row("records-jpg-pipe", "the same through `pipe:cat`", "5x", ratio, ("piped", "jpg"), 5, "wids"),
    Row(
        "billion",
        "a JSON of 100,000 shards with 10^9 samples: `len` and one `ds[i]`",
        "under 2 s, 300 MB",
        long_list,
        ("billion", ""),
        2,
        "wids",
    ),
]
REMOTE = {"http-jpg", "http-ustar", "curl", "far", "s3", "soon", "cached", "together", "sent"}
SETS = ("ustar", "npy", "loose", "jpg", "big", "million", "sidecar", "records", "billion")
PEERS = {"published": "webdataset 1.0.2", "wids": "webdataset 0.2.100"}
"""Against which package a row measures; each has a table of its own."""


def facts(bench: Bench) -> list[str]:
    """What the machine is, without saying which one."""
    cpu = platform.processor() or platform.machine()
    for line in _lines("/proc/cpuinfo"):
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    memory = next((int(line.split()[1]) / 2**20 for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    code = (
        "import importlib.metadata as m;"
        "print(', '.join(f'{n} {m.version(n)}' for n in ('webdataset', 'numpy', 'torch', 'pillow')))"
    )
    versions = [
        subprocess.run([python, "-c", code], stdout=subprocess.PIPE, check=True, text=True).stdout.strip()
        for python in (bench.published, bench.wids, bench.ours)
    ]
    return [
        f"- {cpu}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}",
        f"- Python {platform.python_version()}; published: {versions[0]}; with wids: {versions[1]}; this project:"
        f" {versions[2]}",
        f"- medians of {bench.runs} runs a side, in turns; in brackets the slowest and the fastest run",
    ]


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def main() -> None:
    """Figures beside floors; a floor that is missed is said, and is no failure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--published", required=True, help="the interpreter that has the published package")
    parser.add_argument("--wids", required=True, help="the interpreter that has the published wids")
    rows = [row.name for row in ROWS]
    parser.add_argument("--only", nargs="+", choices=rows, metavar="ROW", help=f"measure these rows: {', '.join(rows)}")
    parser.add_argument("--runs", type=int, default=5, help="runs a side (%(default)s)")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md, if all rows have five runs")
    args = parser.parse_args()

    print("making the files that are missing", flush=True)
    subprocess.run([sys.executable, str(HERE / "data.py"), *SETS], check=True)
    subprocess.run([args.published, str(HERE / "data.py"), "pax"], check=True)

    with places() if REMOTE & set(args.only or REMOTE) else contextlib.nullcontext({}) as found:
        measure(args, Bench(args.published, args.wids, args.runs, found))


def measure(args: argparse.Namespace, bench: Bench) -> None:
    """Measure the rows and show the tables."""
    table: list[str] = []
    missed = []
    for peer, title in PEERS.items():
        rows = [row for row in ROWS if row.peer == peer and (not args.only or row.name in args.only)]
        if rows:
            table += ["", f"| work | at least | {title} | this project | result |", "|---|---|---|---|---|"]
        for row in rows:
            cells = row.measure(bench._replace(published=getattr(bench, peer)), row)
            result = cells.result + (", below the floor" if cells.reached is False else "")
            table.append(f"| {row.title} | {row.floor} | {cells.published} | {cells.ours} | {result} |")
            print(table[-1], flush=True)
            if cells.reached is False:
                missed.append(row.name)

    if args.write and not args.only and args.runs >= 5:
        text = ["# Speed", "", "Made by `make bench`; what is measured, and how, is in README.md.", "", *facts(bench)]
        (HERE / "RESULTS.md").write_text("\n".join([*text, *table, ""]), encoding="utf-8")
    print(f"below the floor: {', '.join(missed)}" if missed else "every floor is reached")


if __name__ == "__main__":
    main()
