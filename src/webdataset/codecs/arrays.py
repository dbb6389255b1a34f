"""numpy arrays <-> npy, npz and tenbin fields.

Nothing here unpickles: arrays of Python objects are refused in both directions. Memory for an
array is taken only after its claimed size has been compared with the bytes that are there.
Decoded arrays are writable: one copy of the field is made, and the array lies in it. Fields of one
kind have equal headers, so a header is parsed once and found again by its bytes.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .. import tenbin
from ..errors import EncodingError
from . import gz

_USUAL = 128  # numpy pads headers to multiples of 64; nearly all have this length
_CACHED = 4096
_headers: dict[bytes, tuple[tuple[int, ...], np.dtype[Any], int]] = {}  # usual C-order headers: shape, dtype, length
_preambles: dict[tuple[np.dtype[Any], tuple[int, ...], bool], bytes] = {}
_ndarray = np.ndarray

_SIMPLE = re.compile(
    rb"\{'descr': '([<>|][biufcSU]\d{1,9})', 'fortran_order': (True|False), 'shape': \(([\d, ]*)\), \} *\n"
)


def npy_loads(data: bytes) -> np.ndarray[Any, Any]:
    """The array in a npy field, writable and aligned; never unpickles.

    Raises:
        ValueError: not npy, cut short, or an array of Python objects.
    """
    try:
        shape, dtype, offset = _headers[data[:_USUAL]]
        return _ndarray(shape, dtype, bytearray(data), offset)
    except (KeyError, TypeError):
        return _load_any(data)


def _load_any(data: bytes) -> np.ndarray[Any, Any]:
    shape, fortran, dtype, end = _read_header(data)
    if not (isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)):
        raise ValueError(f"npy header with the shape {shape!r:.60}")
    if dtype.hasobject:
        raise ValueError("npy array of Python objects: they are pickles, which npy fields never load")
    count = math.prod(shape)
    if count and not dtype.itemsize:
        raise ValueError(f"npy array {shape} of items without a size")
    needed, there = count * dtype.itemsize, len(data) - end
    if there < needed:
        raise ValueError(f"npy array {shape} of {dtype} needs {needed} bytes, {there} are there")
    if end == _USUAL and not fortran:
        if len(_headers) >= _CACHED:
            _headers.clear()
        _headers[data[:end]] = shape, dtype, end
    content = bytearray(memoryview(data)[end : end + needed])
    return np.ndarray(shape, dtype, content, order="F" if fortran else "C")


def _read_header(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether in Fortran order, dtype, and where the numbers begin."""
    if data[:6] != b"\x93NUMPY":
        raise ValueError(f"not a npy array: starts with {data[:8]!r}")
    version = tuple(data[6:8])
    if version == (1, 0):
        start, length = 10, int.from_bytes(data[8:10], "little")
    elif version in ((2, 0), (3, 0)):
        start, length = 12, int.from_bytes(data[8:12], "little")
    else:
        raise ValueError(f"npy format version {'.'.join(map(str, version))} is not known")
    end = start + length
    if end > len(data):
        raise ValueError(f"npy header needs {end} bytes, {len(data)} are there")
    match = _SIMPLE.fullmatch(data, start, end)
    if match is not None:
        shape = tuple(int(size) for size in match[3].split(b",") if size.strip())
        return shape, match[2] == b"True", np.dtype(match[1].decode("ascii")), end
    return *_parse_header(data, version, end), end


def _parse_header(data: bytes, version: tuple[int, ...], end: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    if version == (3, 0):  # the same as 2.0 in UTF-8: names of record fields beyond Latin-1
        import ast

        header = ast.literal_eval(data[12:end].decode("utf-8"))
        if not isinstance(header, dict) or header.keys() != {"descr", "fortran_order", "shape"}:
            raise ValueError("npy header does not name exactly descr, fortran_order and shape")
        return header["shape"], bool(header["fortran_order"]), np.lib.format.descr_to_dtype(header["descr"])
    stream = io.BytesIO(data[8:end])
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    return np.lib.format.read_array_header_2_0(stream)


def numpy_dumps(value: Any) -> bytes:
    """npy bytes of an array, or of what numpy makes an array of; EncodingError for Python objects."""
    array = value if type(value) is np.ndarray else np.asarray(value)
    if array.dtype.hasobject:
        raise EncodingError(f"npy fields hold numbers and texts, not Python objects; got {type(value).__name__}")
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    kind = (array.dtype, array.shape, fortran)
    preamble = _preambles.get(kind)
    if preamble is None:
        stream = io.BytesIO()
        descr = np.lib.format.dtype_to_descr(array.dtype)
        header = {"descr": descr, "fortran_order": fortran, "shape": array.shape}
        try:
            np.lib.format.write_array_header_1_0(stream, header)
        except ValueError:  # record names that are not Latin-1, or very many of them
            np.lib.format.write_array(stream, array, allow_pickle=False)
            return stream.getvalue()
        preamble = stream.getvalue()
        if len(_preambles) >= _CACHED:
            _preambles.clear()
        _preambles[kind] = preamble
    if array.flags.c_contiguous and array.dtype.kind in "biufc":
        return preamble + array.data
    return preamble + array.tobytes("F" if fortran else "C")


def npz_loads(data: bytes) -> dict[str, Any]:
    """A dict from name to array (to bytes, for members that are not npy); never unpickles."""
    import zipfile

    arrays: dict[str, Any] = {}
    left = gz.max_bytes
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.infolist():
            left -= member.file_size
            if left < 0:
                raise ValueError(
                    f"npz data expands to more than {gz.max_bytes} bytes;"
                    " if that is right, raise webdataset.codecs.gz.max_bytes"
                )
            content = archive.read(member)
            name = member.filename.removesuffix(".npy")
            arrays[name] = npy_loads(content) if content[:6] == b"\x93NUMPY" else content
    return arrays


def numpy_npz_dumps(value: Any) -> bytes:
    """Compressed npz bytes of a dict from name to array; equal arrays give equal bytes."""
    import zipfile

    if not isinstance(value, Mapping):
        raise EncodingError(f"a npz field needs a dict from name to array, got {type(value).__name__}")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in value.items():
            if not isinstance(name, str):
                raise EncodingError(f"the names in a npz field must be texts, got {name!r:.60}")
            member = zipfile.ZipInfo(name + ".npy")  # dated 1980, so bytes do not depend on the clock
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, numpy_dumps(array))
    return stream.getvalue()


def tenbin_loads(data: bytes) -> list[np.ndarray[Any, Any]]:
    """The list of arrays in a tenbin field; they are writable."""
    arrays: list[np.ndarray[Any, Any]] = tenbin.decode_buffer(bytearray(data))
    return arrays


def tenbin_dumps(value: Any) -> bytes:
    """tenbin bytes of a list of arrays, or of one array."""
    return bytes(tenbin.encode_buffer(list(value) if isinstance(value, list | tuple) else [value]))


CODECS: dict[str, tuple[Callable[[bytes], Any] | None, Callable[[Any], bytes]]] = {
    "npy": (npy_loads, numpy_dumps),
    "npz": (npz_loads, numpy_npz_dumps),
    "ten tenbin tb": (tenbin_loads, tenbin_dumps),
}
