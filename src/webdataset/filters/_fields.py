"""Stages that choose, order and name fields: dict -> tuple, or dict -> dict with other names.

Where a name is asked for, alternatives may be given, "png;jpg" or ["png", "jpg"]: the first that the
sample has is taken.
"""

from __future__ import annotations

import fnmatch
import os.path
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from .._arguments import check_flag, checked, shown
from .._stage import checkedfilter
from .._types import Handler
from ..errors import DuplicateFieldError, MissingFieldError, SampleError
from ..handlers import reraise_exception
from ._places import apply_each, check_dict, missing_field

Alternatives = str | Sequence[str]


def _alternatives(names: Alternatives) -> list[str]:
    if isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names):
        return list(names)
    if not isinstance(names, str):
        raise TypeError(f'a field must be a name, "png;jpg" or ["png", "jpg"], got {shown(names)}')
    if re.search(r"\s", names):
        raise ValueError(f"{names!r} holds a space: alternatives are separated by ;, fields are separate arguments")
    return names.split(";")


def getfirst(a: Mapping[str, Any], keys: Alternatives, default: Any = None, missing_is_error: bool = True) -> Any:
    """The value of the first of `keys`, "a;b" or ["a", "b"], that is in `a`.

    Raises MissingFieldError (a ValueError and KeyError) if there is none, or gives `default` where `missing_is_error`
    is false.
    """
    names = _alternatives(keys)
    for name in names:
        if name in a:
            return a[name]
    if missing_is_error:
        raise missing_field(a, names)
    return default


def parse_field_spec(fields: str | Sequence[Alternatives]) -> list[list[str]]:
    """Fields, each a list of alternatives: "a;b c" is [["a", "b"], ["c"]]; a sequence has one field an item."""
    return [_alternatives(field) for field in (fields.split() if isinstance(fields, str) else fields)]


@checked("to_tuple", missing_is_error=check_flag, none_is_error=check_flag)
def _to_tuple(
    data: Iterable[Any],
    *args: Alternatives,
    handler: Handler = reraise_exception,
    missing_is_error: bool = True,
    none_is_error: bool | None = None,
) -> Iterator[Any]:
    """The named fields, in this order, as a tuple: `to_tuple("png;jpg", "cls")` or `to_tuple("png;jpg cls")`.

    Args:
        args: fields.
        handler: error policy.
        missing_is_error: false gives None for a field that the sample lacks; true raises MissingFieldError.
        none_is_error: true raises SampleError where a value is None; by default as `missing_is_error`.
    """
    fields = parse_field_spec(args[0] if len(args) == 1 and isinstance(args[0], str) else args)
    if none_is_error is None:
        none_is_error = missing_is_error

    def chosen(sample: Any) -> Any:
        check_dict(sample, "to_tuple")
        values = []
        for names in fields:
            for name in names:
                if name in sample:
                    value = sample[name]
                    break
            else:
                if missing_is_error or none_is_error:
                    raise missing_field(sample, names)
                name, value = names[0], None
            if value is None and none_is_error:
                raise SampleError("is None, and none_is_error is set", field=name)
            values.append(value)
        return tuple(values)

    return apply_each(data, chosen, handler, "to_tuple")


to_tuple = checkedfilter(_to_tuple)


@checked("rename", keep=check_flag)
def _rename(
    data: Iterable[Any], handler: Handler = reraise_exception, keep: bool = True, **kw: Alternatives
) -> Iterator[Any]:
    """Give fields other names: `rename(image="png;jpg", cls="cls")`.

    All values are read first, so names can be swapped. `keep`: the other fields stay, and all alternatives go;
    otherwise only the new fields are left, without `__key__` and `__url__` too. Fields called `handler` and `keep`
    cannot be made. Raises MissingFieldError for a sample that lacks all alternatives.
    """
    fields = {new: _alternatives(names) for new, names in kw.items()}
    old = {name for names in fields.values() for name in names}

    def renamed(sample: Any) -> Any:
        check_dict(sample, "rename")
        result = {name: value for name, value in sample.items() if name not in old} if keep else {}
        for new, names in fields.items():
            result[new] = getfirst(sample, names)
        return result

    return apply_each(data, renamed, handler, "rename")


rename = checkedfilter(_rename)  # type: ignore[arg-type]  # **kw, see pipelinefilter


def _matcher(patterns: Iterable[str]) -> Callable[[str], Any]:
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns)).match


@checked("extract_keys", duplicate_is_error=check_flag, ignore_missing=check_flag)
def _extract_keys(
    source: Iterable[Any],
    *patterns: Alternatives,
    duplicate_is_error: bool = True,
    ignore_missing: bool = False,
    handler: Handler = reraise_exception,
) -> Iterator[Any]:
    """A tuple of the fields that match file name patterns, `extract_keys("*.png;*.jpg", "cls")`, one value each.

    A pattern may match the name with or without a dot in front; names of metadata take part.

    Args:
        patterns: alternatives, separated by ";" or in a list.
        duplicate_is_error: false takes the first field that matches; true raises DuplicateFieldError for several.
        ignore_missing: true leaves out what is missing, so that the tuple gets shorter; false raises MissingFieldError.
        handler: error policy.
    """
    wanted = [pattern.split(";") if isinstance(pattern, str) else _alternatives(pattern) for pattern in patterns]
    matchers = [(names, _matcher(names)) for names in wanted]

    def extracted(sample: Any) -> Any:
        check_dict(sample, "extract_keys")
        values = []
        for names, match in matchers:
            found = [name for name in sample if match("." + name) or match(name)]
            if not found and not ignore_missing:
                raise missing_field(sample, names)
            if len(found) > 1 and duplicate_is_error:
                raise DuplicateFieldError(f"{' and '.join(found)} all match {';'.join(names)}; expected one field")
            values += [sample[name] for name in found[:1]]
        return tuple(values)

    return apply_each(source, extracted, handler, "extract_keys")


extract_keys = checkedfilter(_extract_keys)


@checked("rename_keys", must_match=check_flag, duplicate_is_error=check_flag)
def _rename_keys(
    source: Iterable[Any],
    *args: tuple[str, str],
    keep_unselected: bool = False,
    must_match: bool = True,
    duplicate_is_error: bool = True,
    **kw: str,
) -> Iterator[Any]:
    """Rename fields by file name patterns: `rename_keys(image="*.png")`, or pairs `("image", "*.png")`.

    Patterns see the name in lower case, up to its last "/" removed; of several that match the last one counts.

    Args:
        args: pairs of new name and pattern.
        keep_unselected: fields that nothing matches stay; otherwise they go, `__key__` and `__url__` too.
        must_match: every pattern must match something; MissingFieldError where one does not.
        duplicate_is_error: two fields of one new name raise DuplicateFieldError; otherwise the first is kept.
        kw: new name = pattern.
    """
    for rule in (*args, *kw.items()):
        if not (isinstance(rule, (tuple, list)) and len(rule) == 2 and all(isinstance(part, str) for part in rule)):
            raise TypeError(
                f'rename_keys: a rule must be a new name and a pattern, ("image", "*.png"), got {shown(rule)}'
            )
    rules = [(new, pattern, _matcher([pattern])) for new, pattern in (*args, *kw.items())]

    def renamed(sample: Any) -> Any:
        check_dict(sample, "rename_keys")
        result: dict[str, Any] = {}
        unmatched = {pattern for _, pattern, _ in rules}
        for name, value in sample.items():
            new = name if keep_unselected else None
            for candidate, pattern, match in rules:
                if match(os.path.basename(name).lower()):
                    new = candidate
                    unmatched.discard(pattern)
            if new is None or (new in result and not duplicate_is_error):
                continue
            if new in result:
                raise DuplicateFieldError(f'two fields become "{new}"; has: {", ".join(sample)}')
            result[new] = value
        if unmatched and must_match:
            raise MissingFieldError(f"no field matches {' or '.join(sorted(unmatched))}; has: {', '.join(sample)}")
        return result

    return apply_each(source, renamed, reraise_exception, "rename_keys")


rename_keys = checkedfilter(_rename_keys)  # type: ignore[arg-type]  # **kw, see pipelinefilter
