"""The tar programs that our archives are held against, and the published package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = {
    "gnu": ["tar"],
    "bsd": ["bsdtar"],
    "busybox": ["busybox", "tar"],
    "python": [sys.executable, "-m", "tarfile"],
}
INSTALL = "apt-get install -y tar libarchive-tools busybox"


def need(available: bool, what: str) -> None:
    """Skip the test where `what` is missing; in CI, where everything is to be installed, fail."""
    if available:
        return
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def run(command: list[str], **kw) -> bytes:
    """What a command prints; it must end well."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, capture_output=True, env=environment, check=False, **kw)
    assert done.returncode == 0, done.stderr
    return done.stdout


def list_with(tool: str, archive: Path) -> list[str]:
    """Names of the members, as a program lists them."""
    command = TOOLS[tool]
    need(shutil.which(command[0]) is not None, f"{command[0]} is not installed: {INSTALL}")
    literal = ["--quoting-style=literal"] if tool == "gnu" else []
    listing = [*command, "-l"] if tool == "python" else [*command, *literal, "-tf"]
    return [name.rstrip() for name in run([*listing, str(archive)]).decode().splitlines()]


def extract_with(tool: str, archive: Path, folder: Path) -> dict[str, bytes]:
    """Names and contents of the files that a program extracts."""
    command = TOOLS[tool]
    need(shutil.which(command[0]) is not None, f"{command[0]} is not installed: {INSTALL}")
    folder.mkdir()
    extraction = ["-e", str(archive)] if tool == "python" else ["-xf", str(archive)]
    run([*command, *extraction], cwd=folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


READ_WITH_PUBLISHED = """
import pickle, sys, warnings
warnings.simplefilter("ignore")
import webdataset
dataset = webdataset.WebDataset(sys.argv[1], shardshuffle=False)
samples = [{k: v for k, v in sample.items() if k not in ("__url__", "__local_path__")} for sample in dataset]
sys.stdout.buffer.write(pickle.dumps(samples))
"""


def published() -> str:
    """The interpreter that has the published package; call it with -I: a PYTHONPATH may lead to our own."""
    python = os.environ.get("WDS_PUBLISHED_PYTHON", "")
    need(os.path.exists(python), "WDS_PUBLISHED_PYTHON names no Python with the published package; `make test` sets it")
    return python


def samples_of_published(archive: Path) -> bytes:
    """The samples that the published package reads from an archive, without their places, as a pickle."""
    return run([published(), "-I", "-c", READ_WITH_PUBLISHED, str(archive)])
