"""Keeping a folder filled with shards drawn at random: its helpers; the downloader itself is not there yet."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from .gopen import gopen
from .utils import fnmatch_with_braces, glob_with_braces


def download_file(url: str, filename: str) -> None:
    """Copy what is at a url to a local file, which appears complete or not at all."""
    from shutil import copyfileobj

    temporary = f"{filename}.{os.getpid()}.partial"
    try:
        with gopen(url) as source, open(temporary, "wb") as target:
            copyfileobj(source, target, 1 << 20)
        os.replace(temporary, filename)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def get_oldest_file(files: Iterable[str]) -> str:
    """The file that was changed first."""
    return min(files, key=os.path.getmtime)


def total_file_size(files: Iterable[str]) -> int:
    """Bytes in all these files."""
    return sum(os.path.getsize(path) for path in files)


class RandomShardDownloader:
    """Not there yet: raises NotImplementedError."""

    def __init__(
        self,
        shards: Any,
        nshards: int,
        *,
        directory: str | None = None,
        pattern: str = "*.{tar,tgz,tar.gz}",
        increment: int = 999999,
        maxsize: int = 999999999999,
        verbose: bool = False,
        download: Callable[[str, str], Any] | None = None,
        errors: str = "ignore",
    ) -> None:
        raise NotImplementedError(
            "webdataset.downloader.RandomShardDownloader is not there yet in this version: stream the shards,"
            " or copy them with webdataset.downloader.download_file and read them with DirectoryShardList"
        )


__all__ = [
    "RandomShardDownloader",
    "download_file",
    "fnmatch_with_braces",
    "get_oldest_file",
    "glob_with_braces",
    "gopen",
    "total_file_size",
]
