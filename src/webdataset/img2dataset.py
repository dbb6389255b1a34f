"""What img2dataset left beside a shard -> how many samples it has, and columns of values by key.

Beside `00000.tar` lie `00000_stats.json`, whose `successes` are the samples that were written, and `00000.parquet`,
with a row for each image that was tried, also for those that failed. A count is believed like one in a list: the shard
is compared with it when it is opened. Rows are found by key, never by their order. Tables of others do as well, if
they have the column `key` or `__key__`.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
from collections.abc import Callable
from reprlib import repr as shown
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._optional import require
from .countedshards import CountedShard
from .errors import DataError, MissingFieldError, StaleIndexError, WrongContentError, printable, public_url
from .gopen import path_of, rewrite_url
from .indexspecs import MOST_SAMPLES
from .shardindex import beside
from .storage import local, places
from .storage.bytestream import read_small

logger = logging.getLogger(__name__)

LARGEST_STATS, LARGEST_TABLE = 1 << 24, 1 << 30
"""Bytes that such files may have."""
KEY_COLUMNS = ("__key__", "key")


def stats_name(url: str) -> str | None:
    """Where img2dataset keeps what it counted of a shard; None for urls with a query.

    >>> stats_name("a.b/00000.tar")
    'a.b/00000_stats.json'
    """
    return beside(url, lambda name: f"{_stem(name)}_stats.json")


def table_name(url: str) -> str | None:
    """Where img2dataset keeps the table of a shard; None for urls with a query.

    >>> table_name("a.b/00000.tar.gz")
    'a.b/00000.parquet'
    """
    return beside(url, lambda name: f"{_stem(name)}.parquet")


def _stem(name: str) -> str:
    return name.partition(".tar")[0] if ".tar" in name else os.path.splitext(name)[0]


def stats_count(url: str, storage_options: Any = None) -> CountedShard | None:
    """The shard with the count that lies beside it; None where there is none, or an older one."""
    name = stats_name(url)
    if name is None:
        return None
    try:
        place = rewrite_url(name)
        path, shard = local.local_path(place), path_of(url)
        if path is not None and (shard is None or os.stat(path).st_mtime_ns < os.stat(shard).st_mtime_ns):
            return None
        with contextlib.closing(places.open_read(place, storage_options)) as stream:
            data = read_small(stream, LARGEST_STATS, name)
    except WrongContentError as exn:
        logger.warning("%s; it is not used as the count of the shard", exn)
        return None
    except (OSError, DataError):
        return None
    where = public_url(name)
    try:
        count = json.loads(data)["successes"]
        if type(count) is not int or not 0 <= count <= MOST_SAMPLES:
            raise ValueError(f"successes is {shown(count):.80}")
    except (ValueError, KeyError, TypeError, RecursionError) as exn:
        logger.warning(
            "%s: not used as the count of the shard: it has no number of successes: %s", printable(where), exn
        )
        return None
    return CountedShard(url, count, f"{where}: successes")


class KeyedTable:
    """The table beside a shard.

    Args:
        url: of the shard.
        storage_options: how remote places are read.

    Attributes:
        name: path or url of the table.
        columns: names of its columns.

    Raises:
        OpenError: it cannot be had (NotFoundError: there is none).
        StaleIndexError: it is no Parquet file, or has no column with keys.
        MissingDependencyError: pyarrow is not installed.
    """

    def __init__(self, url: str, storage_options: Any = None) -> None:
        name = table_name(url)
        if name is None:
            raise StaleIndexError("a shard whose url has a query has no table beside it", url=url)
        self.name = public_url(name)
        place = rewrite_url(name)
        path = local.local_path(place)
        with contextlib.closing(places.open_read(place, storage_options)) as stream:
            self._parquet = require("pyarrow.parquet", "pyarrow", "reading tables beside shards")
            self._source: Any = path or io.BytesIO(read_small(stream, LARGEST_TABLE, name))
        self.columns = tuple(self._read(lambda: self._parquet.read_schema(self._source).names))
        found = [column for column in KEY_COLUMNS if column in self.columns]
        if not found:
            raise StaleIndexError(
                f"no column {' or '.join(KEY_COLUMNS)}, only {printable(', '.join(self.columns))}", url=self.name
            )
        self._rows = {str(key): row for row, key in reversed(list(enumerate(self._values(found[0]).tolist())))}

    def column(self, name: str, keys: list[str]) -> NDArray[Any]:
        """The values of a column for these keys; NaN, NaT or None where there is no row, or no value in it.

        Raises:
            MissingFieldError: there is no such column.
        """
        if name not in self.columns:
            raise MissingFieldError(f"no column {name!r}, only {printable(', '.join(self.columns))}", url=self.name)
        values = self._values(name)
        rows = np.array([self._rows.get(key, -1) for key in keys], np.int64)
        missing = rows < 0
        if missing.any():
            values = _with_gaps(values)
        found: NDArray[Any] = values[rows]  # row -1 is the last one: the gap
        return found

    def _values(self, name: str) -> NDArray[Any]:
        def values() -> NDArray[Any]:
            column = self._parquet.read_table(self._source, columns=[name]).column(name)
            found: NDArray[Any] = column.to_numpy()
            return found

        found: NDArray[Any] = self._read(values)
        return found

    def _read(self, read: Callable[[], Any]) -> Any:
        if not isinstance(self._source, str):
            self._source.seek(0)
        try:
            return read()
        except Exception as exn:  # pyarrow has many, some of them not even ValueErrors
            fact = printable(" ".join(str(exn).split()))
            raise StaleIndexError(f"it cannot be read as Parquet: {fact}", url=self.name) from exn


def _with_gaps(values: NDArray[Any]) -> NDArray[Any]:
    """The values, and one more that stands for none."""
    if values.dtype.kind in "iuf":
        return np.append(values.astype(np.float64), np.nan)
    if values.dtype.kind in "mM":
        return np.append(values, np.array(["NaT"], values.dtype))
    gaps = np.empty(len(values) + 1, object)
    gaps[:-1] = values
    return gaps
