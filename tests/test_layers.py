"""The house of docs/architecture.md: imports point downwards, files stay small, `import webdataset` stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src"
FILES = sorted(SOURCE.rglob("*.py"))

# Lowest section first; a module imports from its own section and from those above it in this list.
SECTIONS = [
    "_version errors _types handlers _optional _lazy _closing _barren _torchdata _stage _arguments _crossing _logfile "
    "places policy workers security checks",
    "order pytorch",
    "storage gopen io",
    "braces shardfiles shardgaps shardglobs shardlistfiles shardfolders shardspecs shardpatterns "
    "indexspecs countedshards shardlists",
    "tar",
    "samples grouping runs archivemembers tariterators openahead openers filetypes cachelocks cachepartial "
    "cachedownload cachefollow cachecleanup cachenames cache",
    "sampleindex shardbytes shardnotes shardframes gzippoints shardopening spans indexfiles shardindex shardoffsets "
    "shardsamples energon energonsets img2dataset keynumbers subsets openshards",
    "tenbinformat tenbinsockets tenbin codecs autodecode rules filters classicdecoders "
    "recordformats recordstreams cborsiterators msgpackiterators utils",
    "_epochs _empty pipeline _dataset_arguments fluid crew threaded mix extradatasets indexed streamplan streamindex "
    "compat classicshards classic classicmembers dataset webdataset iterators mock workerenv shardcache dbcache",
    "encoders samplenames shardjson indexwriter tarwriter recordwriter headway backlog shardwriter writer",
    "multi downloader bench typecheck",
    "__init__",
]
LEVEL = {module: level for level, section in enumerate(SECTIONS) for module in section.split()}


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


def test_the_sections_name_what_is_there():
    """Every section names modules that exist, and `webdataset` never imports `wids`."""
    there = {path.name.removesuffix(".py") for path in (SOURCE / "webdataset").iterdir()}
    assert LEVEL.keys() <= there
    for path in (SOURCE / "webdataset").rglob("*.py"):
        assert "import wids" not in path.read_text(encoding="utf-8")


def test_the_drawing_shows_every_file():
    """docs/architecture.md has a place for every module, its own or its folder's."""
    text = (SOURCE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    names = [path.relative_to(SOURCE / "webdataset") for path in FILES if path.is_relative_to(SOURCE / "webdataset")]
    homes = {name.as_posix(): f"`{name.parent.as_posix()}/`" for name in names if name.name != "__init__.py"}
    assert [name for name, folder in homes.items() if f"`{name}`" not in text and folder not in text] == []


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
