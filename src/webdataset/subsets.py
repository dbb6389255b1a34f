"""What indexes and tables tell of the samples of a shard -> which of them are chosen. No sample is read.

A condition is asked once for a shard, with whole columns, as numpy does it; where it cannot deal with those, once for
each sample. A part of a split depends on the key of a sample alone, and is the same everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import NotFoundError, WebDatasetError
from .sampleindex import Members

Condition = Callable[[Mapping[str, Any]], Any]

PLAIN_COLUMNS = ("__key__", "__url__", "__fields__")


class Table(Protocol):
    """Further columns, as `img2dataset.KeyedTable` has them."""

    columns: tuple[str, ...]

    def column(self, name: str, keys: list[str]) -> NDArray[Any]:
        """The values for these keys."""
        raise NotImplementedError


class Columns(Mapping[str, NDArray[Any]]):
    """Columns of a shard, one value a sample.

    `__key__`, `__url__`, `__fields__` (names of fields, in order), `jpg.size` for any field (bytes; NaN where a sample
    lacks it), and the columns of the table beside the shard, which is opened for the first of them.

    Args:
        url: of the shard.
        members: what its index tells.
        open_table: opens the table.
    """

    def __init__(self, url: str, members: Members, open_table: Callable[[str], Table]) -> None:
        self._url = url
        self._members = members
        self._keys = members.all_keys()
        self._open_table = open_table
        self._table: Table | None = None
        self._known: dict[str, NDArray[Any]] = {}

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return len(self._keys)

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._known:
            self._known[name] = self._column(name)
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        return any(name == there for there in self)

    def __iter__(self) -> Iterator[str]:
        yield from PLAIN_COLUMNS
        yield from (f"{field}.size" for field in self._members.fields)
        yield from self._opened().columns

    def __len__(self) -> int:
        return len(list(self))

    def _column(self, name: str) -> NDArray[Any]:
        if name == "__key__":
            return np.array([*self._keys, None], object)[:-1]
        if name == "__url__":
            return np.array([self._url] * self.samples + [None], object)[:-1]
        if name == "__fields__":
            return self._field_names()
        field, dot, what = name.rpartition(".")
        if dot and what == "size":
            return self._sizes(field)
        try:
            table = self._opened()
        except NotFoundError as exn:
            known = ", ".join([*PLAIN_COLUMNS, *(f"{field}.size" for field in self._members.fields)])
            fact = f"{exn.message}, so there is no column {name!r}, only {known}; values of fields are read by ds[i]"
            raise NotFoundError(fact, url=exn.url) from exn
        return table.column(name, self._keys)

    def _opened(self) -> Table:
        if self._table is None:
            self._table = self._open_table(self._url)
        return self._table

    def _sizes(self, field: str) -> NDArray[Any]:
        members = self._members
        rows = np.flatnonzero(members.codes == (members.fields.index(field) if field in members.fields else -1))
        samples = np.searchsorted(members.first, rows, side="right") - 1
        if len(np.unique(samples)) == self.samples:
            sizes = np.zeros(self.samples, np.int64)
        else:
            sizes = np.full(self.samples, np.nan)
        sizes[samples] = members.sizes[rows]
        return sizes

    def _field_names(self) -> NDArray[Any]:
        members = self._members
        names = [members.fields[code] for code in members.codes.tolist()]
        first = members.first.tolist()
        found = np.empty(self.samples, object)
        for i in range(self.samples):
            found[i] = tuple(names[first[i] : first[i + 1]])
        return found.view(_Tuples)


class _Tuples(np.ndarray[Any, Any]):
    """A column of tuples, each compared with a tuple as a whole; numpy would take that for a column, too."""

    def __eq__(self, other: object) -> Any:
        return _each_equal(self, other) if isinstance(other, (tuple, list)) else super().__eq__(other)

    def __ne__(self, other: object) -> Any:
        return ~_each_equal(self, other) if isinstance(other, (tuple, list)) else super().__ne__(other)


def _each_equal(column: NDArray[Any], other: object) -> NDArray[np.bool_]:
    return np.fromiter((value == other for value in column.tolist()), bool, len(column))


class _Row(Mapping[str, Any]):
    """One sample of columns."""

    def __init__(self, columns: Columns, i: int) -> None:
        self._columns, self._i = columns, i

    def __getitem__(self, name: str) -> Any:
        value = self._columns[name][self._i]
        return value.item() if isinstance(value, np.generic) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def chosen(columns: Columns, condition: Condition) -> NDArray[np.bool_]:
    """For each sample, whether the condition is true.

    Raises:
        DataError: what it asks for is not there.
    """
    found: Any = None
    try:
        found = condition(columns)
    except (WebDatasetError, ImportError):
        raise
    except Exception:  # it is not one for whole columns; what is wrong with it shows sample by sample
        found = None
    if isinstance(found, np.ndarray) and found.shape == (columns.samples,):
        return found.astype(bool)
    each = (bool(condition(_Row(columns, i))) for i in range(columns.samples))
    return np.fromiter(each, bool, columns.samples)


def places_of(keys: list[str], salt: str) -> NDArray[np.float64]:
    """A number from 0 to 1 (exclusive) for each key, the same everywhere."""
    return np.fromiter((_place_of(key, salt) for key in keys), np.float64, len(keys))


def _place_of(key: str, salt: str) -> float:
    digest = hashlib.sha256(f"{salt}/{key}".encode("utf-8", "surrogateescape")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / (1 << 53)


def parts_of(places: NDArray[np.float64], shares: Mapping[str, float]) -> NDArray[np.int64]:
    """The number of the part that each place is in; that many as there are shares where it is in none."""
    ends = np.minimum(np.cumsum(list(shares.values())), 1)
    ends[np.isclose(ends, 1)] = 1
    return np.searchsorted(ends, places, side="right")
