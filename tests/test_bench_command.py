"""`python -m webdataset.bench`: reads a data set and says how fast."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

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


def test_the_counter():
    """It counts samples and the bytes of their fields."""
    counter = bench.TotalSize()
    assert counter({"x": b"123", "cls": 4}) == {"x": b"123", "cls": 4}
    assert (counter.count, counter.total) == (1, 3)
