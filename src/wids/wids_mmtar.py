"""A tar archive -> its ordinary files by number and by name, each read when it is asked for.

Everything that `webdataset` reads is read: long names, sparse and large files, compressed archives (as a decompressed
copy). Links and folders are left out. Despite the name nothing is mapped: see `shards`.
"""

from __future__ import annotations

import io
import os
import struct
import threading
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple

from webdataset.cachelocks import Lock, ask
from webdataset.errors import DataError, TruncatedError
from webdataset.samples import decode_name
from webdataset.storage.local import open_read
from webdataset.tar.header import BLOCK, padding, parse_number
from webdataset.tar.reader import ArchiveReader, Begun
from webdataset.tar.scan import Run

from .files import plain, read_at, unwrapped

_HEADER = struct.Struct("!100s8s8s8s12s12s8s1s100s6s2s32s32s8s8s155s")


class TarHeader(NamedTuple):
    """The fields of a header block, as bytes."""

    name: bytes
    mode: bytes
    uid: bytes
    gid: bytes
    size: bytes
    mtime: bytes
    chksum: bytes
    typeflag: bytes
    linkname: bytes
    magic: bytes
    version: bytes
    uname: bytes
    gname: bytes
    devmajor: bytes
    devminor: bytes
    prefix: bytes


def parse_tar_header(header_bytes: bytes) -> TarHeader:
    """The fields of a header, given its first 500 bytes.

    Raises:
        TruncatedError: there are fewer.
    """
    if len(header_bytes) < _HEADER.size:
        raise TruncatedError(f"a header has {_HEADER.size} bytes, got {len(header_bytes)}")
    return TarHeader._make(_HEADER.unpack(header_bytes[: _HEADER.size]))


def next_header(offset: int, header: TarHeader) -> int:
    """Where the header behind this one, at this offset, and its data begins."""
    size = parse_number(header.size, "size")
    return offset + BLOCK + size + padding(size)


class MMIndexedTar:
    """The ordinary files of an archive: `tar[i]` and `tar[name]` are (name, bytes); iterated over, all of them.

    Args:
        fname: path of the archive, or the open file, which is closed with this object.
        index_file, verbose: Ignored, the index is in memory; kept for callers of 0.2.
        cleanup_callback: called as f(path, descriptor, "start") now, and with "end" by `close`: `keep_while_reading`.

    Attributes:
        by_index: (name, offset of the first header, bytes of data) of each file.
        by_name: name to its number; of equal names, the last one.

    Raises:
        DataError: this is no archive, or a damaged one.
    """

    def __init__(
        self,
        fname: Any,
        index_file: Any = None,
        verbose: bool = True,
        cleanup_callback: Callable[[str, int, str], object] | None = None,
    ) -> None:
        self.verbose = verbose
        self.cleanup_callback = cleanup_callback
        named = isinstance(fname, (str, os.PathLike))
        self.stream: IO[bytes] = open_read(os.fspath(fname)) if named else fname
        self.fname = os.fspath(fname) if named else str(getattr(fname, "name", ""))
        self._lock = threading.Lock()
        self._started = False
        self._reader = self.stream
        try:
            self._call_back("start")
            self._reader = plain(self.stream)
            self._places = _places(self._reader)
        except BaseException as exn:
            if isinstance(exn, DataError):
                exn.locate(url=self.fname or None)
            self.close()
            raise
        self.by_index = [(name, begin, size) for name, begin, _, size, _ in self._places]
        self.by_name = {place[0]: number for number, place in enumerate(self._places)}

    def names(self) -> list[str]:
        """The names of all files, in order."""
        return [place[0] for place in self._places]

    def get_at_index(self, index: int) -> tuple[str, bytes]:
        """Name and bytes of file `index`.

        Raises:
            IndexError: there is no such file.
            TruncatedError: the archive has become shorter since it was opened.
        """
        name, _, start, size, wrapped = self._places[index]
        data = read_at(self._reader, start, size, self._lock)
        if len(data) < size:
            raise TruncatedError(
                f"{len(data)} of {size} bytes: the file has become shorter since it was opened",
                url=self.fname or None,
                member=name,
            )
        return name, unwrapped(data) if wrapped else data

    def get_by_name(self, name: str) -> tuple[str, bytes]:
        """Name and bytes of the file with this name; KeyError where there is none."""
        return self.get_at_index(self.by_name[name])

    def get_at_offset(self, offset: int) -> tuple[str, bytes]:
        """Name and bytes of the file whose first header lies at this byte; KeyError where none does."""
        for number, (_, begin, _) in enumerate(self.by_index):
            if begin == offset:
                return self.get_at_index(number)
        raise KeyError(f"no file begins at byte {offset} of {self.fname or 'the archive'}")

    def get_file(self, i: int) -> tuple[str, io.BytesIO]:
        """Name and bytes of file `i`, the bytes as a stream."""
        name, data = self.get_at_index(i)
        return name, io.BytesIO(data)

    def __getitem__(self, key: int | str) -> tuple[str, bytes]:
        return self.get_by_name(key) if isinstance(key, str) else self.get_at_index(key)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        return (self.get_at_index(number) for number in range(len(self)))

    def close(self, dispose: bool = False) -> None:
        """Close the archive. `dispose` is ignored, it is kept for callers of 0.2."""
        if self._started:
            self._started = False
            self._call_back("end")
        if self._reader is not self.stream:
            self._reader.close()
        self.stream.close()

    def _call_back(self, phase: str) -> None:
        if self.cleanup_callback is not None:
            self.cleanup_callback(self.fname, self.stream.fileno(), phase)
            self._started = phase == "start"


Place = tuple[str, int, int, int, bool]
"""Name, offset of the first header, first byte of the data, bytes; whether these are of the whole (sparse) member."""


def _places(stream: IO[bytes]) -> list[Place]:
    """Where the ordinary files of an archive lie."""
    reader = ArchiveReader(stream, lambda name: False)
    places: list[Place] = []
    try:
        for item in reader:
            if isinstance(item, Begun):
                continue
            if isinstance(item, Run):
                start = reader.window_start
                for at, begin, size in zip(
                    item.headers.tolist(), item.begins.tolist(), item.sizes.tolist(), strict=True
                ):
                    raw = bytes(item.window[at : at + 100]).partition(b"\0")[0]
                    places.append((decode_name(raw), start + begin, start + at + BLOCK, size, False))
                continue
            raw, _, begin = item
            wrapped = reader.passed is None
            first, size = reader.passed or (begin, reader.offset - begin)
            places.append((decode_name(raw), begin, first, size, wrapped))
    finally:
        reader.close()
    return places


def keep_while_reading(fname: str, fd: int, phase: str, delay: float = 0.0) -> None:
    """A `cleanup_callback`: the file stays while somebody reads it, and is removed by the last one who closes it.

    Raises:
        ValueError: another phase than "start" and "end", or a delay.
    """
    if delay:
        raise ValueError(f"keep_while_reading: delay must be 0, got {delay!r}")
    if phase == "start":
        ask(fd, exclusive=False)
    elif phase == "end":
        if ask(fd, exclusive=True) is Lock.GOT:
            try:
                os.unlink(fname)
            except FileNotFoundError:
                pass
    else:
        raise ValueError(f"keep_while_reading: phase must be 'start' or 'end', got {phase!r}")


__all__ = ["MMIndexedTar", "TarHeader", "keep_while_reading", "next_header", "parse_tar_header"]
