"""A shard's file -> its samples by number; urls -> such shards, of which some stay open.

Rules: what a sample is, `webdataset.sampleindex` says, so `ds[i]` is the i-th sample of the stream; only field names
keep their case. Bytes are read with their position (`pread`), so that processes share an open file and the system's
page cache, and a file that shrinks is an error, not the end of the process.
"""

from __future__ import annotations

import io
import os
import re
import threading
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, pairwise
from typing import IO, Any

from webdataset.errors import DataError, StaleIndexError, TruncatedError
from webdataset.sampleindex import scan_samples
from webdataset.storage.local import open_read

from .files import check_file, plain, read_at, unwrapped
from .localcopies import LocalCopies
from .localnames import default_localname
from .wids_lru import LRUCache
from .wids_tar import find_index_file

SMALL = 1 << 16
"""Bytes from the first field of a sample to the end of the last up to which they are read at once."""

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


class IndexedTarSamples:
    """The samples of one tar archive, by number: `samples[i]`.

    A sample is a dict of field name, with its dot, to `io.BytesIO`, and then "__key__".

    Args:
        path: of the archive; where only a stream is given, what messages call it.
        stream: the open archive, instead; it is closed with this object.
        md5sum, expected_size: what the file must have; None: nothing is expected.
        use_mmap, index_file: Ignored, files are read by position and indexed in memory; kept for callers of 0.2.

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
    ) -> None:
        if path is None and stream is None:
            raise ValueError("IndexedTarSamples: give path= or stream=")
        self.path = None if path is None else os.fspath(path)
        self.uuid = str(uuid.uuid4())
        self.stream = open_read(self.path or "") if stream is None else stream
        try:
            check_file(self.stream, self.path, md5sum, expected_size)
            self.reader = plain(self.stream)
            index = scan_samples(self.reader, self.path or "", lcase=False)
            assert index.members is not None
            self._members = index.members
        except BaseException:
            self.close()
            raise
        self._lock = threading.Lock()

    @property
    def samples(self) -> list[list[int]]:
        """For each sample, the numbers of its members."""
        first = self._members.first.tolist()
        return [list(range(begin, end)) for begin, end in pairwise(first)]

    def __len__(self) -> int:
        return len(self._members.first) - 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = index + len(self) if index < 0 else index
        if not 0 <= number < len(self):
            raise IndexError(f"{self.path or 'shard'} has {len(self)} samples, there is no [{index}]")
        sample: dict[str, Any] = {}
        rows = self._members.rows(number)
        begin = min([row[1] for row in rows], default=0)
        end = max([row[1] + row[2] for row in rows], default=0)
        whole = self._read(begin, end - begin) if end - begin <= SMALL else None
        for field, start, size, wrapped in rows:
            data = self._read(start, size) if whole is None else whole[start - begin : start - begin + size]
            sample[f".{field}"] = io.BytesIO(unwrapped(data) if wrapped else data)
        sample["__key__"] = self._members.key(number)
        return sample

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[number] for number in range(len(self)))

    def close(self) -> None:
        """Close the file; no sample can be had any more."""
        for file in (getattr(self, "reader", None), self.stream):
            if file is not None:
                file.close()

    def __repr__(self) -> str:
        return f"<IndexedTarSamples-{id(self)} {self.path}>"

    def _read(self, start: int, size: int) -> bytes:
        data = read_at(self.reader, start, size, self._lock)
        if len(data) < size:
            raise TruncatedError(
                f"{len(data)} of {size} bytes: the file has become shorter since it was opened",
                url=self.path,
                offset=start,
            )
        return data


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
        self.lru = LRUCache(lru_size, lambda url, shard: shard.close())  # no cycle: files close when we go
        self._lock = threading.RLock()
        self.reset_stats()

    def reset_stats(self) -> None:
        """Count from 0 again."""
        self.accesses = 0
        self.misses = 0
        self.last_missed = False

    def __len__(self) -> int:
        return len(self.lru)

    def release_handler(self, key: str, value: IndexedTarSamples) -> None:
        """Called with a shard that is let go."""
        value.close()

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
                shard = self._opened(url, md5sum, expected_size, nsamples)
                self.lru[url] = shard
            return shard

    def _opened(self, url: str, md5sum: str | None, size: int | None, nsamples: int | None) -> IndexedTarSamples:
        stream = self.copies.open(url, md5sum, size)
        try:
            shard = IndexedTarSamples(path=stream.name, stream=stream, expected_size=size)
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
        self.__init__(state["lru_size"], localname=state["localname"], copies=state["copies"])  # type: ignore[misc]
