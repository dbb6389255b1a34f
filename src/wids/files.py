"""Files that hold archives: bytes by position, what an index expects of them, the inside of compressed ones."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import threading
from typing import IO, Any

from webdataset.errors import WrongContentError
from webdataset.shardbytes import LocalShard, ShardBytes, Version
from webdataset.shardopening import open_shard
from webdataset.tar.compression import MAGIC_BYTES, compression_of
from webdataset.tar.reader import ArchiveReader, Begun
from webdataset.tar.scan import Run
from webdataset.tar.source import Source


def compute_file_md5sum(fname: Any, chunksize: int = 1000000) -> str:
    """The MD5 of a file, given by its path or open, as 32 digits."""
    if isinstance(fname, (str, os.PathLike)):
        with open(fname, "rb") as file:
            return compute_file_md5sum(file, chunksize)
    digest = hashlib.md5(usedforsecurity=False)
    fname.seek(0)
    while data := fname.read(chunksize):
        digest.update(data)
    return digest.hexdigest()


def check_file(stream: IO[bytes], url: str | None, md5sum: str | None, size: int | None) -> None:
    """Raise WrongContentError if an open file has another size or MD5; None is not looked at."""
    if size is not None:
        found = stream.seek(0, os.SEEK_END)
        if found != size:
            raise WrongContentError(
                f"{found} bytes, where the index says {size} (filesize);"
                " if the shard was replaced, make the index anew",
                url=url,
            )
    if md5sum is not None and compute_file_md5sum(stream) != md5sum:
        raise WrongContentError(
            "not the shard that the index is of (md5sum); if it was replaced, make the index anew", url=url
        )


def read_at(file: IO[bytes], start: int, size: int, lock: threading.Lock) -> bytes:
    """Bytes of an open file, fewer where it ends before; any number of threads and forked processes may ask."""
    fd = -1
    if hasattr(os, "pread"):
        try:
            fd = file.fileno()
        except OSError:
            pass  # it is in memory
    if fd < 0:
        with lock:
            file.seek(start)
            return file.read(size)
    data = os.pread(fd, size, start)
    while len(data) < size and (more := os.pread(fd, size - len(data), start + len(data))):
        data += more
    return data


def open_archive(stream: IO[bytes], index_dir: str | None = None) -> ShardBytes:
    """An open archive, for reading anywhere in it; `stream` may be closed.

    Args:
        index_dir: where what is inside a compressed file is kept for others; None: nowhere.
    """
    name = getattr(stream, "name", None)
    path = name if isinstance(name, str) else None
    if _is_compressed(stream) and path is not None:
        return open_shard(path, index_dir)
    file = plain(stream)
    if not _is_file(file):
        file, path = _copied(file), None
    own = os.fdopen(os.dup(file.fileno()), "rb", 0)
    if file is not stream:
        file.close()
    found = os.fstat(own.fileno())
    return LocalShard(path or "", own, Version(found.st_size, found.st_mtime_ns), path)


def plain(stream: IO[bytes]) -> IO[bytes]:
    """The archive at its beginning, as it is, or, of a compressed one, a decompressed copy without a name."""
    return _copied(stream) if _is_compressed(stream) else stream


def _is_compressed(stream: IO[bytes]) -> bool:
    stream.seek(0)
    start = stream.read(MAGIC_BYTES)
    stream.seek(0)
    return compression_of(start) is not None


def _is_file(stream: IO[bytes]) -> bool:
    try:
        return stream.fileno() >= 0
    except OSError:
        return False


def _copied(stream: IO[bytes]) -> IO[bytes]:
    """What is in an archive, decompressed, as a file without a name."""
    copy: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 whoever asked closes it
    source = Source(stream)
    try:
        while source.fill(1):
            copy.write(source.take(source.available))
        copy.seek(0)
    except BaseException:
        copy.close()
        raise
    finally:
        source.close()
    return copy


def unwrapped(member: bytes) -> bytes:
    """The data of a whole member, headers included, the holes of a sparse one filled."""
    for item in ArchiveReader(io.BytesIO(member), lambda name: True, runs=False):
        if not isinstance(item, (Run, Begun)) and item[1] is not None:
            return item[1]
    raise AssertionError("a member that was found once")
