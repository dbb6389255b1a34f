"""Old home (git of 2021) of the stand-ins for torch; see `webdataset.pytorch`, which gives torch's own where it is."""

from typing import Any

from ._lazy import names_of

DataLoader: type[Any]
IterableDataset: type[Any]
__getattr__ = names_of(__name__, DataLoader="pytorch", IterableDataset="pytorch")

__all__ = ["DataLoader", "IterableDataset"]
