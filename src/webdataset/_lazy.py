"""Names that a module gives without having them: each is imported from its home when it is first asked for.

For old import paths that name things of modules above them, which must not be imported at once.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def names_of(module: str, **homes: str) -> Callable[[str], Any]:
    """A `__getattr__` for the module: name=the module of this package that has it."""

    def getattribute(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return getattr(import_module(f"{__package__}.{homes[name]}"), name)

    return getattribute
