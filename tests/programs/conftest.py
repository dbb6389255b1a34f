"""Programs written for the published package, in our own words: each runs without and with DataLoader workers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(params=[0, 2], ids=["no workers", "2 workers"])
def workers(request) -> int:
    return request.param


@pytest.fixture
def load(workers) -> Callable[..., list[Any]]:
    """A function from a data set to the list of what a DataLoader gives of it."""
    from torch.utils.data import DataLoader

    def load(dataset: Any, **options: Any) -> list[Any]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
            warnings.filterwarnings("ignore", message="This DataLoader will create")
            return list(DataLoader(dataset, **{"batch_size": None, "num_workers": workers, **options}))

    return load
