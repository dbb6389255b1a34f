"""What both classic data sets are: a `DataPipeline` that is built up in place, over the shards of `classicshards`.

Classic samples have no `__url__`, and programs count on that; errors want to name the shard. So samples keep it as
long as only stages of ours see them, and lose it where the program's own functions begin (`Bare`, `without_place`),
or at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

from ._arguments import check_count, check_flag, check_function, check_handler, check_items, check_number
from ._closing import close_source
from ._stage import FilterFunction
from ._torchdata import TorchIterable
from ._types import AnyStage, Handler
from .classicshards import CheckRead, ClassicShards, Opener, all_shards, opener_of, opening_stage
from .pipeline import DataPipeline
from .samples import METADATA, KeyRule, base_plus_ext
from .shardpatterns import Urls
from .tariterators import group_by_keys, tar_file_expander

PLACE = frozenset(METADATA) - {"__key__"}
"""Metadata of modern samples that classic ones do not have."""


def bare(sample: Any) -> Any:
    """The sample as classic programs know it."""
    if type(sample) is dict and not PLACE.isdisjoint(sample):
        sample = sample.copy()
        for name in PLACE:
            sample.pop(name, None)
    return sample


class Bare:
    """A program's function of one sample, called without the metadata that it does not expect."""

    def __init__(self, f: Callable[[Any], Any]) -> None:
        self.f = f

    def __call__(self, sample: Any) -> Any:
        return self.f(bare(sample))


def without_place(data: Iterable[Any]) -> Iterator[Any]:
    """The samples as classic programs know them."""
    try:
        for sample in data:
            yield bare(sample)
    finally:
        close_source(data)


def _of_shards(name: str) -> Any:
    """An attribute that is one of the shards: what a program sets counts from the next pass on."""

    def change(self: Any, value: Any) -> None:
        if "_shards" in self.__dict__:  # else a subclass has such a name of its own, until our __init__ sets it
            setattr(self._shards, name, value)

    return property(lambda self: getattr(self._shards, name), change)


class ClassicPipeline(DataPipeline):
    """Samples of shards; methods that add stages change this object, and return it.

    Attributes:
        urls: the shards that this reader reads, set by `shard_selection` or the program before each pass.
        full_urls: all shards.
        subset: (index, total): read each total-th shard, beginning with the index-th; None: divide among workers.
        epochs: passes over the shards that make one iteration.
        do_shuffle: whether the shards are shuffled.
        prepare_for_worker: the function that is called before each pass.
        opener, handler: the function from url to stream, and the error policy of reading; to be read only.
        length: what `len()` says; None: TypeError.
    """

    urls: list[str] = _of_shards("urls")
    full_urls: list[str] = _of_shards("full_urls")
    subset: tuple[int, int] | None = _of_shards("subset")
    epochs: int = _of_shards("epochs")
    do_shuffle: bool = _of_shards("shuffle")
    prepare_for_worker: Callable[[], Any] = _of_shards("prepare")

    def __init__(
        self,
        urls: Urls,
        *,
        keys: KeyRule,
        suffixes: Iterable[str] | None,
        length: int | None,
        epochs: int,
        opener: Opener | str,
        verbose: bool,
        shuffle: bool,
        prepare_for_worker: bool | Callable[[], Any],
        handler: Handler,
    ) -> None:
        super().__init__()
        where = type(self).__name__
        check_count(where, "epochs", epochs, 0, "passes")
        check_handler(where, handler)
        check_function(where, "keys", keys)
        check_number(where, "length", length, "samples", whole=True, least=0, optional=True)
        if not isinstance(suffixes, str):
            check_items(where, "suffixes", suffixes, "names of fields, a str or a list", optional=True)
        if not callable(prepare_for_worker):
            check_flag(where, "prepare_for_worker", prepare_for_worker)
            prepare_for_worker = self.shard_selection if prepare_for_worker else all_shards
        self._shards = ClassicShards(urls, epochs, shuffle, prepare_for_worker)
        self._bare = False
        self.opener = opener_of(where, opener)
        self.handler = handler
        self.size = length
        self._reading: list[Any] = [
            self._shards,
            opening_stage(self.opener, verbose, handler),
            FilterFunction(tar_file_expander, handler=handler),
        ]
        self.pipeline = [*self._reading, *_grouping(keys, suffixes, handler), CheckRead(self._shards)]

    def compose(self, *args: AnyStage) -> Self:
        """Add stages to this very object, which is returned; they see samples as classic programs know them."""
        if not self._bare:
            self._bare = True
            self.append(without_place)
        for stage in args:
            self.append(stage)
        return self

    def _add(self, stage: AnyStage) -> Self:
        """Add a stage that may see all of a sample."""
        self.append(stage)
        return self

    def shard_selection(self) -> None:
        """Take this reader's share of the shards: that of `subset` where it is set, or else of the DataLoader worker.

        Called before each pass, where `prepare_for_worker` is true. Nodes are not told apart.
        """
        self._shards.select()

    def __iter__(self) -> Iterator[Any]:
        samples = super().__iter__()
        for stage in self._last_stages():
            samples = stage(samples)
        return samples

    def _last_stages(self) -> tuple[Any, ...]:
        return () if self._bare else (without_place,)

    def __len__(self) -> int:
        if self.size is None:
            name = type(self).__name__
            raise TypeError(f"this {name} was made without a length: {name}(urls, length=n) says what len() gives")
        return self.size

    __getitem__ = TorchIterable.__getitem__

    @property  # type: ignore[override]  # a plain attribute there, which nobody asks for
    def length(self) -> int | None:
        return self.size

    @length.setter
    def length(self, length: int | None) -> None:
        self.size = length


def _grouping(keys: KeyRule, suffixes: Iterable[str] | None, handler: Handler) -> list[FilterFunction]:
    options: dict[str, Any] = {"handler": handler}
    if keys is not base_plus_ext:
        options["keys"] = keys
    stages = [FilterFunction(group_by_keys, **options)]
    if suffixes is not None:  # a stage of its own, so that reading and grouping stay one
        wanted = suffixes.split() if isinstance(suffixes, str) else suffixes
        stages.append(FilterFunction(only_fields, frozenset(wanted) | set(METADATA)))
    return stages


def only_fields(samples: Iterable[dict[str, Any]], wanted: frozenset[str]) -> Iterator[dict[str, Any]]:
    """The samples without the fields that nobody wants."""
    try:
        for sample in samples:
            yield {name: value for name, value in sample.items() if name in wanted}
    finally:
        close_source(samples)
