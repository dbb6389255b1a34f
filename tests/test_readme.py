"""The README's code runs, as it stands, from top to bottom."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_code_runs(tmp_path, monkeypatch, capsys):
    """All blocks run one after the other in an empty folder, and give the shapes and types that they claim."""
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 2
    monkeypatch.chdir(tmp_path)
    names: dict = {}

    exec(compile(blocks[0], "README.md", "exec"), names)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "(64, 32, 32, 3) (64,)"
    assert len(shown) == 5
    assert names["images"].dtype == np.float32
    assert names["labels"].dtype == np.int64

    exec(compile(blocks[1], "README.md", "exec"), names)
    assert isinstance(names["images"], torch.Tensor)
    assert sum(len(labels) for _, labels in names["loader"]) == 300
