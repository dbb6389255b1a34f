"""The seam: a url becomes a stream, a range of bytes, a listing, a size, or something to write, whatever its scheme.

Each kind of place is a module; PLACES says which serves a scheme. Where http carries the bytes it has

    target_of(url, options) -> Target           and `http` does all the reading

and elsewhere

    open_read(url, options)   read_range(url, start, stop, options)   stat(url, options)

besides, wherever it can be done,

    open_write(url, options) -> a stream with close and abort
    entries(url, options)    -> an Entry for each object whose url begins with this one, sorted by url
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from ..errors import OpenError
from . import http, parallel
from .options import StorageOptions, storage_options
from .target import Entry, Stat, Target
from .urls import scheme_of

PLACES = {
    "": "files",
    "file": "files",
    "http": "web",
    "https": "web",
    "hf": "huggingface",
    "htgs": "gcs",
    "gs": "gcs",
    "s3": "s3",
    "az": "azure",
    "abfs": "azure",
    "abfss": "azure",
}
"""Scheme to the module of this folder that serves it; fsspec's file systems serve the others."""


def open_read(url: str, options: StorageOptions | None = None) -> Any:
    """The object as a binary stream.

    Raises:
        NotFoundError: there is nothing.
        OpenError: it cannot be had.
    """
    options = options or storage_options()
    target = _target_of(url, options)
    return _do("open_read", url, options) if target is None else parallel.open_read(target, options)


def read_part(
    url: str, start: int, stop: int, options: StorageOptions | None = None, *, etag: str | None = None
) -> tuple[bytes, bool]:
    """Bytes start (inclusive) to stop (exclusive) of an object, fewer where it ends before; whether only those came.

    There are servers that send all bytes from the first one on.

    Args:
        etag: the version that is wanted; another one is an error. Places without ETags ignore it.
    """
    options = options or storage_options()
    target = _target_of(url, options)
    if target is None:
        return _do("read_range", url, start, stop, options), True
    return http.read_part(target, start, stop, options, etag)


def stat(url: str, options: StorageOptions | None = None) -> Stat:
    """Size and ETag of the object, nothing of it is read."""
    options = options or storage_options()
    target = _target_of(url, options)
    found: Stat = _do("stat", url, options) if target is None else http.stat(target, options)
    return found


def open_write(url: str, options: StorageOptions | None = None) -> Any:
    """A stream that becomes the object when it is closed; after `abort` there is none, or the one from before."""
    return _do("open_write", url, options or storage_options())


def write_whole(url: str, data: bytes) -> None:
    """Make the object of these bytes, in place of one that is there."""
    stream = open_write(url, storage_options(overwrite=True))
    try:
        view = memoryview(data)
        while view:
            view = view[stream.write(view) :]
    except BaseException:
        stream.abort()
        raise
    stream.close()


def entries(url: str, options: StorageOptions | None = None) -> Iterator[Entry]:
    """What there is whose url begins with this one, at any depth, sorted by url."""
    found: Iterator[Entry] = _do("entries", url, options or storage_options())
    return found


def lists(url: str) -> bool:
    """Whether there is a way to list what has such a url."""
    place = _place_of(url)
    return hasattr(place, "entries") and (not hasattr(place, "knows") or place.knows(url))


def _target_of(url: str, options: StorageOptions) -> Target | None:
    place = _place_of(url)
    return place.target_of(url, options) if hasattr(place, "target_of") else None


def _do(name: str, url: str, *rest: Any) -> Any:
    function = getattr(_place_of(url), name, None)
    if function is None:
        can = {"open_write": "be written", "entries": "be listed"}
        raise OpenError(f"{scheme_of(url)} urls cannot {can.get(name, 'be read')}", url=url)
    return function(url, *rest)


def _place_of(url: str) -> Any:
    return importlib.import_module(f".{PLACES.get(scheme_of(url), 'anywhere')}", __package__)
