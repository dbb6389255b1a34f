"""The classic 0.1 `Dataset`: shards become samples, by methods that add stages to the data set itself.

    dataset = webdataset.dataset.Dataset("train-{000..099}.tar").shuffle(1000).decode("rgb").to_tuple("jpg", "cls")

The stages are those of `webdataset.filters`; what is classic about them is said at the methods.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self

from . import filters
from ._arguments import check_flag, check_function, check_items, check_number, explained
from ._dataset_arguments import CLASSIC
from ._lazy import names_of
from ._types import Alternatives, AnyStage, Handler
from .classic import Bare, ClassicPipeline
from .classicdecoders import apply_decoder, default_handlers, imagehandler
from .classicmembers import group_by_keys, pairs_of, tardata
from .classicshards import Opener
from .extradatasets import with_epoch
from .fluid import FluidInterface
from .fluid import WebDataset as _ModernDataset
from .handlers import ignore_and_continue, ignore_and_stop, reraise_exception, warn_and_continue, warn_and_stop
from .io import reader
from .pipeline import DataPipeline
from .rules import Rule
from .samples import KeyRule, base_plus_ext, valid_sample
from .shardpatterns import Urls

ELSEWHERE = CLASSIC | {
    name: f"it is an argument of the modern class, webdataset.WebDataset(urls, {name}=...)"
    for name in inspect.signature(_ModernDataset).parameters
}
"""Arguments of the other classic class and of the modern one, and where they belong."""


class Dataset(ClassicPipeline, FluidInterface):
    """Samples streamed from tar shards, dicts of `__key__` and one entry of bytes a field.

    Methods change this data set and return it. Each reads all shards unless it runs in a worker of a DataLoader, which
    reads its share of them; nodes are not told apart. Besides the classic methods there are those of
    `webdataset.fluid.FluidInterface`, such as `batched` and `select`.

    Args:
        urls: shards: a pattern ("train-{000..099}.tar", "::" between several, stars), or a list of names.
        keys: the naming rule, from the name of a member to (key, field), or (None, None) for "belongs to no sample".
        suffixes: fields to keep, a collection or words in a str; None: all.
        length: what `len()` says; None: it raises TypeError.
        epochs: passes over the shards that make one iteration.
        opener: a function from url to a binary stream (or a context manager around one), or a shell command that
            writes the shard, as `webdataset.io.command_pipe` takes it.
        handler: error policy for opening, reading and grouping.
        shuffle: shuffle the shards, differently in each epoch, by WDS_SEED or 0.
        prepare_for_worker: True calls `shard_selection` at the beginning of each pass, in the worker; a function is
            called there without arguments instead; False: every worker reads all shards.
        initial_pipeline: stages in place of the grouping; the first one gets pairs of name and bytes.

    Raises:
        EmptyDatasetError: there are no shards; when iterating, no sample in any of them.
        TypeError, ValueError: an argument is not what it must be.
    """

    @explained("Dataset", ELSEWHERE)
    def __init__(
        self,
        urls: Urls,
        *,
        keys: KeyRule = base_plus_ext,
        suffixes: Iterable[str] | None = None,
        length: int | None = None,
        epochs: int = 1,
        opener: Opener | str = reader,
        handler: Handler = reraise_exception,
        shuffle: bool = False,
        prepare_for_worker: bool | Callable[[], Any] = True,
        initial_pipeline: Sequence[AnyStage] | None = None,
    ) -> None:
        check_flag("Dataset", "shuffle", shuffle)
        super().__init__(
            urls,
            keys=keys,
            suffixes=suffixes,
            length=length,
            epochs=epochs,
            opener=opener,
            verbose=False,
            shuffle=bool(shuffle),
            prepare_for_worker=prepare_for_worker,
            handler=handler,
        )
        own = type(self).raw_iter is not Dataset.raw_iter
        pairs = [self.raw_iter] if own else [*self._reading, pairs_of]
        if initial_pipeline is not None:
            stages = [initial_pipeline] if callable(initial_pipeline) else initial_pipeline
            check_items("Dataset", "initial_pipeline", stages, "a list of stages")
            self.pipeline = [*pairs, *stages]
            self._bare = True
        elif own:
            self.pipeline = [*pairs, group_by_keys(keys, handler=handler), *self.pipeline[4:]]

    def raw_iter(self) -> Iterator[tuple[str, bytes]]:
        """The members of the shards as pairs of name and bytes, before they are samples; an epoch of its own.

        A class may have another one: what that gives is grouped, and goes through the stages.
        """
        raw = DataPipeline(*self._reading, pairs_of)
        raw._epochs = self._epochs
        return iter(raw)

    def pipe(self, stage: AnyStage) -> Self:
        """Add a stage, a function from an iterator over samples to another iterator."""
        return self.compose(stage)

    add_stage = pipe  # the name in 0.1.13

    def shuffle(self, size: int, **kw: Any) -> Self:
        """Shuffle in a buffer of `size` samples, and shuffle the shards; 0: neither."""
        check_number("shuffle", "bufsize", size, "samples")
        if size < 1:
            return self
        self.do_shuffle = True
        return self._add(filters.shuffle(size, **kw))

    def decode(  # type: ignore[override]  # the classic signature
        self, decoder: Any = "rgb", handler: Handler = reraise_exception
    ) -> Self:
        """Decode fields by the table of an image spec, by a dict from extension to function, or by a function.

        The function gets a sample and returns it decoded. True is "rgb", False decodes nothing.
        Fields that the table does not know stay bytes.
        """
        if not callable(decoder):
            return self._add(apply_decoder(decoder, handler))
        return self._add_of_program(apply_decoder(Bare(decoder), handler))

    def map(self, f: Callable[[Any], Any] | Sequence[Rule], handler: Handler = reraise_exception) -> Self:
        """Apply a function to each sample; None drops the sample: `filters.map`."""
        if not callable(f):  # rules see single fields
            return self._add(filters.map(f, handler=handler))
        return self._add_of_program(filters.map(Bare(f), handler=handler))

    def select(self, predicate: Callable[[Any], Any], **kw: Any) -> Self:
        """Keep the samples for which the predicate is true: `filters.select`."""
        check_function("select", "predicate", predicate)
        return self._add(filters.select(Bare(predicate), **kw))

    def map_dict(self, handler: Handler = reraise_exception, **kw: Callable[[Any], Any]) -> Self:
        """Apply a function to each named field: `filters.map_dict`."""
        return self._add(filters.map_dict(handler=handler, **kw))

    def map_tuple(self, *args: Callable[[Any], Any] | None, handler: Handler = reraise_exception) -> Self:
        """Apply a function to each position of a tuple: `filters.map_tuple`."""
        return self._add(filters.map_tuple(*args, handler=handler))

    def rename(  # type: ignore[override]  # the classic signature
        self, handler: Handler = reraise_exception, **kw: Alternatives
    ) -> Self:
        """Samples of the named fields only, `new="old;other"`: `filters.rename(keep=False)`."""
        return self._add(filters.rename(handler=handler, keep=False, **kw))

    def to_tuple(self, *args: Alternatives, handler: Handler = reraise_exception, **kw: Any) -> Self:
        """Fields, in order, as a tuple: `filters.to_tuple`."""
        return self._add(filters.to_tuple(*args, handler=handler, **kw))

    def _add_of_program(self, stage: AnyStage) -> Self:
        """Add a stage from which on samples are what the program makes of them."""
        self._bare = True
        return self._add(stage)


def maybe_collect() -> None:
    """Does nothing, because memory goes by itself; kept for classes with a `raw_iter` of their own, which call it."""


class ResizedDataset(with_epoch):
    """A data set whose epochs have `length` items, each going on where the one before ended.

    Args:
        dataset: what is passed over again and again.
        length: items in an epoch; None: as many as `dataset` has.
        nominal: what `len()` says; None: `length`.
    """

    def __init__(self, dataset: Any, length: int | None = None, nominal: int | None = None) -> None:
        super().__init__(dataset, len(dataset) if length is None else length)
        self.nominal = self.length if nominal is None else nominal

    def __len__(self) -> int:
        return self.nominal


ChoppedDataset = ResizedDataset


WebDataset: type[Any]
tariterator: Callable[..., Iterator[Any]]
__getattr__ = names_of(__name__, WebDataset="webdataset", tariterator="webdataset")

__all__ = [
    "ChoppedDataset",
    "Dataset",
    "ResizedDataset",
    "WebDataset",
    "base_plus_ext",
    "default_handlers",
    "group_by_keys",
    "ignore_and_continue",
    "ignore_and_stop",
    "imagehandler",
    "maybe_collect",
    "reraise_exception",
    "tardata",
    "tariterator",
    "valid_sample",
    "warn_and_continue",
    "warn_and_stop",
]
