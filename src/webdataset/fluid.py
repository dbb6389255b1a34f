"""The concise interface: WebDataset(urls).shuffle(n).decode(...).batched(k). Sugar over pipeline and filters.

Every method that adds a stage returns a new pipeline; what the stage does is said at the stage in
`webdataset.filters`.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Self, TypedDict, Unpack

from . import filters
from ._arguments import check_items, check_names, check_number, explained, shown
from ._dataset_arguments import CLASSIC, FOLDER_MODES, check_arguments
from ._empty import CheckEmpty, check_empty
from ._lazy import names_of
from ._optional import require as require_module
from ._stage import FilterFunction, PipelineStage
from ._types import Alternatives, AnyStage, FieldDecoder, Handler, Shards
from .cache import shard_opener
from .countedshards import is_counted
from .errors import public_url
from .handlers import reraise_exception
from .pipeline import DataPipeline
from .rules import Rule
from .samples import KEY_RULES, KeyRule
from .shardfiles import is_spec
from .shardfolders import DirectoryShardList
from .shardglobs import is_folder, shards_in_folder
from .shardlists import ResampledShards, SimpleShardList, shardspec, split_by_node, split_by_worker
from .storage.options import StorageOptions
from .storage.options import storage_options as options_of
from .tariterators import group_by_keys, tar_file_expander
from .workers import resolve_seed


class ShuffleOptions(TypedDict, total=False):
    """Keywords of `filters.shuffle`."""

    initial: float
    rng: Random | None
    seed: int | str | None
    handler: Handler | None
    max_bytes: float | None


class TupleOptions(TypedDict, total=False):
    """Keywords of `filters.to_tuple`."""

    handler: Handler
    missing_is_error: bool
    none_is_error: bool | None


class HandlerOption(TypedDict, total=False):
    """The keyword of `filters.select`."""

    handler: Handler


class ExtractOptions(TypedDict, total=False):
    """Keywords of `filters.extract_keys`."""

    duplicate_is_error: bool
    ignore_missing: bool
    handler: Handler


class FluidInterface:
    """Methods that add one stage each; mixed into pipelines, which have `compose`."""

    if TYPE_CHECKING:  # the pipeline has it, whichever of the two bases a class names first

        def compose(self, *args: AnyStage) -> Self:
            """A new pipeline with further stages."""
            raise NotImplementedError

    def batched(
        self,
        batchsize: int,
        collation_fn: Callable[..., Any] | Sequence[Rule] | None = filters.default_collation_fn,
        partial: bool = True,
    ) -> Self:
        """Collate `batchsize` samples into one batch: `filters.batched`."""
        return self.compose(filters.batched(batchsize, collation_fn=collation_fn, partial=partial))

    def unbatched(self) -> Self:
        """Take batches apart again: `filters.unbatched`."""
        return self.compose(filters.unbatched())

    def listed(self, batchsize: int, partial: bool = True) -> Self:
        """Lists of `batchsize` samples, not collated: `filters.batched(collation_fn=None)`."""
        return self.compose(filters.batched(batchsize, collation_fn=None, partial=partial))

    def unlisted(self) -> Self:
        """The items of lists: `filters.unlisted`."""
        return self.compose(filters.unlisted())

    def log_keys(self, logfile: str | None = None) -> Self:
        """Append the key of every sample to a file: `filters.log_keys`."""
        return self.compose(filters.log_keys(logfile))

    def shuffle(self, size: int, **kw: Unpack[ShuffleOptions]) -> Self:
        """Shuffle in a buffer of `size` samples (less than 1: not at all): `filters.shuffle`."""
        check_number("shuffle", "bufsize", size, "samples")
        return self if size < 1 else self.compose(filters.shuffle(size, **kw))

    def map(self, f: Callable[[Any], Any] | Sequence[Rule], handler: Handler = reraise_exception) -> Self:
        """Apply a function to each sample; None drops the sample: `filters.map`."""
        return self.compose(filters.map(f, handler=handler))

    def decode(
        self,
        *args: str | FieldDecoder | Sequence[Rule],
        pre: list[FieldDecoder] | None = None,
        post: list[FieldDecoder] | None = None,
        only: str | Iterable[str] | None = None,
        partial: bool = False,
        handler: Handler = reraise_exception,
    ) -> Self:
        """Decode fields by their names, images as an image spec says ("rgb", "pil", "torch"): `filters.decode`."""
        return self.compose(filters.decode(*args, pre=pre, post=post, only=only, partial=partial, handler=handler))

    def map_dict(self, handler: Handler = reraise_exception, **kw: Callable[[Any], Any]) -> Self:
        """Apply a function to each named field: `filters.map_dict`."""
        return self.compose(filters.map_dict(handler=handler, **kw))

    def associate(self, associator: Callable[[str], Any] | Mapping[str, Any], **kw: Unpack[HandlerOption]) -> Self:
        """Samples with further fields, found by their key: `filters.associate`."""
        return self.compose(filters.associate(associator, **kw))

    def select(self, predicate: Callable[[Any], Any], **kw: Unpack[HandlerOption]) -> Self:
        """Keep the samples for which the predicate is true: `filters.select`."""
        return self.compose(filters.select(predicate, **kw))

    def to_tuple(self, *args: Alternatives, **kw: Unpack[TupleOptions]) -> Self:
        """Fields, in order, as a tuple: `filters.to_tuple`."""
        return self.compose(filters.to_tuple(*args, **kw))

    def map_tuple(self, *args: Callable[[Any], Any] | None, handler: Handler = reraise_exception) -> Self:
        """Apply a function to each position of a tuple: `filters.map_tuple`."""
        return self.compose(filters.map_tuple(*args, handler=handler))

    def slice(self, *args: int | None) -> Self:
        """A part of the stream, with the arguments of itertools.islice: `filters.slice`."""
        return self.compose(filters.slice(*args))

    def rename(self, *, handler: Handler = reraise_exception, keep: bool = True, **kw: Alternatives) -> Self:
        """Rename fields, `new="old;other"`: `filters.rename`."""
        return self.compose(filters.rename(handler=handler, keep=keep, **kw))

    def rsample(self, p: float = 0.5) -> Self:
        """Keep each sample with probability `p`: `filters.rsample`."""
        return self.compose(filters.rsample(p))

    def rename_keys(self, *args: tuple[str, str], **kw: Any) -> Self:
        """Rename fields by patterns: `filters.rename_keys`."""
        return self.compose(filters.rename_keys(*args, **kw))

    def extract_keys(self, *args: Alternatives, **kw: Unpack[ExtractOptions]) -> Self:
        """Fields found by patterns, as a tuple: `filters.extract_keys`."""
        return self.compose(filters.extract_keys(*args, **kw))

    def xdecode(self, *args: tuple[str, Any], **kw: Any) -> Self:
        """Decode fields with functions chosen by patterns: `filters.xdecode`."""
        return self.compose(filters.xdecode(*args, **kw))

    def mcached(self) -> Self:
        """Keep the samples of the first whole pass in memory, and give those again: `filters.Cached`."""
        return self.compose(filters.Cached())

    def lmdb_cached(self, *args: Any, **kw: Any) -> Self:
        """Keep the samples of the first whole pass in an LMDB file: `filters.LMDBCached`."""
        return self.compose(filters.LMDBCached(*args, **kw))


class FluidWrapper(DataPipeline, FluidInterface):
    """The fluid interface around any source: a list, a data set, a DataLoader, a callable that gives an iterator."""

    def __init__(self, initial: Any) -> None:
        if not (callable(initial) or hasattr(initial, "__iter__") or isinstance(initial, PipelineStage)):
            raise TypeError(f"FluidWrapper: initial must be something to iterate over or to call, got {shown(initial)}")
        super().__init__()
        self.pipeline.append(initial)  # also a list, which is data here


class WebLoader(DataPipeline, FluidInterface):
    """The fluid interface around `torch.utils.data.DataLoader(*args, **kw)`.

    `WebLoader(ds, batch_size=None, num_workers=4).unbatched().shuffle(1000).batched(64)` mixes the
    batches of all workers.
    """

    def __init__(self, *args: Any, **kw: Any) -> None:
        loader = require_module("torch.utils.data", "torch", "WebLoader").DataLoader
        check_names("WebLoader", kw, inspect.signature(loader), {})
        for dataset in (*args[:1], *([kw["dataset"]] if "dataset" in kw else [])):
            check_items("WebLoader", "dataset", dataset, "a data set")
        super().__init__(loader(*args, **kw))


class WebDataset(DataPipeline, FluidInterface):
    """Samples streamed from tar shards, as dicts of `__key__`, `__url__` and one entry of bytes a field.

    Args:
        urls: shards: a url or path with braces or stars ("train-{000..999}.tar", "train/*.tar", "::" between
            several), an iterable of urls or of `{"url", "nsamples"}`, a local folder (its files named .tar, .tgz,
            .tar.gz, ...), or a spec or an index of `wids` (a dict, or a JSON or YAML file), which `shardspec` reads.
            Archives may be compressed; local, http(s), `pipe:`, `-`.
        handler: error policy for opening, reading and grouping; one of `webdataset.handlers`, or an ErrorPolicy.
        mode: "resampled" is the same as resampled=True; "resample", "unlink" or "keep" take shards from a folder that
            others fill, as `DirectoryShardList` does; splitting and shuffling of shards do not apply then.
        resampled: draw shards with replacement, without end. There are no epochs then: among as many draws as there
            are shards, a third of them does not come at all, and others come several times. For epochs in which
            every sample comes once, leave it off.
        repeat: pass over the shards without end.
        shardshuffle: shuffle the shards in a buffer of this size (True: 100), differently in each epoch.
        cache_size: bytes that local copies may take; 0: no cache; less than 0 or None: WDS_CACHE_SIZE, or no bound.
        cache_dir: an existing folder for local copies of shards; None: WDS_CACHE, or no cache.
        url_to_name: called with a url, gives the name of its copy; None: `pipe_cleaner`, then `url_to_cache_name`.
        detshuffle: shuffle shards with `filters.detshuffle`.
        nodesplitter: divides shards among ranks; None: every rank reads all. Fewer shards than readers are no error:
            some readers have nothing to do, and the log says how many.
        workersplitter: divides shards among the workers of a rank; None: every worker reads all.
        select_files: called with a member's name; false leaves it out.
        rename_files: called with a member's name, gives the one to use.
        empty_check: a data set without a sample is an error.
        verbose: log each shard that is opened, at level INFO.
        seed: of the shuffling; None: WDS_SEED or 0; "random": drawn and logged.
        ignore_zeros: read on behind the end mark of an archive (archives that were concatenated).
        torn: "warn" or "error" when the members of a sample are not neighbours in their shard.
        require: fields that every sample must have, `("jpg;png", "json")` with alternatives; checked after grouping.
        on_missing: what becomes of a sample without them: "error" (it goes to the handler), "skip", or "empty" (the
            field is None). Skipped and filled samples are counted, and reported in the log at the end of a pass.
        keys: where key and field of a member's name divide: "first-dot" or "last-dot" of its last path component, or
            a function from the name to (key, field), (None, None) for members that belong to no sample.
        lcase: lower-case the names of fields.
        storage_options: how remote shards are read: a `StorageOptions`, or a dict of its names; None: what
            WDS_STORAGE_OPTIONS says.

    Raises:
        TypeError, ValueError: an argument is not what it must be.
        ValueError: the folder of the cache does not exist.
        EmptyDatasetError: there are no shards; when iterating, no sample in any of them.
    """

    @explained("WebDataset", CLASSIC)
    def __init__(
        self,
        urls: Shards,
        handler: Handler = reraise_exception,
        mode: str | None = None,
        resampled: bool = False,
        repeat: bool = False,
        shardshuffle: int | bool | None = None,
        cache_size: int = -1,
        cache_dir: str | None = None,
        url_to_name: Callable[[str], str] | None = None,
        detshuffle: bool = False,
        nodesplitter: Callable[[Iterable[Any]], Iterator[Any]] | None = split_by_node,
        workersplitter: Callable[[Iterable[Any]], Iterator[Any]] | None = split_by_worker,
        select_files: Callable[[str], bool] | None = None,
        rename_files: Callable[[str], str] | None = None,
        empty_check: bool = True,
        verbose: bool = False,
        seed: int | str | None = None,
        *,
        ignore_zeros: bool = False,
        torn: str = "warn",
        require: str | Iterable[Alternatives] | None = None,
        on_missing: str = "error",
        keys: str | KeyRule = "first-dot",
        lcase: bool = True,
        storage_options: StorageOptions | Mapping[str, Any] | None = None,
    ) -> None:
        check_arguments(locals())
        super().__init__()
        self.seed = resolve_seed(seed)
        self.append(_shard_list(urls, mode, resampled or mode == "resampled", self.seed, storage_options))
        if mode not in FOLDER_MODES:  # a folder that others fill gives each shard to one process only, in its own order
            self.append(nodesplitter)
            self.append(workersplitter)
        if shardshuffle is not None and mode not in FOLDER_MODES:
            size = 100 if shardshuffle is True else shardshuffle
            self.append((filters.detshuffle if detshuffle else filters.shuffle)(size, seed=self.seed))
        self.append(shard_opener(cache_dir, cache_size, url_to_name, verbose, handler, storage_options))
        options: dict[str, Any] = {"handler": handler}
        if select_files is not None or rename_files is not None:
            options.update(select_files=select_files, rename_files=rename_files)
        if ignore_zeros:
            options["ignore_zeros"] = True
        self.append(FilterFunction(tar_file_expander, **options))
        options = {"handler": handler, "torn": torn}
        if keys != "first-dot":
            options["keys"] = KEY_RULES[keys] if isinstance(keys, str) else keys
        if not lcase:
            options["lcase"] = False
        self.append(FilterFunction(group_by_keys, **options))
        if require is not None:
            self.append(filters.require_fields(require, on_missing, handler, place=_describe(urls)))
        if empty_check:
            self.append(CheckEmpty(_describe(urls)))
        if repeat:
            self.repeat()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _shard_list(urls: Any, mode: str | None, resampled: bool, seed: int, options: Any) -> Any:
    path = os.fspath(urls) if isinstance(urls, (str, os.PathLike)) else ""
    if isinstance(urls, dict) or is_spec(path) or is_counted(urls):
        shards = shardspec(urls, storage_options=options)
        if not resampled:
            return shards
        if isinstance(shards, SimpleShardList):
            urls = shards.urls
        elif all(source.perepoch < 0 for source in shards.sources):
            urls = [url for source in shards.sources for url in source.urls]
        else:
            raise ValueError(
                f"{_describe(urls)}: resampled=True draws from a plain list of shards; this spec says itself what to "
                "draw in each epoch (resample: n, choose: n)"
            )
    elif mode in FOLDER_MODES:
        return DirectoryShardList(path, mode=mode)
    elif path and is_folder(path):
        urls = shards_in_folder(path, None if options is None else options_of(options))
    if resampled:
        return ResampledShards(urls, seed=seed, deterministic=True, storage_options=options)
    return SimpleShardList(urls, storage_options=options)


def _describe(urls: Any) -> str:
    if isinstance(urls, (str, os.PathLike)):
        return public_url(os.fspath(urls))
    if isinstance(urls, (list, tuple)) and urls and isinstance(urls[0], (str, os.PathLike)):
        first = public_url(os.fspath(urls[0]))
        return f"{first} and {len(urls) - 1} more" if len(urls) > 1 else first
    return f"{type(urls).__name__} of shards"


__all__ = ["FluidInterface", "FluidWrapper", "WebDataset", "WebLoader", "check_empty"]

__getattr__ = names_of(__name__, Dataset="dataset")  # releases 0.1.54 to 0.1.103 have it here
