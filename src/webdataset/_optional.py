"""Optional packages: imported where they are used, with an error that says how to install them."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import MissingDependencyError


def require(module: str, pip_name: str, purpose: str) -> Any:
    """The imported module, or MissingDependencyError: `reading .mp needs msgpack: pip install msgpack`."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as exn:
        if exn.name is None or not (module == exn.name or module.startswith(exn.name + ".")):
            raise  # the package is there; something that it needs is not
        raise MissingDependencyError(f"{purpose} needs {pip_name}: pip install {pip_name}", name=module) from exn
