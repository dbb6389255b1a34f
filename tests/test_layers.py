"""The house of docs/architecture.md: imports point downwards, files stay small, `import webdataset` stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src"
FILES = sorted(SOURCE.rglob("*.py"))

SECTION = re.compile(r"^\*\*\w.*?(?=^\*\*|^`src/wids/`|^## )", re.DOTALL | re.MULTILINE)
ROW = re.compile(r"^\| (`.*?`) \|", re.MULTILINE)
DRAWING = (SOURCE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")


def names_in(text: str) -> list[str]:
    """The files in the first column of the tables of a text."""
    return [name for row in ROW.findall(text) for name in re.findall("`(.*?)`", row)]


# Lowest section first. A folder lies in one section, under which its files are listed.
LEVEL = {
    name.split("/")[0].removesuffix(".py"): level
    for level, section in enumerate(SECTION.findall(DRAWING))
    for name in names_in(section)
} | {"__init__": 99}


def imported(path: Path) -> Iterator[str]:
    """Modules and packages directly under webdataset that a file imports, at its top or inside functions."""
    here = path.relative_to(SOURCE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level + 1] if node.level else ()
            start = [*above, *(node.module.split(".") if node.module else [])]
            names = [[*start, alias.name] for alias in node.names]
        else:
            continue
        yield from (name[1] for name in names if name[0] == "webdataset" and len(name) > 1)


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


@pytest.mark.parametrize("path", [p for p in FILES if p.is_relative_to(SOURCE / "webdataset")], ids=name_of)
def test_imports_point_downwards(path):
    """A module imports only from its own section of the house or from one below it."""
    own = LEVEL[path.relative_to(SOURCE / "webdataset").parts[0].removesuffix(".py")]
    upwards = {module for module in imported(path) if LEVEL.get(module, own) > own}
    assert upwards == set()


def test_webdataset_stands_below_wids():
    """`webdataset` never imports `wids`."""
    for path in (SOURCE / "webdataset").rglob("*.py"):
        assert "import wids" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("package", ["webdataset", "wids"])
def test_the_drawing_shows_every_file(package):
    """docs/architecture.md names every module once, in the tables of its package, and none that is not there."""
    tables = DRAWING.partition("`src/wids/`")[2 if package == "wids" else 0]
    there = [path.relative_to(SOURCE / package).as_posix() for path in (SOURCE / package).rglob("*.py")]
    assert sorted(names_in(tables)) == sorted(name for name in there if not name.endswith("__init__.py"))


def test_files_are_small():
    """No file has more than 400 lines: one that grows beyond holds two things."""
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_the_import_is_light():
    """`import webdataset` brings no torch, no image library, no network client and no optional package."""
    heavy = {"torch", "PIL", "urllib3", "yaml", "msgpack", "cbor2", "lz4", "isal", "tempfile", "subprocess"}
    code = "import numpy, sys; before = set(sys.modules); import webdataset; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True, text=True)
    assert heavy.intersection(done.stdout.split()) == set()
