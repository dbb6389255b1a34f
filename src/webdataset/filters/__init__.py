"""The stages of a pipeline: samples in, samples or batches out.

`_name(data, ...)` iterates over what becomes of `data`; `name(...)` is the same as a stage, for
DataPipeline, compose and pickle. Every stage is lazy, takes any iterable, leaves the samples that
come in as they are, and closes its source when it is closed. The names with an underscore are part
of the interface: programs call them.
"""

from collections.abc import Callable
from typing import Any

from .._lazy import names_of
from .._stage import FilterFunction, PipelineStage, RestCurried, pipelinefilter
from ..handlers import reraise_exception
from ._batches import (
    _batched,
    _listed,
    _unbatched,
    _unlisted,
    batched,
    combine_values,
    default_collation_fn,
    dict2tuple,
    listed,
    tuple2dict,
    unbatched,
    unlisted,
)
from ._caching import Cached, LMDBCached
from ._composing import compose, compose2, identity, pipeline
from ._fields import (
    _extract_keys,
    _rename,
    _rename_keys,
    _to_tuple,
    extract_keys,
    getfirst,
    parse_field_spec,
    rename,
    rename_keys,
    to_tuple,
)
from ._mapping import (
    _associate,
    _decode,
    _map,
    _map_dict,
    _map_tuple,
    _select,
    associate,
    decode,
    map,
    map_dict,
    map_tuple,
    select,
    transform_with,
    transformer,
)
from ._order import (
    ShuffleStage,
    _info,
    _log_keys,
    _rsample,
    _shuffle,
    _slice,
    detshuffle,
    info,
    log_keys,
    pick,
    rsample,
    shuffle,
    slice,
)
from ._required import ON_MISSING, _require_fields, require_fields
from ._streams import (
    _xdecode,
    decode_bin,
    decode_pickle,
    decode_text,
    default_decoders,
    find_decoder,
    xdecode,
)

curried, map_stream = pipelinefilter, map  # the classic 0.1 names

WebDataset: type[Any]
default_handlers: dict[str, dict[str, Callable[[bytes], Any]]]
imagehandler: Callable[..., Any]
tariterator: Callable[..., Any]
__getattr__ = names_of(
    "webdataset.filters",
    WebDataset="fluid",
    default_handlers="classicdecoders",
    imagehandler="autodecode",
    tariterator="webdataset",
)

__all__ = [
    "ON_MISSING",
    "Cached",
    "FilterFunction",
    "LMDBCached",
    "PipelineStage",
    "RestCurried",
    "ShuffleStage",
    "WebDataset",
    "_associate",
    "_batched",
    "_decode",
    "_extract_keys",
    "_info",
    "_listed",
    "_log_keys",
    "_map",
    "_map_dict",
    "_map_tuple",
    "_rename",
    "_rename_keys",
    "_require_fields",
    "_rsample",
    "_select",
    "_shuffle",
    "_slice",
    "_to_tuple",
    "_unbatched",
    "_unlisted",
    "_xdecode",
    "associate",
    "batched",
    "combine_values",
    "compose",
    "compose2",
    "curried",
    "decode",
    "decode_bin",
    "decode_pickle",
    "decode_text",
    "default_collation_fn",
    "default_decoders",
    "default_handlers",
    "detshuffle",
    "dict2tuple",
    "extract_keys",
    "find_decoder",
    "getfirst",
    "identity",
    "imagehandler",
    "info",
    "listed",
    "log_keys",
    "map",
    "map_dict",
    "map_stream",
    "map_tuple",
    "parse_field_spec",
    "pick",
    "pipeline",
    "pipelinefilter",
    "rename",
    "rename_keys",
    "require_fields",
    "reraise_exception",
    "rsample",
    "select",
    "shuffle",
    "slice",
    "tariterator",
    "to_tuple",
    "transform_with",
    "transformer",
    "tuple2dict",
    "unbatched",
    "unlisted",
    "xdecode",
]
