"""The arguments of WebDataset: one clear line for the first that is wrong, and how to write those of older versions."""

from __future__ import annotations

import os
from typing import Any

from ._arguments import check_choice, check_count, check_flag, check_function, check_handler, check_path, shown
from .filters import ON_MISSING
from .samples import KEY_RULES

_CLASSIC = {
    "extensions": '.decode("rgb").to_tuple("jpg;png", "cls")',
    "decoder": '.decode("rgb")',
    "transforms": '.to_tuple("jpg", "cls").map_tuple(f, g)',
    "pipeline": ".compose(stage)",
    "epochs": ".repeat(n)",
    "shuffle": ".shuffle(n), and WebDataset(urls, shardshuffle=m) for the shards",
    "associate": ".associate(...)",
    "length": ".with_length(n)",
    "suffixes": '.to_tuple("jpg", "cls"), or select_files= for the names of members',
    "opener": ", with webdataset.gopen_schemes[scheme] = opener",
    "prepare_for_worker": "; workersplitter=None reads all shards in every worker",
    "initial_pipeline": "; webdataset.DataPipeline(...) takes any stages",
    "batch_size": ".batched(n)",
    "batchsize": ".batched(n)",
}

_ONLY_DATASET = ("suffixes", "initial_pipeline")
_NEITHER = ("batch_size", "batchsize")


def _advice(name: str, modern: str) -> str:
    home = "webdataset.Dataset" if name in _ONLY_DATASET else "webdataset.webdataset.WebDataset"
    classic = "" if name in _NEITHER else f", or take the classic class, {home}(urls, {name}=...)"
    return f"write WebDataset(urls){modern}{classic}"


CLASSIC = {name: _advice(name, modern) for name, modern in _CLASSIC.items()}
"""Arguments of older versions, and what programs write now."""

FOLDER_MODES = ("resample", "unlink", "keep")
"""Modes of `DirectoryShardList`."""

_CHOICES = {"mode": (None, "resampled", *FOLDER_MODES), "torn": ("warn", "error"), "on_missing": ON_MISSING}
_FLAGS = ("resampled", "repeat", "detshuffle", "empty_check", "verbose", "ignore_zeros", "lcase")
_FUNCTIONS = ("url_to_name", "nodesplitter", "workersplitter", "select_files", "rename_files")


def check_arguments(given: dict[str, Any]) -> None:
    """TypeError or ValueError for the first argument of WebDataset that is wrong."""
    where = "WebDataset"
    check_handler(where, given["handler"])
    for name, choices in _CHOICES.items():
        check_choice(where, name, given[name], choices)
    for name in _FLAGS:
        check_flag(where, name, given[name])
    for name in _FUNCTIONS:
        check_function(where, name, given[name], optional=True)
    if not isinstance(given["cache_size"], (int, float, type(None))):
        raise TypeError(f"{where}: cache_size must be a number of bytes, got {shown(given['cache_size'])}")
    check_path(where, "cache_dir", given["cache_dir"], optional=True)
    size = given["shardshuffle"]
    if size is not None and not isinstance(size, (int, float)):
        check_count(where, "shardshuffle", size, 0, "shards")
    elif size is not None and not size >= 0:
        raise ValueError(f"{where}: shardshuffle must be a number of shards, 0 or more, got {shown(size)}")
    if not callable(given["keys"]):
        check_choice(where, "keys", given["keys"], KEY_RULES)
    if given["mode"] in FOLDER_MODES and not isinstance(given["urls"], (str, os.PathLike)):
        raise TypeError(f"{where}: mode={given['mode']!r} needs a folder as urls, got {shown(given['urls'])}")
    if given["require"] is None and given["on_missing"] != "error":
        raise ValueError(f"{where}: on_missing={given['on_missing']!r} needs require=(...), the fields to look for")
