"""Arguments of public functions -> one line for the one that is wrong: where, which, what it must be, what it is."""

from __future__ import annotations

import difflib
import functools
import inspect
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, ParamSpec, TypeAlias, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

Check: TypeAlias = Callable[[str, str, Any], None]
"""Called with where, the name of an argument and its value; raises unless the value can be used."""


def check_function(where: str, name: str, value: Any, optional: bool = False) -> None:
    """TypeError unless the value can be called (or is None, where it is optional)."""
    if not callable(value) and not (optional and value is None):
        raise TypeError(f"{where}: {name} must be a function{' or None' if optional else ''}, got {shown(value)}")


def check_handler(where: str, value: Any, name: str = "handler") -> None:
    """TypeError unless the value can be a handler; a class whose objects are handlers is none."""
    if isinstance(value, type) and any("__call__" in vars(base) for base in value.__mro__):
        raise TypeError(f"{where}: {name} is the class {value.__name__}: write {value.__name__}()")
    if not callable(value):
        raise TypeError(
            f"{where}: {name} must be a function of one exception, such as"
            f" webdataset.warn_and_continue or webdataset.ErrorPolicy(), got {shown(value)}"
        )


def check_count(where: str, name: str, value: Any, least: int = 0, what: str = "") -> None:
    """TypeError or ValueError unless the value is an integer of at least `least`."""
    expected = f"{where}: {name} must be a whole number{what and f' of {what}'}, {least} or more, got {shown(value)}"
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(expected)
    if value.__index__() < least:
        raise ValueError(expected)


def check_number(
    where: str,
    name: str,
    value: Any,
    unit: str = "",
    *,
    least: float | None = None,
    more_than: float | None = None,
    whole: bool = False,
    optional: bool = False,
) -> None:
    """TypeError unless the value is a number of any kind (numpy's too), ValueError unless it is within the bounds."""
    if optional and value is None:
        return
    bound = f", {least} or more" if least is not None else f", more than {more_than}" if more_than is not None else ""
    kind = f"{'whole ' if whole else ''}number{unit and ' of ' + unit}{' or None' if optional else ''}"
    expected = f"{where}: {name} must be a {kind}{bound}, got {shown(value)}"
    if not hasattr(value, "__index__") and (whole or not hasattr(value, "__float__")):
        raise TypeError(expected)
    if more_than is not None and not value > more_than:
        raise ValueError(f"{where}: {name} must be more than {more_than}, got {shown(value)}")
    if least is not None and not value >= least:
        raise ValueError(expected)


def check_text(where: str, name: str, value: Any, what: str = "text", optional: bool = False) -> None:
    """TypeError unless the value is a str (or None, where it is optional)."""
    if not isinstance(value, str) and not (optional and value is None):
        raise TypeError(f"{where}: {name} must be {what}{' or None' if optional else ''}, got {shown(value)}")


def check_path(where: str, name: str, value: Any, optional: bool = False) -> None:
    """TypeError unless the value is a str or a path object (or None, where it is optional)."""
    if not isinstance(value, os.PathLike):
        check_text(where, name, value, "a str or a path", optional)


def check_items(where: str, name: str, value: Any, what: str, optional: bool = False) -> None:
    """TypeError unless the value can be iterated over, and is not text."""
    if optional and value is None:
        return
    if isinstance(value, (str, bytes)) or not (hasattr(value, "__iter__") or hasattr(value, "__getitem__")):
        raise TypeError(f"{where}: {name} must be {what}{' or None' if optional else ''}, got {shown(value)}")


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
    if inspect.Parameter.VAR_KEYWORD not in kinds.values():
        check_known(where, names, kinds, hints)


def check_known(where: str, names: Iterable[str], all_known: Collection[str], hints: Mapping[str, str]) -> None:
    """TypeError for the first name that is not known."""
    known = [name for name in all_known if name not in ("self", "data", "source", "src")]
    for name in names:
        if name not in all_known:
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


def a(check: Callable[..., None], *args: Any, **kw: Any) -> Check:
    """A check with its further arguments: `a(check_number, "seconds", least=0)`."""
    return lambda where, name, value: check(where, name, value, *args, **kw)


def a_handler(where: str, name: str, value: Any) -> None:
    """`check_handler`, as a Check."""
    check_handler(where, value, name)


def checked(where: str, **checks: Check) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: each argument that was given goes through the check of its name, before anything runs.

    Unknown keywords are errors as in `explained`. For what is called to make an object or to begin a pass, not for
    what is called for each sample. Stages made of the function do it when they are made.
    """

    def decorate(f: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(f)

        def check(args: tuple[Any, ...], kw: dict[str, Any]) -> None:
            check_names(where, kw, signature, {})
            try:
                given = signature.bind_partial(*args, **kw).arguments
            except TypeError:  # the call itself says it best
                return
            for name, one in checks.items():
                if name in given:
                    one(where, name, given[name])

        @functools.wraps(f)
        def wrapped(*args: P.args, **kw: P.kwargs) -> R:
            check(args, kw)
            return f(*args, **kw)

        wrapped.__dict__["check_arguments"] = check
        return wrapped

    return decorate
