"""Ordered rules, field -> function: which functions make what of the fields of a sample, or of the columns of a batch.

A rule is a pair. What stands first says for which fields it is, what stands second makes the value; the first rule
that takes a field has it. Lists of rules stand where a stage takes a function: in `decode`, in `map`, and as the
`collation_fn` of `batched`.

Rules for an editor: which steps a field has depends on its name, and, where there are rules by type, on the type of
its value; both are looked up once and remembered, within a bound, because names come from the data. Each field is
matched by the name and the value that it came with, also behind a `Continue`. Nothing is overwritten in silence.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from types import UnionType
from typing import Any, NamedTuple, TypeAlias, TypeGuard, Union, get_args, get_origin

from ._arguments import check_items, shown
from .codecs.extensions import has_extension
from .errors import CollationError, DuplicateFieldError, printable
from .places import add_place

logger = logging.getLogger(__name__)

_MANY = 10_000  # names of fields that are remembered


@dataclass(frozen=True)
class Rename:
    """For the fields of this rule, whose result gets another name."""

    rule: Match
    name: str


@dataclass(frozen=True)
class Continue:
    """As `Rename`; but the search goes on, so that later rules make more of the same field."""

    rule: Match
    name: str


Match: TypeAlias = str | re.Pattern[str] | type[Any] | UnionType | Rename | Continue
"""Which fields a rule is for.

A str: those that end in it, in whole parts and without case: "png" takes `png` and `seg.png`; ";" stands between
several, and "" takes all. A compiled regular expression: those in whose name in lower case, with or without a dot in
front, it is found. A type: those whose value is one; in a batch, the first value counts.
"""

Function: TypeAlias = Callable[[Any], Any] | str | None
"""Called with the value, or the column; None: what the stage does without rules; in `decode`, also an image spec."""

Rule: TypeAlias = tuple[Match, Function]


def map_by_rules(sample: dict[str, Any], rules: Sequence[Rule]) -> dict[str, Any]:
    """What rules make of the fields of one sample, as a new dict.

    The first rule that takes a field makes the value. Fields that no rule takes are left out; those whose names begin
    with `_` stay. With a function of None a value stays as it is.

    >>> map_by_rules({"__key__": "a", "cls": b"3", "txt": b"x"}, [("cls", int)])
    {'__key__': 'a', 'cls': 3}

    Raises:
        DuplicateFieldError: two results have one name.
        TypeError, ValueError: something in the list is no rule; the sample is no dict.
    """
    listed = RuleList(rules, "map_by_rules")
    if not isinstance(sample, dict):
        raise TypeError(f"map_by_rules: a sample must be a dict with named fields, got {shown(sample)}")
    try:
        return listed.of_sample(sample, unchanged)
    except Exception as exn:
        add_place(exn, url=sample.get("__url__"), key=sample.get("__key__"))
        raise


def collate_by_rules(samples: Sequence[dict[str, Any]], rules: Sequence[Rule]) -> dict[str, Any]:
    """One batch of several samples: functions get columns, lists of the values that the samples have in a field.

    None combines a column as `default_collation_fn` does, and so are fields combined whose names begin with `_`. Every
    sample must have each field that a rule takes.

    >>> collate_by_rules([{"cls": 3, "txt": "x"}, {"cls": 4}], [("cls", sum)])
    {'cls': 7}

    Raises:
        CollationError: there are no samples, they are no dicts, or one lacks a field; otherwise as `map_by_rules`.
    """
    check_items("collate_by_rules", "samples", samples, "a list of samples")
    return RuleList(rules, "collate_by_rules").of_samples(list(samples))


def is_rules(value: Any) -> TypeGuard[Sequence[Rule]]:
    """Whether a list of rules stands where a function may stand."""
    return isinstance(value, (list, tuple))


class _Step(NamedTuple):
    """One rule for one field: the function, the name of what it makes, and the rule as an error shows it."""

    function: Callable[[Any], Any] | None
    name: str
    text: str


Usual: TypeAlias = Callable[[str, Any], Any]
"""Called with name and value: what the stage makes of a field without rules."""

Failure: TypeAlias = Callable[[Exception, str, Any, str], Exception]
"""Called with an error, the field, its value and the rule: the error to raise."""


class RuleList:
    """Rules, checked, with the steps of each field remembered.

    Args:
        rules: the pairs.
        where: the stage, for errors.
        by_name: called with a str that stands as a function, gives the function; None: there are none.
    """

    def __init__(
        self, rules: Sequence[Rule], where: str, by_name: Callable[[str], Callable[[Any], Any]] | None = None
    ) -> None:
        self._rules: list[tuple[list[Rename | Continue], Any, Callable[[Any], Any] | None, str]] = []
        if not is_rules(rules) or not rules:
            raise TypeError(f"{where}: rules must be a list of pairs, at least one, got {shown(rules)}")
        for number, rule in enumerate(rules):
            text = f"rule {number + 1}"
            if not isinstance(rule, (tuple, list)) or len(rule) != 2:
                raise TypeError(
                    f'{where}: {text} must be a pair, what it is for and a function, ("jpg;png", f), got {shown(rule)}'
                    "; rules stand in a list, also a single one"
                )
            around, match = _unwrapped(rule[0], f"{where}: {text}")
            function = by_name(rule[1]) if by_name is not None and isinstance(rule[1], str) else rule[1]
            if function is not None and not callable(function):
                raise TypeError(f"{where}: {text} must have a function or None, got {shown(rule[1])}")
            self._rules.append((around, match, function, f"{text}, {_text_of(rule[0])}"))
        self._typed = any(isinstance(match, (type, UnionType)) for _, match, _, _ in self._rules)
        self._known: dict[Any, tuple[_Step, ...]] = {}
        self._where = where
        self._fit = False  # a field was taken, or it was told that none is

    def of_sample(self, sample: dict[str, Any], usual: Usual, failure: Failure | None = None) -> dict[str, Any]:
        """What becomes of a sample."""
        result: dict[str, Any] = {}
        for name, value in sample.items():
            for step in self.steps(name, value):
                self._make(result, step, name, value, usual, failure)
        if not self._fit:
            self._tell_misfit(sample)
        return result

    def of_samples(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """What becomes of the columns of a batch."""
        from .filters._batches import column_of

        def placed(exn: Exception, name: str, value: Any, rule: str) -> Exception:
            keys = [str(sample.get("__key__", i)) for i, sample in ((0, samples[0]), (len(samples) - 1, samples[-1]))]
            exn.add_note(f"in the batch of the samples {printable(keys[0])} to {printable(keys[1])}")
            return exn

        if not samples:
            raise CollationError("no samples to make a batch of")
        names: dict[str, Any] = {}
        for i, sample in enumerate(samples):
            if not isinstance(sample, dict):
                raise CollationError(
                    f"rules need samples that are dicts, sample {i} of the batch is a {type(sample).__name__}:"
                    " put batched before to_tuple"
                )
            for name, value in sample.items():
                names.setdefault(name, value)
        result: dict[str, Any] = {}
        for name, first in names.items():
            steps = self.steps(name, first)
            for i, sample in enumerate(samples if steps else ()):
                if name not in sample:
                    raise CollationError(
                        f"sample {i} of the batch has no such field, others have it [{steps[0].text}]",
                        field=name,
                        key=sample.get("__key__"),
                        url=sample.get("__url__"),
                    )
            for step in steps:
                column = [sample[name] for sample in samples]
                self._make(result, step, name, column, lambda name, _: column_of(samples, name), placed)
        if not self._fit:
            self._tell_misfit(names)
        return result

    def steps(self, name: str, value: Any) -> tuple[_Step, ...]:
        """What is to be made of a field, nothing if no rule takes it."""
        place = (name, type(value)) if self._typed else name
        steps = self._known.get(place)
        if steps is None:
            if len(self._known) >= _MANY:
                self._known.clear()
            steps = self._known[place] = self._found(name, value)
        return steps

    def _found(self, name: str, value: Any) -> tuple[_Step, ...]:
        if not isinstance(name, str):
            raise TypeError(f"rules are for fields with names, got a field {shown(name)}")
        if name.startswith("_"):
            return (_Step(None, name, "metadata"),)
        steps = []
        for around, match, function, text in self._rules:
            if _takes(match, name, value):
                steps.append(_Step(function, around[0].name if around else name, text))
                if not any(isinstance(one, Continue) for one in around):
                    break
        self._fit = self._fit or bool(steps)
        return tuple(steps)

    def _tell_misfit(self, fields: dict[str, Any]) -> None:
        """Log once that the rules leave nothing of a sample or batch but its metadata."""
        self._fit = True
        names = [printable(name) for name in fields if not name.startswith("_")]
        if names:
            logger.warning("%s: no rule takes any of the fields %s; they are left out", self._where, ", ".join(names))

    def _make(
        self, result: dict[str, Any], step: _Step, name: str, value: Any, usual: Usual, failure: Failure | None
    ) -> None:
        try:
            made = usual(name, value) if step.function is None else step.function(value)
        except Exception as exn:
            error = exn if failure is None else failure(exn, name, value, step.text)
            if error is not exn:
                raise error from exn
            add_place(exn, field=name)
            exn.add_note(f"in {step.text}")
            raise
        if step.name in result:
            raise DuplicateFieldError(
                f"another field has given {step.name!r} before; name the results apart with Rename [{step.text}]",
                field=name,
            )
        result[step.name] = made


def unchanged(name: str, value: Any) -> Any:
    """The value: what `map` makes of a field without rules."""
    return value


def _unwrapped(match: Any, where: str) -> tuple[list[Rename | Continue], Any]:
    """What is around a match, from the outside in, and the match itself; extensions of a str as a list."""
    around: list[Rename | Continue] = []
    while isinstance(match, (Rename, Continue)):
        if not isinstance(match.name, str) or not match.name:
            raise TypeError(f"{where}: the new name of a field must be a str, not empty, got {shown(match.name)}")
        around.append(match)
        match = match.rule
    if get_origin(match) is Union:
        match = reduce(or_, get_args(match))
    if isinstance(match, str):
        return around, _extensions(match, where)
    if isinstance(match, re.Pattern) and isinstance(match.pattern, bytes):
        raise TypeError(f"{where}: names are text, the regular expression {match.pattern!r} is for bytes")
    if not isinstance(match, (re.Pattern, type, UnionType)):
        hint = "; of the two called Continue, rules take webdataset.rules.Continue" if _is_result(match) else ""
        raise TypeError(
            f"{where} must be for the end of a name, a compiled regular expression or a type, or be a Rename or"
            f" Continue of one, got {shown(match)}{hint}"
        )
    try:
        _takes(match, "", None)
    except TypeError as exn:  # a protocol, a union with list[int] in it: no values can be told by those
        raise TypeError(f"{where}: no value can be told by the type {match!r}: {exn}") from exn
    return around, match


def _extensions(match: str, where: str) -> list[str]:
    extensions = [extension.strip().removeprefix(".").lower() for extension in match.split(";")]
    if match and "" in extensions:
        raise ValueError(f'{where}: {match!r} has an empty part, which would take every field; "" alone does that')
    if "*" in match:
        raise ValueError(f"{where}: {match!r} has a star, but is the end of a name; use re.compile(...)")
    return extensions


def _is_result(match: Any) -> bool:
    return type(match).__name__ == Continue.__name__


def _takes(match: Any, name: str, value: Any) -> bool:
    if isinstance(match, list):
        return "" in match or has_extension(name, match)
    if isinstance(match, re.Pattern):
        lowered = name.lower()
        return bool(match.search(lowered) or match.search("." + lowered))
    return isinstance(value, match)


def _text_of(match: Any) -> str:
    """A match as an error shows it."""
    if isinstance(match, (Rename, Continue)):
        return f"{type(match).__name__}({_text_of(match.rule)}, {match.name!r})"
    if isinstance(match, re.Pattern):
        return f"re.compile({match.pattern!r})"
    return match.__name__ if isinstance(match, type) else repr(match)


__all__ = ["Continue", "Match", "Rename", "Rule", "collate_by_rules", "map_by_rules"]
