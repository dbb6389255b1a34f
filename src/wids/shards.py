"""A shard's file -> its samples by number; urls -> such shards, of which some stay open.

Rules: what a sample is, `webdataset.sampleindex` says, so `ds[i]` is the i-th sample of the stream; only field names
keep their case. Bytes are read with their position (`pread`), so that processes share the system's page cache, and a
file that shrinks is an error, not the end of the process. A shard that is let go while a thread reads from it has its
file closed by that thread.
"""

from __future__ import annotations

import io
import os
import re
import threading
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import groupby, pairwise
from typing import IO, Any, Literal

from webdataset._forks import tell_of_forks
from webdataset.errors import DataError, StaleIndexError
from webdataset.sampleindex import scan_samples
from webdataset.samples import METADATA
from webdataset.shardbytes import LocalShard
from webdataset.shardindex import find_index
from webdataset.shardsamples import ShardSamples
from webdataset.storage.local import open_read

from .files import check_file, open_archive
from .localcopies import LocalCopies
from .localnames import default_localname
from .samplereads import QuickReads, Table, table_of
from .wids_lru import LRUCache
from .wids_tar import find_index_file

_NAME = re.compile(r"((?:.*/)?.*?)(\..*)", re.DOTALL)


def splitname(fname: str) -> tuple[str, str]:
    """A name as (what is before its first dot behind the last slash, the rest with the dot).

    >>> splitname("a/b.seg.png")
    ('a/b', '.seg.png')

    Raises:
        ValueError: it has no dot.
    """
    found = _NAME.fullmatch(fname)
    if found is None:
        raise ValueError(f"{fname!r}: a name without a dot has no extension")
    return found[1], found[2]


def group_by_key(names: Iterable[str]) -> list[list[int]]:
    """The numbers of names, neighbours with one key together; names without a dot are left out, with a warning.

    >>> group_by_key(["a.x", "a.y", "b.x"])
    [[0, 1], [2]]
    """
    keyed = []
    for number, name in enumerate(names):
        if "." in name:
            keyed.append((splitname(name)[0], number))
        else:
            warnings.warn(f"{name!r} has no extension and is in no sample", stacklevel=2)
    return [[number for _, number in group] for _, group in groupby(keyed, key=lambda pair: pair[0])]


def compute_num_samples(fname: Any) -> int:
    """How many samples a shard has: the file at a path, or an open one."""
    if isinstance(fname, (str, os.PathLike)):
        with open(fname, "rb") as file:
            return len(scan_samples(file, os.fspath(fname), lcase=False))
    return len(scan_samples(fname, lcase=False))


class ClosedShardError(ValueError):
    """A sample was asked of a shard that is closed, perhaps by another thread."""


class IndexedTarSamples:
    """The samples of one tar archive, by number: `samples[i]`.

    A sample is a dict of field name, with its dot, to `io.BytesIO`, and then "__key__".

    Args:
        path: of the archive; where only a stream is given, what messages call it.
        stream: the open archive, instead; it is closed with this object.
        md5sum, expected_size: what the file must have; None: nothing is expected.
        use_mmap, index_file: Ignored, files are read by position, and indexes are not pickles; kept for callers of 0.2.
        index_dir: where its index is cached, and a plain copy if it is compressed; None: nowhere.

    Attributes:
        samples: for each sample, the numbers of its members.

    Raises:
        WrongContentError: size or MD5 are others.
        DataError: this is no archive, or a damaged one.
    """

    def __init__(
        self,
        *,
        path: str | os.PathLike[str] | None = None,
        stream: IO[bytes] | None = None,
        md5sum: str | None = None,
        expected_size: int | None = None,
        use_mmap: bool = True,
        index_file: Callable[..., Any] = find_index_file,
        index_dir: str | None = None,
    ) -> None:
        if path is None and stream is None:
            raise ValueError("IndexedTarSamples: give path= or stream=")
        self.path = None if path is None else os.fspath(path)
        self.uuid = str(uuid.uuid4())
        self.stream = open_read(self.path or "") if stream is None else stream
        try:
            check_file(self.stream, self.path, md5sum, expected_size)
            shard = open_archive(self.stream, index_dir)
            try:
                index = find_index(shard, folder=index_dir, lcase=False)
            except BaseException:
                shard.close()
                raise
        except BaseException as exn:
            if isinstance(exn, DataError) and self.path is not None:
                exn.url = self.path
            self.stream.close()
            raise
        self.used = 0
        self.asked = False
        self._table: Table | Literal[False] | None = False
        self._samples: ShardSamples | None = ShardSamples(shard, index, lcase=False)
        self._count = len(index)

    @property
    def samples(self) -> list[list[int]]:
        """For each sample, the numbers of its members."""
        members = self._open().index.members
        assert members is not None
        return [list(range(begin, end)) for begin, end in pairwise(members.first.tolist())]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(f"{self.path or 'shard'} has {len(self)} samples, there is no [{index}]")
        found = self._open().read(number)
        sample = {f".{field}": io.BytesIO(data) for field, data in found.items() if field not in METADATA}
        sample["__key__"] = found["__key__"]
        return sample

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[number] for number in range(len(self)))

    def reads(self, first: Any, dots: bool) -> QuickReads | None:
        """What reads the samples of this shard quickly, see there; None where nothing does."""
        samples = self._open()
        if not isinstance(samples.shard, LocalShard) or samples.index.members is None or not hasattr(os, "pread"):
            return None
        if self._table is False:
            self._table = table_of(samples.index.members)
        return QuickReads(samples.shard, self._table, first, dots) if self._table else None

    def close(self) -> None:
        """Close the file; no sample can be had any more."""
        self._samples = None  # a thread that reads a sample has the file open until it is done
        self.stream.close()

    def _open(self) -> ShardSamples:
        samples = self._samples
        if samples is None:
            raise ClosedShardError(f"{self.path or 'shard'} is closed")
        return samples

    def __repr__(self) -> str:
        return f"<IndexedTarSamples-{id(self)} {self.path}>"


def _release(quick: dict[str, QuickReads], url: str, shard: IndexedTarSamples) -> None:
    quick.pop(url, None)
    shard.close()


class LRUShards:
    """Shards by url, the last `lru_size` that were used kept open; remote ones are copied to local files first.

    Args:
        lru_size: so many stay open.
        keep: remove no copies, whatever their size.
        localname: called with a url, gives the path of its copy; None: `default_localname()`.
        copies: where the files come from, instead.

    Attributes:
        accesses, misses: calls of `get_shard`, and those that had to open one.
        last_missed: whether the last one did.
        quick: url of an open shard to what reads it quickly. Who uses that sets its `used` to one more `accesses`.
    """

    def __init__(
        self,
        lru_size: int,
        keep: bool = False,
        localname: Callable[[str], str] | None = None,
        *,
        copies: LocalCopies | None = None,
    ) -> None:
        self.localname = default_localname() if localname is None else localname
        self.copies = copies or LocalCopies(self.localname, keep=keep)
        self._clear(lru_size)

    def _clear(self, lru_size: int) -> None:
        self.quick: dict[str, QuickReads] = {}
        self.lru = LRUCache(lru_size, partial(_release, self.quick))  # no cycle: files close when we go
        self.after_fork()
        tell_of_forks(self)
        self.reset_stats()

    def after_fork(self) -> None:
        """Have a new lock: a thread may have been opening a shard."""
        self._lock = threading.RLock()

    def reset_stats(self) -> None:
        """Count from 0 again."""
        with self._lock:
            self._settle()
            for one in (*self.lru.values(), *self.quick.values()):
                one.used = 0
        self.accesses = 0
        self.misses = 0
        self.last_missed = False

    def __len__(self) -> int:
        return len(self.lru)

    def release_handler(self, key: str, value: IndexedTarSamples) -> None:
        """Called with a shard that is let go."""
        _release(self.quick, key, value)

    def clear(self) -> None:
        """Close all shards."""
        with self._lock:
            self.lru.clear()

    def get_shard(
        self,
        url: str,
        *,
        md5sum: str | None = None,
        expected_size: int | None = None,
        nsamples: int | None = None,
    ) -> IndexedTarSamples:
        """The shard, open.

        Args:
            md5sum: of a shard that has to be copied.
            expected_size: bytes of its file.
            nsamples: samples that it must have.

        Raises:
            OpenError: it cannot be had, or is not what is expected (`WrongContentError`).
            DataError: it is no archive, or has another number of samples.
        """
        with self._lock:
            self.accesses += 1
            shard: IndexedTarSamples | None = self.lru[url]
            self.last_missed = shard is None
            if shard is None:
                self.misses += 1
                shard = self._opening(url, md5sum, expected_size, nsamples)
                self._settle()
                self.lru[url] = shard
            shard.used = self.accesses
            return shard

    def prepare(self, url: str, shard: IndexedTarSamples, first: Any, dots: bool) -> None:
        """Have in `quick` what reads this shard for a data set with this first transformation, if there is such.

        Nothing is done at the first call for a shard, of which perhaps only one sample is read.
        """
        if not shard.asked:
            shard.asked = True
            return
        with self._lock:
            made = self.quick.get(url)
            if (made is None or made.first is not first) and self.lru.cache.get(url) is shard:
                reads = shard.reads(first, dots)
                if reads is not None:
                    reads.used = shard.used
                    self.quick[url] = reads

    def _settle(self) -> None:
        """Put the shards in the order of their last uses; those of `quick` are noted there only."""
        for url in sorted(self.lru.keys(), key=self._last_use):
            self.lru[url]  # counts as a use

    def _last_use(self, url: str) -> int:
        reads = self.quick.get(url)
        used: int = self.lru.cache[url].used
        return used if reads is None else max(used, reads.used)

    def _opening(self, url: str, md5sum: str | None, size: int | None, nsamples: int | None) -> IndexedTarSamples:
        stream = self.copies.open(url, md5sum, size)
        try:
            shard = IndexedTarSamples(
                path=stream.name, stream=stream, expected_size=size, index_dir=self.copies.index_dir
            )
        except DataError as exn:
            exn.url = url
            raise
        if nsamples is not None and len(shard) != nsamples:
            found = len(shard)
            shard.close()
            raise StaleIndexError(
                f"{found} samples, where the index says {nsamples} (nsamples); make the index anew", url=url
            )
        return shard

    def __getstate__(self) -> dict[str, Any]:
        return {"lru_size": self.lru.capacity, "localname": self.localname, "copies": self.copies}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.localname, self.copies = state["localname"], state["copies"]
        self._clear(state["lru_size"])
