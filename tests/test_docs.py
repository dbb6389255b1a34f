"""The documents' code runs as it stands, and prints what they say."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))  # test_readme.py runs the README

BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
SAID = re.compile(r"^ *# -> (.*)$", re.MULTILINE)


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def code_of(page: str) -> str:
    """The Python blocks of a page as one program, each line at the number that it has in the page."""
    text = text_of(page)
    lines = [""] * (text.count("\n") + 1)
    for block in BLOCK.finditer(text):
        first = text[: block.start(1)].count("\n")
        for i, line in enumerate(block[1].splitlines()):
            lines[first + i] = line
    return "\n".join(lines)


def runs_here(page: str) -> bool:
    """Whether there is code on a page, and torch where the code is about torch."""
    code = code_of(page)
    return bool(code.strip()) and ("torch" not in code or importlib.util.find_spec("torch") is not None)


@pytest.mark.parametrize("page", [page for page in PAGES if runs_here(page)])
def test_the_code_runs(page, tmp_path):
    """All blocks of a page run, one after the other, in an empty folder, with warnings as errors."""
    code = code_of(page)
    program = tmp_path / f"{Path(page).stem}_page.py"
    program.write_text(code, encoding="utf-8")
    folder = tmp_path / "folder"
    folder.mkdir()
    unset = ("RANK", "WORLD_SIZE", "WORKER", "NUM_WORKERS", "GOPEN_VERBOSE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WDS_") and name not in unset}
    done = subprocess.run(
        [sys.executable, "-W", "error", program], cwd=folder, env=kept, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    said = SAID.findall(code)
    if said:
        assert said == [line.rstrip() for line in done.stdout.splitlines()]


def test_pages_are_listed():
    """docs/index.md names every page."""
    listed = set(re.findall(r"\]\(([\w-]+\.md)\)", text_of("docs/index.md")))
    assert listed == {Path(page).name for page in PAGES} - {"index.md"}


def anchors_of(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere():
    """Every relative link of a document names a file that is there, and a heading in it."""
    lost = []
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("bench/*.md")):
        for name, anchor in re.findall(r"\]\((?!https?://)([^)#\s]*)#?([^)\s]*)\)", page.read_text(encoding="utf-8")):
            there = page.parent / name if name else page
            if not there.exists() or (anchor and anchor not in anchors_of(there)):
                lost.append(f"{page.name}: {name}#{anchor}")
    assert lost == []
