"""Which sample an exception came from: the words, and the loop that adds them.

Exceptions of user functions keep their type and message; the place is a note. Our own know their
place as attributes, and get the parts that are still unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from .. import places
from .._arguments import check_handler
from .._closing import close_source
from .._types import Handler
from ..errors import MissingFieldError, printable

SHOWN_FIELDS = 20


def add_place(exn: BaseException, stage: str, sample: Any) -> None:
    """Tell the exception the stage, and the `__key__` and `__url__` of the sample where it has them.

    A KeyError may be about a field of the sample, so it is told those, too.
    """
    key, url = (sample.get("__key__"), sample.get("__url__")) if isinstance(sample, dict) else (None, None)
    places.add_place(exn, stage=stage, key=key, url=url)
    if type(exn) is KeyError and isinstance(sample, dict) and exn.args and exn.args[0] not in sample:
        exn.add_note(f"the sample has: {_listed(_fields(sample))}")


def _fields(sample: Mapping[Any, Any]) -> list[str]:
    return [str(name) for name in sample if not str(name).startswith("__")]


def _listed(names: list[str]) -> str:
    shown = [printable(name) for name in names[:SHOWN_FIELDS]]
    if len(names) > SHOWN_FIELDS:
        shown.append(f"… {len(names) - SHOWN_FIELDS} more")
    return ", ".join(shown) or "no fields"


def missing_field(sample: Mapping[Any, Any], names: Collection[str]) -> MissingFieldError:
    """The error for a sample with none of these fields: which it has, and which may have been meant."""
    import difflib

    present = _fields(sample)
    lowered = {name.lower(): name for name in present}
    fact = "no field " + " or ".join(f'"{printable(str(name))}"' for name in names)
    close = [match for name in names for match in difflib.get_close_matches(str(name).lower(), lowered, 1)]
    if close:
        fact += f' (did you mean "{printable(lowered[close[0]])}"?)'
    fact += f"; has: {_listed(present)}"
    if any(field.endswith(f".{name}") for field in present for name in names):
        fact += '; where keys have dots, read with keys="last-dot"'
    return MissingFieldError(fact, key=sample.get("__key__"), url=sample.get("__url__"))


def check_dict(sample: Any, stage: str) -> None:
    """TypeError where a stage that looks at fields gets something without."""
    if not isinstance(sample, dict):
        before = "what makes tuples" if stage == "to_tuple" else "to_tuple and batched"
        raise TypeError(
            f"{stage}: a sample must be a dict with named fields, got {type(sample).__name__}:"
            f" put {stage} before {before}"
        )


def apply_each(
    data: Iterable[Any], f: Callable[[Any], Any], handler: Handler, stage: str, keep_key: bool = False
) -> Iterator[Any]:
    """`f(sample)` for each sample; None drops it, an exception goes to the handler with its place.

    `keep_key`: a dict made of a dict gets its `__key__`, whatever `f` has put there.
    """
    check_handler(stage, handler)
    return _applied(data, f, handler, stage, keep_key)


def _applied(
    data: Iterable[Any], f: Callable[[Any], Any], handler: Handler, stage: str, keep_key: bool
) -> Iterator[Any]:
    source = iter(data)
    try:
        for sample in source:
            try:
                result = f(sample)
            except Exception as exn:
                add_place(exn, stage, sample)
                if handler(exn):
                    continue
                return
            if result is None:
                continue
            if keep_key and isinstance(result, dict) and isinstance(sample, dict):
                result["__key__"] = sample.get("__key__")
            yield result
    finally:
        close_source(source)
