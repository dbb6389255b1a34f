"""Writing as programs write it: every line must type-check."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any, assert_type

import numpy as np

import webdataset as wds


def finished(name: str) -> None:
    """Called with each complete shard."""
    print(name)


with wds.ShardWriter(
    "train-%06d.tar", maxcount=1000, maxsize=1e9, post=finished, compress="gz", overwrite=True
) as sink:
    assert_type(sink, wds.ShardWriter)
    for i in range(10):
        sink.write({"__key__": f"{i:06d}", "npy": np.zeros(3), "json": {"n": i}, "cls": i})
    total: int = sink.total

with wds.TarWriter(Path("a.tar"), mtime=0, format=tarfile.PAX_FORMAT, align=4096) as archive:
    size = archive.write({"__key__": "a", "txt": "text"})
    assert_type(size, int)

wds.TarWriter(io.BytesIO(), encoder=False, keep_meta=True).close()
wds.TarWriter("b.tar", encoder={"txt": str.encode}).close()
wds.writer.default_handlers["csv"] = lambda rows: ",".join(rows).encode()
assert_type(wds.numpy_dumps(np.zeros(3)), bytes)
sample: dict[str, Any] = {"__key__": "a"}
