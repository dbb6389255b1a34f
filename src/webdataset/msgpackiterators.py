"""Shards of MsgPack maps, one behind the other -> samples; the package msgpack reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from . import filters
from ._arguments import a_handler, checked
from ._types import Handler
from .handlers import reraise_exception
from .recordformats import MSGPACK
from .recordstreams import MAX_BYTES, records_of
from .tariterators import url_opener


@checked("msgpack_iterator", handler=a_handler)
def msgpack_iterator(data: Iterable[dict[str, Any]], handler: Handler = reraise_exception) -> Iterator[Any]:
    """The records of all streams `{"url", "stream"}`, whatever they are, as they are; each stream is closed at its end.

    Texts are str, also in records of the time before MsgPack told texts from bytes; there, what is no UTF-8 is bytes.

    Raises:
        DecodingError: a record cannot be decoded, or the stream ends inside one; it says which record and byte.
    """
    return records_of(data, handler, MSGPACK)


@checked("msgpack_samples", handler=a_handler)
def msgpack_samples(
    src: Iterable[dict[str, Any]], handler: Handler = reraise_exception, *, max_bytes: float = MAX_BYTES
) -> Iterator[Any]:
    """The samples of all shards `{"url": ...}` of MsgPack maps, compressed or not; see `cbors_samples`."""
    return records_of(url_opener(src, handler=handler), handler, MSGPACK, samples=True, max_bytes=max_bytes)


msgpack_to_samples = filters.pipelinefilter(msgpack_samples)

__all__ = ["msgpack_iterator", "msgpack_samples", "msgpack_to_samples"]
