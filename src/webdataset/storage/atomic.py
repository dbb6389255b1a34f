"""Local files that appear complete or not at all: written as `<path>.partial`, renamed when done."""

from __future__ import annotations

import os
from typing import Any

from ..errors import OpenError


class AtomicFile:
    """A binary file in the making, with the methods `write` and `writev`.

    Attributes:
        path: its name once it is complete.
        name: its name until then.

    Raises:
        OpenError: it cannot be created; or, without `overwrite`, the file or its `.partial` is there.
    """

    def __init__(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        self.path = os.fspath(path)
        self.name = self.path + ".partial"
        self.overwrite = overwrite
        if not overwrite:
            refuse_existing(self.path)
        try:
            self._file = open(self.name, "wb" if overwrite else "xb", buffering=0)  # noqa: SIM115
        except FileExistsError:
            raise OpenError(
                "a writer that was killed left it, or another one is at work: remove it, or pass overwrite=True",
                url=self.name,
            ) from None
        except (OSError, ValueError) as exn:
            raise cannot_write(exn, self.name) from exn

    def write(self, data: Any) -> int:
        """Append bytes, as many as the system takes at once; the result is how many it were."""
        return self._file.write(data)

    def writev(self, chunks: list[Any]) -> int:
        """Append chunks, as many of their bytes as the system takes at once; the result is how many it were."""
        if hasattr(os, "writev"):
            return os.writev(self._file.fileno(), chunks)
        return self._file.write(chunks[0])

    @property
    def closed(self) -> bool:
        """Whether it has been given its name, or was given up."""
        return self._file.closed

    def commit(self) -> None:
        """Close the file and give it its name."""
        try:
            self._file.close()
            if not self.overwrite:
                refuse_existing(self.path)
            os.replace(self.name, self.path)
        except OpenError:
            raise
        except OSError as exn:
            raise cannot_write(exn, self.path) from exn

    def discard(self) -> None:
        """Close the file and remove it."""
        self._file.close()
        try:
            os.unlink(self.name)
        except FileNotFoundError:
            pass


def refuse_existing(path: str) -> None:
    """Raise OpenError when there is something under this path."""
    if os.path.lexists(path):
        raise OpenError("it exists; remove it, choose another name, or pass overwrite=True", url=path)


def cannot_write(exn: OSError | ValueError, url: str | None) -> OpenError:
    """An OpenError that says what cannot be written and why, with the errno."""
    fact = f"cannot be written: {getattr(exn, 'strerror', None) or exn}"
    if isinstance(exn, FileNotFoundError):
        fact += "; create the folder first"
    error = OpenError(fact, url=url)
    error.errno, error.strerror = getattr(exn, "errno", None), getattr(exn, "strerror", None)
    return error
