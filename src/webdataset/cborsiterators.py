"""Streams of CBOR items, one behind the other in a shard -> the items.

Two packages read CBOR, `cbor` and `cbor2`; each has its stages. Both see the stream through a
window: they get what they ask for in one piece; cbor2, which reads ahead, may go back; and cbor,
which would ask for ever behind the end of the stream, gets an EOFError there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from . import filters
from ._arguments import a_handler, checked
from ._closing import close_source
from ._optional import require
from ._types import Handler
from .errors import DataError, DecodingError
from .handlers import reraise_exception
from .tariterators import locate_shard, url_opener

_CHUNK = 1 << 16


class _Window:
    """A stream that may be read from the beginning of the current item on."""

    def __init__(self, stream: Any, exact: bool) -> None:
        self.stream = stream
        self.exact = exact
        self.begin = 0  # offset of the current item in the stream
        self._data = b""
        self._at = 0

    def next_item(self) -> bool:
        """Whether there is another item; what was before it is forgotten."""
        self.begin += self._at
        self._data = self._data[self._at :] or self.stream.read(_CHUNK)
        self._at = 0
        return bool(self._data)

    def read(self, size: int = -1) -> bytes:
        missing = size - (len(self._data) - self._at)
        if missing > 0 or size < 0:
            parts = [self._data]
            while missing > 0 or size < 0:
                part = self.stream.read(max(missing, _CHUNK))
                if not part:
                    break
                parts.append(part)
                missing -= len(part)
            self._data = b"".join(parts)
        end = len(self._data) if size < 0 else self._at + size
        data = self._data[self._at : end]
        self._at += len(data)
        if self.exact and len(data) < size:
            raise EOFError(f"{size} bytes expected, {len(data)} are there")
        return data

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, len(self._data))[whence]
        return self._at

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


def _items(source: dict[str, Any], load: Callable[[Any], Any], exact: bool) -> Iterator[Any]:
    window = _Window(source["stream"], exact)
    while window.next_item():
        try:
            item = load(window)
        except (DataError, OSError):
            raise
        except Exception as exn:
            cut = isinstance(exn, EOFError) or type(exn).__name__ == "CBORDecodeEOF"
            fact = "the stream ends inside a CBOR item" if cut else f"not CBOR: {exn}"
            raise DecodingError(message=fact, url=source.get("url"), offset=window.begin) from exn
        yield item


def _iterate(data: Iterable[dict[str, Any]], handler: Handler, package: str) -> Iterator[Any]:
    load = require(package, package, "reading streams of CBOR").load
    sources = iter(data)
    try:
        for source in sources:
            try:
                yield from _items(source, load, exact=package == "cbor")
            except Exception as exn:
                if not handler(locate_shard(exn, source.get("url", ""))):
                    return
            finally:
                close_source(source["stream"])
    finally:
        close_source(sources)


@checked("cbor_iterator", handler=a_handler)
def cbor_iterator(
    data: Iterable[dict[str, Any]], handler: Handler = reraise_exception, info: Any = None
) -> Iterator[Any]:
    """The items of all streams `{"url", "stream"}`, decoded by the package cbor; each stream is closed at its end.

    Args:
        data: open streams of concatenated CBOR items.
        handler: asked when one is damaged; true goes on with the next stream, false ends the stage.
        info: ignored; kept for 0.2 callers.

    Raises:
        DecodingError: an item cannot be decoded, or the stream ends inside one.
    """
    return _iterate(data, handler, "cbor")


@checked("cbor2_iterator", handler=a_handler)
def cbor2_iterator(
    data: Iterable[dict[str, Any]], handler: Handler = reraise_exception, info: Any = None
) -> Iterator[Any]:
    """As `cbor_iterator`, decoded by the package cbor2."""
    return _iterate(data, handler, "cbor2")


@checked("cbors_samples", handler=a_handler)
def cbors_samples(src: Iterable[dict[str, Any]], handler: Handler = reraise_exception) -> Iterator[Any]:
    """The items of all shards `{"url": ...}`, decoded by the package cbor."""
    return cbor_iterator(url_opener(src, handler=handler), handler=handler)


cbors_to_samples = filters.pipelinefilter(cbors_samples)


@checked("cbors2_samples", handler=a_handler)
def cbors2_samples(src: Iterable[dict[str, Any]], handler: Handler = reraise_exception) -> Iterator[Any]:
    """The items of all shards `{"url": ...}`, decoded by the package cbor2."""
    return cbor2_iterator(url_opener(src, handler=handler), handler=handler)


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
