"""Shards as they are written -> their index: Energon's offsets beside each of them, and a wids JSON of all.

Nothing is read again, since the writer knows where samples begin; only where readers do not take all that was written
(metadata that is kept) the headers are. A sidecar is written when its shard has its name: one that is older than the
shard would not be believed. The JSON is written when all shards are there, and lists all of them: a writer that gives
up leaves none.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from ._arguments import check_flag
from .errors import NotFoundError, OpenError, public_url
from .gopen import gopen, is_native, path_of, rewrite_url
from .indexfiles import format_offsets, parse_offsets
from .sampleindex import SampleIndex
from .shardfiles import read_shard_file
from .shardindex import energon_name, scan_shard
from .shardjson import format_json, json_of_pattern, shard_entry, shorten_name
from .shardopening import open_shard
from .storage import places
from .storage.atomic import refuse_existing
from .storage.urls import scheme_of

AT_ONCE = 16
"""So many shards of a writer that was stopped are asked for their counts together."""


class Written:
    """A shard that was written, which `leave` gives its sidecar when it is there.

    Args:
        offsets: as `TarWriter` has them.
        md5sum: None where it is not wanted.
    """

    def __init__(self, url: str, offsets: Sequence[int] | None, filesize: int, md5sum: str | None) -> None:
        self.url, self.offsets, self.filesize, self.md5sum = url, offsets, filesize, md5sum
        self.nsamples = 0

    def leave(self) -> None:
        """Write the sidecar, and know how many samples there are."""
        self.nsamples = write_beside(self.url, self.offsets)


class Hashed:
    """A stream that hashes what the one inside of it takes."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.digest = _md5()

    def write(self, data: Any) -> int:
        """Write; the result is how many bytes were taken."""
        count = self._stream.write(data)
        count = count if isinstance(count, int) else len(data)
        self.digest.update(memoryview(data)[:count])
        return count


class IndexWriter:
    """The index of the shards of one writer.

    Args:
        path: path or url of the JSON.
        overwrite: it may replace one that is there.
        md5: it has the MD5 of each shard.
        before: shards that were written before this writer was stopped; it may have left gaps.

    Raises:
        OpenError: there is one, or no folder for it.
    """

    def __init__(self, path: str, overwrite: bool, md5: bool, before: Sequence[str] = ()) -> None:
        self.path = path
        self._overwrite = overwrite
        self._md5 = md5
        self._before = before
        self._written: list[Written] = []
        _refuse(path, overwrite)

    def begun(self, stream: Any) -> Any:
        """The stream of a shard that is begun, as it is to be written to."""
        local = path_of(self.path)
        if self._overwrite and local is not None:  # what it lists is being replaced
            with contextlib.suppress(FileNotFoundError):
                os.unlink(local)
        return Hashed(stream) if self._md5 else stream

    def written(self, url: str, writer: Any) -> Written:
        """What is known of a shard when its TarWriter is closed."""
        md5sum = writer.stream.digest.hexdigest() if self._md5 else None
        return Written(url, writer.offsets, writer.tarstream.written, md5sum)

    def add(self, shard: Written) -> None:
        """List a shard that is there, with its sidecar."""
        self._written.append(shard)

    def finish(self) -> None:
        """Write the JSON, if there is a shard.

        Raises:
            OpenError: it cannot be written; or a shard from before the stop cannot be read.
        """
        with ThreadPoolExecutor(AT_ONCE) as pool:
            before = [shard for shard in pool.map(self._found, self._before) if shard is not None]
        entries = [
            shard_entry(named_in(self.path, shard.url), shard.nsamples, shard.filesize, shard.md5sum)
            for shard in (*before, *self._written)
        ]
        if entries:
            name = shorten_name(os.path.splitext(entries[0]["url"])[0])
            _write_whole(self.path, format_json(entries, name).encode())

    def _found(self, url: str) -> Written | None:
        """A shard of which nothing is known but its name; None where there is none."""
        try:
            shard = Written(url, None, places.stat(rewrite_url(url)).size or 0, None)
        except NotFoundError:
            return None
        if not _has_sidecar(url):
            shard.leave()
        else:
            shard.nsamples = len(parse_offsets(read_shard_file(str(energon_name(url)))))
        if self._md5:
            digest = _md5()
            with gopen(url) as stream:
                while data := stream.read(1 << 20):
                    digest.update(data)
            shard.md5sum = digest.hexdigest()
        return shard


def index_writer(
    index: Any, pattern: str, first: str, writer: str, opener: Any, *, before: Sequence[str], overwrite: bool, md5: bool
) -> IndexWriter | None:
    """What these arguments of ShardWriter ask for: None without `index`.

    Args:
        index: True, or the path or url of the JSON.
        pattern, first: the names of shards, the first one; `writer`: which of several writers it is, as text.

    Raises:
        ValueError: nothing can lie beside such shards, or the JSON cannot name them.
        OpenError: the JSON exists, or there is no folder for it.
    """
    if not index:
        if md5:
            raise ValueError("ShardWriter: md5=True is for the JSON of index=True")
        return None
    if opener is not None:
        raise ValueError("ShardWriter: index=True needs shards that it can name itself, without opener=")
    path = json_of_pattern(pattern, writer) if isinstance(index, (bool, int)) else os.fspath(index)
    named_in(path, check_indexable("ShardWriter", first))
    return IndexWriter(path, overwrite, md5, before)


def check_index(where: str, name: str, value: Any) -> None:
    """TypeError unless the value is true or false, or a path."""
    if not isinstance(value, (str, os.PathLike)):
        check_flag(where, name, value)


def check_indexable(where: str, url: str) -> str:
    """The url of a shard, if something can be put beside it.

    Raises:
        ValueError: it cannot, as beside the output of a command.
    """
    if url == "-" or scheme_of(url) == "pipe" or energon_name(url) is None:
        raise ValueError(f"{where}: index=True needs a path, or a url without a query, beside which an index can lie")
    return url


def write_beside(url: str, offsets: Sequence[int] | None) -> int:
    """Write Energon's index of a complete shard beside it; the result is how many samples it has.

    Args:
        offsets: where its samples begin, and the last one ends; None: its headers are read.

    Raises:
        OpenError: it cannot be written.
    """
    if offsets is None:
        with contextlib.closing(open_shard(url)) as shard:
            index = scan_shard(shard)
    else:
        index = SampleIndex(np.array(offsets, np.int64))
    _write_whole(str(energon_name(url)), format_offsets(index))
    return len(index)


def named_in(path: str, shard: str) -> str:
    """A shard as the JSON at this path or url names it: relative where it can be.

    >>> named_in("s3://b/set/a.json", "s3://b/set/a-0.tar"), named_in("a.json", "s3://b/set/a-0.tar")
    ('a-0.tar', 's3://b/set/a-0.tar')
    """
    folder = posixpath.dirname(path)
    if folder and shard.startswith(f"{folder}/"):
        return shard[len(folder) + 1 :]
    here, there = path_of(path), path_of(shard)
    if here is not None and there is not None:
        return os.path.relpath(there, os.path.dirname(here) or ".").replace(os.sep, "/")
    if there is not None:
        raise ValueError(f"{public_url(path)}: a JSON elsewhere can name no shards of this machine; give a path")
    return shard


def _refuse(path: str, overwrite: bool) -> None:
    """OpenError where there is a JSON that must stay, or no folder for one: before the shards are written."""
    local = path_of(path)
    if local is not None:
        folder = os.path.dirname(local) or "."
        if not os.path.isdir(folder):
            raise OpenError(f"cannot be written, {folder!r} is no folder; create it first", url=path)
        if not overwrite:
            refuse_existing(local)
    elif not overwrite and is_native(path):
        try:
            places.stat(rewrite_url(path))
        except OpenError:  # also where nobody may ask
            return
        raise OpenError("it exists; remove it, choose another name, or pass overwrite=True", url=path)


def _has_sidecar(url: str) -> bool:
    """Whether there is a sidecar, and not one from before the shard was written, as far as that is known."""
    name = str(energon_name(url))
    shard, sidecar = path_of(url), path_of(name)
    try:
        if shard is not None and sidecar is not None:
            return os.stat(sidecar).st_mtime_ns >= os.stat(shard).st_mtime_ns
        places.stat(rewrite_url(name))
    except FileNotFoundError:
        return False
    return True


def _write_whole(url: str, data: bytes) -> None:
    if path_of(url) is not None or is_native(url):
        places.write_whole(rewrite_url(url), data)
        return
    with gopen(url, "wb") as stream:  # a scheme of the program's
        stream.write(data)


def _md5() -> Any:
    return hashlib.md5(usedforsecurity=False)
