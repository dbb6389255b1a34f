"""The classic 0.1 `WebDataset`, all of whose stages are arguments, and `tariterator`: one archive to samples.

    from webdataset.webdataset import WebDataset
    dataset = WebDataset("train-{000..099}.tar", extensions="jpg;png cls", transforms=[augment, None], shuffle=1000)

`webdataset.WebDataset` is the modern class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from . import filters
from ._arguments import check_flag, check_function, check_items, check_number, explained, shown
from ._closing import closing_source
from ._stage import FilterFunction
from ._types import AnyStage, Handler
from .archivemembers import ArchiveMember, tar_file_iterator
from .classic import Bare, ClassicPipeline, without_place
from .classicdecoders import apply_decoder, default_handlers, imagehandler
from .classicmembers import group_by_keys, tardata
from .classicshards import Opener
from .dataset import ELSEWHERE, Dataset
from .errors import SampleError, printable
from .filters._places import apply_each
from .handlers import ignore_and_continue, ignore_and_stop, reraise_exception, warn_and_continue, warn_and_stop
from .io import reader
from .samples import KeyRule, base_plus_ext, valid_sample
from .shardpatterns import Urls
from .tariterators import group_by_keys as _group_by_keys

Transform = Callable[[Any], Any] | None


class WebDataset(ClassicPipeline):
    """Samples streamed from tar shards: decoded, made into tuples, shuffled and transformed as the arguments say.

    Each pass goes: read, decode, associate, extract, shuffle, transform, `pipeline`. Workers of a DataLoader read each
    their share of the shards; nodes are not told apart.

    Args:
        urls: shards: a pattern ("train-{000..099}.tar", "::" between several, stars), or a list of names.
        extensions: fields of the tuples to give, "jpg;png cls" or [["jpg", "png"], ["cls"]], the first that a sample
            has; other fields are not kept. None: samples are dicts of all fields.
        decoder: an image spec, True for "rgb", False for no decoding, a function from sample to sample, or a dict from
            extension to function of the bytes.
        transforms: a function, or a list of functions (None: leave it), for the values of each tuple, in order; a
            list that is shorter than the tuple begins again.
        pipeline: a function from the iterator over samples to another one, for batching. It sees all shards as one
            stream. Lists that come out become tuples.
        epochs: passes over the shards that make one iteration.
        keys: the naming rule, from the name of a member to (key, field), or (None, None) for "belongs to no sample".
        opener: a function from url to a binary stream (or a context manager around one), or a shell command that
            writes the shard, as `webdataset.io.command_pipe` takes it.
        verbose: log each shard that is opened, at level INFO.
        shuffle: more than 0: shuffle the shards, differently in each epoch, by WDS_SEED or 0; more than 1: and the
            samples, in a buffer of this size.
        associate: further fields of a sample: a function from its key to a dict, or a dict from key to dict.
        prepare_for_worker: True calls `shard_selection` at the beginning of each pass, in the worker; a function is
            called there without arguments instead; False: every worker reads all shards.
        length: what `len()` says; None: it raises TypeError.
        handler: error policy for reading, grouping, decoding, associating, extracting and transforming.
        extra_meta: as the attribute.

    Attributes:
        extra_meta: true: samples have a field `__webdataset__`, a tuple of one: the (index, total) of the share of the
            shards that is read, or None where all are.

    Raises:
        EmptyDatasetError: there are no shards; when iterating, no sample in any of them.
        TypeError, ValueError: an argument is not what it must be.
    """

    @explained("WebDataset", ELSEWHERE)
    def __init__(
        self,
        urls: Urls,
        *,
        extensions: str | Sequence[Sequence[str]] | None = None,
        decoder: Any = "rgb",
        transforms: Callable[[Any], Any] | Sequence[Transform] | None = None,
        pipeline: AnyStage | None = None,
        epochs: int = 1,
        keys: KeyRule = base_plus_ext,
        opener: Opener | str = reader,
        verbose: bool = False,
        shuffle: int = 0,
        associate: Callable[[str], Any] | Mapping[str, Any] | None = None,
        prepare_for_worker: bool | Callable[[], Any] = True,
        length: int | None = None,
        handler: Handler = reraise_exception,
        extra_meta: bool = False,
    ) -> None:
        check_flag("WebDataset", "verbose", verbose)
        check_number("WebDataset", "shuffle", shuffle, "samples")
        fields = None if extensions is None else _fields_of(extensions)
        super().__init__(
            urls,
            keys=keys,
            suffixes=None if fields is None else {name for names in fields for name in names},
            length=length,
            epochs=epochs,
            opener=opener,
            verbose=bool(verbose),
            shuffle=shuffle > 0,
            prepare_for_worker=prepare_for_worker,
            handler=handler,
        )
        self._bare = callable(decoder)  # then samples are what the program makes of them
        self.extra_meta = extra_meta
        stages: list[Any] = [
            apply_decoder(Bare(decoder) if callable(decoder) else decoder, handler),
            None if associate is None else filters.associate(associate, handler=handler),
            None if fields is None else filters.to_tuple(*fields, handler=handler),
            filters.shuffle(shuffle) if shuffle > 1 else None,
            None if not transforms else _transforming(transforms, handler),
        ]
        for stage in stages:
            self.append(stage)
        if pipeline is not None:
            check_function("WebDataset", "pipeline", pipeline)
            self.compose(pipeline)

    def _last_stages(self) -> tuple[Any, ...]:
        stages: tuple[Any, ...] = (_tuples_of_lists,) if self._bare else super()._last_stages()
        return (*stages, self._with_share) if self.extra_meta else stages

    def _with_share(self, data: Iterable[Any]) -> Iterator[Any]:
        with closing_source(data):
            for item in data:
                yield {**item, "__webdataset__": (self._shards.chosen,)} if isinstance(item, dict) else item


def _fields_of(extensions: str | Sequence[Sequence[str]]) -> list[list[str]]:
    if isinstance(extensions, str):
        return filters.parse_field_spec(extensions)
    if not isinstance(extensions, (list, tuple)) or not all(map(_is_names, extensions)):
        raise ValueError(
            f'WebDataset: extensions must be "jpg;png cls" or [["jpg", "png"], ["cls"]], got {shown(extensions)}'
        )
    return [list(names) for names in extensions]


def _is_names(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value)


def _transforming(transforms: Any, handler: Handler) -> FilterFunction:
    if not callable(transforms):
        check_items("WebDataset", "transforms", transforms, "a function or a list of functions")
    functions = [transforms] if callable(transforms) else list(transforms)
    for i, f in enumerate(functions):
        check_function("WebDataset", f"transform {i}", f, optional=True)
    return FilterFunction(_transformed, filters.transformer(functions), handler=handler)


def _transformed(data: Iterable[Any], transformed: Callable[[Any], Any], handler: Handler) -> Iterator[Any]:
    return _tuples_of_lists(apply_each(data, transformed, handler, "transforms"))


def _tuples_of_lists(data: Iterable[Any]) -> Iterator[Any]:
    with closing_source(data):
        for item in data:
            yield tuple(item) if isinstance(item, list) else item


def tariterator(
    fileobj: Any,
    keys: KeyRule = base_plus_ext,
    decoder: Any = True,
    suffixes: Iterable[str] | None = None,
    tar_errors: Handler = reraise_exception,
    decode_errors: Handler = reraise_exception,
    *,
    check_sorted: bool = False,
) -> Iterator[Any]:
    """The samples of one archive, decoded.

    Args:
        fileobj: an open binary file, plain or compressed; it stays open.
        keys: the naming rule, from the name of a member to (key, field), or (None, None) for "belongs to no sample".
        decoder: as `WebDataset` takes it.
        suffixes: fields to keep; None: all.
        tar_errors: error policy for reading and grouping, and for what `check_sorted` finds.
        decode_errors: error policy for decoding.
        check_sorted: the keys must come in sorted order, by the bytes of the keys or of the names of members;
            otherwise SampleError names the first key that does not, the one before it, and where both are.
    """
    decode = apply_decoder(Bare(decoder) if callable(decoder) else decoder, decode_errors)
    members = _located(tar_file_iterator(fileobj, handler=tar_errors), str(getattr(fileobj, "name", fileobj)))
    if check_sorted:
        members = _sorted(members, keys, tar_errors)
    return without_place(decode(_group_by_keys(members, keys=keys, suffixes=suffixes, handler=tar_errors)))


def _located(members: Iterable[ArchiveMember], url: str) -> Iterator[ArchiveMember]:
    with closing_source(members):
        for member in members:
            member["__url__"] = url
            yield member


def _sorted(members: Iterable[ArchiveMember], keys: KeyRule, handler: Handler) -> Iterator[ArchiveMember]:
    """The members; the first key that is out of order goes to the handler."""
    # As keys are sorted, and as the names of members are: "a" < "a-1", but "a-1.txt" < "a.txt".
    ends: tuple[str, ...] = ("", ".")
    before, place = "", 0
    with closing_source(members):
        for member in members:
            key, _ = keys(member["fname"])
            if key is not None and key != before:
                fitting = tuple(end for end in ends if not before or _order(before + end) < _order(key + end))
                if ends and not fitting and not handler(_unsorted(before, place, key, member)):
                    return
                ends, before, place = fitting, key, member.offset
            yield member


def _order(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _unsorted(before: str, place: int, key: str, member: ArchiveMember) -> SampleError:
    shown = f"{printable(key)!r} at byte {member.offset} comes after {printable(before)!r} at byte {place}"
    return SampleError(f"the keys are not sorted: {shown}", url=member["__url__"], member=member["fname"])


__all__ = [
    "Dataset",
    "WebDataset",
    "base_plus_ext",
    "default_handlers",
    "group_by_keys",
    "ignore_and_continue",
    "ignore_and_stop",
    "imagehandler",
    "reraise_exception",
    "tardata",
    "tariterator",
    "valid_sample",
    "warn_and_continue",
    "warn_and_stop",
]
