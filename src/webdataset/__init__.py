"""Training data in plain tar shards: stream them, shuffle them, decode them, write them.

    import webdataset as wds

    dataset = wds.WebDataset("train-{000..099}.tar", shardshuffle=100)
    dataset = dataset.shuffle(1000).decode("rgb").to_tuple("jpg", "cls").batched(64)

`WebDataset` is the concise interface, `DataPipeline` the explicit one, `TarWriter` and `ShardWriter`
write. Submodules that are not imported here are loaded when they are first used.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

from . import (
    autodecode,
    cache,
    cborsiterators,
    compat,
    extradatasets,
    filters,
    handlers,
    mix,
    pipeline,
    pytorch,
    rules,
    shardlists,
    tariterators,
    tenbin,
    utils,
    writer,
)
from ._version import __version__ as __version__
from .autodecode import (
    Continue,
    Decoder,
    audio,
    gzfilter,
    handle_extension,
    imagehandler,
    torch_audio,
    torch_loads,
    torch_video,
    video,
)
from .cache import LRUCleanup, StreamingOpen, cached_tarfile_samples, cached_tarfile_to_samples, pipe_cleaner
from .cborsiterators import cbors2_to_samples, cbors_to_samples
from .errors import DataError, DecodingError, ErrorBudgetError, WebDatasetError
from .extradatasets import MockDataset, with_epoch, with_length
from .filters import (
    Cached,
    LMDBCached,
    PipelineStage,
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
from .indexed import IndexedDataset
from .mix import RandomMix, RoundRobin
from .msgpackiterators import msgpack_to_samples
from .pipeline import DataPipeline
from .policy import ErrorPolicy
from .shardlists import (
    DirectoryShardList,
    MultiShardSample,
    ResampledShards,
    SimpleShardList,
    non_empty,
    resampled,
    shardspec,
    single_node_only,
    split_by_node,
    split_by_worker,
)
from .storage.options import StorageOptions
from .tariterators import tarfile_samples, tarfile_to_samples
from .threaded import ThreadedLoader
from .utils import repeatedly
from .writer import RecordWriter, ShardWriter, TarWriter, numpy_dumps, torch_dumps

from .gopen import gopen, gopen_schemes  # isort: skip  # last: the function takes the place of the submodule

if TYPE_CHECKING:  # the classic 0.1 API: imported when it is asked for
    from . import dataset
    from .dataset import ChoppedDataset as ChoppedDataset
    from .dataset import Dataset, default_handlers
    from .dataset import ResizedDataset as ResizedDataset

__all__ = [
    "Cached",
    "Continue",
    "DataError",
    "DataPipeline",
    "Dataset",
    "Decoder",
    "DecodingError",
    "DirectoryShardList",
    "ErrorBudgetError",
    "ErrorPolicy",
    "FluidInterface",
    "FluidWrapper",
    "IndexedDataset",
    "LMDBCached",
    "LRUCleanup",
    "MockDataset",
    "MultiShardSample",
    "PipelineStage",
    "RandomMix",
    "RecordWriter",
    "ResampledShards",
    "RoundRobin",
    "ShardWriter",
    "SimpleShardList",
    "StorageOptions",
    "StreamingOpen",
    "TarWriter",
    "ThreadedLoader",
    "WebDataset",
    "WebDatasetError",
    "WebLoader",
    "associate",
    "audio",
    "autodecode",
    "batched",
    "cache",
    "cached_tarfile_samples",
    "cached_tarfile_to_samples",
    "cbors2_to_samples",
    "cbors_to_samples",
    "cborsiterators",
    "compat",
    "dataset",
    "decode",
    "default_handlers",
    "detshuffle",
    "extract_keys",
    "extradatasets",
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
    "mix",
    "msgpack_to_samples",
    "non_empty",
    "numpy_dumps",
    "pipe_cleaner",
    "pipeline",
    "pipelinefilter",
    "pytorch",
    "pytorch_weights_only",
    "rename",
    "rename_keys",
    "repeatedly",
    "require_fields",
    "reraise_exception",
    "resampled",
    "rsample",
    "rules",
    "select",
    "shardlists",
    "shardspec",
    "shuffle",
    "single_node_only",
    "slice",
    "split_by_node",
    "split_by_worker",
    "tarfile_samples",
    "tarfile_to_samples",
    "tariterators",
    "tenbin",
    "to_tuple",
    "torch_audio",
    "torch_dumps",
    "torch_loads",
    "torch_video",
    "transform_with",
    "unbatched",
    "unlisted",
    "utils",
    "video",
    "warn_and_continue",
    "warn_and_stop",
    "with_epoch",
    "with_length",
    "writer",
    "xdecode",
]

pytorch_weights_only: bool
"""As `autodecode.pytorch_weights_only`; either of them, set to False, lets pth fields load anything."""

_CLASSIC = frozenset({"ChoppedDataset", "Dataset", "ResizedDataset", "default_handlers"})
"""Names of the classic 0.1 API; what is behind them is imported when one is asked for."""

_SUBMODULES = frozenset(
    {"bench", "codecs", "downloader", "energon", "errors", "multi", "order", "storage", "tar", "typecheck", "workers"}
    | {"checks", "dataset", "dbcache", "io", "iterators", "mock", "shardcache", "webdataset", "workerenv"}
)


def __getattr__(name: str) -> _Any:
    if name in _SUBMODULES:
        return _import_module(f"{__name__}.{name}")
    if name in _CLASSIC:
        return getattr(_import_module(f"{__name__}.dataset"), name)
    if name == "pytorch_weights_only":
        return autodecode.pytorch_weights_only
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
