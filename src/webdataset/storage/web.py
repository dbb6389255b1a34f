"""http and https urls as they are: nothing is signed; user and password may stand in the url."""

from __future__ import annotations

from .http_upload import HttpSteps
from .options import StorageOptions
from .target import Target
from .upload import Upload


def target_of(url: str, options: StorageOptions) -> Target:
    """The url itself."""
    return Target(url, url)


def open_write(url: str, options: StorageOptions) -> Upload:
    """A stream that becomes the object by PUT."""
    return Upload(HttpSteps(target_of(url, options), options))
