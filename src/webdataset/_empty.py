"""A data set without a sample is an error; a reader without one is not.

Where a rank has several DataLoader workers, the last of those that got nothing raises: it sees in the
count of epochs, which they share, that all others ended so too. What other ranks got, nobody here
can know: there it is a warning in the log. A pass that draws shards without end has no end at which to
say so: there `Drought` raises when always the same ones have given nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from ._barren import Barren
from ._closing import close_source, closing_source
from ._epochs import EpochCounter
from ._stage import FilterFunction
from .errors import EmptyDatasetError, public_url
from .workers import reader_info

logger = logging.getLogger(__name__)

PATIENCE = 100
"""So many shards without a sample, always the same, are enough: what is in them does not change by itself."""


def check_empty(
    source: Iterable[Any], *, place: str = "the data set", epochs: EpochCounter | None = None
) -> Iterator[Any]:
    """All items; EmptyDatasetError (a ValueError) at the end if no reader got one, as far as that can be known.

    Args:
        place: what to call the data set.
        epochs: the count that the workers share.
    """
    data = iter(source)
    try:
        for sample in data:
            yield sample
            break
        else:
            _tell(place, epochs)
        yield from data
    finally:
        close_source(data)


def _tell(place: str, epochs: EpochCounter | None) -> None:
    info = reader_info()
    if info.num_workers > 1 and (epochs is None or not epochs.all_ended_empty()):
        return
    if info.world_size > 1:
        logger.warning("%s: rank %d of %d got no sample", place, info.rank, info.world_size)
        return
    raise EmptyDatasetError(
        f"{place}: no sample found. The shards were read and hold none, or the handler skipped what they hold:"
        " are the members named key.field?"
    )


class Drought:
    """One pass over shards that are drawn without end: EmptyDatasetError when nothing comes of them.

    `watched` goes around the shards where they are read, `noted` around the samples that come of them;
    what lies between keeps back no more than `spare` samples.
    """

    def __init__(self, spare: float = 0) -> None:
        self._barren = Barren(PATIENCE, spare)
        self._fed = False

    def watched(self, shards: Iterable[Any]) -> Iterator[Any]:
        """The same shards."""
        with closing_source(shards):
            for shard in shards:
                self._fed = False
                yield shard
                url = str(shard["url"] if isinstance(shard, dict) else shard)
                if self._fed:
                    self._barren.clear()
                elif self._barren.add(url):
                    raise EmptyDatasetError(
                        f"{public_url(url)}: {self._barren} gave no sample: are the members named key.field, or do"
                        " select_files, require, select, map or the handler leave out all that there is?"
                    )

    def noted(self, samples: Iterable[Any]) -> Iterator[Any]:
        """The same samples."""
        with closing_source(samples):
            for sample in samples:
                self._fed = True
                yield sample


class CheckEmpty(FilterFunction):
    """The stage `check_empty`; the pipeline gives it the count of epochs.

    Attributes:
        epochs: the count of the pipeline that runs it.
    """

    epochs: EpochCounter | None = None

    def __init__(self, place: str) -> None:
        super().__init__(check_empty, place=place)

    def __call__(self, data: Iterable[Any]) -> Iterator[Any]:
        return check_empty(data, epochs=self.epochs, **self.kw)

    def __getstate__(self) -> dict[str, Any]:
        return {"f": self.f, "args": self.args, "kw": self.kw}
