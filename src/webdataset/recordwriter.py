"""Samples -> a stream of MsgPack or CBOR records, one behind the other.

A sample is encoded whole before its first byte is written. Values that the format itself knows stay what they are;
all others become bytes by the names of their fields, as in archives.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ._arguments import check_choice, check_flag, checked
from ._types import WritableStream
from .encoders import EncoderSpec, encode_based_on_extension1, make_encoder
from .errors import EncodingError, printable, public_url
from .filetypes import record_kind
from .recordformats import FORMATS
from .samplesink import SampleSink
from .tar.sink import compression_for
from .tarwriter import TarWriter

_KNOWN = (str, bytes, bool, int, float, type(None), list, tuple, dict)


class RecordWriter(SampleSink):
    """Writes samples to a stream of records, which `msgpack_to_samples` or `cbors_to_samples` reads; a context manager.

    A sample is a dict. Texts, bytes, numbers, None, lists and dicts are written as such and come back as such (tuples
    as lists). Other values, such as arrays and images, are encoded by the last extension of the field's name. Names
    that begin with "_" are metadata, left out unless `keep_meta`, but for `__key__`, which a sample need not have.

    A file under a local path appears complete or not at all: it is written as `<path>.partial`. An exception in the
    `with` block gives it up.

    Args:
        fileobj: a path, a url that `gopen` can write to, or a writable binary object (left open).
        format: "msgpack", "cbor", or how names of such files end: "mp", "msg", "mpk", "cbors"; None for what the name
            says: `.mp`, `.cbors`, `.mp.gz`.
        compress: "gz" (or True), "bz2", "xz", "zst", "lz4", False for none, None for what the name ends with.
        encoder: True for the default table, False for values that the format knows, a dict from extension to
            callable, or a callable from sample to sample.
        keep_meta: write metadata as well.

    Raises:
        MissingDependencyError: the package of the format is not installed.
        OpenError: the target cannot be opened or written; small streams are written at `close`.
    """

    @checked("RecordWriter", keep_meta=check_flag)
    def __init__(
        self,
        fileobj: str | os.PathLike[str] | WritableStream,
        format: str | None = None,
        *,
        compress: bool | str | None = None,
        encoder: EncoderSpec = True,
        keep_meta: bool = False,
    ) -> None:
        name = os.fspath(fileobj) if isinstance(fileobj, (str, os.PathLike)) else None
        kind = record_kind(name) if name is not None else None
        if format is not None:
            kind = record_kind(f".{format}") if str(format).isalpha() else None
            check_choice("RecordWriter", "format", kind or format, tuple(FORMATS))
        form = FORMATS.get(kind or "")
        if form is None:
            raise ValueError('RecordWriter: the name does not tell the format; say format="msgpack" or "cbor"')
        self._form, self._package = form, form.load()
        self._by_name = encoder is True or isinstance(encoder, dict)
        self.encoder = make_encoder(encoder)
        self.keep_meta = keep_meta
        self.count = 0
        compression = compression_for(fileobj, compress)
        self._open(fileobj, compression)

    def write(self, obj: Mapping[str, Any]) -> int:
        """Append one sample; the result is the bytes of its record, before compression.

        Raises:
            EncodingError: a value cannot be written; nothing of the sample is.
            OpenError: the target does not take more.
            ValueError: the writer is closed.
        """
        if self._closed:
            raise ValueError("write to a closed RecordWriter: open another for another file")
        try:
            data = self._encode(obj)
        except EncodingError as exn:
            key = obj.get("__key__") if isinstance(obj, Mapping) else None
            raise EncodingError(f"sample {printable(str(key))!r}: {exn}" if key else str(exn)) from exn.__cause__
        self._sink.add([data], len(data))
        self.count += 1
        return len(data)

    def _encode(self, sample: Any) -> bytes:
        if not isinstance(sample, Mapping):
            raise EncodingError(f"a sample must be a dict, got {type(sample).__name__}")
        odd = next((name for name in sample if not isinstance(name, str)), None)
        if odd is not None:
            raise EncodingError(f"field names must be strings, got {odd!r:.60}")
        if not isinstance(sample.get("__key__", ""), str):
            raise EncodingError(f"__key__ must be a string, got {type(sample['__key__']).__name__}; use str(key)")
        record = {n: v for n, v in sample.items() if n[:1] != "_" or self.keep_meta or n == "__key__"}
        if self._by_name:
            handlers = self.encoder.handlers  # type: ignore[attr-defined]
            for name, value in record.items():
                if type(value) not in _KNOWN:
                    record[name] = _known(value, name, handlers)
        else:
            record = dict(self.encoder(record))
        try:
            return self._form.dumps(self._package, record)
        except Exception as exn:
            raise EncodingError(f"{self._culprit(record)}cannot be written as {self._form.name}: {exn}") from exn

    def _culprit(self, record: dict[str, Any]) -> str:
        for name, value in record.items():
            try:
                self._form.dumps(self._package, value)
            except Exception:
                return f"field {name!r}: {type(value).__name__} "
        return ""

    def close(self) -> None:
        """Write what is left, and close the target if it was opened here. Closing again does nothing.

        Raises:
            OpenError: the target does not take the rest; or an earlier write failed, so that there is no file.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._sink.finish()
        finally:
            self._close_own(failed=self._sink.broken)


def _known(value: Any, name: str, handlers: Mapping[str, Any]) -> Any:
    """A value of another type as one that the format knows."""
    if isinstance(value, np.generic) and not isinstance(value, np.void):
        return value.item()
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    kind: Any = next((kind for kind in _KNOWN if isinstance(value, kind)), None)
    if kind is not None:
        return kind(value)  # of a subclass
    return bytes(encode_based_on_extension1(value, name, handlers))


def writer_of(name: str, index: Any = False) -> Callable[..., Any]:
    """What writes shards of this name: `RecordWriter` where it tells a format of records, `TarWriter` otherwise.

    Raises:
        ValueError: records have no index.
    """
    kind = record_kind(name)
    if kind is None:
        return TarWriter
    if index:
        raise ValueError(f"{public_url(name)}: index= is for archives; streams of records have no index")
    return functools.partial(RecordWriter, format=kind)
