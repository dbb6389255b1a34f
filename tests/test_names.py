"""Names, kinds and signatures, row by row, against what the published packages show: names.json."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROWS = [
    row
    for row in json.loads((HERE / "names.json").read_text(encoding="utf-8"))
    if not row[3].startswith("not importable")
]


def load_script(name: str) -> Any:
    """A script of the project as a module."""
    spec = importlib.util.spec_from_file_location(name, HERE.parent / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


dump_names = load_script("dump_names")

PASSING = "an import of the published module that was never its own name"

LACKING = {
    "downloader.app": "an object of the package typer, which is not needed; `main(args)` is the command",
    **dict.fromkeys(["cache.filters", "cache.gopen", "cache.obsolete"], PASSING),
    **dict.fromkeys(["filters.TorchTensor", "filters.autodecode", "filters.utils"], PASSING),
    **dict.fromkeys(["gopen.PIPE", "gopen.utils", "pipeline.DataLoader", "pipeline.IterableDataset"], PASSING),
    **dict.fromkeys(["shardlists.IterableDataset", "shardlists.is_iterable", "shardlists.obsolete"], PASSING),
    **dict.fromkeys(["shardlists.pipelinefilter", "shardlists.utils", "tariterators.filters"], PASSING),
    **dict.fromkeys(["tariterators.gopen", "writer.gopen", "autodecode.utils"], PASSING),
    "compat.WebDataset.update_cache_info": "a step of the published constructor; its result is the opener, `stage(3)`",
    "compat.WebDataset.create_url_iterator": "a step of the published constructor; its result is `stage(0)`",
    "gopen.Pipe.readLine": "never worked: the published stream has no such method; `readline` is there",
    "shardlists.default_rng": "one generator for the whole process; ours are made of (seed, epoch)",
    "tariterators.trace": "a switch that does nothing",
}
"""Published names that we do not have, and why."""

PASSES_BY = "the parameter has another name; it is passed by position"
TORCH = "torch's own class, with torch's signature, where torch is installed"

NOT_AT_IMPORT = "None stands for the folder that the environment names when it is called, not at import"

SIGNATURES = {
    "WebDataset": "nodesplitter: nodes are split by default, single_node_only is for those who ask",
    "cache.tar_file_expander": "no empty dict between shards by default; eof_value={} asks for it",
    "compat.DataLoader": TORCH,
    "compat.WebDataset": "as WebDataset",
    "compat.tar_file_expander": "no empty dict between shards by default; eof_value={} asks for it",
    "filters.RestCurried": "internal arguments of our own, never passed by programs",
    "filters.tuple2dict": PASSES_BY,
    "gopen.Pipe.read": "says its argument",
    "gopen.Pipe.write": "says its argument",
    "multi.MultiLoader": "the default prefix lies in the temporary folder, whose name differs among systems",
    "numpy_dumps": PASSES_BY,
    "pipeline.DataPipeline.invoke": "stages never got keyword arguments",
    "pipeline.DataPipeline.with_length": "no warning, so 0.2 programs stay quiet",
    "pytorch.DataLoader": TORCH,
    "shardlists.DirectoryShardList": "the default pattern says tar.gz where the published one has a slip, tar.tgz",
    "tariterators.tar_file_expander": "no empty dict between shards by default; eof_value={} asks for it",
    "torch_dumps": PASSES_BY,
    "writer.cbor_dumps": PASSES_BY,
    "writer.mp_dumps": PASSES_BY,
    "writer.numpy_dumps": PASSES_BY,
    "writer.numpy_npz_dumps": PASSES_BY,
    "writer.tenbin_dumps": PASSES_BY,
    "writer.torch_dumps": PASSES_BY,
    "wids.wids.LRUShards": NOT_AT_IMPORT,
    "wids.wids.default_localname": NOT_AT_IMPORT,
    "wids.wids.hash_localname": NOT_AT_IMPORT,
    "wids.wids_tar.TarFileReader.close": "it is that of MMIndexedTar, with an argument that may be left out",
}
"""Names whose signature is another one, and why."""


def place(row) -> str:
    """What follows `webdataset.`."""
    return ".".join(part for part in row[1:3] if part).removeprefix("webdataset.")


def row_id(row) -> str:
    return f"{row[0]}-{place(row)}"


def find(row) -> Any:
    """Our object of this name; AttributeError or ImportError where there is none."""
    value = importlib.import_module(row[1])
    for part in row[2].split(".") if row[2] else ():
        value = getattr(value, part)
    return value


def is_compatible(theirs: list, ours: list) -> bool:
    """The same parameters in the same order; what we add is passed by keyword, behind them."""
    if ours[: len(theirs)] == theirs:
        return all(kind in ("KEYWORD_ONLY", "VAR_KEYWORD") for _, kind, *_ in ours[len(theirs) :])
    if theirs and theirs[-1][1] == "VAR_KEYWORD" and ours[-1:] == theirs[-1:]:
        return is_compatible(theirs[:-1], ours[:-1])
    return False


@pytest.mark.parametrize("row", [row for row in ROWS if place(row) not in LACKING], ids=row_id)
def test_a_published_name(row):
    """The name is there, of its kind, and can be called in the same ways."""
    _, _, _, kind, signature = row
    value = find(row)
    assert dump_names.kind_of(value) == ("function" if kind == "method" else kind)
    if signature is None:
        return
    if place(row) not in SIGNATURES:
        ours = dump_names.signature_of(value) or []
        assert is_compatible(signature, ours), (signature, ours)


@pytest.mark.parametrize("name", LACKING)
def test_a_name_of_the_table_is_lacking(name):
    """The table of what we lack is true: a name that is there has no place in it."""
    rows = [row for row in ROWS if place(row) == name]
    assert rows
    with pytest.raises((AttributeError, ImportError)):
        find(rows[0])


@pytest.mark.parametrize("name", SIGNATURES)
def test_a_signature_of_the_table_differs(name):
    """The table of other signatures is true: it names no name whose signature fits both versions."""
    rows = [row for row in ROWS if place(row) == name]
    assert any(not is_compatible(row[4], dump_names.signature_of(find(row))) for row in rows)
