"""Lists of arrays <-> tenbin (`.ten`): no file header, only chunks that start at multiples of 16 bytes.

    chunk    "~TenBin~", int64 length of the payload, payload, zeros up to a multiple of 64 bytes of payload
    array    a header chunk and a data chunk
    header   int64s: dtype code and info as 8 bytes of NUL-padded ASCII each, number of dimensions, dimensions

All numbers are little-endian; data is in C order. This module does no I/O but for `save`, `load`, and the
streams that `read` and `write` are given.
"""

from __future__ import annotations

import math
import os
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .errors import DecodingError, EncodingError

Array = np.ndarray[Any, Any]

MAGIC = b"~TenBin~"
CODES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
MAX_DIMS = 9

magic_str, magic_bytes = "~TenBin~", MAGIC
magic = int.from_bytes(MAGIC, "little")
short_to_long = {code: np.dtype(code).name for code in CODES}
long_to_short = {name: code for code, name in short_to_long.items()}


def roundup(n: int, k: int = 64) -> int:
    """The smallest multiple of k that is at least n."""
    return -(-n // k) * k


def encode_header(a: Array, info: str = "") -> bytes:
    """Payload of the header chunk of an array."""
    code = a.dtype.str[1:]
    if code not in CODES:
        raise EncodingError(f"unsupported array type {a.dtype}: tenbin holds {' '.join(CODES)}")
    if a.ndim > MAX_DIMS:
        raise EncodingError(f"tenbin arrays have at most {MAX_DIMS} dimensions, got {a.ndim}")
    label = info.encode("ascii", "replace")
    if len(label) > 8 or label.decode("ascii") != info:
        raise EncodingError(f"the info of a tenbin array is at most 8 ASCII characters, got {info!r:.60}")
    return struct.pack(f"<8s8sq{a.ndim}q", code.encode("ascii"), label, a.ndim, *a.shape)


def decode_header(h: Any) -> tuple[tuple[int, ...], np.dtype[Any], str]:
    """Shape, dtype and info in the payload of a header chunk."""
    if len(h) < 24:
        raise DecodingError(message=f"tenbin header of {len(h)} bytes, at least 24 expected")
    raw_code, raw_info, ndim = struct.unpack_from("<8s8sq", h)
    code = raw_code.rstrip(b"\0").decode("ascii", "backslashreplace")
    if code not in CODES:
        raise DecodingError(message=f"unsupported tenbin array type {code!r}")
    if not 0 <= ndim <= MAX_DIMS or len(h) < 24 + 8 * ndim:
        raise DecodingError(message=f"tenbin header of {len(h)} bytes cannot hold {ndim} dimensions")
    shape = struct.unpack_from(f"<{ndim}q", h, 24)
    if any(size < 0 for size in shape):
        raise DecodingError(message=f"tenbin array of the shape {shape}")
    return shape, np.dtype("<" + code), raw_info.rstrip(b"\0").decode("ascii", "backslashreplace")


def encode_list(l: Sequence[Any], infos: Sequence[str] | None = None) -> list[bytes]:  # noqa: E741 published name
    """Payloads of the chunks of a list of arrays: header, data, header, data, ..."""
    if infos is None:
        infos = [""] * len(l)
    if not isinstance(infos, (list, tuple)) or not all(isinstance(info, str) for info in infos):
        raise TypeError(f"tenbin: infos must be a list of texts, one for each array, got {infos!r:.80}")
    if len(infos) != len(l):
        raise EncodingError(f"{len(l)} arrays need as many infos, got {len(infos)}")
    payloads = []
    for item, info in zip(l, infos, strict=True):
        array = np.asarray(item)
        payloads.append(encode_header(array, info))
        payloads.append(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return payloads


def decode_list(l: Sequence[Any], infos: Any = False) -> Any:  # noqa: E741 published name
    """The arrays in a list of payloads, as views of them; with infos, see `check_infos`."""
    if len(l) % 2:
        raise DecodingError(message="tenbin data ends after the header of an array")
    arrays, labels = [], []
    for header, payload in zip(l[::2], l[1::2], strict=True):
        shape, dtype, info = decode_header(header)
        needed = math.prod(shape) * dtype.itemsize
        if len(payload) != needed:
            raise DecodingError(
                message=f"tenbin array {shape} of {dtype} needs {needed} bytes, its chunk has {len(payload)}"
            )
        arrays.append(np.ndarray(shape, dtype, payload))
        labels.append(info)
    return check_infos(arrays, labels, infos)


def check_infos(data: list[Array], infos: list[str], required_infos: Any = None) -> Any:
    """`data` for False or None, `(data, infos)` for True, `data` for a list that equals the infos."""
    if required_infos is None or required_infos is False:
        return data
    if required_infos is True:
        return data, infos
    if list(required_infos) != infos:
        raise DecodingError(message=f"tenbin infos are {infos}, expected {list(required_infos)}")
    return data


def encode_chunks(l: Sequence[bytes]) -> bytearray:  # noqa: E741 published name
    """The payloads framed as chunks."""
    out = bytearray()
    for payload in l:
        out += MAGIC + struct.pack("<q", len(payload))
        out += payload
        out += bytes(roundup(len(payload)) - len(payload))
    return out


def decode_chunks(buf: Any) -> list[memoryview]:
    """Views of the payloads in a buffer; the zeros after the last one may be missing."""
    return list(_chunks(memoryview(buf).cast("B")))


def _chunks(view: memoryview) -> Iterator[memoryview]:
    position = 0
    while position < len(view):
        if len(view) - position < 16:
            raise DecodingError(message=f"tenbin data is cut in the head of a chunk at byte {position}")
        if view[position : position + 8] != MAGIC:
            found = bytes(view[position : position + 8])
            raise DecodingError(message=f"magic bytes mismatch at byte {position}: {found!r} is not {MAGIC!r}")
        (length,) = struct.unpack_from("<q", view, position + 8)
        start = position + 16
        if not 0 <= length <= len(view) - start:
            raise DecodingError(
                message=f"tenbin chunk at byte {position} claims {length} bytes, {len(view) - start} are there"
            )
        yield view[start : start + length]
        position = start + roundup(length)


def encode_buffer(l: list[Any], infos: Sequence[str] | None = None) -> bytearray:  # noqa: E741 published name
    """tenbin data of a list of arrays."""
    if not isinstance(l, list):
        raise EncodingError(f"encode_buffer requires list, got {type(l).__name__}")
    return encode_chunks(encode_list(l, infos))


def decode_buffer(buf: Any, infos: Any = False) -> Any:
    """The arrays in tenbin data, as views of the buffer: writable exactly when the buffer is.

    Raises:
        DecodingError: wrong magic bytes, an unknown type, or data that is cut.
    """
    return decode_list(decode_chunks(buf), infos)


def save(fname: str | os.PathLike[str], *args: Any, infos: Sequence[str] | None = None, nocheck: bool = False) -> None:
    """Write arrays to a file, whose name must end in `.ten` unless `nocheck`."""
    _check_name(fname, nocheck)
    data = encode_buffer(list(args), infos)
    with open(fname, "wb") as stream:
        stream.write(data)


def load(fname: str | os.PathLike[str], infos: Any = False, nocheck: bool = False) -> Any:
    """The arrays in a file, writable; the name must end in `.ten` unless `nocheck`."""
    _check_name(fname, nocheck)
    with open(fname, "rb") as stream:
        return decode_buffer(bytearray(stream.read()), infos)


def write(stream: Any, l: list[Any], infos: Sequence[str] | None = None) -> None:  # noqa: E741 published name
    """Write a list of arrays to a binary stream."""
    for chunk in encode_list(l, infos):
        write_chunk(stream, chunk)


def read(stream: Any, n: int = sys.maxsize, infos: Any = False) -> Any:
    """The next `n` arrays of a binary stream, fewer where it ends; the stream stays behind them."""
    chunks: list[bytes] = []
    while len(chunks) < 2 * n:
        chunk = read_chunk(stream)
        if chunk is None:
            break
        chunks.append(chunk)
    return decode_list(chunks, infos)


def write_chunk(stream: Any, buf: Any) -> None:
    """Write one payload, framed."""
    stream.write(encode_chunks([buf]))


def read_chunk(stream: Any) -> bytes | None:
    """The next payload of a binary stream, None at its end.

    Raises:
        DecodingError: wrong magic bytes, or the stream ends inside a chunk.
    """
    head = _read_exactly(stream, 16, "the head of a chunk", may_be_end=True)
    if not head:
        return None
    if head[:8] != MAGIC:
        raise DecodingError(message=f"magic bytes mismatch: {head[:8]!r} is not {MAGIC!r}")
    (length,) = struct.unpack_from("<q", head, 8)
    if length < 0:
        raise DecodingError(message=f"tenbin chunk claims {length} bytes")
    return _read_exactly(stream, roundup(length), f"a chunk of {length} bytes")[:length]


def _read_exactly(stream: Any, size: int, what: str, may_be_end: bool = False) -> bytes:
    parts: list[bytes] = []
    missing = size
    while missing:
        part = stream.read(min(missing, 1 << 20))  # a size in the data is not believed before the bytes come
        if not part:
            break
        parts.append(part)
        missing -= len(part)
    if missing and (parts or not may_be_end):
        raise DecodingError(message=f"premature EOF: the tenbin stream ends in {what}")
    return b"".join(parts)


def bytelen(a: Any) -> int:
    """The bytes in an array or a bytes object."""
    return a.nbytes if hasattr(a, "nbytes") else len(a)


def bytedata(a: Any) -> Any:
    """The bytes of an array, as a view where it is contiguous, or the bytes object itself."""
    return np.ascontiguousarray(a).reshape(-1).view(np.uint8).data if isinstance(a, np.ndarray) else a


def str64(s: str) -> int:
    """Up to 8 ASCII characters as the integer whose little-endian bytes they are."""
    data = s.encode("ascii")
    if len(data) > 8:
        raise EncodingError(f"str64 takes at most 8 characters, got {s!r:.60}")
    return int.from_bytes(data.ljust(8, b"\0"), "little", signed=True)


def unstr64(i: int) -> str:
    """The characters that `str64` made this integer of."""
    return int(i).to_bytes(8, "little", signed=True).rstrip(b"\0").decode("ascii")


def check_acceptable_input_type(data: Any, allow64: bool) -> None:
    """ValueError for arrays that tenbin does not hold, or of 64 bits unless `allow64`."""
    for a in data:
        if np.dtype(a.dtype).str[1:] not in CODES:
            raise EncodingError(f"unsupported array type {a.dtype}: tenbin holds {' '.join(CODES)}")
        if a.dtype.itemsize == 8 and not allow64:
            raise EncodingError(f"array of type {a.dtype}: 64 bit datatypes not allowed unless explicitly enabled")


def _check_name(fname: str | os.PathLike[str], nocheck: bool) -> None:
    if not nocheck and not os.fspath(fname).endswith(".ten"):
        raise ValueError(f"{os.fspath(fname)}: the name of a tenbin file ends in .ten; pass nocheck=True for others")
