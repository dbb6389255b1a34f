"""Shards of CBOR items, one behind the other -> the items, or samples.

Both names of each stage read with cbor2 where it is installed; those without the 2 do with the older package cbor,
in its slow half, because its fast one crashes the process on data that is nested deeply.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from . import filters
from ._arguments import a_handler, checked
from ._types import Handler
from .handlers import reraise_exception
from .recordformats import CBOR, CBOR2
from .recordstreams import MAX_BYTES, records_of
from .tariterators import url_opener


@checked("cbor_iterator", handler=a_handler)
def cbor_iterator(
    data: Iterable[dict[str, Any]], handler: Handler = reraise_exception, info: Any = None
) -> Iterator[Any]:
    """The items of all streams `{"url", "stream"}`, whatever they are, as they are; each stream is closed at its end.

    Args:
        data: open streams of concatenated CBOR items.
        handler: asked when one is damaged; true goes on with the next stream, false ends the stage.
        info: ignored; kept for 0.2 callers.

    Raises:
        DecodingError: an item cannot be decoded, or the stream ends inside one; it says which item and byte.
    """
    return records_of(data, handler, CBOR)


@checked("cbor2_iterator", handler=a_handler)
def cbor2_iterator(
    data: Iterable[dict[str, Any]], handler: Handler = reraise_exception, info: Any = None
) -> Iterator[Any]:
    """As `cbor_iterator`, by the package cbor2 only."""
    return records_of(data, handler, CBOR2)


@checked("cbors_samples", handler=a_handler)
def cbors_samples(
    src: Iterable[dict[str, Any]], handler: Handler = reraise_exception, *, max_bytes: float = MAX_BYTES
) -> Iterator[Any]:
    """The samples of all shards `{"url": ...}` of CBOR maps, compressed or not.

    A sample has the fields of its map, with their types, `__url__`, and a `__key__` if the map has none: the name of
    the shard and the number of the record. Arrays come as lists, as they are.

    Args:
        src: the shards.
        handler: asked when a shard cannot be opened, is damaged, or has an item that is no map.
        max_bytes: of a record; a longer one is an error.

    Raises:
        DecodingError: as from `cbor_iterator`.
    """
    return records_of(url_opener(src, handler=handler), handler, CBOR, samples=True, max_bytes=max_bytes)


cbors_to_samples = filters.pipelinefilter(cbors_samples)


@checked("cbors2_samples", handler=a_handler)
def cbors2_samples(
    src: Iterable[dict[str, Any]], handler: Handler = reraise_exception, *, max_bytes: float = MAX_BYTES
) -> Iterator[Any]:
    """As `cbors_samples`, by the package cbor2 only."""
    return records_of(url_opener(src, handler=handler), handler, CBOR2, samples=True, max_bytes=max_bytes)


cbors2_to_samples = filters.pipelinefilter(cbors2_samples)

__all__ = [
    "cbor2_iterator",
    "cbor_iterator",
    "cbors2_samples",
    "cbors2_to_samples",
    "cbors_samples",
    "cbors_to_samples",
    "filters",
    "reraise_exception",
    "url_opener",
]
