"""Arguments of public functions -> one line for the one that is wrong: where, which, what it must be, what it is."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def check_function(where: str, name: str, value: Any, optional: bool = False) -> None:
    """TypeError unless the value can be called (or is None, where it is optional)."""
    if not callable(value) and not (optional and value is None):
        raise TypeError(f"{where}: {name} must be a function{' or None' if optional else ''}, got {shown(value)}")


def check_handler(where: str, value: Any) -> None:
    """TypeError unless the value can be a handler."""
    if not callable(value):
        raise TypeError(
            f"{where}: handler must be a function of one exception, such as"
            f" webdataset.warn_and_continue or webdataset.ErrorPolicy(), got {shown(value)}"
        )


def check_count(where: str, name: str, value: Any, least: int = 0, what: str = "") -> None:
    """TypeError or ValueError unless the value is an integer of at least `least`."""
    expected = f"{where}: {name} must be a whole number{what and f' of {what}'}, {least} or more, got {shown(value)}"
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(expected)
    if value.__index__() < least:
        raise ValueError(expected)


def check_flag(where: str, name: str, value: Any) -> None:
    """TypeError unless the value is true or false, or a number or None that stands for it."""
    if not isinstance(value, (bool, int, type(None))) and type(value).__name__ not in ("bool_", "bool"):
        raise TypeError(f"{where}: {name} must be True or False, got {shown(value)}")


def check_choice(where: str, name: str, value: Any, choices: Collection[Any]) -> None:
    """ValueError unless the value is one of the choices."""
    if not isinstance(value, (str, type(None))) or value not in choices:
        listed = " or ".join(f'"{choice}"' if isinstance(choice, str) else repr(choice) for choice in choices)
        raise ValueError(f"{where}: {name} must be {listed}, got {shown(value)}{did_you_mean(value, choices)}")


def shown(value: Any) -> str:
    """A value as an error may show it: short."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}… ({type(value).__name__})"


def did_you_mean(name: Any, known: Iterable[Any]) -> str:
    """` (did you mean 'x'?)` for the known name that is most like this one, or nothing."""
    names = [one for one in known if isinstance(one, str)]
    close = difflib.get_close_matches(name, names, 1) if isinstance(name, str) else []
    return f" (did you mean {close[0]!r}?)" if close else ""


def check_names(where: str, names: Iterable[str], signature: inspect.Signature, hints: Mapping[str, str]) -> None:
    """TypeError for the first keyword that the signature does not have; `hints` say what else to write."""
    kinds = {name: parameter.kind for name, parameter in signature.parameters.items()}
    if inspect.Parameter.VAR_KEYWORD in kinds.values():
        return
    known = [name for name in kinds if name not in ("self", "data", "source", "src")]
    for name in names:
        if name not in kinds:
            hint = f": {hints[name]}" if name in hints else did_you_mean(name, known)
            raise TypeError(f"{where}: unknown argument {name!r}{hint or '; known are ' + ', '.join(known)}")


def explained(where: str, hints: Mapping[str, str] | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: unknown keyword arguments are errors that say which was meant, or what the hint says."""

    def decorate(f: Callable[P, R]) -> Callable[P, R]:
        known = frozenset(f.__code__.co_varnames[: f.__code__.co_argcount + f.__code__.co_kwonlyargcount])

        @functools.wraps(f)
        def checked(*args: P.args, **kw: P.kwargs) -> R:
            if not kw.keys() <= known:
                check_names(where, kw, inspect.signature(f), hints or {})
            return f(*args, **kw)

        return checked

    return decorate
