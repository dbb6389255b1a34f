"""Samples -> batches, and back.

A batch of tuples is a list with one entry a column, a batch of dicts a dict with one entry a field.
Numbers become one array, arrays and tensors of equal shape are stacked, anything else is a list.
torch is never imported here: if a value is a tensor, the program has imported it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from operator import index
from typing import Any, overload

import numpy as np

from .._arguments import check_count, check_flag, check_function, checked
from .._closing import close_source
from .._stage import checkedfilter
from ..errors import CollationError
from ..rules import Rule, RuleList, is_rules
from ._places import add_place

Samples = Sequence[Any]


@overload
def default_collation_fn(
    samples: Sequence[dict[str, Any]], combine_tensors: bool = True, combine_scalars: bool = True
) -> dict[str, Any]: ...
@overload
def default_collation_fn(
    samples: Sequence[list[Any] | tuple[Any, ...]], combine_tensors: bool = True, combine_scalars: bool = True
) -> list[Any]: ...
def default_collation_fn(
    samples: Samples, combine_tensors: bool = True, combine_scalars: bool = True
) -> list[Any] | dict[str, Any]:
    """One batch of several samples: a list of columns for tuples and lists, a dict of columns for dicts.

    The first value of a column decides: int, float and bool give an array of shape (n,), arrays of
    shape s an array (n, *s), tensors likewise a tensor, anything else (str, bytes, None, objects) a list.
    With `combine_scalars` or `combine_tensors` false, such columns stay tuples (lists in dicts).

    Raises CollationError (a ValueError) where samples differ in length, fields or shapes.
    """
    if not samples:
        raise CollationError("no samples to make a batch of")
    first = samples[0]
    if isinstance(first, dict):
        for i, sample in enumerate(samples):
            if not isinstance(sample, dict) or sample.keys() != first.keys():
                raise _unlike(samples, i, _fields_text)
        return {field: _column(samples, field, combine_tensors, combine_scalars, list) for field in first}
    if isinstance(first, (list, tuple)):
        for i, sample in enumerate(samples):
            if not isinstance(sample, (list, tuple)) or len(sample) != len(first):
                raise _unlike(samples, i, _length_text)
        return [_column(samples, i, combine_tensors, combine_scalars, tuple) for i in range(len(first))]
    raise CollationError(
        f"a sample must be a tuple, list or dict to be collated, got {type(first).__name__}:"
        " pass collation_fn=None for lists of samples, or a function of your own"
    )


def combine_values(b: Samples, combine_tensors: bool = True, combine_scalars: bool = True) -> Any:
    """One column: an array of numbers, a stack of arrays or tensors, otherwise a list."""
    return _column([(value,) for value in b], 0, combine_tensors, combine_scalars, list)


def column_of(samples: Samples, field: Any) -> Any:
    """One column of these samples, combined as `default_collation_fn` does for dicts."""
    return _column(samples, field, True, True, list)


def _column(samples: Samples, field: Any, tensors: bool, scalars: bool, loose: Callable[[list[Any]], Any]) -> Any:
    values = [sample[field] for sample in samples]
    first = values[0]
    if isinstance(first, (int, float)):
        return np.array(values) if scalars else loose(values)
    stack: Any = None
    if isinstance(first, np.ndarray):
        stack = np.stack
    else:
        tensor = getattr(sys.modules.get("torch"), "Tensor", None)
        if tensor is not None and isinstance(first, tensor):
            stack = sys.modules["torch"].stack
    if stack is None:
        return values
    if not tensors:
        return loose(values)
    for i, value in enumerate(values):
        if getattr(value, "shape", None) != first.shape:
            raise _unlike(samples, i, lambda sample: _shape_text(sample[field]), field)
    return stack(values)


def _unlike(samples: Samples, i: int, text: Callable[[Any], str], column: Any = None) -> CollationError:
    key = samples[i].get("__key__") if isinstance(samples[i], dict) else None
    url = samples[i].get("__url__") if isinstance(samples[i], dict) else None
    where = "" if column is None else f"column {column!r}: "
    return CollationError(
        f"{where}sample {i} of the batch {text(samples[i])}, sample 0 {text(samples[0])}:"
        " make them alike, or pass a collation_fn of your own (None for plain lists)",
        key=key,
        url=url,
    )


def _shape_text(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return f"is a {type(value).__name__}" if shape is None else f"has shape {tuple(shape)}"


def _length_text(sample: Any) -> str:
    return f"has {len(sample)} values" if isinstance(sample, (list, tuple)) else f"is a {type(sample).__name__}"


def _fields_text(sample: Any) -> str:
    return f"has the fields {', '.join(sample)}" if isinstance(sample, dict) else f"is a {type(sample).__name__}"


def tuple2dict(values: Iterable[Any]) -> dict[int, Any]:
    """Position -> value."""
    return dict(enumerate(values))


def dict2tuple(d: Mapping[int, Any]) -> tuple[Any, ...]:
    """The values at positions 0, 1, 2, ..., what `tuple2dict` was made of; KeyError where one is missing."""
    return tuple(d[i] for i in range(len(d)))


@checked("batched", partial=check_flag)
def _batched(
    data: Iterable[Any],
    batchsize: int = 20,
    collation_fn: Callable[[list[Any]], Any] | Sequence[Rule] | None = default_collation_fn,
    partial: bool = True,
) -> Iterator[Any]:
    """Batches of `batchsize` samples, each as soon as it is full.

    Args:
        batchsize: samples in a batch, at least 1.
        collation_fn: makes a batch of a list of samples; None leaves the list. A list of rules makes a dict of
            columns, as `webdataset.rules.collate_by_rules` does.
        partial: the last batch comes even if it is not full; otherwise its samples are dropped.
    """
    check_count("batched", "batchsize", batchsize, 1, "samples")
    if is_rules(collation_fn):
        return _batches(data, index(batchsize), RuleList(collation_fn, "batched").of_samples, partial)
    check_function("batched", "collation_fn", collation_fn, optional=True)
    assert collation_fn is None or callable(collation_fn)
    return _batches(data, index(batchsize), collation_fn, partial)


def _batches(
    data: Iterable[Any], size: int, collation_fn: Callable[[list[Any]], Any] | None, partial: bool
) -> Iterator[Any]:
    source = iter(data)
    try:
        while True:
            samples = list(islice(source, size))
            count = len(samples)
            if count == size or (count and partial):
                batch = samples if collation_fn is None else _collated(samples, collation_fn)
                del samples  # not kept in memory besides the batch
                yield batch
                del batch
            if count < size:
                return
    finally:
        close_source(source)


def _collated(samples: list[Any], collation_fn: Callable[[list[Any]], Any]) -> Any:
    try:
        return collation_fn(samples)
    except Exception as exn:
        add_place(exn, "batched", None)
        raise


batched = checkedfilter(_batched)


def _listed(data: Iterable[Any], batchsize: int = 20, partial: bool = True) -> Iterator[Any]:
    """Lists of `batchsize` samples, not collated; the last one may be shorter, or is dropped if `partial` is false."""
    return _batched(data, batchsize, None, partial)


listed = checkedfilter(_listed)


def _unlisted(data: Iterable[Any]) -> Iterator[Any]:
    """The items of lists, one by one."""
    source = iter(data)
    try:
        for items in source:
            if not isinstance(items, list):
                raise TypeError(f"unlisted: expected lists, got {type(items).__name__}; unbatched takes batches apart")
            yield from items
    finally:
        close_source(source)


unlisted = checkedfilter(_unlisted)


def _unbatched(data: Iterable[Any]) -> Iterator[Any]:
    """The samples of batches: tuples for batches that are lists or tuples of columns, dicts for dicts.

    Raises CollationError (a ValueError) where columns are not equally long.
    """
    source = iter(data)
    try:
        for batch in source:
            count = _row_count(batch)
            if isinstance(batch, dict):
                for i in range(count):
                    yield {field: column[i] for field, column in batch.items()}
            else:
                for i in range(count):
                    yield tuple(column[i] for column in batch)
    finally:
        close_source(source)


unbatched = checkedfilter(_unbatched)


def _row_count(batch: Any) -> int:
    if isinstance(batch, dict):
        columns = batch
    elif isinstance(batch, (list, tuple)):
        columns = tuple2dict(batch)
    else:
        raise CollationError(f"expected a batch of tuples or dicts, got {type(batch).__name__}", stage="unbatched")
    lengths = {}
    for name, column in columns.items():
        if isinstance(column, Mapping) or not hasattr(column, "__len__"):
            raise CollationError(
                f"column {name!r} is a {type(column).__name__}, not a row of values", stage="unbatched"
            )
        lengths[name] = len(column)
    if len(set(lengths.values())) != 1:
        fact = ", ".join(f"{name!r} has {length}" for name, length in lengths.items()) or "there are none"
        raise CollationError(f"columns must be equally long: {fact}", stage="unbatched")
    return lengths.popitem()[1]
