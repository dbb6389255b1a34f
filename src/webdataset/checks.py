"""Values to nothing, or to a ValueError that says what they should be: the checks of the classic 0.1 API.

Each function returns None. `msg` says in the error what was being checked. The library itself checks with `_arguments`.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from ._arguments import shown
from .errors import printable


def _refuse(value: Any, expected: str, msg: str) -> None:
    raise ValueError(f"ERROR {msg}: {printable(shown(value))} should {expected}")


def check(value: Any, msg: str = "") -> None:
    """ValueError unless the value is true."""
    if not value:
        _refuse(value, "be true", msg)


def checktype(value: Any, types: type | tuple[type, ...], msg: str = "") -> None:
    """ValueError unless the value is of this type, or of one of these types."""
    if not isinstance(value, types):
        _refuse(value, f"be of type {types}", msg)


def checkmember(value: Any, values: Container[Any], msg: str = "") -> None:
    """ValueError unless the value is one of these."""
    if value not in values:
        _refuse(value, f"be in {shown(values)}", msg)


def checkrange(value: Any, lo: Any, hi: Any, msg: str = "") -> None:
    """ValueError unless the value is from `lo` to `hi`, both inclusive."""
    if not lo <= value <= hi:
        _refuse(value, f"be in range {lo} {hi}", msg)


def checkcallable(value: Any, msg: str = "") -> None:
    """ValueError unless the value can be called."""
    if not callable(value):
        _refuse(value, "be callable", msg)


def checknotnone(value: Any, msg: str = "") -> None:
    """ValueError if the value is None."""
    if value is None:
        _refuse(value, "not be None", msg)


__all__ = ["check", "checkcallable", "checkmember", "checknotnone", "checkrange", "checktype"]
