"""ErrorPolicy, a handler with a budget: skips what is wrong in the data, counts it, lists it, stops when it is much.

A pass of a pipeline has one `PolicyPass` for each policy in it. Each stage of the pass gets a handler of its
own, which knows how many items came out of that stage: so success costs one addition for each item,
and runs of errors are told apart by stage. Each process counts for itself.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from copy import copy
from threading import Lock
from typing import Any

from ._closing import close_source
from ._logfile import append_line
from ._stage import FilterFunction
from .errors import ErrorBudgetError, public_url
from .places import place_of, reader_name

logger = logging.getLogger(__name__)

PROGRAMMING_ERRORS: tuple[type[Exception], ...] = (NameError, AttributeError, TypeError, ImportError)
"""What a mistake in the program raises, rather than wrong data."""

CHANCE = 5
"""Standard deviations above the allowed share that a stream may have for a while without having more errors."""

ErrorTypes = type[Exception] | tuple[type[Exception], ...]


class ErrorPolicy:
    """A handler for any stage: skips wrong items as long as they are few, and never in silence.

        policy = wds.ErrorPolicy(max_fraction=0.01, max_run=100, log="skipped.jsonl")
        ds = wds.WebDataset(urls, handler=policy).decode("rgb", handler=policy)

    At the end of each pass in which something was skipped, one line is logged: how many, of how many,
    and what they were. Every reader (rank and DataLoader worker) counts, judges and reports for
    itself. A shard that cannot be opened or read on counts as one item, however many samples it had.

    Outside a pipeline nobody counts what went well; programs that call stages themselves tell with `count`.

    Args:
        max_fraction: skipped items may be this share of all items of a pass, 0 to 1. When they are more, and so many
            more that it is no chance, ErrorBudgetError is raised: of 1000 items 1 % allows 25, of 100,000 it allows
            1158 (five standard deviations).
        max_run: so many errors in a row in one stage are allowed; one more raises ErrorBudgetError.
        skip: exceptions that may be skipped; others are raised.
        never_skip: exceptions that are raised all the same, by default those that mistakes in the program raise:
            NameError, AttributeError, TypeError, ImportError. `()` skips these too.
        log: file to which a line of JSON is appended for each item that is skipped: time, error, message and place.
        after: `max_fraction` is a share of at least this many items, however few there were.
        remember: length of the list `skipped`.

    Attributes:
        skipped: the first `remember` items that this process skipped, dicts as in the log.
        counts: how many items this process skipped, by kind of error and stage.
    """

    def __init__(
        self,
        max_fraction: float = 0.01,
        max_run: int = 100,
        *,
        skip: ErrorTypes = Exception,
        never_skip: ErrorTypes = PROGRAMMING_ERRORS,
        log: str | os.PathLike[str] | None = None,
        after: int = 100,
        remember: int = 1000,
    ) -> None:
        if isinstance(max_fraction, bool) or not isinstance(max_fraction, (int, float)) or not 0 <= max_fraction <= 1:
            raise ValueError(f"ErrorPolicy: max_fraction must be a share from 0 to 1, got {max_fraction!r}")
        for name, number in (("max_run", max_run), ("after", after), ("remember", remember)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 0:
                raise ValueError(f"ErrorPolicy: {name} must be a number of items, 0 or more, got {number!r}")
        if log is not None and not isinstance(log, (str, os.PathLike)):
            raise TypeError(f"ErrorPolicy: log must be a path or None, got {log!r}")
        self.max_fraction = max_fraction
        self.max_run = max_run
        self.skip = _error_types("skip", skip)
        self.never_skip = _error_types("never_skip", never_skip)
        self.log = None if log is None else os.fspath(log)
        self.after = after
        self.remember = remember
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self.skipped: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self._current = PolicyPass(self)

    def __call__(self, exn: Exception) -> bool:
        """True, to skip the item; or raises, the exception itself or ErrorBudgetError."""
        return self._current.handler(exn)

    def count(self, n: int = 1) -> None:
        """Tell that `n` items went well, in a program that does not run a pipeline."""
        self._current.handler.done += n

    def begin(self) -> PolicyPass:
        """Begin to count a pass; what is not called through a stage counts there too, until the next one begins."""
        if self._process != os.getpid():  # a fork counts for itself
            self._forget()
        self._current = PolicyPass(self)
        return self._current

    def allowed(self, seen: int) -> int:
        """So many of `seen` items may be skipped."""
        expected = self.max_fraction * max(seen, self.after)
        return int(expected + CHANCE * math.sqrt(expected))

    def may_skip(self, exn: Exception) -> bool:
        """Whether this exception says that the data is wrong, not the program."""
        if not isinstance(exn, self.skip) or isinstance(exn, self.never_skip):
            return False
        # Wrong bytes make decoders raise TypeError and AttributeError too; a missing name or module they cannot make.
        cause = exn.__cause__
        return not (isinstance(cause, (NameError, ImportError)) and isinstance(cause, self.never_skip))

    def _remember(self, exn: Exception) -> None:
        place = place_of(exn)
        stage = place.get("stage")
        self.counts[_kind(exn)] += 1
        if "url" in place:
            place = {**place, "url": public_url(str(place["url"]))}
        record = {"error": type(exn).__name__, "message": str(exn), **place, "stage": stage, "worker": reader_name()}
        if len(self.skipped) < self.remember:
            self.skipped.append(record)
        if self.log is not None:
            append_line(self.log, json.dumps({"time": round(time.time(), 3), **record}, default=str) + "\n")

    def __getstate__(self) -> dict[str, Any]:
        hidden = ("skipped", "counts", "_current", "_process")
        return {name: value for name, value in self.__dict__.items() if name not in hidden}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def __repr__(self) -> str:
        return f"ErrorPolicy(max_fraction={self.max_fraction}, max_run={self.max_run}, log={self.log!r})"


class PolicyPass:
    """One pass of a pipeline under one policy: its counts."""

    def __init__(self, policy: ErrorPolicy) -> None:
        self.policy = policy
        self.kinds: Counter[str] = Counter()
        self.lock = Lock()  # several threads may call the handler of a stage
        self._handlers: list[StageHandler] = []
        self.handler = self.stage_handler()

    def stage_handler(self) -> StageHandler:
        """A handler for one stage of the pass."""
        handler = StageHandler(self)
        self._handlers.append(handler)
        return handler

    @property
    def seen(self) -> int:
        """Items so far. What a stage gave holds what later stages skipped, and lacks what earlier ones did."""
        skipped = seen = 0
        for handler in self._handlers:
            skipped += handler.skipped
            seen = max(seen, handler.done + skipped)
        return seen

    def spend(self, exn: Exception, run: int) -> None:
        """Skip one more item, the `run`-th in a row, or raise ErrorBudgetError."""
        policy = self.policy
        self.kinds[_kind(exn)] += 1
        policy._remember(exn)
        allowed = None
        if run > policy.max_run:
            allowed = f"{run} errors in a row; max_run={policy.max_run} allows no more"
        elif self.kinds.total() > (most := policy.allowed(self.seen)):
            allowed = f"max_fraction={policy.max_fraction} allows {most} so far"
        if allowed is not None:
            raise ErrorBudgetError(f"{self}; {allowed}. The last one: {type(exn).__name__}: {exn}") from exn

    def end(self, epoch: int) -> None:
        """The pass is over: report what was skipped, if anything was."""
        if self.kinds:
            where = f"; listed in {self.policy.log}" if self.policy.log is not None else ""
            logger.warning("epoch %d: %s%s", epoch, self, where)

    def __str__(self) -> str:
        reader = reader_name()
        skipped, seen = self.kinds.total(), self.seen
        share = 100 * skipped / seen
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds.most_common())
        return (
            f"{'' if reader is None else f'reader {reader} '}skipped {skipped} of {seen} items"
            f" ({share:.{2 if share < 99.5 else 3}g} %): {kinds}"
        )


class StageHandler:
    """The handler that one stage of a pass calls.

    Attributes:
        done: items that the stage dealt with and did not skip: those that went in where a stage may drop
            some on purpose, those that came out where it makes many of one, as reading does.
        skipped: items that it skipped.
        counts_input: whether `counted` goes around what the stage reads, not what it gives.
    """

    def __init__(self, in_pass: PolicyPass) -> None:
        self._pass = in_pass
        self.done = 0
        self.skipped = 0
        self.counts_input = False
        self._done_before = -1
        self._run = 0

    def __call__(self, exn: Exception) -> bool:
        if not self._pass.policy.may_skip(exn):
            raise exn
        with self._pass.lock:
            return self._skip(exn)

    def _skip(self, exn: Exception) -> bool:
        if self.counts_input:
            self.done -= 1
        self._run = self._run + 1 if self.done == self._done_before else 1
        self._done_before = self.done
        self.skipped += 1
        self._pass.spend(exn, self._run)
        return True

    def counted(self, items: Iterable[Any]) -> Iterator[Any]:
        """The same items, counted."""
        try:
            for item in items:
                self.done += 1
                yield item
        finally:
            close_source(items)


class PassPolicies:
    """The policies of one pass of a pipeline; false where there are none."""

    def __init__(self) -> None:
        self._passes: dict[int, PolicyPass] = {}

    def __bool__(self) -> bool:
        return bool(self._passes)

    def bind(self, stage: Any) -> tuple[Any, list[StageHandler]]:
        """The stage with handlers of this pass in place of its policies, and these handlers.

        Stages that hold stages, and count for them, have a method `bind_policies(bind)`.
        """
        if hasattr(stage, "bind_policies"):
            return stage.bind_policies(self.bind), []
        if not isinstance(stage, FilterFunction):
            policy = getattr(stage, "handler", None)
            if not isinstance(policy, ErrorPolicy):
                return stage, []
            stage = copy(stage)
            stage.handler = handler = self._of(policy).stage_handler()
            return stage, [handler]
        handlers = {
            id(value): self._of(value).stage_handler()
            for value in (*stage.args, *stage.kw.values())
            if isinstance(value, ErrorPolicy)
        }
        if handlers:
            stage = copy(stage)
            stage.args = tuple(handlers.get(id(value), value) for value in stage.args)
            stage.kw = {name: handlers.get(id(value), value) for name, value in stage.kw.items()}
        return stage, list(handlers.values())

    def _of(self, policy: ErrorPolicy) -> PolicyPass:
        if id(policy) not in self._passes:
            self._passes[id(policy)] = policy.begin()
        return self._passes[id(policy)]

    def end(self, epoch: int) -> None:
        """The pass is over."""
        for one in self._passes.values():
            one.end(epoch)


def _kind(exn: Exception) -> str:
    stage = place_of(exn).get("stage")
    return type(exn).__name__ + (f" in {stage}" if stage else "")


def _error_types(name: str, types: Any) -> tuple[type[Exception], ...]:
    classes: tuple[type[Exception], ...] = types if isinstance(types, tuple) else (types,)
    for one in classes:
        if not (isinstance(one, type) and issubclass(one, Exception)):
            raise TypeError(f"ErrorPolicy: {name} must be an exception class, or a tuple of them, got {one!r}")
    return classes
