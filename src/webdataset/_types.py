"""The shapes that travel through a pipeline, as type names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeAlias

Sample: TypeAlias = dict[str, Any]
"""One training sample: `__key__`, `__url__`, and one entry a field (`"jpg"`, `"seg.png"`)."""

Stage: TypeAlias = Callable[[Iterable[Any]], Iterator[Any]]
"""A pipeline stage: takes an iterable, gives an iterator."""

Handler: TypeAlias = Callable[[Exception], bool]
"""An error policy: true skips the item and goes on, false ends the stage quietly; it may raise."""

FieldDecoder: TypeAlias = Callable[[str, bytes], Any]
"""Called with `".field"` and its bytes: the value, None for "not mine", or `Continue(key, data)`."""


class ReadableStream(Protocol):
    """What the readers need of a stream: `read(n)` gives at most n bytes, b"" at the end, short reads allowed."""

    def read(self, size: int = -1, /) -> bytes: ...


class WritableStream(Protocol):
    """What the writers need of a stream."""

    def write(self, data: Any, /) -> Any: ...
