"""The naming rule: path of a member -> key and field; what a sample is. Pure.

A sample is made of neighbours with one key. A member without a field (no dot in its last path
component) belongs to no sample and ends none. Field names are lower-cased, keys are not. A field
twice is an error and costs the whole sample. A member named like metadata (`a.__key__`) never
overwrites the metadata: it is left out. `grouping` and `runs` do it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

METADATA = ("__key__", "__url__", "__local_path__")
"""Fields that the reader sets."""

KeyRule = Callable[[str], tuple[str | None, str | None]]

_KEY_AND_FIELD = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)$")
_SKIPPED_NAME = re.compile(r"__[^/]*__($|/)")


def base_plus_ext(path: str) -> tuple[str, str] | tuple[None, None]:
    """Key and field of a member: split at the first dot of the last path component.

    >>> base_plus_ext("d.e/a.seg.png")
    ('d.e/a', 'seg.png')
    >>> base_plus_ext("d.e/README")
    (None, None)
    """
    match = _KEY_AND_FIELD.match(path)
    return match.groups() if match else (None, None)  # type: ignore[return-value]  # two groups


def last_dot(path: str) -> tuple[str, str] | tuple[None, None]:
    """Key and field of a member: split at the last dot of the last path component.

    >>> last_dot("d.e/2024.01.02.jpg")
    ('d.e/2024.01.02', 'jpg')
    >>> last_dot("d.e/.hidden")
    (None, None)
    """
    key, dot, field = path.rpartition(".")
    return (key, field) if dot and "/" not in field and key and not key.endswith("/") else (None, None)


KEY_RULES: dict[str, KeyRule] = {"first-dot": base_plus_ext, "last-dot": last_dot}
"""Naming rules that have a name."""


def is_metadata_member(name: str) -> bool:
    """Whether a member is about the archive, not part of a sample: `__meta__/...` or `__info__` at the top."""
    return _SKIPPED_NAME.match(name) is not None


def key_of(name: str) -> str | None:
    """The key of the sample that a member belongs to, None: it belongs to none."""
    return None if is_metadata_member(name) else base_plus_ext(name)[0]


def may_be_field(keys: KeyRule) -> Callable[[bytes], bool]:
    """A test of names as archives have them: false for members that belong to no sample under this naming rule."""
    return _has_dot_and_is_no_metadata if keys is base_plus_ext else _is_no_metadata


def _has_dot_and_is_no_metadata(raw: bytes) -> bool:
    return b"." in raw and _is_no_metadata(raw)


def _is_no_metadata(raw: bytes) -> bool:
    return not (raw.startswith(b"__") and is_metadata_member(decode_name(raw)))


def decode_name(name: bytes) -> str:
    """A member name as text; bytes that are not UTF-8 become lone surrogates, as everywhere in Python."""
    return name.decode("utf-8", "surrogateescape")


def valid_sample(sample: Any) -> bool:
    """Whether this is a sample to be delivered: a non-empty dict without a true `__bad__`."""
    return isinstance(sample, dict) and bool(sample) and not sample.get("__bad__", False)
