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


def check(*command: object) -> str:
    """What a type checker says."""
    words = [sys.executable, "-m", *map(str, command)]
    done = subprocess.run(words, cwd=PROGRAMS, env=SETTINGS, capture_output=True, text=True, timeout=110)
    return done.stdout + done.stderr


def mypy(files: list[Path], program: Path) -> str:
    """Strict, and without a configuration."""
    return check("mypy", "--config-file=", "--strict", "--cache-dir", program.parent / "cache", *files, program)


def pyright(files: list[Path], program: Path) -> str:
    """Strict, as tests/typing/pyrightconfig.json has it; the program with pyright's own settings."""
    python = ("pyright", "--pythonpath", sys.executable)
    return check(*python, "-p", ".") + check(*python, program)


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_programs_are_checked(tmp_path, checker):
    """A checker finds nothing in the programs but the marked mistakes; without the marks it reports each of them."""
    text = (PROGRAMS / "mistakes.py").read_text(encoding="utf-8")
    marked = {("program", i) for i, line in enumerate(text.splitlines(), 1) if "# type: ignore" in line}
    assert len(marked) > 20
    program = tmp_path / "program.py"
    program.write_text(re.sub(r"  # type: ignore.*", "", text), encoding="utf-8")
    said = checker(sorted(PROGRAMS.glob("*.py")), program)
    assert marked == {(name, int(line)) for name, line in re.findall(r"(\w+)\.py:(\d+):.*\berror\b", said)}, said
