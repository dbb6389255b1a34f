"""Megatron-Energon itself opens what this project prepared, and gives the samples that we give, split by split."""

from __future__ import annotations

import base64
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

import webdataset as wds
from tools import need, run
from webdataset.energon import prepare_energon

PARTS = {"train": ["train/a-{0..1}.tar", "train/long names.tar"], "val": ["val/b.tar"], "test": ["test/c.tar"]}


def as_energon_reads(folder: Path, *splits: str) -> dict[str, Any]:
    """{split: (length, [(key, {field: bytes})])}, read by Energon in a process of its own."""
    python = os.environ.get("WDS_ENERGON_PYTHON", "")
    need(os.path.exists(python), "WDS_ENERGON_PYTHON names no Python with megatron-energon; `make test` sets it")
    program = Path(__file__).with_name("energon_prints.py")
    found = json.loads(run([python, "-I", str(program), str(folder), *splits]))
    return {
        split: (
            part["length"],
            [(key, {name: base64.b64decode(data) for name, data in fields.items()}) for key, fields in part["samples"]],
        )
        for split, part in found.items()
    }


def as_we_read(ds: Any) -> tuple[int, list[Any]]:
    """The same of a data set of ours."""
    samples = [
        (sample["__key__"], {name: data for name, data in sample.items() if not name.startswith("__")}) for sample in ds
    ]
    return len(ds), samples


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of `ShardWriter`, with small and large members, long names and several fields, prepared by us."""
    folder = tmp_path_factory.mktemp("prepared")
    rng = random.Random(7)
    shards = {"train/a-0.tar": 40, "train/a-1.tar": 3, "train/long names.tar": 5, "val/b.tar": 9, "test/c.tar": 1}
    for name, count in shards.items():
        (folder / name).parent.mkdir(exist_ok=True)
        with wds.ShardWriter(str(folder / name.replace(".tar", "%.0s.tar")), maxcount=1000) as sink:
            for i in range(count):
                key = f"{'long/' * 40 if 'long' in name else ''}{name.partition('.')[0]}-{i}"
                data = rng.randbytes(rng.choice([0, 1, 511, 512, 70_000]))
                fields = {"bin": data, "json": {"i": i}, "seg.png.txt": "x"} if i % 3 else {}
                sink.write({"__key__": key, "txt": "grün " * i, **fields})
    prepare_energon(folder, shards, {part: [name for name in shards if name.startswith(part)] for part in PARTS})
    return folder


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_energon_gives_the_samples_that_we_give(prepared: Path, split: str) -> None:
    """Each part that we prepared is, for Energon's loader and its database, what `split=` is for us, in its order."""
    ours = as_we_read(wds.IndexedDataset(prepared, split=split))
    assert as_energon_reads(prepared, split) == {split: ours}
    assert ours[0] == {"train": 48, "val": 9, "test": 1}[split]


def test_parts_with_braces_and_exclusions_are_as_energon_has_them(prepared: Path) -> None:
    """Parts and exclusions that a user wrote, with braces, leave out the same shards and samples as in Energon."""
    split = prepared / ".nv-meta/split.yaml"
    before = split.read_text()
    long = "train/long names.tar/" + "long/" * 40 + "train/long names-3"
    split.write_text(
        json.dumps({"split_parts": PARTS, "exclude": ["train/a-1.tar", "val/b.tar/val/b-{2..4}", long, "no.tar/x"]})
    )
    try:
        theirs = as_energon_reads(prepared, "train", "val")
        for name in ("train", "val"):
            assert as_we_read(wds.IndexedDataset(prepared, split=name))[1] == theirs[name][1]
    finally:
        split.write_text(before)
    assert [len(theirs[name][1]) for name in ("train", "val")] == [44, 6]
