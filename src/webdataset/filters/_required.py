"""`require_fields`: samples -> those samples that have all the fields that the program needs."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from .._arguments import check_choice, check_handler
from .._closing import close_source
from .._stage import checkedfilter
from .._types import Handler
from ..handlers import reraise_exception
from ..places import add_place, reader_name
from ._fields import Alternatives, parse_field_spec
from ._places import check_dict, missing_field

logger = logging.getLogger(__name__)

ON_MISSING = ("error", "skip", "empty")


def _require_fields(
    data: Iterable[Any],
    fields: str | Iterable[Alternatives],
    on_missing: str = "error",
    handler: Handler = reraise_exception,
    *,
    place: str = "require_fields",
) -> Iterator[Any]:
    """The samples that have all of these fields; what becomes of the others, `on_missing` says.

    Args:
        fields: names, each perhaps with alternatives: `("jpg;png", "json")`, or `"jpg;png json"`.
        on_missing: "error" hands a MissingFieldError to the handler; "skip" leaves the sample out; "empty" gives
            the field (the first alternative) the value None, which `decode(partial=True)` lets through. The last two
            are counted, and one line in the log says so at the end of the pass.
        handler: error policy.
        place: what to call the data set in that line.
    """
    check_choice("require_fields", "on_missing", on_missing, ON_MISSING)
    check_handler("require_fields", handler)
    if not isinstance(fields, (str, tuple, list, set, frozenset)) or not fields:
        raise TypeError(f'require_fields: fields must be names such as ("jpg;png", "json"), got {fields!r}')
    wanted = parse_field_spec(fields if isinstance(fields, str) else [*fields])
    return _checked(data, wanted, on_missing, handler, place)


def _checked(
    data: Iterable[Any], fields: list[list[str]], on_missing: str, handler: Handler, place: str
) -> Iterator[Any]:
    always = frozenset(names[0] for names in fields if len(names) == 1)
    choices = [names for names in fields if len(names) > 1]
    lacking: Counter[str] = Counter()
    source = iter(data)
    seen = touched = 0
    try:
        for sample in source:
            seen += 1
            check_dict(sample, "require_fields")
            if always <= sample.keys() and (
                not choices or all(any(name in sample for name in names) for names in choices)
            ):
                yield sample
                continue
            missing = [names for names in fields if not any(name in sample for name in names)]
            if on_missing == "error":
                error = missing_field(sample, missing[0])
                add_place(error, stage="require_fields")
                if handler(error):
                    continue
                return
            touched += 1
            lacking.update(";".join(names) for names in missing)
            if on_missing == "empty":
                yield {**sample, **{names[0]: None for names in missing}}
    finally:
        close_source(source)
        if touched:
            _report(place, on_missing, touched, seen, lacking)


def _report(place: str, on_missing: str, touched: int, seen: int, lacking: Counter[str]) -> None:
    reader = reader_name()
    logger.warning(
        "%s%s: %d of %d samples lack a field and were %s: %s",
        place,
        "" if reader is None else f", reader {reader}",
        touched,
        seen,
        "skipped" if on_missing == "skip" else "given None",
        ", ".join(f'{count} without "{name}"' for name, count in lacking.most_common()),
    )


require_fields = checkedfilter(_require_fields)
