"""Indexed access to tar shards: a JSON lists them with their numbers of samples, `ShardListDataset` gives `ds[i]`.

torch is imported with the first name that needs it, not before.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import wids as wids
    from . import wids_dl as wids_dl
    from . import wids_lru as wids_lru
    from . import wids_mmtar as wids_mmtar
    from . import wids_specs as wids_specs
    from . import wids_tar as wids_tar
    from .dataset import ShardListDataset
    from .samplers import ChunkedSampler, DistributedChunkedSampler, ShardedSampler, ShardListSampler

_HOMES = {
    "ChunkedSampler": "samplers",
    "DistributedChunkedSampler": "samplers",
    "ShardListDataset": "dataset",
    "ShardListSampler": "samplers",
    "ShardedSampler": "samplers",
}
_MODULES = frozenset(("wids", "wids_dl", "wids_lru", "wids_mmtar", "wids_specs", "wids_tar"))

__all__ = [
    "ChunkedSampler",
    "DistributedChunkedSampler",
    "ShardListDataset",
    "ShardListSampler",
    "ShardedSampler",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
