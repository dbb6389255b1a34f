"""Texts, integers, JSON, MessagePack and CBOR <-> bytes.

Decoders raise what the underlying parser raises; `webdataset.autodecode` adds the place.
"""

from __future__ import annotations

import importlib
import json
import operator
from collections.abc import Callable
from typing import Any

from .._optional import require
from ..errors import EncodingError, MissingDependencyError

_scan_json: Callable[[str, int], tuple[Any, int]] = vars(json.JSONDecoder())["scan_once"]  # no checker knows it


def text_dumps(value: Any) -> bytes:
    """UTF-8 of a str."""
    if not isinstance(value, str):
        raise EncodingError(f"a text field needs a str, got {type(value).__name__}: convert it, or use json")
    return value.encode("utf-8")


def integer_dumps(value: Any) -> bytes:
    """Decimal digits of an integer, also of numpy and torch; other values as their ASCII `str`."""
    try:
        value = operator.index(value)
    except TypeError:  # then its text is taken
        pass
    try:
        return str(value).encode("ascii")
    except UnicodeEncodeError:
        raise EncodingError(f"an integer field needs an int or an ASCII text, got {value!r:.60}") from None


def json_loads(data: bytes) -> Any:
    """What `json.loads` gives for these bytes; the usual case (UTF-8, no blanks in front) takes a shorter way."""
    try:
        text = data.decode("utf-8")
        value, end = _scan_json(text, 0)
        if end == len(text) or not text[end:].strip(" \t\n\r"):
            return value
    except (ValueError, StopIteration):
        pass  # json.loads knows other encodings, and raises the error that names line and column
    return json.loads(data)


def json_dumps(value: Any) -> bytes:
    """JSON in ASCII, as `json.dumps` writes it."""
    return json.dumps(value).encode("utf-8")


def msgpack_loads(data: bytes) -> Any:
    """The value in a MessagePack field; needs the package msgpack."""
    return require("msgpack", "msgpack", "decoding MessagePack (mp, msgpack, msg)").unpackb(data)


def mp_dumps(value: Any) -> bytes:
    """MessagePack of a value; needs the package msgpack."""
    packed: bytes = require("msgpack", "msgpack", "encoding MessagePack (mp, msgpack, msg)").packb(value)
    return packed


def cbor_module(purpose: str) -> Any:
    """The package that reads and writes CBOR: cbor2, or cbor."""
    # The C code of cbor 1.0 crashes the process on deeply nested data, so its Python half is taken.
    for module in ("cbor2", "cbor.cbor"):
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as exn:
            if exn.name not in ("cbor2", "cbor", "cbor.cbor"):
                raise
    raise MissingDependencyError(f"{purpose} needs cbor2 or cbor: pip install cbor2", name="cbor2")


def cbor_loads(data: bytes) -> Any:
    """The value in a CBOR field; needs the package cbor2, or cbor."""
    return cbor_module("decoding .cbor").loads(data)


def cbor_dumps(value: Any) -> bytes:
    """CBOR of a value; needs the package cbor2, or cbor."""
    encoded: bytes = cbor_module("encoding .cbor").dumps(value)
    return encoded


CODECS: dict[str, tuple[Callable[[bytes], Any] | None, Callable[[Any], bytes]]] = {
    "txt text transcript html htm": (bytes.decode, text_dumps),
    "cls cls2 class count index inx id": (int, integer_dumps),
    "json jsn": (json_loads, json_dumps),
    "mp msgpack msg": (msgpack_loads, mp_dumps),
    "cbor": (cbor_loads, cbor_dumps),
}
