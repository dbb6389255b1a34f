"""Helpers that programs import from here by name; each does one small thing.

`enforce_security` may be assigned: True or False decide for the process (see `webdataset.security`);
as long as nobody did, it is what the environment says.
"""

from __future__ import annotations

import ast
import fnmatch
import functools
import glob
import importlib
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from ._arguments import a, check_items, check_number, check_text, checked
from ._closing import close_source
from ._environment import switch_of
from ._stage import PipelineStage
from .braces import braceexpand
from .filters import identity
from .security import security_enforced
from .shardlists import make_seed
from .workers import reader_info

enforce_security: bool


def __getattr__(name: str) -> Any:
    if name == "enforce_security":
        return security_enforced()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class ObsoleteException(Exception):
    """A function marked with `obsolete` was called."""


def pytorch_worker_info(group: Any = None) -> tuple[int, int, int, int]:
    """Rank, world size, worker, number of workers; the environment wins over torch, torch over (0, 1)."""
    info = reader_info(group)
    return info.rank, info.world_size, info.worker, info.num_workers


def pytorch_worker_seed(group: Any = None) -> int:
    """A number for each reader: 1000 times the rank, plus the worker."""
    info = reader_info(group)
    return info.rank * 1000 + info.worker


def is_iterable(obj: Any) -> bool:
    """Whether this can be iterated over and is not text or bytes."""
    return isinstance(obj, Iterable) and not isinstance(obj, (str, bytes))


@checked("safe_eval", s=check_text, expr=check_text)
def safe_eval(s: str, expr: str = "{}") -> Any:
    """The value of a literal made of letters, digits and underscores: a number, True, False or None.

    `expr` is a format string around it, `"[{}, 0]"`, and must be a literal as a whole. Nothing runs.

    Raises:
        ValueError: it is something else.
    """
    if not re.fullmatch(r"[A-Za-z0-9_]+", s, re.ASCII):
        raise ValueError(f"safe_eval: only letters, digits and underscores are allowed, got {s!r}")
    try:
        return ast.literal_eval(expr.format(s))
    except (SyntaxError, ValueError) as exn:
        raise ValueError(f"safe_eval: {expr.format(s)!r} is not a number, True, False or None") from exn


def lookup_sym(sym: str, modules: Iterable[str]) -> Any:
    """The attribute `sym` of the first of these modules (by name) that has it, or None."""
    for name in modules:
        found = getattr(importlib.import_module(name), sym, None)
        if found is not None:
            return found
    return None


@checked(
    "repeatedly0",
    loader=a(check_items, "a loader"),
    nepochs=a(check_number, "passes", whole=True),
    nbatches=a(check_number, "items", whole=True),
)
def repeatedly0(loader: Iterable[Any], nepochs: int = sys.maxsize, nbatches: int = sys.maxsize) -> Iterator[Any]:
    """The first `nbatches` items of a loader, `nepochs` times; ends when a pass gives nothing."""
    for _ in range(nepochs):
        empty = True
        source = iter(loader)
        try:
            for item in islice(source, nbatches):
                empty = False
                yield item
        finally:
            close_source(source)
        if empty:
            return


def guess_batchsize(batch: Any) -> int:
    """The number of samples in a batch: the length of its first column."""
    return len(batch[0])


@checked(
    "repeatedly",
    source=a(check_items, "a data set"),
    nepochs=a(check_number, "passes", optional=True),
    nbatches=a(check_number, "items", optional=True),
    nsamples=a(check_number, "samples", optional=True),
)
def repeatedly(
    source: Iterable[Any],
    nepochs: int | None = None,
    nbatches: int | None = None,
    nsamples: int | None = None,
    batchsize: Callable[[Any], int] | int = guess_batchsize,
) -> Iterator[Any]:
    """The items of a source, pass after pass, until a limit is reached or a pass gives nothing.

    Args:
        source: anything that can be iterated over several times.
        nepochs: passes.
        nbatches: items in all.
        nsamples: ends with the item that makes the number of samples this many or more.
        batchsize: samples in an item, or a function that says it; used with `nsamples`.
    """
    batches = samples = epoch = 0
    while nepochs is None or epoch < nepochs:
        epoch += 1
        before = batches
        data = iter(source)
        try:
            for item in data:
                if (nbatches is not None and batches >= nbatches) or (nsamples is not None and samples >= nsamples):
                    return
                yield item
                batches += 1
                if nsamples is not None:
                    samples += batchsize(item) if callable(batchsize) else batchsize
                if batches == nbatches or (nsamples is not None and samples >= nsamples):
                    return
        finally:
            close_source(data)
        if batches == before:
            return


def compute_sample_weights(n_w_pairs: Iterable[tuple[float, float]]) -> Any:
    """n * w of each pair, divided by the largest: how likely to keep samples so that sources weigh w each.

    Returns an array of float64. ValueError where no product is more than 0.
    """
    import numpy as np

    check_items("compute_sample_weights", "n_w_pairs", n_w_pairs, "pairs of a number and a weight")
    products = np.array([n * w for n, w in n_w_pairs], dtype=np.float64)
    if not products.size or not products.max() > 0:
        raise ValueError("compute_sample_weights: a number times its weight must be more than 0")
    return products / products.max()


def glob_with_braces(pattern: str) -> list[str]:
    """The paths that match a pattern with braces and `*`, `?`, `[...]`: sorted within each alternative."""
    return [path for piece in braceexpand(pattern) for path in sorted(glob.glob(piece))]


def fnmatch_with_braces(filename: str, pattern: str) -> bool:
    """Whether a name matches a pattern with braces and `*`, `?`, `[...]`."""
    return any(fnmatch.fnmatch(filename, piece) for piece in braceexpand(pattern))


def deprecated(arg: Any = None) -> Any:
    """Decorator: each call gives a DeprecationWarning. Used plain, or with the reason: `@deprecated("use g")`."""
    if callable(arg):
        return _warning(arg, None)
    return lambda func: _warning(func, arg)


def _warning(func: Callable[..., Any], reason: str | None) -> Callable[..., Any]:
    message = f"Call to deprecated function {func.__name__}." + (f" Reason: {reason}" if reason else "")

    @functools.wraps(func)
    def wrapper(*args: Any, **kw: Any) -> Any:
        warnings.warn(message, category=DeprecationWarning, stacklevel=2)
        return func(*args, **kw)

    return wrapper


def obsolete(func: Callable[..., Any] | None = None, *, reason: str | None = None) -> Any:
    """Decorator: calls raise ObsoleteException, unless ALLOW_OBSOLETE is a number other than 0.

    Nothing in this package is marked so; it is here for programs that mark functions of their own.
    """
    if func is None:
        return functools.partial(obsolete, reason=reason)
    message = f"Call to obsolete function {func.__name__}. Set env ALLOW_OBSOLETE=1 to permit."
    message += f" Reason: {reason}" if reason else ""

    @functools.wraps(func)
    def wrapper(*args: Any, **kw: Any) -> Any:
        if not switch_of("ALLOW_OBSOLETE"):
            raise ObsoleteException(message)
        return func(*args, **kw)

    return wrapper


__all__ = [
    "ObsoleteException",
    "PipelineStage",
    "compute_sample_weights",
    "deprecated",
    "enforce_security",
    "fnmatch_with_braces",
    "glob_with_braces",
    "guess_batchsize",
    "identity",
    "is_iterable",
    "lookup_sym",
    "make_seed",
    "obsolete",
    "pytorch_worker_info",
    "pytorch_worker_seed",
    "repeatedly",
    "repeatedly0",
    "safe_eval",
]
