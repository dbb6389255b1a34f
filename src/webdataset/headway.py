"""How far a stopped conversion had come: a small JSON object beside its first shard, replaced as shards arrive.

    train-000000.tar.progress    {"shard": 7, "begun": 9, "samples": 7000, "items": 7003, "extra": 0, "world_size": 1}

It is written before a shard is begun and after one is there, so it may be behind, never ahead of what is there: shards
from `shard` up to `begun` may be there, and are written anew. Items are counted when the next one is asked for, samples
when `write` is called, so that a sample which was refused, or an item without samples, counts like any other.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from .errors import NotFoundError, OpenError, public_url
from .storage import places

Item = TypeVar("Item")


@dataclasses.dataclass(frozen=True)
class Headway:
    """Where a conversion goes on.

    Attributes:
        shard: number of the first shard that is not there.
        begun: number of the last shard that was begun, `shard` less the step where none was.
        samples: samples in the shards that are there.
        items: items of the source whose samples are all in them.
        extra: samples of the item after these that are in them, too.
        world_size: writers that divide the numbers among them.
    """

    shard: int
    begun: int
    samples: int = 0
    items: int = 0
    extra: int = 0
    world_size: int = 1


def read_headway(url: str) -> Headway | None:
    """What was stored under a url, None where nothing was.

    Raises:
        OpenError: it cannot be read, or is something else.
    """
    try:
        with places.open_read(url) as stream:
            text = stream.read()
    except NotFoundError:
        return None
    try:
        stored: dict[str, Any] = json.loads(text)
        numbers = {name: int(stored[name]) for name in Headway.__dataclass_fields__}
    except (ValueError, TypeError, KeyError) as exn:
        raise OpenError(
            "this is no record of how far a conversion has come; remove it, and its shards", url=url
        ) from exn
    return Headway(**numbers)


def write_headway(url: str, headway: Headway) -> None:
    """Store it, instead of what was there."""
    places.write_whole(url, json.dumps(dataclasses.asdict(headway)).encode())


class Course:
    """Counts what a writer was given, and stores how far the shards that are there have come.

    Args:
        place: where a new conversion begins.
        record: url of what is stored; None: nothing is.

    Attributes:
        place: how far the shards that are there have come.

    Raises:
        OpenError: what is stored cannot be read.
        ValueError: it is that of another number of writers.
    """

    def __init__(self, place: Headway, record: str | None) -> None:
        found = None if record is None else read_headway(record)
        if found is not None and found.world_size != place.world_size:
            raise ValueError(
                f"{public_url(str(record))}: that conversion has world_size={found.world_size}, this writer "
                f"{place.world_size}; go on with as many writers as it was begun with"
            )
        self.place = found or place
        self._record = record
        self._items, self._extra = self.place.items, 0
        self._again = self.place.extra
        self._iterating = False

    def remaining(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items after those whose samples are there, counted."""
        self._iterating = True
        for item in itertools.islice(items, self._items, None):
            yield item
            self._items += 1
            self._extra = 0

    def count(self) -> None:
        """Count a sample that is about to be written."""
        if self._iterating:
            self._extra += 1
        else:
            self._items += 1

    def repeats(self) -> bool:
        """Whether the next sample is in a shard that is there; if so, it is counted."""
        if not self._again:
            return False
        self._again -= 1
        self._extra += 1
        return True

    def begin(self, shard: int) -> None:
        """A shard of this number is being begun."""
        self._store(dataclasses.replace(self.place, begun=max(shard, self.place.begun)))

    def at(self, shard: int, samples: int) -> Headway:
        """What will be reached when all shards before this one are there."""
        return dataclasses.replace(self.place, shard=shard, samples=samples, items=self._items, extra=self._extra)

    def reached(self, place: Headway) -> None:
        """All shards up to there are there now."""
        self._store(dataclasses.replace(place, begun=self.place.begun))

    def _store(self, place: Headway) -> None:
        self.place = place
        if self._record is not None:
            write_headway(self._record, place)
