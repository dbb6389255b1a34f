"""A shard's url -> the path of its local copy: callables that travel to worker processes.

Names end in a hash of the whole url (see `webdataset.cachenames`), so two shards never share a copy, and no name holds
a password. Nothing is made on disk before something is copied.
"""

from __future__ import annotations

import os
import tempfile

from webdataset.cachenames import url_to_cache_name


class LocalName:
    """Called with a url, gives the path of its copy in a folder.

    Attributes:
        folder: the folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = os.path.expanduser(os.fspath(folder))

    def __call__(self, url: str) -> str:
        return os.path.join(self.folder, url_to_cache_name(url))

    def __repr__(self) -> str:
        return f"LocalName({self.folder!r})"


def default_cache_dir() -> str:
    """WIDS_CACHE, or `_wids_cache` in the folder for temporary files."""
    return os.environ.get("WIDS_CACHE") or os.path.join(tempfile.gettempdir(), "_wids_cache")


def default_localname(dldir: str | os.PathLike[str] | None = None) -> LocalName:
    """The names of copies in this folder; None: in WIDS_CACHE, or `_wids_cache` in the folder for temporary files."""
    return LocalName(default_cache_dir() if dldir is None else dldir)


def cache_localname(cachedir: str | os.PathLike[str]) -> LocalName:
    """The names of copies in this folder."""
    return LocalName(cachedir)


def hash_localname(dldir: str | os.PathLike[str] | None = None) -> LocalName:
    """The same as `default_localname`: all names have a hash."""
    return default_localname(dldir)
