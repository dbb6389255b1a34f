"""A shard -> its index: cached, in a database or file that others left (Energon, DALI), or made from the headers.

A cached index counts when it is of this very state of the shard (size and time of change, or ETag) and its checksum is
right. A sidecar cannot say what it is of, so it counts when it is not older than the (local) shard, does not reach
beyond it, ends at its end, and samples begin where it says, at PROBES places; what is read with it is checked again
for each sample, by `shardoffsets`. What does not count is made anew, and said so in the log. What is made is cached
where that can be.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from typing import Any

from ._types import Handler
from .errors import DataError, OpenError, SampleError, StaleIndexError, WrongContentError, printable, public_url
from .gopen import path_of, rewrite_url
from .handlers import ignore_and_continue, reraise_exception
from .indexfiles import format_dali, format_offsets, format_ours, parse_dali, parse_offsets, parse_ours
from .sampleindex import SampleIndex, lower_case, scan_samples
from .samples import decode_name, key_of
from .shardbytes import ShardBytes
from .shardframes import write_gzi
from .shardnotes import note_path, write_file_if_possible
from .shardoffsets import walk_members
from .shardopening import open_shard
from .storage import local, places
from .storage.atomic import write_file
from .storage.bytestream import read_small
from .tar.header import BLOCK, REGULAR_TYPES, is_header, parse_header
from .tariterators import locate_shard

logger = logging.getLogger(__name__)

Told = tuple[str, Callable[[ShardBytes], SampleIndex | None]]

CACHED = ".names.index"
"""What the names of cached indexes end in; they have the names of fields as the archive has them."""

SMALL = 1 << 20
"""Bytes that a sidecar may always have; else no more than its shard."""
PROBES = 8
"""So many samples of a sidecar are looked up in the shard before it is believed."""


def index_folder(cache_dir: str | os.PathLike[str] | None = None) -> str | None:
    """Where indexes are cached: below `cache_dir`, else WDS_CACHE, else the user's cache; None where there is no place.

    An empty `cache_dir` asks for none.
    """
    if cache_dir is not None:
        return os.path.join(os.path.expanduser(cache_dir), "index") if os.fspath(cache_dir) else None
    if os.environ.get("WDS_CACHE"):
        return os.path.join(os.path.expanduser(os.environ["WDS_CACHE"]), "index")
    user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(user, "webdataset", "index") if os.path.isabs(user) else None


def find_index(
    shard: ShardBytes,
    *,
    folder: str | None = None,
    handler: Handler = reraise_exception,
    sidecars: bool = True,
    told: Told | None = None,
    storage_options: Any = None,
    lcase: bool = True,
) -> SampleIndex:
    """The index of an open shard. Indexes are cached with the names that the archive has, for both ways to read it.

    Args:
        folder: where indexes are cached, None: nowhere. See `index_folder`.
        handler: asked when the shard is damaged, or a sample has a field twice; true: the rest is indexed.
        sidecars: whether files beside the shard are looked for.
        told: another place where the index may be, looked at before those: its name, and a function of the shard that
            gives the index there, None where there is none, or raises StaleIndexError.
        lcase: lower-case the fields.

    Raises:
        DataError: the shard cannot be read, or what the handler lets pass.
    """
    index = known_index(shard, folder=folder, sidecars=sidecars, told=told, storage_options=storage_options)
    if index is None:
        doubtful = shard.doubtful
        index = scan_shard(shard, handler, lcase=False)
        sound = not index.faults and shard.fault is None and shard.doubtful == doubtful
        if folder is not None and sound:
            write_file_if_possible(note_path(folder, shard.url, CACHED), format_ours(index, shard.version))
    if not lcase:
        return index
    lowered = lower_case(index)
    return scan_shard(shard, handler) if lowered is None else lowered


def known_index(
    shard: ShardBytes,
    *,
    folder: str | None = None,
    sidecars: bool = True,
    told: Told | None = None,
    storage_options: Any = None,
) -> SampleIndex | None:
    """The index of an open shard that is cached or that others left, and fits; its fields as the archive has them."""
    found = None if folder is None else _cached(note_path(folder, shard.url, CACHED), shard)
    if found is not None or not sidecars or not shard.in_parts:  # to look at places costs more than to read it once
        return found
    names = [(energon_name(shard.url), parse_offsets), (dali_name(shard.url), parse_dali)]
    readers = [] if told is None else [told]
    readers += [(name, _reader_of(name, parse, storage_options)) for name, parse in names if name is not None]
    return next((index for name, read in readers if (index := _sidecar(name, read, shard)) is not None), None)


def scan_shard(shard: ShardBytes, handler: Handler = reraise_exception, *, lcase: bool = True) -> SampleIndex:
    """The index of an open shard, made from its headers; the arguments are those of `scan_samples`.

    Raises:
        DataError: the shard cannot be read, or what the handler lets pass.
    """
    if shard.doubtful:
        try:
            with contextlib.closing(shard.stream()) as stream:
                return scan_samples(stream, shard.url, lcase=lcase)
        except (SampleError, OpenError):
            pass  # nothing is wrong with the parts: it is for the handler
        except DataError:
            shard.fall_back()
    if shard.fault is not None:
        handler(locate_shard(shard.fault, shard.url, "read"))
        handler = ignore_and_continue  # that fault is told; what it does to the archive is no other one
    with contextlib.closing(shard.stream()) as stream:
        return scan_samples(stream, shard.url, handler, lcase=lcase)


def write_sidecar(url: str | os.PathLike[str], kind: str = "energon") -> str:
    """Write the index of a local shard beside it; its path.

    Args:
        kind: "energon" for `<shard>.tar.idx`; "dali" for `<shard>.idx`; "gzi" for `<shard>.gz.gzi`, bgzip's list of
            members, with which a shard in BGZF is read in parts on servers too.

    Raises:
        ValueError: another kind.
        StaleIndexError: DALI's format cannot say what is in the shard.
        DataError: the shard is damaged.
    """
    if kind not in ("energon", "dali", "gzi"):
        raise ValueError(f'write_sidecar: kind must be "energon", "dali" or "gzi", got {kind!r}')
    url = os.fspath(url)
    if kind == "gzi":
        return write_gzi(url)
    with contextlib.closing(open_shard(url)) as shard:
        index = scan_shard(shard, lcase=kind != "dali")
    name = energon_name(url) if kind == "energon" else dali_name(url)
    path = None if name is None else path_of(name)
    if path is None:
        raise OpenError("a sidecar is written beside a local shard", url=url)
    write_file(path, format_offsets(index) if kind == "energon" else format_dali(index))
    return path


def energon_name(url: str) -> str | None:
    """Where Energon keeps the index of a shard: a.tar and a.tgz have a.tar.idx; None for urls with a query.

    >>> energon_name("b.c/a.tgz")
    'b.c/a.tar.idx'
    """
    return beside(url, lambda name: f"{os.path.splitext(name)[0]}.tar.idx")


def dali_name(url: str) -> str | None:
    """Where DALI keeps the index of a shard: the name up to its first dot; None for urls with a query.

    >>> dali_name("b.c/a.0.tar")
    'b.c/a.idx'
    """
    return beside(url, lambda name: f"{name.partition('.')[0]}.idx")


def beside(url: str, rename: Callable[[str], str]) -> str | None:
    """The place beside a shard that a function of its name tells; None for urls with a query, and for commands."""
    if ("?" in url and "://" in url) or url.startswith("pipe:"):
        return None
    folder, slash, name = url.rpartition("/")
    return f"{folder}{slash}{rename(name)}" if name else None


def check_fit(index: SampleIndex, shard: ShardBytes) -> None:
    """Whether the offsets can be those of this shard.

    Raises:
        DataError: they cannot (StaleIndexError), or they are not enough to read it (it begins with a global header).
    """
    size, count = shard.size, len(index)
    end = int(index.offsets[-1])
    if size is None or end > size:
        raise StaleIndexError(f"the index reaches to byte {end}, the shard has {size}")
    if not count:
        if any(key is not None for key, _, _ in walk_members(shard, 0)):
            raise StaleIndexError("it has no samples, the shard has some")
        return
    probes = 2 if shard.is_remote else PROBES
    for i in sorted({number * (count - 1) // (probes - 1) for number in range(probes)}):
        at = int(index.offsets[i])
        block = shard.read(at, min(at + BLOCK, size))
        if not is_header(block):
            raise StaleIndexError(f"sample {i} does not begin at byte {at}, where the index says so")
        key = _key_in(block)
        if key is not None and index.told is not None and index.told.keys and index.told.key(i) != key:
            raise StaleIndexError(f"sample {i} is {index.told.key(i)!r}, says the index, and {key!r}, says the shard")
    if any(key is not None and stop > end for key, _, stop in walk_members(shard, int(index.offsets[-2]))):
        raise StaleIndexError(f"the index ends at byte {end}, where the shard goes on")
    if shard.read(0, BLOCK)[156:157] == b"g":
        raise StaleIndexError("the shard begins with a global header, which offsets alone cannot tell")


def _key_in(block: bytes) -> str | None:
    """The key that a header block alone tells; None where it is an extended one, or belongs to no sample."""
    header = parse_header(block)
    return key_of(decode_name(header.name)) if header.type in REGULAR_TYPES else None


def _cached(path: str, shard: ShardBytes) -> SampleIndex | None:
    try:
        with open(path, "rb", buffering=0) as file:
            index, version = parse_ours(file.read())
        if version != shard.version or (version.mtime_ns is None and version.etag is None):
            raise StaleIndexError("the shard changed since the index was made")
        return index
    except OSError:
        return None
    except StaleIndexError as exn:
        logger.info("%s: %s; it is made anew", public_url(shard.url), exn.message)
        return None


def _sidecar(name: str, read: Callable[[ShardBytes], SampleIndex | None], shard: ShardBytes) -> SampleIndex | None:
    """The index in a file of somebody else, None where there is none that fits."""
    try:
        index = read(shard)
        if index is not None:
            check_fit(index, shard)
    except DataError as exn:
        logger.warning("%s: not used as the index of the shard: %s", printable(public_url(name)), exn.message)
        return None
    return index


def _reader_of(name: str, parse: Callable[[bytes], SampleIndex], options: Any) -> Callable[[ShardBytes], Any]:
    """A function that reads the index in a file beside the shard."""

    def read(shard: ShardBytes) -> SampleIndex | None:
        place = rewrite_url(name)
        older, path = False, local.local_path(place)
        try:
            if path is not None:
                with open(path, "rb", buffering=0) as file:
                    older = os.fstat(file.fileno()).st_mtime_ns < (shard.version.mtime_ns or 0)
                    data = file.read()
            else:
                with contextlib.closing(places.open_read(place, options)) as stream:
                    data = read_small(stream, max(SMALL, shard.size or 0), name)
        except WrongContentError as exn:
            raise StaleIndexError(exn.message) from None
        except (OSError, DataError):
            return None
        if older:
            raise StaleIndexError("it is older than the shard")
        return parse(data)

    return read
