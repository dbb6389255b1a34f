"""The wheel, the source archive and a git url, each installed into an environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import write_shards

ROOT = Path(__file__).parent.parent

LOOK = """
import importlib, importlib.metadata, json, pkgutil, sys
import webdataset, wids
for package in (webdataset, wids):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
distribution = importlib.metadata.distribution("webdataset")
files = [path for path in distribution.files if path.parts[0] in ("webdataset", "wids") and path.suffix != ".pyc"]
texts = [sample["txt"] for sample in webdataset.WebDataset(sys.argv[1:], shardshuffle=False).decode()]
print(json.dumps({
    "files": sorted(path.as_posix() for path in files if path.locate().exists()),
    "home": webdataset.__file__,
    "requires": sorted(line for line in distribution.requires if "extra ==" not in line),
    "texts": texts,
    "versions": [distribution.version, webdataset.__version__],
}))
"""


def run(*command: object, cwd: Path) -> str:
    """Standard output of a program that must succeed; what it said otherwise is shown when it does not."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GIT_", "WDS_"))}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def make_wheel(source: Path, out: Path) -> str:
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", out, source, cwd=out)
    return str(next(out.glob("*.whl")))


def make_sdist(source: Path, out: Path) -> str:
    run(sys.executable, "-m", "build", "--sdist", "--outdir", out, source, cwd=out)
    return str(next(out.glob("*.tar.gz")))


def make_git_url(source: Path, out: Path) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    run("git", "init", "--quiet", source, cwd=out)
    run("git", "add", ".", cwd=source)
    run("git", *who, "commit", "--quiet", "--message", "all", cwd=source)
    return f"git+{source.as_uri()}"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("make", [make_wheel, make_sdist, make_git_url])
def test_an_installed_package_is_complete(make, tmp_path):
    """Every module is installed, imports with the three core dependencies alone, and reads a shard."""
    source = tmp_path / "source"
    junk = shutil.ignore_patterns("__pycache__", "*.egg-info", "data")
    for name in ("src", "tests", "examples", "bench", "docs"):
        shutil.copytree(ROOT / name, source / name, ignore=junk)
    for path in ROOT.glob("*.*"):
        if path.is_file() and path.name != ".git":  # in a worktree it is a file, and leads to the real repository
            shutil.copy(path, source)
    out = tmp_path / "out"
    out.mkdir()

    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    run(python, "-m", "pip", "install", make(source, out), cwd=out)
    run(python, "-m", "pip", "check", cwd=out)
    seen = json.loads(run(python, "-c", LOOK, *write_shards(out, 2, 3), cwd=out))

    modules = [path for path in (ROOT / "src").rglob("*") if path.name == "py.typed" or path.suffix == ".py"]
    assert seen["files"] == sorted(path.relative_to(ROOT / "src").as_posix() for path in modules)
    assert Path(seen["home"]).is_relative_to(tmp_path / "venv")
    assert [line.partition(">")[0] for line in seen["requires"]] == ["numpy", "pyyaml", "urllib3"]
    assert seen["texts"] == [f"text {number}" for number in range(6)]
    assert seen["versions"] == ["0.2.200", "0.2.200"]
