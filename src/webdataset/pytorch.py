"""Names of torch that programs import from here: torch's own where it is installed, otherwise stand-ins.

Nothing of torch is imported before one of the names is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._optional import require
from ._torchdata import TorchIterable

if TYPE_CHECKING:
    from torch import Tensor as TorchTensor
    from torch.utils.data import DataLoader, IterableDataset


class _DataLoader:
    def __init__(self, *args: Any, **kw: Any) -> None:
        require("torch.utils.data", "torch", "DataLoader")


class _TorchTensor:
    """Nothing is an instance of it."""


_HOMES = {
    "DataLoader": ("torch.utils.data", "DataLoader", _DataLoader),
    "IterableDataset": ("torch.utils.data", "IterableDataset", TorchIterable),
    "TorchTensor": ("torch", "Tensor", _TorchTensor),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute, stand_in = _HOMES[name]
    try:
        import_module("torch")
    except ModuleNotFoundError as exn:
        if exn.name != "torch":
            raise  # torch is there; something that it needs is not
        return stand_in
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__


__all__ = ["DataLoader", "IterableDataset", "TorchTensor"]
