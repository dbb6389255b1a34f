"""A url -> its bytes at any offset (`ShardBytes`), of compressed shards those inside.

a plain archive                                     as it is
frames or members that can be decompressed alone    `shardframes`
one gzip member, with indexed_gzip, local           `gzippoints`
all others                                          decompressed once, into the cache
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import time
from collections.abc import Callable
from typing import Any

from .cache import FileCache
from .cachepartial import read_etag
from .errors import CompressionError, DataError, OpenError, TruncatedError, public_url
from .gopen import rewrite_url
from .gzippoints import open_points
from .security import refuse_if_secure
from .shardbytes import LocalShard, RemoteShard, ShardBytes, Version, state_of
from .shardframes import FramedShard, find_frames
from .shardnotes import is_known, note_path, read_note, write_note
from .storage import local
from .storage.atomic import AtomicFile, cannot_write
from .storage.options import StorageOptions
from .storage.options import storage_options as options_of
from .storage.urls import scheme_of
from .tar.compression import MAGIC_BYTES, compression_of, open_decompressed
from .tar.header import BLOCK, is_header

logger = logging.getLogger(__name__)

COPY = ".copy"
"""What the names of notes end in that tell the state of a plain copy."""
PIECE = 1 << 20
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
PAUSE = 0.05
"""Seconds between two looks at a copy that another process makes."""
PATIENCE = 60.0
"""Seconds for which such a copy may stand still."""
_IN_PARTS = "; what ShardWriter(seekable=True) writes is read in parts"
_INSTEAD = {"zstd": _IN_PARTS, "gzip": f"{_IN_PARTS}, and local gzip of any kind after `pip install indexed_gzip`"}


def open_shard(
    url: str, cache_dir: str | None = None, storage_options: Any = None, shard_cache: FileCache | None = None
) -> ShardBytes:
    """The shard for reading anywhere in it; a compressed one may have a plain copy made.

    Args:
        cache_dir: folder for such copies, and for what was found out about the frames of shards; None or "": none.
        shard_cache: copies remote shards to local files, which are read; one that waits, and keeps ETags.

    Raises:
        OpenError: it cannot be had, or there is no way to read a part of it (`pipe:`, `-`).
    """
    options = options_of(storage_options)
    shard = _open(url, options, shard_cache)
    try:
        start = shard.read(0, min(BLOCK, shard.size or 0))
        kind = compression_of(start[:MAGIC_BYTES])
        if kind is None or is_header(start):
            return shard
        return _decompressed(shard, kind, options, cache_dir or None)
    except BaseException:
        shard.close()
        raise


def _open(url: str, options: StorageOptions, shard_cache: FileCache | None) -> ShardBytes:
    """The shard as it is, compressed or not."""
    target = rewrite_url(url)
    path = local.local_path(target)
    if path is not None:
        refuse_if_secure(f"{public_url(url)}: a local file, which is not read while enforce_security is set")
        file = local.open_read(path, 0)
        return LocalShard(url, file, Version(*state_of(file.fileno())), path)
    if scheme_of(target) in ("pipe", "") or target == "-":
        raise OpenError("of a command's output no part can be read alone; write it to a file first", url=url)
    if shard_cache is not None:
        (found,) = shard_cache([url])
        stream = found["stream"]
        if "local_path" in found:
            return LocalShard(url, stream, _version_of_copy(stream, found["local_path"]), touched=True)
        stream.close()  # there was no room
    return RemoteShard(url, options)


def _version_of_copy(stream: Any, path: str) -> Version:
    """The version that the object had which a copy is of, as far as that is known."""
    mine, etag = os.fstat(stream.fileno()), read_etag(path)
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(mine, os.stat(path)):  # else it was replaced, and the ETag is that of another one
            return Version(mine.st_size, etag=etag)
    return Version(mine.st_size)


def _decompressed(shard: ShardBytes, kind: str, options: StorageOptions, cache_dir: str | None) -> ShardBytes:
    """What is inside a compressed shard, which is closed with the result."""
    kept = _kept_copy(shard, cache_dir)
    if kept is not None:
        return _closing(shard, kept)
    try:
        frames = find_frames(shard, kind, cache_dir, options)
    except CompressionError as exn:
        logger.debug("%s", exn)
        return _closing(shard, _plain_copy(shard, kind, cache_dir))
    points = open_points(shard, cache_dir) if frames is None and kind == "gzip" and not shard.is_remote else None
    in_parts = points if frames is None else FramedShard(shard, frames)
    if in_parts is not None:
        return _InParts(in_parts, lambda: _plain_copy(shard, kind, cache_dir))
    return _closing(shard, _plain_copy(shard, kind, cache_dir))


def _closing(shard: ShardBytes, copy: ShardBytes) -> ShardBytes:
    shard.close()
    return copy


class _InParts:
    """See ShardBytes: a compressed shard that is read in parts, until something is wrong with them.

    Who reads it for the first time, and meets any fault, calls `fall_back`: what is known of its parts may be what is
    wrong, and only the whole stream tells.
    """

    in_parts = True

    def __init__(self, shard: ShardBytes, make_copy: Callable[[], ShardBytes]) -> None:
        self.url, self.version = shard.url, shard.version
        self._make_copy = make_copy
        self._become(shard)
        self.doubtful = True

    def _become(self, shard: ShardBytes) -> None:
        self._shard = shard
        self.size, self.fault, self.unit, self.is_remote = shard.size, shard.fault, shard.unit, shard.is_remote
        self.read, self.stream, self.close = shard.read, shard.stream, shard.close
        self.doubtful = False

    def fall_back(self) -> None:
        """Read a plain copy from now on, made of the whole stream."""
        if self.doubtful:
            logger.warning("%s: it cannot be read in parts, one does not fit", public_url(self.url))
            copy = self._make_copy()
            self._shard.close()
            self._become(copy)


def _name_of_copy(shard: ShardBytes, folder: str) -> str:
    size, mtime_ns, etag = shard.version
    return note_path(folder, f"{shard.url}#{size}-{mtime_ns}-{etag}", ".plain")


def _kept_copy(shard: ShardBytes, folder: str | None) -> LocalShard | None:
    """The decompressed copy that is in the cache; None where there is none, or it is not as it was when it was made."""
    note = read_note(folder, shard, COPY)
    if folder is None or note is None:
        return None
    with contextlib.suppress(OSError):
        name = _name_of_copy(shard, folder)
        with open(name, "rb", buffering=0) as file:
            if note == _noted_state(file.fileno()):
                return LocalShard(shard.url, file, shard.version)
        logger.warning("%s: the plain copy in the cache was changed; it is made anew: %s", public_url(shard.url), name)
    return None


def _noted_state(fd: int) -> bytes:
    return b"%d %d" % state_of(fd)


def _plain_copy(shard: ShardBytes, kind: str, folder: str | None) -> LocalShard:
    """The decompressed shard as a file in the cache, which another process may make, else one without a name."""
    out: Any = None
    name = None if folder is None or not is_known(shard) else _name_of_copy(shard, folder)
    if name is not None:
        out = _begun(name)
        kept = _kept_copy(shard, folder)
        if kept is not None:
            if out is not None:
                out.abort()  # it was made in between
            return kept
    logger.warning(
        "%s: compressed with %s, where no sample can be reached alone: it is decompressed once, to %s%s",
        public_url(shard.url),
        kind,
        "a temporary file" if out is None else name,
        _INSTEAD.get(kind, ""),
    )
    out = out or _nameless(shard.url)
    try:
        stream = shard.whole() if isinstance(shard, RemoteShard) else shard.stream()
        with contextlib.closing(stream):
            fault = _decompress(stream, kind, out)
        shard.read(0, 0)  # whether it is still the one that was opened
        if fault is None and isinstance(out, AtomicFile):
            with open(out.name, "rb", buffering=0) as made:
                write_note(folder, shard, COPY, _noted_state(made.fileno()))
            out.close()
            return LocalShard(shard.url, local.open_read(out.path, 0), shard.version)
        if isinstance(out, AtomicFile):  # what came before the fault is kept without a name
            whole, out = out, _nameless(shard.url)
            try:
                with open(whole.name, "rb") as file:
                    shutil.copyfileobj(file, out)
            finally:
                whole.abort()
    except BaseException as exn:
        out.abort() if isinstance(out, AtomicFile) else out.close()
        if isinstance(exn, OpenError) and exn.errno in NO_ROOM and folder is not None and isinstance(out, AtomicFile):
            return _plain_copy(shard, kind, None)
        raise
    copy = LocalShard(shard.url, out, shard.version)
    copy.fault = fault
    return copy


def _begun(name: str) -> AtomicFile | None:
    """The file with this name, in the making; None where it cannot be made, or somebody else has made it.

    Whoever is making it is waited for as long as it grows.
    """
    size, since = -1, time.monotonic()
    while True:
        try:
            os.makedirs(os.path.dirname(name), exist_ok=True)
            return AtomicFile(name, overwrite=True)
        except OSError as exn:
            if exn.errno != errno.EWOULDBLOCK:
                return None
        with contextlib.suppress(OSError):
            before, size = size, os.path.getsize(name + ".partial")
            if size != before:
                since = time.monotonic()
        if os.path.exists(name) or time.monotonic() - since > PATIENCE:
            return None
        time.sleep(PAUSE)


def _nameless(url: str) -> Any:
    import tempfile

    try:
        return tempfile.TemporaryFile(buffering=0)
    except OSError as exn:
        fact = f"there is no place for a plain copy: {exn.strerror or exn}; pass cache_dir or set TMPDIR"
        raise OpenError(fact, url=url) from exn


def _decompress(stream: Any, kind: str, out: Any) -> DataError | None:
    """Write what is inside of a stream; the fault that ended it too early."""
    inside = open_decompressed(stream, kind)
    while True:
        try:
            data = inside.read1(PIECE)
        except DataError as exn:
            return exn
        except EOFError as exn:
            return TruncatedError(f"the {kind} stream ends too early: {exn}")
        except Exception as exn:
            return CompressionError(f"damaged {kind} stream: {exn}")
        if not data:
            return None
        view = memoryview(data)
        try:
            while view:
                view = view[out.write(view) :]
        except OSError as exn:
            raise cannot_write(exn, out.path if isinstance(out, AtomicFile) else "a temporary file") from exn
