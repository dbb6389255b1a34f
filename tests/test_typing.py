"""Programs in tests/typing type-check as their authors would check them, and mistakes in them are found."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch  # noqa: F401  the programs use its types

PROGRAMS = Path(__file__).parent / "typing"
SETTINGS = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1", "NO_COLOR": "1"}


def check(*command: str) -> str:
    """What a type checker says; nothing but its summary where it finds nothing."""
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=PROGRAMS, env=SETTINGS, capture_output=True, text=True, timeout=110
    )
    return done.stdout + done.stderr


def mypy(folder: Path, *files: str) -> str:
    return check("mypy", "--config-file=", "--strict", "--cache-dir", str(folder), *files)


def pyright(*arguments: str) -> str:
    return check("pyright", "--pythonpath", sys.executable, *arguments)


def test_mypy_agrees(tmp_path):
    """mypy --strict, without a configuration, finds the marked mistakes and nothing else: no mark is without one."""
    files = sorted(path.name for path in PROGRAMS.glob("*.py"))
    assert f"Success: no issues found in {len(files)} source files\n" == mypy(tmp_path, *files)


def test_pyright_agrees():
    """pyright finds the marked mistakes and nothing else."""
    assert pyright("-p", ".").endswith("0 errors, 0 warnings, 0 informations\n")


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_mistakes_are_reported(tmp_path, checker):
    """Without the marks, each checker reports exactly the lines that have them."""
    text = (PROGRAMS / "mistakes.py").read_text(encoding="utf-8")
    marked = {i for i, line in enumerate(text.splitlines(), 1) if "# type: ignore" in line}
    assert len(marked) > 20
    program = tmp_path / "program.py"
    program.write_text(re.sub(r"  # type: ignore.*", "", text), encoding="utf-8")
    said = mypy(tmp_path / "cache", str(program)) if checker == "mypy" else pyright(str(program))
    found = re.findall(r"program\.py:(\d+):.*\berror\b", said)
    assert marked == {int(line) for line in found}, said
