"""An error of ours -> a line of text, and back: how its parts get out of a DataLoader worker.

torch carries only the class of an exception and its formatted traceback from a worker to the parent,
and raises `type(message=text)` there. So the parts travel in that text, in a note, which is taken
out again when the error is made anew. What is not understood stays as torch has it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_MARK = "webdataset error: "


def departing(message: str, place: Mapping[str, Any]) -> str:
    """The note, one line of ASCII, for an error that may leave its process as text."""
    return _MARK + json.dumps({"message": message, **place}, default=str)


def arrived(text: str) -> tuple[dict[str, Any], str] | None:
    """The parts that a worker put into this text, and the text without them; None for any other text."""
    if not text.startswith("Caught "):
        return None
    before, mark, rest = text.rpartition(_MARK)
    line, _, after = rest.partition("\n")
    try:
        parts = json.loads(line) if mark else None
    except ValueError:
        return None
    if not isinstance(parts, dict) or not isinstance(parts.get("message"), str):
        return None
    return parts, (before + after).rstrip()
