"""`python -m webdataset.bench`: reads a data set and says how fast."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import webdataset as wds
from helpers import write_shards
from webdataset import bench

LINE = r"(\d+) samples in \d+\.\d{3} s: \d+\.\d samples/s, \d+\.\d MB/s\n"


@pytest.mark.parametrize(
    ("options", "count"), [([], 30), (["--samples", "7"], 7), (["--decode", "pil", "--threads", "3"], 30)]
)
def test_the_line(tmp_path, capsys, options, count):
    """It counts all samples, or as many as were asked for, also decoded, in threads."""
    urls = write_shards(tmp_path, 3, 10)
    bench.main([*urls, *options])
    assert int(re.fullmatch(LINE, capsys.readouterr().out)[1]) == count


def test_the_command(tmp_path):
    """It runs as a module, with processes of its own, on a pattern; a missing shard is an error."""
    write_shards(tmp_path, 3, 10)
    command = [sys.executable, "-W", "error", "-m", "webdataset.bench", "--workers", "2"]
    pattern = str(tmp_path / "shard-{0000..0002}.tar")
    done = subprocess.run([*command, pattern], capture_output=True, text=True, check=True)
    assert int(re.fullmatch(LINE, done.stdout)[1]) == 30
    wrong = subprocess.run([*command, str(tmp_path / "absent.tar")], capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert re.match(r"python -m webdataset\.bench: .*absent\.tar: no such file", wrong.stderr.splitlines()[-1])


def test_records_were_no_archives(tmp_path, capsys):
    """Streams of records are measured as `WebDataset` reads them, decoded too."""
    for number in range(2):
        with wds.RecordWriter(str(tmp_path / f"{number}.mp")) as sink:
            sink.write({"__key__": "a", "cls": 1, "txt": "text"})
    bench.main([str(tmp_path / "{0..1}.mp"), "--decode", "pil"])
    assert int(re.fullmatch(LINE, capsys.readouterr().out)[1]) == 2


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("webdataset.bench", ["{}"]),
        ("webdataset.bench", ["{}", "--threads", "2"]),
        ("wids.wids_index", ["create", "-o", "index.json", "{}"]),
        ("wids.wids_bench", ["wds", "{}"]),
    ],
)
def test_ctrl_c_showed_a_traceback(tmp_path, module, arguments):
    """A command that is interrupted while it reads ends with status 130, and says nothing."""
    url = "pipe:sleep 1; kill -INT $PPID; exec sleep 1000"  # whoever starts it is waiting for it by then
    command = [sys.executable, "-W", "error", "-m", module, *(text.replace("{}", url) for text in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=100)
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("webdataset.bench", ["a.tar", "--decode", "rbg"], "python -m webdataset.bench: Unknown imagespec: 'rbg'"),
        (
            "webdataset.bench",
            ["a.tar", "--samples", "-1"],
            "python -m webdataset.bench: bench: samples must be a number",
        ),
        (
            "webdataset.downloader",
            ["a.tar", "--directory", "d", "--nshards", "-1"],
            "python -m webdataset.downloader: RandomShardDownloader: nshards must be a number of shards, 0 or more",
        ),
        (
            "webdataset.downloader",
            ["a.tar", "--directory", "d", "--poll", "-1"],
            "python -m webdataset.downloader: random_downloader: poll must be a number of seconds, 0 or more",
        ),
        (
            "webdataset.downloader",
            ["a.tar", "--directory", "d", "--command", "cp {url} {target}"],
            "python -m webdataset.downloader: command may have {url} and {output} in braces",
        ),
        (
            "webdataset.downloader",
            ["a.tar", "--directory", "d", "--command", "true", "--errors", "raise"],
            "python -m webdataset.downloader: true: the command left no file d/a.tar.",
        ),
        ("wids.wids_bench", ["wids", "a.json"], "python -m wids.wids_bench: a.json: no such file"),
        ("wids.wids_bench", ["wds", "a.tar"], "python -m wids.wids_bench: a.tar: no such file"),
    ],
)
def test_a_mistake_showed_a_traceback(tmp_path, module, arguments, message):
    """What a user can mend is one line, and status 1."""
    command = [sys.executable, "-W", "error", "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_the_counter():
    """It counts samples and the bytes of their fields."""
    counter = bench.TotalSize()
    assert counter({"x": b"123", "cls": 4}) == {"x": b"123", "cls": 4}
    assert (counter.count, counter.total) == (1, 3)
