"""http and https urls as they are: nothing is signed; user and password may stand in the url."""

from __future__ import annotations

from typing import Any

from .options import StorageOptions
from .target import Target


def target_of(url: str, options: StorageOptions) -> Target:
    """The url itself."""
    return Target(url, url)


def open_write(url: str, options: StorageOptions) -> Any:
    """A stream that becomes the object by PUT."""
    from . import http_upload

    return http_upload.open_write(Target(url, url), options)
