"""Old home (releases 0.1.54 to 0.1.103) of `DBCache`: samples kept in an SQLite file; see also `filters.LMDBCached`.

Samples are pickled, so the file must be one that this program, or one that it trusts, has written; the security
switch refuses it. Each pass has a connection of its own. Workers of a DataLoader need a file each.
"""

from __future__ import annotations

import os
import pickle
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import Any, Self

from ._arguments import a, check_flag, check_number, check_path, checked
from ._closing import closing_source
from ._torchdata import TorchIterable
from .order.seeds import epoch_random
from .security import refuse_if_secure
from .workers import resolve_seed

CHUNK = 500
"""So many samples are stored at a time."""

_TABLE = "CREATE TABLE IF NOT EXISTS samples (number INTEGER PRIMARY KEY, sample BLOB NOT NULL)"


def get_uuid(data: str | bytes) -> str:
    """A UUID of version 3 that depends on all of the data."""
    import uuid

    text = data if isinstance(data, str) else data.decode("latin-1")
    return str(uuid.uuid3(uuid.NAMESPACE_URL, text))


class DBCache(TorchIterable):
    """The first `size` samples of a source, kept in an SQLite file; what is in the file is not read again.

    Args:
        dbname: the file, made where there is none.
        size: samples to keep; `len()` says so.
        source: a data set; without one, what is in the file is all.
        shuffle: give the samples of the file in an order that is another one in each pass, by WDS_SEED or 0.
        verbose: ignored; kept for old callers.

    Raises ValueError when there is neither a source nor a sample.
    """

    @checked(
        "DBCache",
        dbname=check_path,
        size=a(check_number, "samples", whole=True, least=1),
        shuffle=check_flag,
    )
    def __init__(
        self,
        dbname: str | os.PathLike[str],
        size: int,
        source: Iterable[Any] | None = None,
        shuffle: bool = False,
        verbose: bool = True,
    ) -> None:
        self.dbname = os.fspath(dbname)
        self.size = size
        self.source = source
        self.shuffle = shuffle
        self._epoch = 0

    def __call__(self, source: Iterable[Any]) -> Self:
        """The same, with this source: as a stage."""
        self.source = source
        return self

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Any]:
        refuse_if_secure(f"DBCache: {self.dbname!r} holds pickles, which are not loaded while enforce_security is set")
        with closing(sqlite3.connect(self.dbname)) as database:
            with database:
                database.execute(_TABLE)
            numbers = [number for (number,) in database.execute("SELECT number FROM samples ORDER BY number")]
            if not numbers and self.source is None:
                raise ValueError(f"DBCache: {self.dbname!r} holds no sample, and there is no source")
            epoch, self._epoch = self._epoch, self._epoch + 1
            if self.shuffle:
                epoch_random(resolve_seed(None), epoch).shuffle(numbers)
            for number in numbers:
                [[data]] = database.execute("SELECT sample FROM samples WHERE number = ?", (number,))
                yield pickle.loads(data)  # noqa: S301  the program's own file, behind the switch
            if len(numbers) < self.size and self.source is not None:
                yield from self._stored(database, len(numbers))

    def _stored(self, database: sqlite3.Connection, count: int) -> Iterator[Any]:
        """The samples of the source behind the first `count`, stored as they come."""
        samples = iter(self.source or ())
        with closing_source(samples):
            chunk: list[tuple[int, bytes]] = []
            try:
                for number, sample in enumerate(islice(samples, count, self.size), count):
                    chunk.append((number, pickle.dumps(sample)))
                    if len(chunk) == CHUNK:
                        _store(database, chunk)
                        chunk = []
                    yield sample
            finally:
                _store(database, chunk)


def _store(database: sqlite3.Connection, chunk: list[tuple[int, bytes]]) -> None:
    with database:
        database.executemany("INSERT OR IGNORE INTO samples VALUES (?, ?)", chunk)


__all__ = ["DBCache", "get_uuid"]
