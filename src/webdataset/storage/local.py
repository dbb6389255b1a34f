"""Local files as binary streams: exactly what `open` gives, with errors that say what to do."""

from __future__ import annotations

import os
from typing import IO, Any

from ..errors import NotFoundError, OpenError
from .urls import file_url_to_path, file_url_without_decoding, scheme_of


def local_path(url: str | os.PathLike[str]) -> str | None:
    """The path that a url means, None for everything that is not a local file (remote, `pipe:`, `-`)."""
    url = os.fspath(url)
    scheme = scheme_of(url)
    if scheme == "file":
        path = file_url_to_path(url)
        literal = file_url_without_decoding(url)
        if literal != path and not os.path.exists(path) and os.path.exists(literal):
            return literal  # written for releases before 1.0, which decoded nothing
        return path
    return url if scheme == "" and url != "-" else None


def open_read(path: str, buffering: int = -1) -> IO[bytes]:
    """The file for reading: an `io.BufferedReader` (an `io.FileIO` with buffering 0).

    Raises:
        NotFoundError: there is no such file.
        OpenError: it is a directory, or may not be read.
    """
    try:
        return open(path, "rb", buffering=buffering)
    except (OSError, ValueError) as exn:
        raise _explained(path, exn, writing=False) from exn


def open_write(path: str, buffering: int = -1) -> IO[bytes]:
    """The file for writing, made or emptied; its folder must be there.

    Raises:
        NotFoundError: the folder is missing.
        OpenError: the path is a directory, or may not be written.
    """
    try:
        return open(path, "wb", buffering=buffering)
    except (OSError, ValueError) as exn:
        raise _explained(path, exn, writing=True) from exn


def _explained(path: str, exn: OSError | ValueError, writing: bool) -> OpenError:
    folder = os.path.dirname(path) or "."
    kind: type[OpenError] = OpenError
    if isinstance(exn, ValueError):
        fact = f"not the name of a file: {exn}"  # a NUL byte, or text that the file system cannot name
    elif os.path.isdir(path):
        fact = "is a directory, not a file"
    elif isinstance(exn, FileNotFoundError) and not os.path.isdir(folder):
        kind, fact = NotFoundError, f"the folder {folder!r} does not exist" + ("; create it first" if writing else "")
    elif isinstance(exn, FileNotFoundError):
        kind, fact = NotFoundError, "no such file" if path else "an empty name is no file"
    elif isinstance(exn, PermissionError):
        fact = "may not be written by this user" if writing else "may not be read by this user"
    else:
        fact = f"cannot be opened: {exn.strerror or exn}"
    if kind is NotFoundError and path and not os.path.isabs(path):
        fact += f" (relative to {_working_directory()})"
    error = kind(fact, url=path)
    error.errno, error.strerror = getattr(exn, "errno", None), getattr(exn, "strerror", None)
    return error


def _working_directory() -> Any:
    try:
        return os.getcwd()
    except OSError:
        return "a working directory that is gone"
