"""Keys and fields of samples to names of members, which readers must give back as they were. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from .errors import EncodingError, printable
from .samples import is_metadata_member

_KEY = re.compile(r"(?:[^\x00-\x1f\x7f]*/)?[^\x00-\x1f\x7f./]+")
_FIELD = re.compile(r"[^\x00-\x1f\x7f/]+")


def check_key(key: Any, fields: Iterable[str] = ()) -> None:
    """Raise EncodingError unless readers give back this key, for a sample with these fields."""
    if key is None:
        raise EncodingError(
            f"object must contain a __key__, a string; it has {', '.join(map(repr, fields)) or 'nothing'}"
        )
    if not isinstance(key, str):
        advice = "key.decode()" if isinstance(key, bytes) else "str(key)"
        raise EncodingError(f"__key__ must be a string, got {type(key).__name__}; use {advice}")
    shown = "the key would not read back"
    if _KEY.fullmatch(key) is None:
        last = key.rpartition("/")[2]
        if not last:
            raise EncodingError(f"{shown}: it is empty or ends with a slash; give the sample a name")
        if "." in last:
            raise EncodingError(
                f"{shown}: readers end the key at the first dot of its last path component; "
                "replace the dots, as in key.replace('.', '_')"
            )
        raise EncodingError(f"{shown}: it has control characters; remove them")
    if key.startswith("__"):
        names = [f"{key}.{field}" for field in fields if field != "__key__"]
        if any(map(is_metadata_member, names)):
            raise EncodingError(f"{shown}: readers skip members named __...__ as metadata; choose another key")


def check_fields(names: list[str]) -> None:
    """Raise EncodingError unless readers give back these fields, together."""
    for name in names:
        if _FIELD.fullmatch(name) is None:
            what = "is empty" if not name else "has a slash" if "/" in name else "has control characters"
            raise EncodingError(f"field name {printable(name)!r} {what} and would not read back; choose another")
    if len({name.lower() for name in names}) < len(names):
        raise EncodingError(f"two fields have the same name but for upper case, which readers drop: {', '.join(names)}")


def encode_name(name: str) -> bytes:
    """A name as archives have it: UTF-8, and what came from bytes that were none as these bytes."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise EncodingError(
            f"{printable(name)!r} has characters that UTF-8 cannot write; choose another name"
        ) from None
