"""The public names of wids, as programs import them: `from wids.wids import ShardListDataset`."""

from __future__ import annotations

from typing import TypeVar

from .dataset import ShardListDataset, hash_dataset_name
from .decoding import default_decoder, interpret_transformations
from .files import compute_file_md5sum
from .localnames import cache_localname, default_localname, hash_localname
from .samplers import (
    ChunkedSampler,
    DistributedChunkedSampler,
    ShardedSampler,
    ShardListSampler,
    intersect_range,
    intersect_ranges,
    iterate_ranges,
    lengths_to_ranges,
)
from .shards import IndexedTarSamples, LRUShards, compute_num_samples, group_by_key, splitname
from .wids_dl import download_and_open
from .wids_lru import LRUCache
from .wids_mmtar import MMIndexedTar
from .wids_specs import load_dsdesc_and_resolve, urldir
from .wids_tar import TarFileReader, find_index_file

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
open_itfs: dict[str, IndexedTarSamples] = {}
"""Empty; kept for programs that look at it."""

__all__ = [
    "ChunkedSampler",
    "DistributedChunkedSampler",
    "IndexedTarSamples",
    "LRUCache",
    "LRUShards",
    "MMIndexedTar",
    "ShardListDataset",
    "ShardListSampler",
    "ShardedSampler",
    "T",
    "T_co",
    "TarFileReader",
    "cache_localname",
    "compute_file_md5sum",
    "compute_num_samples",
    "default_decoder",
    "default_localname",
    "download_and_open",
    "find_index_file",
    "group_by_key",
    "hash_dataset_name",
    "hash_localname",
    "interpret_transformations",
    "intersect_range",
    "intersect_ranges",
    "iterate_ranges",
    "lengths_to_ranges",
    "load_dsdesc_and_resolve",
    "open_itfs",
    "splitname",
    "urldir",
]
