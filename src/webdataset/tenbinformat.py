"""Lists of arrays <-> tenbin bytes: no file header, only chunks that start at multiples of 16 bytes.

    chunk    "~TenBin~", int64 length of the payload, payload, zeros up to a multiple of 64 bytes of payload
    array    a header chunk and a data chunk
    header   int64s: dtype code and info as 8 bytes of NUL-padded ASCII each, number of dimensions, dimensions

All numbers are little-endian; data is in C order. This module does no I/O. A length in the data is compared
with the bytes that are there before anything is made of it, and every refusal says the byte.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from .errors import DecodingError, EncodingError

Array = np.ndarray[Any, Any]
Chunk = tuple[int, Any]
"""Offset of a chunk and its payload."""

MAGIC = b"~TenBin~"
CODES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")
MAX_DIMS = 9
HEAD = 16
"""Bytes of a chunk before its payload."""

magic_str, magic_bytes = "~TenBin~", MAGIC
magic = int.from_bytes(MAGIC, "little")
short_to_long = {code: np.dtype(code).name for code in CODES}
long_to_short = {name: code for code, name in short_to_long.items()}

_DTYPES = {code.encode("ascii").ljust(8, b"\0"): np.dtype("<" + code) for code in CODES}


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
    if len(info) > 8 or not info.isascii() or "\0" in info:
        raise EncodingError(f"the info of a tenbin array is at most 8 ASCII characters, got {info!r:.60}")
    return struct.pack(f"<8s8sq{a.ndim}q", code.encode("ascii"), info.encode("ascii"), a.ndim, *a.shape)


def decode_header(h: Any) -> tuple[tuple[int, ...], np.dtype[Any], str]:
    """Shape, dtype and info in the payload of a header chunk."""
    if len(h) < 24:
        raise DecodingError(message=f"tenbin header of {len(h)} bytes, at least 24 expected")
    raw_code, raw_info, ndim = struct.unpack_from("<8s8sq", h)
    dtype = _DTYPES.get(raw_code)
    if dtype is None:
        code = raw_code.rstrip(b"\0").decode("ascii", "backslashreplace")
        raise DecodingError(message=f"unsupported tenbin array type {code!r}, expected one of {' '.join(CODES)}")
    if not 0 <= ndim <= MAX_DIMS or len(h) != 24 + 8 * ndim:
        raise DecodingError(message=f"a tenbin header of {len(h)} bytes cannot hold {ndim} dimensions")
    shape = struct.unpack_from(f"<{ndim}q", h, 24)
    if shape and min(shape) < 0:
        raise DecodingError(message=f"tenbin array of the shape {shape}")
    if not raw_info.isascii():
        raise DecodingError(message=f"the info of a tenbin array is not ASCII: {raw_info!r}")
    return shape, dtype, raw_info.rstrip(b"\0").decode("ascii")


def encode_list(l: Sequence[Any], infos: Sequence[str] | None = None) -> list[bytes]:  # noqa: E741 published name
    """Payloads of the chunks of a list of arrays: header, data, header, data, ..."""
    payloads = []
    for header, array in _with_headers(l, infos):
        payloads.append(header)
        payloads.append(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return payloads


def _with_headers(items: Sequence[Any], infos: Sequence[str] | None) -> list[tuple[bytes, Array]]:
    if infos is None:
        infos = [""] * len(items)
    if not isinstance(infos, (list, tuple)) or not all(isinstance(info, str) for info in infos):
        raise TypeError(f"tenbin: infos must be a list of texts, one for each array, got {infos!r:.80}")
    if len(infos) != len(items):
        raise EncodingError(f"{len(items)} arrays need as many infos, got {len(infos)}")
    arrays = [_as_array(number, item) for number, item in enumerate(items)]
    return [(encode_header(array, info), array) for array, info in zip(arrays, infos, strict=True)]


def _as_array(number: int, item: Any) -> Array:
    if np.ma.is_masked(item):
        raise EncodingError(f"tenbin: item {number} of the list is masked; tenbin has no masks: write item.filled()")
    try:
        return np.asarray(item)
    except Exception as exn:  # numpy's own, or that of a foreign class, such as torch's
        raise EncodingError(f"tenbin: item {number} of the list, a {type(item).__name__}, is no array: {exn}") from exn


def decode_list(l: Sequence[Any], infos: Any = False) -> Any:  # noqa: E741 published name
    """The arrays in a list of payloads, as views of them where they are aligned; with infos, see `check_infos`."""
    return decode_pairs([(None, payload) for payload in l], infos)


def decode_pairs(chunks: Iterable[tuple[int | None, Any]], infos: Any = False) -> Any:
    """The arrays in pairs of chunks: header, data, header, data, ...; an error says the offset of its chunk.

    An array is a view of its payload, read-only where that is; where the payload does not lie as its numbers have to
    lie in memory, it is a copy.
    """
    arrays: list[Array] = []
    labels: list[str] = []
    offset: int | None = None
    pairs = iter(chunks)
    try:
        for offset, header in pairs:
            shape, dtype, info = decode_header(header)
            offset, payload = next(pairs, (offset, None))
            if payload is None:
                raise DecodingError(message="tenbin data ends after the header of an array")
            arrays.append(_array(shape, dtype, payload))
            labels.append(info)
    except DecodingError as exn:
        exn.locate(offset=offset)
        raise
    return check_infos(arrays, labels, infos)


def _array(shape: tuple[int, ...], dtype: np.dtype[Any], payload: Any) -> Array:
    needed = math.prod(shape) * dtype.itemsize
    if len(payload) != needed:
        raise DecodingError(
            message=f"tenbin array {shape} of {dtype} needs {needed} bytes, its chunk has {len(payload)}"
        )
    try:
        array = np.ndarray(shape, dtype, payload)
    except (ValueError, OverflowError) as exn:  # one dimension is 0, another one more than a computer has
        raise DecodingError(message=f"tenbin array of the shape {shape}: {exn}") from exn
    if not array.flags.aligned:
        writeable = array.flags.writeable
        array = array.copy()
        array.flags.writeable = writeable
    return array


def check_infos(data: list[Array], infos: list[str], required_infos: Any = None) -> Any:
    """`data` for False or None, `(data, infos)` for True, `data` for a list that equals the infos."""
    if required_infos is None or required_infos is False:
        return data
    if required_infos is True:
        return data, infos
    if not isinstance(required_infos, (list, tuple)):
        raise TypeError(f"tenbin: infos must be True, False or a list of texts, got {required_infos!r:.80}")
    if list(required_infos) != infos:
        raise DecodingError(message=f"tenbin infos are {infos}, expected {list(required_infos)}")
    return data


def chunk_head(length: int) -> bytes:
    """What stands before a payload of so many bytes."""
    return struct.pack("<8sq", MAGIC, length)


def payload_length(head: Any, offset: int | None = None) -> int:
    """How many bytes the chunk claims that begins with these 16 bytes."""
    found, length = struct.unpack_from("<8sq", head)
    if found != MAGIC:
        raise DecodingError(message=f"magic bytes mismatch: {found!r} is not {MAGIC!r}", offset=offset)
    if length < 0:
        raise DecodingError(message=f"tenbin chunk claims {length} bytes", offset=offset)
    return int(length)


def encode_chunks(l: Sequence[Any]) -> bytearray:  # noqa: E741 published name
    """The payloads framed as chunks."""
    out = bytearray()
    for item in l:
        payload = view_of(item)
        out += chunk_head(len(payload))
        out += payload
        out += bytes(roundup(len(payload)) - len(payload))
    return out


def decode_chunks(buf: Any) -> list[memoryview]:
    """Views of the payloads in a buffer; the zeros after the last one may be missing."""
    return [payload for _, payload in chunks_of(view_of(buf))]


def view_of(buf: Any) -> memoryview:
    """The bytes of an array, or of anything that holds bytes; not copied where they lie in one piece."""
    try:
        return memoryview(bytedata(buf)).cast("B")
    except TypeError as exn:
        raise TypeError(f"tenbin: expected bytes, or something that holds them in one piece, got {buf!r:.80}") from exn


def chunks_of(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Offset and payload of each chunk."""
    position = 0
    while position < len(view):
        if len(view) - position < HEAD:
            raise DecodingError(message="tenbin data is cut in the head of a chunk", offset=position)
        length = payload_length(view[position : position + HEAD], position)
        start = position + HEAD
        if length > len(view) - start:
            raise DecodingError(
                message=f"tenbin chunk claims {length} bytes, {len(view) - start} are there", offset=position
            )
        yield position, view[start : start + length]
        position = start + roundup(length)


def encode_buffer(l: list[Any], infos: Sequence[str] | None = None) -> bytearray:  # noqa: E741 published name
    """tenbin data of a list of arrays."""
    if not isinstance(l, list):
        raise EncodingError(f"encode_buffer requires list, got {type(l).__name__}")
    items = _with_headers(l, infos)
    out = bytearray(sum(2 * HEAD + roundup(len(header)) + roundup(array.nbytes) for header, array in items))
    position = 0
    for header, array in items:
        out[position : position + HEAD + len(header)] = chunk_head(len(header)) + header
        position += HEAD + roundup(len(header))
        out[position : position + HEAD] = chunk_head(array.nbytes)
        position += HEAD
        if array.nbytes:
            np.ndarray(array.shape, array.dtype.newbyteorder("<"), out, position)[...] = array
        position += roundup(array.nbytes)
    return out


def decode_buffer(buf: Any, infos: Any = False) -> Any:
    """The arrays in tenbin data, as views of the buffer: writable exactly when the buffer is.

    Where the buffer does not begin at an address that suits the numbers, which can happen in the middle of a larger
    one, arrays are copies.

    Raises:
        DecodingError: wrong magic bytes, an unknown type, or data that is cut; `offset` says where.
    """
    return decode_pairs(chunks_of(view_of(buf)), infos)


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
