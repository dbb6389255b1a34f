"""Being a torch data set without importing torch.

`torch.utils.data.IterableDataset` is an abstract base class, so our classes register with it as
virtual subclasses. That happens as soon as torch is there: when this module is imported, or later
when somebody asks: `isinstance(ds, IterableDataset)` looks at `ds.__class__`, which is a property
here. What torch's base would have given (`ds1 + ds2`) is written out.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeAlias

from ._optional import require

if TYPE_CHECKING:
    from torch.utils.data import IterableDataset

    _Base: TypeAlias = IterableDataset[Any]  # type checkers see what isinstance sees
else:
    _Base = object


class TorchIterable(_Base):  # type: ignore[misc]  # mypy does not look at torch here
    """Base of everything that is a torch IterableDataset as soon as torch is imported."""

    _registered = False

    @property  # type: ignore[misc]  # for type checkers `__class__` is none; isinstance asks it all the same
    def __class__(self) -> type[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if register_with_torch():
            self._torch_looks()
        return type(self)

    def _torch_looks(self) -> None:
        """Called when torch may be looking, as every DataLoader does before it starts workers."""

    def __add__(self, other: Any) -> Any:
        """Both data sets, one after the other: a torch ChainDataset."""
        return require("torch.utils.data", "torch", "adding data sets").ChainDataset([self, other])

    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} is a stream: iterate over it, there is no [{index!r}]")


def register_with_torch() -> bool:
    """Register with torch if it has been imported; whether it has. Cheap, and harmless when called again."""
    if TorchIterable._registered:
        return True
    data = sys.modules.get("torch.utils.data")
    base = getattr(data, "IterableDataset", None)
    if base is not None:
        base.register(TorchIterable)
        TorchIterable._registered = True
    return TorchIterable._registered


register_with_torch()
