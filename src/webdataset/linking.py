"""The stages of a pipeline -> what runs in a pass: reading in one stage, and each linked to the stream before it.

Rule for an editor: what runs gives the samples that the stages give one by one. A stage that was edited, or has
an option that is not named here, is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import filters
from ._empty import CheckEmpty
from ._stage import FilterFunction
from .cborsiterators import cbors2_samples, cbors_samples
from .msgpackiterators import msgpack_samples
from .policy import StageHandler
from .recordstreams import READERS
from .tariterators import expand_and_group, group_by_keys, tar_file_expander, tarfile_samples, url_opener

READING = (
    *(url_opener, tar_file_expander, group_by_keys, expand_and_group, tarfile_samples),
    *(cbors_samples, cbors2_samples, msgpack_samples),
)
"""Stages that make many items of one."""

EACH = (
    filters._associate,
    filters._decode,
    filters._extract_keys,
    filters._map,
    filters._map_dict,
    filters._map_tuple,
    filters._rename,
    filters._rename_keys,
    filters._select,
    filters._to_tuple,
    filters._xdecode,
)
"""Functions of stages that make at most one thing of each sample, by itself."""


def is_each(stage: Any) -> bool:
    """Whether a stage makes at most one thing of each sample, by itself."""
    return type(stage) is FilterFunction and any(stage.f is one for one in EACH)


def linked(invoke: Callable[..., Any], stage: Any, handlers: list[StageHandler], *data: Any) -> Any:
    """What one more stage makes of the stream, or of nothing if it is the source; its handlers count."""
    counts_input = data and isinstance(stage, FilterFunction) and stage.f not in READING
    for handler in handlers if counts_input else ():
        handler.counts_input = True
        data = (handler.counted(*data),)
    result = invoke(stage, *data)
    for handler in () if counts_input else handlers:
        result = handler.counted(result)
    return result


def endless_reading(stages: list[Any]) -> tuple[int, int, float]:
    """The first and the last stage between shards that come without end and their samples; (-1, -1, 0): there is none.

    The last is the last one of which is known how many samples it keeps back at most; their sum is the third.
    """
    endless, begin, end, spare = False, -1, -1, 0.0
    for i, stage in enumerate(stages):
        f = getattr(stage, "f", stage)
        reads = i > 0 and (any(f is one for one in READING) or bool(getattr(stage, "reading", None)))
        plain = reads or is_each(stage) or isinstance(stage, CheckEmpty) or f is filters._require_fields
        keeps: float | None = getattr(stage, "kept_back", 0 if plain else None)
        if reads and begin < 0:
            begin = i
        if begin >= 0:
            if keeps is None:
                break
            end, spare = i, spare + keeps
        endless = endless or getattr(stage, "endless", False) is True
    return (begin, end, spare) if endless else (-1, -1, 0)


def fuse_stages(stages: list[Any]) -> list[Any]:
    """The same stages, each unedited expander and grouper side by side in one, which reads streams of records too."""
    fused: list[Any] = []
    for stage in stages:
        previous = fused[-1] if fused else None
        if (
            _is_plain(stage, group_by_keys, {"handler", "torn", "keys", "lcase"})
            and previous is not None
            and _is_plain(previous, tar_file_expander, {"handler", "ignore_zeros"})
        ):
            options = dict(previous.kw)
            if "handler" in stage.kw:
                options["group_handler"] = stage.kw["handler"]
            options.update((name, value) for name, value in stage.kw.items() if name != "handler")
            fused[-1] = FilterFunction(expand_and_group, **options, readers=READERS)
        else:
            fused.append(stage)
    return fused


def _is_plain(stage: Any, f: Callable[..., Any], options: set[str]) -> bool:
    return type(stage) is FilterFunction and stage.f is f and not stage.args and stage.kw.keys() <= options
