"""Exceptions on their way through the stages: what is known of the place is added, once.

Errors of ours have attributes for it. Exceptions of user functions keep their type and text; they
get a note for people, and the same facts beside it, for logs (`place_of`).
"""

from __future__ import annotations

import sys
from typing import Any

from ._crossing import departing
from .errors import PLACE, DataError, WebDatasetError, printable, public_url
from .workers import reader_info

_ATTRIBUTE = "_webdataset_place"


def add_place(exn: BaseException, **place: Any) -> None:
    """Add what the exception does not know yet: any of url, member, key, field, stage, worker; None is left out."""
    place = {part: value for part, value in place.items() if value is not None}
    if isinstance(exn, DataError):
        exn.locate(**place)
        return
    known = place_of(exn)
    new = {part: value for part, value in place.items() if part not in known}
    try:
        setattr(exn, _ATTRIBUTE, {**new, **known})
    except AttributeError:  # a class with slots; the note has to do
        pass
    if new:
        exn.add_note(_note(new))


def place_of(exn: BaseException) -> dict[str, Any]:
    """What is known of the place of an exception, without the parts that are not."""
    if isinstance(exn, DataError):
        return {part: value for part in PLACE if (value := getattr(exn, part)) is not None}
    place: dict[str, Any] = getattr(exn, _ATTRIBUTE, {})
    return place


def _note(place: dict[str, Any]) -> str:
    url = place.get("url")
    parts = [public_url(str(url))] if url is not None else []
    parts += [printable(str(place[part])) for part in ("member", "key", "field") if part in place]
    said = [f"in {place['stage']}"] if "stage" in place else []
    if parts:
        what = "shard" if len(parts) == 1 and url is not None else "member" if "member" in place else "sample"
        what = "field" if len(parts) == 1 and "field" in place else what
        said.append(f"{'' if said else 'in '}{what} {'!'.join(parts)}")
    if "worker" in place:
        said.append(f"in reader {place['worker']}")
    return ", ".join(said)


def reader_name() -> str | None:
    """ "rank/worker" of this process; None where it is the only reader."""
    info = reader_info()
    return f"{info.rank}/{info.worker}" if info.readers > 1 else None


def in_torch_worker() -> bool:
    """Whether this process is a worker of a torch DataLoader."""
    data = sys.modules.get("torch.utils.data")
    return data is not None and data.get_worker_info() is not None


def add_reader(exn: Exception) -> None:
    """Add the reader, where there are several; in a DataLoader worker, let the error cross to the parent whole."""
    add_place(exn, worker=reader_name())
    if isinstance(exn, WebDatasetError) and in_torch_worker():
        place = place_of(exn) if isinstance(exn, DataError) else {}
        if "url" in place:
            place["url"] = public_url(str(place["url"]))
        note = departing(exn.message if isinstance(exn, DataError) else str(exn), place)
        if note not in getattr(exn, "__notes__", ()):
            exn.add_note(note)
