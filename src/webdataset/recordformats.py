"""Bytes of records, one behind the other <-> the records: MsgPack and CBOR, by the packages that know them.

A format makes a window: memory to read into, and a function that opens the bytes from one place to another. That gives
two functions: one decodes the next record, one tells where it ended, counted from a place that is given too. The first
raises one of `ends` where the window has not got all of a record. It must not take memory that the data only claims,
and must not crash on data that is nested deeply. The memory is used again: fresh memory costs more than decoding.

Records of the time before MsgPack told texts from bytes are read too: where something is no UTF-8, it is bytes.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any, NamedTuple

from ._optional import require
from .codecs.basic import cbor_module
from .plainrecords import CBOR_HEADS, MSGPACK_HEADS, Heads

Opened = tuple[Callable[[], Any], Callable[[], int], int]
Window = tuple[memoryview, Callable[[int, int], Opened]]


class RecordFormat(NamedTuple):
    """A kind of records.

    Attributes:
        name: as people write it.
        load: imports its package; gives what the other three take.
        window: a window of so many bytes.
        ends: the exceptions that say that the window ends in a record.
        dumps: a record to its bytes.
        heads: what is plain in it; None where nothing is.
    """

    name: str
    load: Callable[[], Any]
    window: Callable[[Any, int], Window]
    ends: Callable[[Any], tuple[type[BaseException], ...]]
    dumps: Callable[[Any, Any], bytes]
    heads: Heads | None


def _load_msgpack() -> Any:
    return require("msgpack", "msgpack", "a stream of MsgPack")


_ANY = (1 << 32) - 1  # lengths of texts and bytes are compared with what is there


def _msgpack_window(msgpack: Any, size: int, raw: bool = False) -> Window:
    view = memoryview(bytearray(size))

    def open_part(begin: int, end: int) -> Opened:
        limits = dict.fromkeys(("max_str_len", "max_bin_len", "max_ext_len"), _ANY)
        unpacker = msgpack.Unpacker(raw=raw, strict_map_key=False, max_buffer_size=end - begin, **limits)
        unpacker.feed(view[begin:end])  # nothing has more items than there are bytes
        return unpacker.unpack, unpacker.tell, begin

    return view, open_part


def _old_msgpack_window(msgpack: Any, size: int) -> Window:
    view, open_raw = _msgpack_window(msgpack, size, raw=True)

    def open_part(begin: int, end: int) -> Opened:
        unpack, tell, origin = open_raw(begin, end)
        return lambda: _texts(unpack()), tell, origin

    return view, open_part


def _texts(value: Any) -> Any:
    """The value with text in place of bytes that are UTF-8."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value
    if isinstance(value, dict):
        return {_texts(key): _texts(item) for key, item in value.items()}
    return [_texts(item) for item in value] if isinstance(value, list) else value


def _msgpack_ends(msgpack: Any) -> tuple[type[BaseException], ...]:
    return (msgpack.OutOfData,)


def _pack(msgpack: Any, record: Any) -> bytes:
    packed: bytes = msgpack.packb(record)
    return packed


def _load_cbor2() -> Any:
    return require("cbor2", "cbor2", "a stream of CBOR")


def _load_any_cbor() -> Any:
    return cbor_module("a stream of CBOR")


_READ_AHEAD = 512  # more is copied and given back for each record


def _cbor_window(cbor: Any, size: int) -> Window:
    whole: io.BytesIO = _Memory(bytes(size))
    part = io.BytesIO()
    view = whole.getbuffer()
    decoder: Any = getattr(cbor, "CBORDecoder", None)
    options = {"read_size": _READ_AHEAD}

    def open_part(begin: int, end: int) -> Opened:
        stream, origin = whole, 0
        if end < size:  # what is behind it is old
            stream, origin = part, begin
            stream.seek(0)
            stream.write(view[begin:end])
            stream.truncate()
        stream.seek(begin - origin)
        if decoder is None:
            return lambda: cbor.load(_Exact(stream)), stream.tell, origin
        try:
            return decoder(stream, **options).decode, stream.tell, origin
        except TypeError:  # cbor2 before 6
            options.clear()
            return decoder(stream).decode, stream.tell, origin

    return view, open_part


class _Memory(io.BytesIO):
    """Memory that may be forgotten together with a view of it: Python 3.13 tells errors of closing then."""

    def close(self) -> None:
        with contextlib.suppress(BufferError):
            super().close()


class _Exact:
    """A stream that ends with an error; the package cbor would ask for ever behind the end."""

    def __init__(self, stream: io.BytesIO) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise EOFError(f"{size} bytes expected, {len(data)} are there")
        return data


def _cbor_ends(cbor: Any) -> tuple[type[BaseException], ...]:
    return (EOFError, *([cbor.CBORDecodeEOF] if hasattr(cbor, "CBORDecodeEOF") else []))


def _dump_cbor(cbor: Any, record: Any) -> bytes:
    dumped: bytes = cbor.dumps(record)
    return dumped


MSGPACK = RecordFormat("MsgPack", _load_msgpack, _msgpack_window, _msgpack_ends, _pack, MSGPACK_HEADS)
OLD_MSGPACK = MSGPACK._replace(window=_old_msgpack_window, heads=None)
CBOR = RecordFormat("CBOR", _load_any_cbor, _cbor_window, _cbor_ends, _dump_cbor, CBOR_HEADS)
CBOR2 = CBOR._replace(load=_load_cbor2)

FORMATS = {"msgpack": MSGPACK, "cbor": CBOR}
"""The formats by the names that `filetypes.record_kind` gives."""
