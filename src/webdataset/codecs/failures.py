"""An exception from a codec, and the bytes it met -> one line that says what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ..errors import DataError, WebDatasetError, printable


def _json(exn: json.JSONDecodeError, data: bytes) -> str:
    position = len(exn.doc[: exn.pos].encode("utf-8", "surrogatepass"))
    return f"invalid JSON at byte {position} (line {exn.lineno}, column {exn.colno}): {exn.msg}"


def _unicode(exn: UnicodeDecodeError, data: bytes) -> str:
    return f"invalid {exn.encoding} text at byte {exn.start} ({exn.object[exn.start : exn.end]!r}): {exn.reason}"


def _image(exn: Exception, data: bytes) -> str:
    return f"cannot identify image file; starts with {start(data)}"


def _bomb(exn: Exception, data: bytes) -> str:
    return f"{' '.join(str(exn).split())} If that is right, raise PIL.Image.MAX_IMAGE_PIXELS"


def _system(exn: Exception, data: bytes) -> str | None:
    text = str(exn)
    if not text.startswith(("image file is truncated", "broken data stream", "unrecognized data stream")):
        return None
    return f"the image is cut or damaged: {text}; {len(data)} bytes are there"


def start(data: Any, count: int = 16) -> str:
    """The first bytes as Python writes them, with the number of bytes when there are more."""
    if not isinstance(data, bytes):
        return f"a {type(data).__name__}"
    return repr(data) if len(data) <= count else f"{data[:count]!r} ({len(data)} bytes)"


_BY_TYPE: dict[str, Callable[[Any, bytes], str | None]] = {
    "JSONDecodeError": _json,
    "UnicodeDecodeError": _unicode,
    "UnidentifiedImageError": _image,
    "DecompressionBombError": _bomb,
    "OSError": _system,
}


def describe(exn: Exception, data: Any) -> str:
    """One line for people about why these bytes could not be decoded."""
    special = _BY_TYPE.get(type(exn).__name__)
    shown = None if special is None else special(exn, data)
    if shown is not None:
        return shown
    if isinstance(exn, DataError):
        return exn.message if exn.offset is None else f"{exn.message} (byte {exn.offset} of the field)"
    text = printable(" ".join(str(exn).split()), 500)
    if text.startswith("invalid literal for int()"):
        return f"not an integer: {start(data)}"
    if isinstance(exn, WebDatasetError) or (type(exn) in (ValueError, EOFError) and text):
        return text
    what = f"{type(exn).__name__}: {text}" if text else type(exn).__name__
    return f"{what}; the field starts with {start(data)}" if isinstance(data, bytes) else what
