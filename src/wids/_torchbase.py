"""The classes of torch that ours are subclasses of, or plain ones where torch is not installed.

torch's map-style `Dataset` and its `Sampler` are ordinary classes, so nothing can register with them: what is to be an
instance must be a subclass. The modules that define such classes therefore import torch; `import wids` imports neither
them nor torch before one of their names is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from torch.utils.data import Dataset as TorchDataset
    from torch.utils.data import Sampler as TorchSampler

    Dataset: TypeAlias = TorchDataset[Any]
    Sampler: TypeAlias = TorchSampler[int]
else:

    def _base(name: str) -> type:
        try:
            module = import_module("torch.utils.data")
        except ModuleNotFoundError as exn:
            if exn.name != "torch":
                raise  # torch is there; something that it needs is not
            return object
        return getattr(module, name)[Any]

    Dataset = _base("Dataset")
    Sampler = _base("Sampler")
