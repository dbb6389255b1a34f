"""A list of shards with their numbers of samples -> a map-style torch data set: `ds[i]`.

    index -> which shard, which sample in it -> open local file (localcopies, shards) -> dict -> transformations

Rules: the object travels to worker processes, so everything in it can be pickled and open files are left behind.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import operator
import os
import re
import sys
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from webdataset._arguments import (
    a,
    check_count,
    check_flag,
    check_function,
    check_number,
    check_path,
    check_text,
    checked,
    shown,
)
from webdataset.errors import ShardListError, public_url
from webdataset.places import add_place
from webdataset.shardfiles import without_query
from webdataset.shardindex import index_folder
from webdataset.storage.options import StorageOptions
from webdataset.storage.options import storage_options as options_of

from ._torchbase import Dataset
from .decoding import Sample, interpret_transformations
from .fluid import FluidMethods
from .localcopies import LocalCopies
from .localnames import LocalName, default_cache_dir
from .shards import ClosedShardError, IndexedTarSamples, LRUShards
from .wids_specs import base_of, check_shards, load_dsdesc_and_resolve

MANY_OPEN = 200
"""More shards than this open at a time may be more than the system lets a process have."""


def hash_dataset_name(input_string: str) -> str:
    """16 characters that stand for a text.

    >>> hash_dataset_name("abc")
    'ungWv48Bz-pBQUDe'
    """
    return base64.urlsafe_b64encode(hashlib.sha256(input_string.encode("utf-8")).digest())[:16].decode("ascii")


class ShardListDataset(FluidMethods, Dataset):  # type: ignore[misc]  # mypy does not look at torch here
    """The samples of a list of shards, by number.

    `ds[i]` is a dict: the fields with their dots, then `__key__`, `__dataset__`, `__index__`, `__shard__` (the url)
    and `__shardindex__` (the number in the shard); negative numbers count from the end, a slice gives a list. Local
    shards are read where they are, remote ones from copies that all processes of a host share.

    Args:
        shards: path or url of a wids JSON, or its stream; or a list of `{"url", "nsamples"}`, each perhaps with
            "filesize", "md5sum", "name", "weight", "dataset".
        cache_size: bytes that the copies may take; what was used longest ago goes.
        cache_dir: the folder of the copies, local shards are copied too then; None: WIDS_CACHE, or `_wids_cache` in
            the folder for temporary files.
        lru_size: so many shards stay open.
        dataset_name: the name of a list of shards; None: made from the list.
        localname: called with a url, gives the path of its copy; instead of `cache_dir`, and nothing is removed then.
        transformations: "PIL", "numpy", a function of a sample, or a list of those, applied in order.
        keep: remove no copies; a JSON with "keep": true says so too.
        base: what relative urls are below; None: what the JSON says, else its folder.
        options: keys that replace those of the JSON.
        dots: false leaves out the dot in front of the names of fields, before the transformations.
        allow_pipe: let commands (`pipe:`) in a JSON run; None: WDS_ALLOW_PIPE=1 says so. Those in a list do.
        storage_options: how remote urls are read, a `StorageOptions` or a dict of its names.

    Attributes:
        lengths, cum_lengths, total_length: samples of each shard; of all up to it; of all.
        spec: the JSON, {} for a list. `shards`: the list.
        cache: the `LRUShards`.

    Raises:
        ShardListError: the JSON or the list is not as it must be.
        IndexError: the list is empty.
    """

    @checked(
        "ShardListDataset",
        cache_size=a(check_number, "bytes"),
        cache_dir=a(check_path, optional=True),
        lru_size=a(check_count, 1, "shards"),
        localname=a(check_function, optional=True),
        base=a(check_text, "a folder, a path or a url", optional=True),
        dots=check_flag,
        keep=check_flag,
    )
    def __init__(
        self,
        shards: Any,
        *,
        cache_size: float = int(1e12),
        cache_dir: str | os.PathLike[str] | None = None,
        lru_size: int = 10,
        dataset_name: str | None = None,
        localname: Callable[[str], str] | None = None,
        transformations: Any = "PIL",
        keep: bool = False,
        base: str | None = None,
        options: dict[str, Any] | None = None,
        dots: bool = True,
        allow_pipe: bool | None = None,
        storage_options: StorageOptions | Mapping[str, Any] | None = None,
    ) -> None:
        if lru_size > MANY_OPEN:
            warnings.warn(
                f"lru_size is {lru_size}: so many open files may be more than a process may have", stacklevel=2
            )
        self.base = base
        self.spec: dict[str, Any] = {}
        if isinstance(shards, (str, os.PathLike)) or hasattr(shards, "read"):
            _refuse_shards(shards)
            given = None if storage_options is None else options_of(storage_options)
            self.spec = load_dsdesc_and_resolve(
                shards, options=options, base=base, allow_pipe=allow_pipe, storage_options=given
            )
            if base is None:
                self.base = base_of(self.spec, shards)
            self.shards: list[dict[str, Any]] = self.spec["shardlist"]
            self.dataset_name = self.spec.get("name") or hash_dataset_name(str(shards))
        else:
            self.shards = check_shards(_list_of(shards))
            self.dataset_name = dataset_name or hash_dataset_name(str(shards))
        if not self.shards:
            raise IndexError("ShardListDataset: the list of shards is empty")
        self.lengths: list[int] = [shard["nsamples"] for shard in self.shards]
        self.cum_lengths = np.cumsum(self.lengths)
        self.total_length = int(self.cum_lengths[-1])
        self._ends: list[int] = self.cum_lengths.tolist()
        self.dots = dots
        self.transformations = interpret_transformations(transformations)
        folder = None if localname is not None and cache_dir is None else os.fspath(cache_dir or default_cache_dir())
        self.cache_dir = folder
        self.localname = localname if folder is None and localname is not None else LocalName(folder or "")
        copies = LocalCopies(
            self.localname,
            keep=keep or bool(self.spec.get("keep")),
            folder=folder,
            cache_size=cache_size,
            copy_local=cache_dir is not None or localname is not None,
            storage_options=storage_options,
            index_dir=index_folder(cache_dir),
        )
        self.cache = LRUShards(lru_size, localname=self.localname, copies=copies)
        self._warned = False
        sys.stderr.write(f"{self._banner(shards)}\n")

    def _banner(self, source: Any) -> str:
        if self.spec:
            shown = public_url(os.fspath(source)) if isinstance(source, (str, os.PathLike)) else str(source)
        else:
            shown = str([{**shard, "url": public_url(shard["url"])} for shard in self.shards[:3]])
        base = None if self.base is None else public_url(self.base)
        nbytes = sum(shard.get("filesize") or 0 for shard in self.shards)
        return (
            f"{shown[:50]} base: {base} name: {self.spec.get('name')} nfiles: {len(self.shards)}"
            f" nbytes: {nbytes} samples: {self.total_length} cache: {self.cache_dir}"
        )

    def __len__(self) -> int:
        return self.total_length

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        if index.__class__ is not int or not 0 <= index < self.total_length:
            if isinstance(index, slice):
                return [self[number] for number in range(*index.indices(self.total_length))]
            index = self._checked(index)
        number = bisect_right(self._ends, index)
        inner = index - self._ends[number - 1] if number else index
        desc = self.shards[number]
        todo = self.transformations
        cache = self.cache
        reads = cache.quick.get(desc["url"])
        sample: Any = None
        done = 0
        if reads is not None and reads.first is (todo[0] if todo else None):
            cache.accesses = reads.used = cache.accesses + 1
            try:
                sample = reads.read(inner)
                done = reads.done
            except Exception:
                sample = None  # the usual way says what is wrong
        if sample is None:
            sample, done = self._raw(desc, inner), 0
        sample["__dataset__"] = desc.get("dataset")
        sample["__index__"] = index
        sample["__shard__"] = desc["url"]
        sample["__shardindex__"] = inner
        if done < len(todo):
            key = sample["__key__"]
            try:
                for transform in todo[done:]:
                    sample = transform(sample)
            except Exception as exn:
                add_place(exn, key=key, url=public_url(desc["url"]), stage="transformations")
                raise
        return sample

    def _raw(self, desc: dict[str, Any], inner: int) -> Sample:
        """A sample as it is in its shard, its fields as streams; the next one may be read the quick way."""
        first = self.transformations[0] if self.transformations else None
        while True:
            shard = self._open_shard(desc)
            try:
                sample = shard[inner]
            except ClosedShardError:  # another thread had no room for it any more
                continue
            self.cache.prepare(desc["url"], shard, first, self.dots)
            return sample if self.dots else {key.removeprefix("."): value for key, value in sample.items()}

    def get_shard(self, index: int) -> tuple[IndexedTarSamples, int, dict[str, Any]]:
        """The open shard that sample `index` is in, its number in it, and what the list says about the shard.

        Raises:
            IndexError: there is no such sample.
            OpenError, DataError: the shard cannot be had, or is not the one that the list says.
        """
        index = self._checked(index)
        number = bisect_right(self._ends, index)
        desc = self.shards[number]
        return self._open_shard(desc), index - (self._ends[number - 1] if number else 0), desc

    def _open_shard(self, desc: dict[str, Any]) -> IndexedTarSamples:
        return self.cache.get_shard(
            desc["url"],
            md5sum=desc.get("md5sum"),
            expected_size=desc.get("filesize"),
            nsamples=desc["nsamples"],
        )

    def _checked(self, index: Any) -> int:
        if not hasattr(index, "__index__"):
            raise TypeError(f"ShardListDataset: a sample is asked for by number, got {shown(index)}")
        number = operator.index(index)
        if not -self.total_length <= number < self.total_length:
            raise IndexError(f"{self.dataset_name} has {self.total_length} samples, there is no [{number}]")
        return int(number % self.total_length)

    def get_stats(self) -> tuple[int, int]:
        """How often a shard was asked for, and how often it had to be opened."""
        return self.cache.accesses, self.cache.misses

    def check_cache_misses(self) -> None:
        """Warn, once, if of more than 100 samples more than 30 % had to open their shard: `lru_size` is too small."""
        accesses, misses = self.get_stats()
        if not self._warned and accesses > 100 and misses / accesses > 0.3:
            self._warned = True
            warnings.warn(
                f"{self.dataset_name}: {misses} of {accesses} samples ({100 * misses / accesses:.1f} %) had to open"
                " their shard; use a sampler that stays in a shard (ShardListSampler, ChunkedSampler) or a larger"
                " lru_size",
                stacklevel=2,
            )

    def add_transform(self, transform: Callable[[Any], Any]) -> ShardListDataset:
        """Apply this function, too, to each sample, behind the others; gives this object."""
        self.transformations.append(transform)
        return self

    add_transformation = add_transform

    def with_transform(self, transform: Callable[[Any], Any]) -> ShardListDataset:
        """A data set that also applies this function; this one stays as it is. Both share their open shards."""
        other = copy.copy(self)
        other.transformations = [*self.transformations, transform]
        return other

    def close(self) -> None:
        """Close all shards; they are opened again when they are needed."""
        self.cache.clear()


def _refuse_shards(source: Any) -> None:
    """ShardListError where the path of a JSON should be, and there is the name of shards."""
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        if re.search(r"\.(tar(\.\w+)?|tgz)$", without_query(name)) and not name.endswith(".json"):
            raise ShardListError(
                f"ShardListDataset: {public_url(name)}: a tar shard, where the path of a JSON should be that lists"
                " shards with their counts; the command `widsindex create SHARDS -o index.json` makes one, or use"
                " webdataset.IndexedDataset, which needs none"
            )


def _list_of(shards: Any) -> list[dict[str, Any]]:
    """The shards of a list; pairs (url, nsamples) are such too."""
    if isinstance(shards, Mapping) or not isinstance(shards, Iterable):
        raise ShardListError(
            f"ShardListDataset: shards is a list of shards, or the path of a JSON; got a {type(shards).__name__}"
        )
    found: list[Any] = [
        {"url": shard[0], "nsamples": shard[1]} if isinstance(shard, (tuple, list)) and len(shard) == 2 else shard
        for shard in shards
    ]
    return found
