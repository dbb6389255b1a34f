"""Lists of arrays <-> tenbin (`.ten`) files and streams, and the public names of the format.

`tenbinformat` has the bytes, `tenbinsockets` the messages; here are files and streams only. A size in the
data is not believed before its bytes have come, so nothing takes memory that the data only claims.
"""

from __future__ import annotations

import io
import mmap as mmap_module
import os
import stat
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._arguments import check_count
from .errors import DataError, DecodingError, OpenError
from .storage.atomic import write_file
from .tenbinformat import (
    CODES,
    HEAD,
    MAGIC,
    MAX_DIMS,
    Array,
    Chunk,
    bytedata,
    bytelen,
    check_acceptable_input_type,
    check_infos,
    chunk_head,
    decode_buffer,
    decode_chunks,
    decode_header,
    decode_list,
    decode_pairs,
    encode_buffer,
    encode_chunks,
    encode_header,
    encode_list,
    long_to_short,
    magic,
    magic_bytes,
    magic_str,
    payload_length,
    roundup,
    short_to_long,
    str64,
    unstr64,
    view_of,
)
from .tenbinsockets import (
    sctp_recv,
    sctp_send,
    sctp_socket,
    zrecv_multipart,
    zrecv_single,
    zsend_multipart,
    zsend_single,
)

__all__ = [
    "CODES",
    "MAGIC",
    "MAX_DIMS",
    "Array",
    "bytedata",
    "bytelen",
    "check_acceptable_input_type",
    "check_infos",
    "decode_buffer",
    "decode_chunks",
    "decode_header",
    "decode_list",
    "encode_buffer",
    "encode_chunks",
    "encode_header",
    "encode_list",
    "load",
    "long_to_short",
    "magic",
    "magic_bytes",
    "magic_str",
    "read",
    "read_chunk",
    "roundup",
    "save",
    "sctp_recv",
    "sctp_send",
    "sctp_socket",
    "short_to_long",
    "str64",
    "unstr64",
    "write",
    "write_chunk",
    "zrecv_multipart",
    "zrecv_single",
    "zsend_multipart",
    "zsend_single",
]

_PIECE = 1 << 20


def save(fname: str | os.PathLike[str], *args: Any, infos: Sequence[str] | None = None, nocheck: bool = False) -> None:
    """Write arrays to a file, whose name must end in `.ten` unless `nocheck`; it appears whole or not at all."""
    _check_name(fname, nocheck)
    if any(isinstance(one, (list, tuple)) and any(hasattr(item, "__array__") for item in one) for one in args):
        raise TypeError("tenbin.save: arrays are given one by one, save(fname, *arrays), got a list of arrays")
    data = encode_buffer(list(args), infos)
    path = os.path.realpath(fname)
    if os.path.exists(path) and not os.path.isfile(path):  # a fifo or a device takes the bytes where it is
        with open(path, "wb") as stream:
            stream.write(data)
    else:
        write_file(path, data)


def load(fname: str | os.PathLike[str], infos: Any = False, nocheck: bool = False, *, mmap: bool = False) -> Any:
    """The arrays in a file, writable; the name must end in `.ten` unless `nocheck`.

    Args:
        infos: True gives `(arrays, infos)`; a list of infos must be what the file has.
        nocheck: take files of any name.
        mmap: map the file instead of reading it: the arrays are read-only, their pages are read when they are used,
            and the file stays mapped as long as one of them lives. It must not become shorter in that time.

    Raises:
        DecodingError: the file is no tenbin, damaged or cut; it says file and byte.
    """
    _check_name(fname, nocheck)
    try:
        with open(fname, "rb") as stream:
            return decode_buffer(_mapped(stream) if mmap else _content(stream), infos)
    except DataError as exn:
        exn.locate(url=os.fsdecode(fname))
        raise


def _mapped(stream: Any) -> Any:
    about = os.fstat(stream.fileno())
    if not stat.S_ISREG(about.st_mode) or about.st_size == 0:  # which cannot be mapped
        return stream.read()
    return mmap_module.mmap(stream.fileno(), 0, access=mmap_module.ACCESS_READ)


def _content(stream: Any) -> Any:
    """All bytes of a file, in memory that they were read into once."""
    about = os.fstat(stream.fileno())
    if not stat.S_ISREG(about.st_mode):
        return bytearray(stream.read())
    head = stream.read(min(HEAD, about.st_size))
    if len(head) == HEAD:
        payload_length(head, 0)  # a large file of some other kind is not read
    view = np.empty(about.st_size, np.uint8).data
    view[: len(head)] = head
    there = len(head)
    while there < len(view):
        count = stream.readinto(view[there:])
        if not count:
            break
        there += count
    return view[:there]


def write(stream: Any, l: list[Any], infos: Sequence[str] | None = None) -> None:  # noqa: E741 published name
    """Write a list of arrays to a binary stream."""
    for chunk in encode_list(l, infos):
        write_chunk(stream, chunk)


def read(stream: Any, n: int = sys.maxsize, infos: Any = False) -> Any:
    """The next `n` arrays of a binary stream, fewer where it ends; the stream stays behind them.

    Raises:
        OpenError: the stream does not block, and has nothing now.
        DecodingError: as from `decode_buffer`; the offset is counted from the beginning of the stream where
            the stream can tell, from here otherwise.
    """
    check_count("tenbin.read", "n", n, 0, "arrays")
    chunks: list[Chunk] = []
    offset = _position(stream) or 0
    while len(chunks) < 2 * n:
        chunk = _next_chunk(stream, offset)
        if chunk is None:
            break
        chunks.append((offset, chunk))
        offset += HEAD + roundup(len(chunk))
    return decode_pairs(chunks, infos)


def write_chunk(stream: Any, buf: Any) -> None:
    """Write one payload, framed: bytes, or the bytes of an array.

    Raises:
        OpenError: the stream takes nothing, because it does not block, or is broken; it may have a part.
    """
    payload = view_of(buf)
    for data in (chunk_head(len(payload)), payload, bytes(roundup(len(payload)) - len(payload))):
        view = memoryview(data)
        while view:  # a stream without a buffer may take less than it is given
            count = stream.write(view)
            if count is None and not isinstance(stream, io.RawIOBase):  # of those, it means that all is well
                break
            if not count or not 0 < count <= len(view):
                raise OpenError(
                    f"the stream says that it took {count} of {len(view)} bytes: tenbin needs one that blocks"
                )
            view = view[count:]


def read_chunk(stream: Any) -> bytes | None:
    """The next payload of a binary stream, None at its end.

    Raises:
        DecodingError: wrong magic bytes, or the stream ends inside a chunk.
    """
    return _next_chunk(stream, _position(stream))


def _next_chunk(stream: Any, offset: int | None) -> bytes | None:
    head = _read_pieces(stream, HEAD)
    if not head:
        return None
    if len(head) < HEAD:
        raise DecodingError(message="premature EOF: the tenbin stream ends in the head of a chunk", offset=offset)
    length = payload_length(head, offset)
    content = _read_pieces(stream, roundup(length))
    if len(content) < roundup(length):
        raise DecodingError(
            message=f"premature EOF: the tenbin stream ends {len(content)} bytes into a chunk of {roundup(length)}",
            offset=offset,
        )
    return content[:length]


def _read_pieces(stream: Any, size: int) -> bytes:
    """So many bytes, or all that are left; memory is taken for what comes."""
    parts: list[bytes] = []
    there = 0
    while there < size:
        part = stream.read(min(size - there, max(there, _PIECE)))
        if part is None:
            raise OpenError("the stream has nothing to read at the moment: tenbin needs one that blocks")
        if isinstance(part, str):
            raise TypeError("tenbin: the stream gives text; open it for bytes, in a mode with a b")
        if not part:
            break
        parts.append(part)
        there += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _position(stream: Any) -> int | None:
    try:
        position = stream.tell()
    except (AttributeError, OSError, ValueError):
        return None
    return position if isinstance(position, int) else None


def _check_name(fname: str | os.PathLike[str], nocheck: bool) -> None:
    name = os.fsdecode(fname)
    if not nocheck and not name.endswith(".ten"):
        raise ValueError(f"{name}: the name of a tenbin file ends in .ten; pass nocheck=True for others")
