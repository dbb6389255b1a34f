"""The shapes that travel through a pipeline, as type names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

Sample: TypeAlias = dict[str, Any]
"""One training sample: `__key__`, `__url__`, and one entry a field (`"jpg"`, `"seg.png"`)."""


class HasRun(Protocol):
    """A stage that is an object."""

    def run(self, src: Any, /) -> Iterator[Any]: ...


AnyStage: TypeAlias = Callable[..., Iterable[Any]] | Iterable[Any] | HasRun | None
"""What a pipeline is made of: a function, a `PipelineStage`, a list of stages, None for nothing; a source in front."""

Shards: TypeAlias = str | os.PathLike[str] | Iterable[str | os.PathLike[str] | Mapping[str, Any]] | Mapping[str, Any]
"""What names shards: a pattern, a path, a list, also of shards with their counts, a spec."""

Alternatives: TypeAlias = str | Sequence[str]
"""A field, or several of which the first that is there is meant: "png;jpg" or ["png", "jpg"]."""

Handler: TypeAlias = Callable[[Exception], bool]
"""An error policy: true skips the item and goes on, false ends the stage quietly; it may raise."""

FieldDecoder: TypeAlias = Callable[[str, bytes], Any]
"""Called with `".field"` and its bytes: the value, None for "not mine", or `Continue(key, data)`."""


class WritableStream(Protocol):
    """What the writers need of a stream."""

    def write(self, data: Any, /) -> Any: ...
