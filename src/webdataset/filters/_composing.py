"""Functions of one argument, chained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def identity(x: Any) -> Any:
    """`x` itself."""
    return x


def compose2(f: Callable[[Any], Any], g: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`x -> g(f(x))`."""
    return lambda x: g(f(x))


def compose(*args: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The functions one after the other, the first one first; none at all is the identity."""
    return lambda x: pipeline(x, *args)


def pipeline(source: Any, *args: Callable[[Any], Any]) -> Any:
    """The source through all functions, the first one first."""
    for f in args:
        source = f(source)
    return source
