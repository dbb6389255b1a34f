"""Local paths and `file:` urls behind the seam."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import IO

from . import local
from .atomic import AtomicFile
from .options import StorageOptions
from .target import Entry, Stat


def open_read(url: str, options: StorageOptions) -> IO[bytes]:
    """The file for reading."""
    return local.open_read(_path(url))


def read_range(url: str, start: int, stop: int, options: StorageOptions) -> bytes:
    """Bytes start (inclusive) to stop (exclusive); fewer where the file ends before."""
    with local.open_read(_path(url), 0) as file:
        file.seek(start)
        return file.read(max(0, stop - start)) or b""


def stat(url: str, options: StorageOptions) -> Stat:
    """The size; files have no ETag."""
    with local.open_read(_path(url), 0) as file:
        return Stat(os.fstat(file.fileno()).st_size, None)


def open_write(url: str, options: StorageOptions) -> AtomicFile:
    """A file that gets its name when it is closed."""
    return AtomicFile(_path(url), options.overwrite)


def entries(url: str, options: StorageOptions) -> Iterator[Entry]:
    """The files whose path begins with this one, at any depth, sorted; in the spelling that was asked for."""
    path = _path(url)
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    found = []
    for here, _, names in os.walk(folder or "."):
        for name in names:
            file = os.path.join(here, name) if folder else os.path.normpath(os.path.join(here, name))
            if file.startswith(path):
                found.append(Entry(file, os.path.getsize(file)))
    yield from sorted(found)


def _path(url: str) -> str:
    path = local.local_path(url)
    return url if path is None else path
