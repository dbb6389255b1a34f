"""Old home of the fluid interface; it lives in `webdataset.fluid`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import autodecode, cache, filters, shardlists, utils
from ._lazy import names_of
from .filters import pipelinefilter, reraise_exception
from .fluid import FluidInterface, FluidWrapper, WebDataset, WebLoader, check_empty
from .pipeline import DataPipeline
from .tariterators import group_by_keys, tar_file_expander

if TYPE_CHECKING:
    from .pytorch import DataLoader

__getattr__ = names_of(__name__, DataLoader="pytorch")


__all__ = [
    "DataLoader",
    "DataPipeline",
    "FluidInterface",
    "FluidWrapper",
    "WebDataset",
    "WebLoader",
    "autodecode",
    "cache",
    "check_empty",
    "filters",
    "group_by_keys",
    "pipelinefilter",
    "reraise_exception",
    "shardlists",
    "tar_file_expander",
    "utils",
]
