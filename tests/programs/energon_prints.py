"""Samples of a data set that was prepared for Megatron-Energon, as Energon reads them, as JSON on standard output.

Run by Energon's own interpreter with a folder and names of splits; no file of this project is on its path. Gives
{split: {"length": n, "samples": [[key, {field: base64}], ...]}}, read by Energon's loader from the shards, and again,
by the name of each member, through Energon's database.
"""

import base64
import contextlib
import json
import sys

from megatron.energon import CrudeSample, DefaultTaskEncoder, WorkerConfig, get_loader, get_val_dataset, stateless
from megatron.energon.cache.file_store import WebdatasetFileStore
from megatron.energon.epathlib import EPath
from megatron.energon.task_encoder import Cooker


@stateless
def as_it_is(sample: CrudeSample) -> dict:
    return dict(sample)


class Undecoded(DefaultTaskEncoder):
    """Energon's part of a training program, without any change of the samples."""

    decoder = None
    cookers = (Cooker(as_it_is),)

    @stateless
    def encode_sample(self, sample):
        return sample


def text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def samples_of(folder: str, split: str) -> dict:
    worker = WorkerConfig(rank=0, world_size=1, num_workers=0)
    encoder = Undecoded()
    ds = get_val_dataset(folder, split_part=split, worker_config=worker, batch_size=None, task_encoder=encoder)
    loader = get_loader(ds)
    samples = [
        [sample["__key__"], {name: text(data) for name, data in sample.items() if not name.startswith("__")}]
        for sample in loader
    ]
    return {"length": len(loader), "samples": samples}


def main(folder: str, splits: list[str]) -> None:
    with contextlib.redirect_stdout(sys.stderr):  # Energon reports there what it could not read
        found = {split: samples_of(folder, split) for split in splits}
        store = WebdatasetFileStore(EPath(folder))
        for part in found.values():
            for key, fields in part["samples"]:
                assert {name: text(store[f"{key}.{name}"][0]) for name in fields} == fields
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
