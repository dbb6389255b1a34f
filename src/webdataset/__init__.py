"""Training data in plain tar shards: stream them, shuffle them, decode them, write them.

    import webdataset as wds

    dataset = wds.WebDataset("train-{000..099}.tar", shardshuffle=100)
    dataset = dataset.shuffle(1000).decode("rgb").to_tuple("jpg", "cls").batched(64)

`WebDataset` is the concise interface, `DataPipeline` the explicit one, `TarWriter` and `ShardWriter`
write. Submodules that are not imported here are loaded when they are first used.
"""

from importlib import import_module as _import_module
from typing import Any as _Any

from . import cache, filters, handlers, pipeline, shardlists, tariterators, writer
from .autodecode import (
    Continue,
    Decoder,
    gzfilter,
    handle_extension,
    imagehandler,
    torch_loads,
)
from .cache import StreamingOpen
from .errors import DataError, DecodingError, ErrorBudgetError, WebDatasetError
from .filters import (
    Cached,
    associate,
    batched,
    decode,
    detshuffle,
    extract_keys,
    getfirst,
    info,
    listed,
    map,
    map_dict,
    map_tuple,
    pipelinefilter,
    rename,
    rename_keys,
    require_fields,
    rsample,
    select,
    shuffle,
    slice,
    to_tuple,
    transform_with,
    unbatched,
    unlisted,
    xdecode,
)
from .fluid import FluidInterface, FluidWrapper, WebDataset, WebLoader
from .handlers import (
    ignore_and_continue,
    ignore_and_stop,
    reraise_exception,
    warn_and_continue,
    warn_and_stop,
)
from .pipeline import DataPipeline
from .policy import ErrorPolicy
from .shardlists import (
    ResampledShards,
    SimpleShardList,
    non_empty,
    resampled,
    single_node_only,
    split_by_node,
    split_by_worker,
)
from .tariterators import tarfile_samples, tarfile_to_samples
from .writer import ShardWriter, TarWriter

from .gopen import gopen, gopen_schemes  # isort: skip  # last: the function takes the place of the submodule

__version__ = "0.2.200"  # clients pin >=0.2.5,<0.3: stay below 0.3

__all__ = [
    "Cached",
    "Continue",
    "DataError",
    "DataPipeline",
    "Decoder",
    "DecodingError",
    "ErrorBudgetError",
    "ErrorPolicy",
    "FluidInterface",
    "FluidWrapper",
    "ResampledShards",
    "ShardWriter",
    "SimpleShardList",
    "StreamingOpen",
    "TarWriter",
    "WebDataset",
    "WebDatasetError",
    "WebLoader",
    "associate",
    "batched",
    "cache",
    "decode",
    "detshuffle",
    "extract_keys",
    "filters",
    "getfirst",
    "gopen",
    "gopen_schemes",
    "gzfilter",
    "handle_extension",
    "handlers",
    "ignore_and_continue",
    "ignore_and_stop",
    "imagehandler",
    "info",
    "listed",
    "map",
    "map_dict",
    "map_tuple",
    "non_empty",
    "pipeline",
    "pipelinefilter",
    "rename",
    "rename_keys",
    "require_fields",
    "reraise_exception",
    "resampled",
    "rsample",
    "select",
    "shardlists",
    "shuffle",
    "single_node_only",
    "slice",
    "split_by_node",
    "split_by_worker",
    "tarfile_samples",
    "tarfile_to_samples",
    "tariterators",
    "to_tuple",
    "torch_loads",
    "transform_with",
    "unbatched",
    "unlisted",
    "warn_and_continue",
    "warn_and_stop",
    "writer",
    "xdecode",
]

_SUBMODULES = frozenset({"autodecode", "codecs", "errors", "order", "storage", "tar", "tenbin", "workers"})


def __getattr__(name: str) -> _Any:
    if name in _SUBMODULES:
        return _import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
