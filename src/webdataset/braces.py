"""Brace patterns -> names: `train-{000..999}.tar` -> `train-000.tar`, `train-001.tar`, ...

As in bash: lists `{a,b}`, ranges `{1..9}`, `{001..100}`, `{9..1..2}`, `{a..e}`, nesting, products. A group
that is neither list nor range (`{}`, `{x}`, `${NAME}`) stays as it is, braces included. A backslash
before one of `{ } , \\` takes its meaning away and is dropped; before anything else it is an ordinary
character, so that Windows paths and shell commands stay whole.

One pass from left to right with an explicit stack: no depth of nesting overflows it. The number of
names is checked before they are made.
"""

from __future__ import annotations

import re

from ._arguments import check_text, checked
from .errors import ShardListError, public_url

MAX_NAMES = 10_000_000
"""A pattern that stands for more names than this is refused: most likely a slip, and gigabytes of names."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

_RANGE = r"(-?[0-9]{1,18})\.\.(-?[0-9]{1,18})(?:\.\.(-?[0-9]{1,18}))?"
_number_range = re.compile(_RANGE).fullmatch
_letter_range = re.compile(r"([a-zA-Z])\.\.([a-zA-Z])(?:\.\.(-?[0-9]{1,18}))?").fullmatch
_one_number_range = re.compile(r"([^{}\\]*)\{" + _RANGE + r"\}([^{}\\]*)", re.DOTALL).fullmatch
_tokens = re.compile(r"\\[{},\\]|[{},]").finditer


@checked("braceexpand", pattern=check_text)
def braceexpand(pattern: str) -> list[str]:
    """The names that a pattern stands for, in order; at least one, possibly the pattern itself.

    Raises ShardListError (a ValueError) where braces are not balanced, with their position, and for
    a pattern of more than `MAX_NAMES` names.
    """
    if "{" not in pattern and "}" not in pattern and "\\" not in pattern:
        return [pattern]
    simple = _one_number_range(pattern)
    if simple:
        prefix, first, last, step, suffix = simple.groups()
        return _numbers(pattern, first, last, step, prefix, suffix)
    return _expand(pattern)


class _Group:
    """A group that is not closed yet: where it begins, its finished alternatives, the one being read."""

    __slots__ = ("alternatives", "commas", "current", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.alternatives: list[str] = []
        self.commas = 0
        self.current = [""]


def _expand(pattern: str) -> list[str]:
    stack = [_Group(-1)]
    done = 0
    for token in _tokens(pattern):
        group = stack[-1]
        start, end = token.span()
        text, done = pattern[done:start], end
        mark = pattern[end - 1]
        escaped = end - start == 2
        if escaped or (mark == "," and len(stack) == 1):
            text += mark
        if text:
            group.current = [name + text for name in group.current]
        if escaped:
            continue
        if mark == "{":
            stack.append(_Group(start))
        elif mark == "," and len(stack) > 1:
            group.alternatives += group.current
            group.commas += 1
            group.current = [""]
        elif mark == "}":
            if len(stack) == 1:
                raise ShardListError(_unbalanced(pattern, start, "closes nothing"))
            stack.pop()
            values = _values(pattern, group, end)
            names = stack[-1].current
            _check_count(pattern, len(names) * len(values))
            stack[-1].current = [name + value for name in names for value in values]
    if len(stack) > 1:
        raise ShardListError(_unbalanced(pattern, stack[-1].start, "is never closed"))
    rest = pattern[done:]
    return [name + rest for name in stack[0].current] if rest else stack[0].current


def _values(pattern: str, group: _Group, end: int) -> list[str]:
    if group.commas:
        return group.alternatives + group.current
    content = pattern[group.start + 1 : end - 1]
    numbers = _number_range(content)
    if numbers:
        first, last, step = numbers.groups()
        return _numbers(pattern, first, last, step)
    letters = _letter_range(content)
    if letters:
        first, last, step = letters.groups()
        return [LETTERS[i] for i in _inclusive(LETTERS.index(first), LETTERS.index(last), step)]
    return ["{" + name + "}" for name in group.current]


def _numbers(pattern: str, first: str, last: str, step: str | None, prefix: str = "", suffix: str = "") -> list[str]:
    numbers = _inclusive(int(first), int(last), step)
    _check_count(pattern, len(numbers))
    padded = any(re.match(r"-?0[0-9]", end) for end in (first, last))
    width = max(len(first), len(last)) if padded else 0
    # faster than an f-string with a width: a million names are made here
    form = f"{prefix.replace('%', '%%')}%0{width}d{suffix.replace('%', '%%')}"
    return [form % number for number in numbers]


def _inclusive(first: int, last: int, step: str | None) -> range:
    stride = abs(int(step or 1)) or 1
    return range(first, last + 1, stride) if first <= last else range(first, last - 1, -stride)


def _check_count(pattern: str, count: int) -> None:
    if count > MAX_NAMES:
        raise ShardListError(
            f"{public_url(pattern)}: stands for {count:,} names, more than {MAX_NAMES:,}: is a number mistyped?"
        )


def _unbalanced(pattern: str, position: int, fault: str) -> str:
    return (
        f"{public_url(pattern)}: unbalanced braces: {pattern[position]!r} at position {position} {fault}"
        f" (write \\{pattern[position]} for the character itself)"
    )
