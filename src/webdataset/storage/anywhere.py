"""All other schemes, through fsspec where it is installed: its file systems behind the seam.

Rules: fsspec reads local files by many names (`local:`, `simplecache::`, `reference:`), so the security switch closes
all of it. Its errors may repeat urls with their credentials; only their text without those is shown.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

from .._optional import require
from ..errors import (
    DataError,
    MissingDependencyError,
    NotFoundError,
    OpenError,
    UnknownSchemeError,
    printable,
    public_url,
)
from ..security import refuse_if_secure
from .options import StorageOptions
from .pages import all_pages
from .target import Entry, Stat, Target
from .upload import AbandonedError, Steps, Upload
from .urls import scheme_of


def knows(url: str) -> bool:
    """Whether fsspec is installed and has a file system for the url's scheme."""
    try:
        return _is_known(require("fsspec", "fsspec", "this"), scheme_of(url))
    except MissingDependencyError:
        return False


def open_read(url: str, options: StorageOptions) -> Any:
    """The object as a binary stream."""
    system, path = _file_system(url)
    with _told(url):
        return Reader(url, system.open(path, "rb"))


def read_range(url: str, start: int, stop: int, options: StorageOptions) -> bytes:
    """Bytes start (inclusive) to stop (exclusive); fewer where the object ends before."""
    if stop <= start:
        return b""
    system, path = _file_system(url)
    with _told(url):
        size = system.info(path).get("size")
        stop = stop if size is None else min(stop, size)
        return bytes(system.cat_file(path, start, stop)) if start < stop else b""


def stat(url: str, options: StorageOptions) -> Stat:
    """Size and, where the file system tells one, ETag."""
    system, path = _file_system(url)
    with _told(url):
        found = system.info(path)
    if found.get("type") == "directory":
        raise NotFoundError("this is a folder", url=url)
    return Stat(found.get("size"), _etag(found))


def open_write(url: str, options: StorageOptions) -> Any:
    """A stream that becomes the object when it is closed."""
    _file_system(url)
    return Upload(_FileSystemSteps(Target(url, url), options))


def entries(url: str, options: StorageOptions) -> Iterator[Entry]:
    """The files whose url begins with this one."""
    system, wanted = _file_system(url)
    wanted += "/" if url.endswith("/") and not wanted.endswith("/") else ""
    folder = wanted.rpartition("/")[0] or system.root_marker
    tail = wanted.lstrip("/")

    def page(mark: str | None) -> tuple[list[Entry], str | None]:
        with _told(url):
            found = system.find(folder, detail=True) if system.exists(folder) else {}
        begin = url[: len(url) - len(tail)] if url.endswith(tail) else None
        return [
            Entry(
                system.unstrip_protocol(path) if begin is None else begin + path.lstrip("/"),
                info.get("size"),
                _etag(info),
            )
            for path, info in found.items()
            if path.startswith(wanted)
        ], None

    yield from all_pages(url, page)


class Reader(io.BufferedIOBase):
    """A file of fsspec that is read, and whose errors are ours."""

    def __init__(self, url: str, file: Any) -> None:
        self.url = url
        self._file = file

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {public_url(self.url)}>"

    def readable(self) -> bool:
        """True."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """`size` bytes, fewer only at the end; everything for -1."""
        file = self._open()
        pieces = []
        missing = -1 if size is None else size
        with _told(self.url):
            while missing and (piece := file.read(missing)):
                pieces.append(piece)
                missing = max(missing - len(piece), 0) if missing > 0 else missing
        return b"".join(pieces)

    def read1(self, size: int = -1, /) -> bytes:
        """What is there, at most `size` bytes; b"" at the end."""
        file = self._open()
        with _told(self.url):
            return bytes(file.read(1 << 16 if size < 0 else min(size, 1 << 16)))

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            try:
                with _told(self.url):
                    self._file.close()
            finally:
                super().close()

    def _open(self) -> Any:
        if self.closed:
            raise ValueError(f"{self!r} is closed")
        return self._file


class _FileSystemSteps(Steps):
    """An object is sent whole, after all of it was written here: what fails before leaves nothing there."""

    def refuse_existing(self) -> None:
        """Raise an error if the object is there."""
        system, path = _file_system(self.target.url)
        with _told(self.target.url):
            if system.exists(path):
                raise self.exists()

    def put(self, body: Any) -> None:
        """Write the object."""
        url = self.target.url
        system, path = _file_system(url)
        if not self.options.overwrite:
            self.refuse_existing()
        with _told(url):
            file = system.open(path, "wb")
            try:
                for piece in self.pieces(body):
                    file.write(bytes(piece))
                file.close()
            except BaseException:
                with contextlib.suppress(Exception):
                    file.close()
                with contextlib.suppress(Exception):
                    system.rm_file(path)
                raise


def _file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system and the path in it.

    Raises:
        MissingDependencyError: fsspec is not installed, or the package that it needs for this scheme.
        UnknownSchemeError: fsspec does not know the scheme.
        SecurityError: the security switch is on.
    """
    scheme = scheme_of(url)
    fsspec = require("fsspec", "fsspec", f"opening {scheme} urls")
    if not _is_known(fsspec, scheme):
        raise UnknownSchemeError(f"fsspec does not know {scheme!r} urls", url=url)
    refuse_if_secure("gopen: unsafe_gopen is False, cannot open what fsspec opens, which may be local files")
    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(url)
    except ImportError as exn:
        raise MissingDependencyError(f"opening {scheme} urls through fsspec: {exn}", name=exn.name) from exn
    except Exception as exn:
        raise _error(url, exn) from None
    return found


def _is_known(fsspec: Any, scheme: str) -> bool:
    return scheme in fsspec.registry or scheme in fsspec.available_protocols()


@contextlib.contextmanager
def _told(url: str) -> Iterator[None]:
    """Errors of fsspec's file systems, which may be of any class, become ours."""
    try:
        yield
    except (DataError, MissingDependencyError, AbandonedError):
        raise
    except Exception as exn:
        raise _error(url, exn) from None


def _error(url: str, exn: Exception) -> OpenError:
    text = " ".join(public_url(f"pipe:{exn}")[len("pipe:") :].split())
    if isinstance(exn, FileNotFoundError):
        return NotFoundError("there is nothing at this url; check the name and the range of shard numbers", url=url)
    return OpenError(f"{type(exn).__name__}: {printable(text, 300)}", url=url)


def _etag(found: Any) -> str | None:
    etag = found.get("ETag") or found.get("etag")
    return etag if isinstance(etag, str) else None
