"""What all commands have in common: help that shows an example, and errors of one line."""

from __future__ import annotations

import subprocess
import sys

import pytest

COMMANDS = {
    "webdataset.bench": ["none.tar"],
    "webdataset.downloader": ["pipe:false", "--directory", "shards", "--errors", "raise"],
    "wids.wids_bench": ["wds", "none.tar"],
    "wids.wids_index": ["info", "none.json"],
}
"""Module of each command, and arguments with which it fails."""


def run(module, *arguments, folder):
    return subprocess.run([sys.executable, "-m", module, *arguments], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("module", COMMANDS)
def test_help_shows_how_it_is_called(module, tmp_path):
    """`--help` ends well, names the program as it is called, and gives an example."""
    done = run(module, "--help", folder=tmp_path)
    assert done.returncode == 0
    program = "widsindex" if module == "wids.wids_index" else f"python -m {module}"
    usage, _, example = done.stdout.partition("example")
    assert usage.startswith(f"usage: {program} ")
    assert program in example


@pytest.mark.parametrize("module", COMMANDS)
def test_errors_are_one_line(module, tmp_path):
    """What cannot be read ends a command with status 1 and a line that begins with its name, without a traceback."""
    done = run(module, *COMMANDS[module], folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "widsindex" if module == "wids.wids_index" else f"python -m {module}: "
    )
    assert "Traceback" not in done.stderr
