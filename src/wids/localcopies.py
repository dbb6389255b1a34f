"""A shard's url -> an open local file: the shard itself where it is local, else its copy, made once a host.

Rules: only whole copies of the right size and MD5 get their name. Copies go, the longest unused first, when a folder
holds more than it may; not those that a program of this host has open.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import IO, Any

from webdataset.cachecleanup import LRUCleanup, read_locked, sweep, touch
from webdataset.cachedownload import Job, fetch
from webdataset.errors import NotFoundError
from webdataset.filetypes import check_tar_format
from webdataset.gopen import path_of
from webdataset.security import refuse_if_secure
from webdataset.storage.local import open_read
from webdataset.storage.options import StorageOptions
from webdataset.storage.options import storage_options as options_of

from .files import check_file


class LocalCopies:
    """Opens shards as local files.

    Args:
        localname: called with a url, gives the path of its copy.
        keep: remove no copies.
        folder: where the copies are, to be kept below `cache_size` bytes; None: nothing is removed.
        copy_local: copy local shards too, such as those on a slow network file system.
        storage_options: how remote urls are read, a `StorageOptions` or a dict of its names.
        index_dir: where indexes of shards are cached; None: nowhere.
    """

    def __init__(
        self,
        localname: Callable[[str], str],
        *,
        keep: bool = False,
        folder: str | None = None,
        cache_size: float = int(1e12),
        copy_local: bool = False,
        storage_options: StorageOptions | Mapping[str, Any] | None = None,
        index_dir: str | None = None,
    ) -> None:
        self.index_dir = index_dir
        self.localname = localname
        self.copy_local = copy_local
        self.cleaner = None if keep or folder is None or cache_size <= 0 else LRUCleanup(folder, cache_size)
        self.storage_options = None if storage_options is None else options_of(storage_options)
        self._folder = folder
        self._swept = False

    def open(self, url: str, md5sum: str | None = None, size: int | None = None) -> IO[bytes]:
        """The shard as an open file with a name.

        Args:
            md5sum, size: what a copy that is made now must have.

        Raises:
            NotFoundError, OpenError: it cannot be had, or the copy not be written.
            WrongContentError: what came is not the shard.
        """
        path = path_of(url)
        if path is not None:
            refuse_if_secure(f"{path}: local files are not read while enforce_security is set")
            if not self.copy_local:
                return open_read(path)
        job = Job(
            url,
            self.localname(url),
            options=self.storage_options,
            validator=_Expected(md5sum, size),
            make_room=self._make_room,
        )
        while True:
            fetch(job)
            touch(job.dest)
            try:
                file = read_locked(open_read(job.dest))
            except NotFoundError:
                continue  # a cleanup of another process was faster
            if self.cleaner is not None:
                self.cleaner.cleanup()
            return file

    def _make_room(self) -> None:
        if self._folder is not None and not self._swept:
            self._swept = True
            sweep(self._folder)
        if self.cleaner is not None:
            self.cleaner.make_room()


class _Expected:
    """Validator of a copy: it must be an archive, of this size and MD5 where they are known."""

    def __init__(self, md5sum: str | None, size: int | None) -> None:
        self.md5sum = md5sum
        self.size = size

    def __call__(self, path: str) -> bool:
        if not check_tar_format(path):
            return False
        if self.size is not None or self.md5sum is not None:
            with open(path, "rb") as file:
                check_file(file, os.path.basename(path), self.md5sum, self.size)
        return True
