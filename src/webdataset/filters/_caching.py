"""Stages that remember: the first pass reads, later passes replay."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

from .._arguments import a, check_number, check_path, checked
from .._closing import close_source
from .._optional import require
from .._stage import PipelineStage
from ..security import refuse_if_secure


class Cached(PipelineStage):
    """Keep all samples in memory once a pass has come to its end; later passes do not touch the source.

    Attributes:
        cached: the samples, None until a pass is complete.
    """

    def __init__(self) -> None:
        self.cached: list[Any] | None = None

    def run(self, source: Iterable[Any]) -> Iterator[Any]:
        """One pass."""
        if self.cached is not None:
            yield from self.cached
            return
        data = iter(source)
        samples = []
        try:
            for sample in data:
                samples.append(sample)
                yield sample
        finally:
            close_source(data)
        self.cached = samples


class LMDBCached(PipelineStage):
    """Keep all samples in an lmdb data base; once a pass has come to its end, later ones, in any process, replay it.

    Samples come back in the order of their keys: `__key__`, or the number of the sample where there is
    none. A key that comes twice in a pass keeps both samples. The data base is pickled data, so it must
    be one that this program, or one that it trusts, has written; the security switch refuses it.

    Args:
        fname: folder of the data base.
        map_size: bytes that it may grow to.
        pickler: has `dumps` and `loads`.
        chunksize: samples that are written at a time.
    """

    @checked(
        "LMDBCached",
        fname=check_path,
        map_size=a(check_number, "bytes", more_than=0),
        chunksize=a(check_number, "samples", whole=True, least=1),
    )
    def __init__(self, fname: Any, map_size: float = 1e12, pickler: Any = pickle, chunksize: int = 500) -> None:
        self.fname = os.fspath(fname)
        self.map_size = int(map_size)
        self.pickler = pickler
        self.chunksize = chunksize
        self._db: Any = None
        self._pid = 0

    @property
    def db(self) -> Any:
        """The open data base; each process opens its own."""
        if self._db is None or self._pid != os.getpid():
            lmdb = require("lmdb", "lmdb", "LMDBCached")
            self._db, self._pid = lmdb.open(self.fname, map_size=self.map_size, readahead=False), os.getpid()
        return self._db

    def is_complete(self) -> bool:
        """Whether a pass has come to its end, so that passes replay."""
        with self.db.begin() as txn:
            return txn.get(_COMPLETE) is not None

    def add_samples(self, samples: Iterable[tuple[bytes, Any]]) -> None:
        """Write pairs of key and sample, all or none."""
        with self.db.begin(write=True) as txn:
            for key, sample in samples:
                txn.put(key, self.pickler.dumps(sample))

    def run(self, source: Iterable[Any]) -> Iterator[Any]:
        """One pass: what is in the data base when it is complete, else the source."""
        refuse_if_secure(
            f"LMDBCached: {self.fname!r} holds pickles, which are not loaded while enforce_security is set"
        )
        if self.is_complete():
            with self.db.begin() as txn:
                for key, value in txn.cursor():
                    if key != _COMPLETE:
                        yield self.pickler.loads(value)
            return
        data = iter(source)
        chunk: list[tuple[bytes, Any]] = []
        seen: dict[str, int] = {}
        try:
            for i, sample in enumerate(data):
                chunk.append((_database_key(sample, i, seen), sample))
                if len(chunk) >= self.chunksize:
                    self.add_samples(chunk)
                    chunk = []
                yield sample
        finally:
            close_source(data)
            self.add_samples(chunk)
        with self.db.begin(write=True) as txn:
            txn.put(_COMPLETE, b"1")

    def close(self) -> None:
        """Close the data base; the next pass opens it again."""
        db, self._db = self._db, None
        if db is not None and self._pid == os.getpid():
            db.close()

    def __getstate__(self) -> dict[str, Any]:
        pickler = self.pickler.__name__ if isinstance(self.pickler, ModuleType) else self.pickler
        return {**self.__dict__, "_db": None, "pickler": pickler}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self.pickler, str):  # modules do not pickle
            self.pickler = import_module(self.pickler)


_COMPLETE = b"_"
_LONGEST_KEY = 400  # lmdb takes 511 bytes


def _database_key(sample: Any, i: int, seen: dict[str, int]) -> bytes:
    """The key, made different from those before it in the pass, from the mark of completeness, and short enough."""
    text = str(sample["__key__"]) if isinstance(sample, dict) and "__key__" in sample else str(i)
    count = seen[text] = seen.get(text, -1) + 1
    key = text.encode("utf-8", "surrogateescape")
    if len(key) > _LONGEST_KEY:
        from hashlib import sha256

        key = key[: _LONGEST_KEY - 64] + sha256(key).hexdigest().encode()
    return key if count == 0 and key not in (b"", _COMPLETE) else key + b"\0%d" % count
