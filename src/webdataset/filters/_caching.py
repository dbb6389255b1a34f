"""Stages that remember: the first pass reads, later passes replay."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from .._closing import close_source
from .._stage import PipelineStage


class Cached(PipelineStage):
    """Keep all samples in memory once a pass has come to its end; later passes do not touch the source.

    Attributes:
        cached: the samples, None until a pass is complete.
    """

    def __init__(self) -> None:
        self.cached: list[Any] | None = None

    def run(self, src: Iterable[Any]) -> Iterator[Any]:
        """One pass."""
        if self.cached is not None:
            yield from self.cached
            return
        source = iter(src)
        samples = []
        try:
            for sample in source:
                samples.append(sample)
                yield sample
        finally:
            close_source(source)
        self.cached = samples
