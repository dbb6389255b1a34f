"""Old home (releases 0.1.54 to 0.1.103) of the stages as functions of the data; see `webdataset.filters`."""

from .filters import _associate as associate
from .filters import _batched as batched
from .filters import _decode as decode
from .filters import _info as info
from .filters import _log_keys as log_keys
from .filters import _map as map
from .filters import _map_dict as map_dict
from .filters import _map_tuple as map_tuple
from .filters import _rename as rename
from .filters import _rsample as rsample
from .filters import _select as select
from .filters import _shuffle as shuffle
from .filters import _to_tuple as to_tuple
from .filters import _unbatched as unbatched
from .filters import _unlisted as unlisted
from .filters import (
    compose,
    compose2,
    default_collation_fn,
    getfirst,
    identity,
    parse_field_spec,
    pick,
    pipeline,
    reraise_exception,
    transform_with,
    transformer,
)

__all__ = [
    "associate",
    "batched",
    "compose",
    "compose2",
    "decode",
    "default_collation_fn",
    "getfirst",
    "identity",
    "info",
    "log_keys",
    "map",
    "map_dict",
    "map_tuple",
    "parse_field_spec",
    "pick",
    "pipeline",
    "rename",
    "reraise_exception",
    "rsample",
    "select",
    "shuffle",
    "to_tuple",
    "transform_with",
    "transformer",
    "unbatched",
    "unlisted",
]
