"""What a stage is: a callable from an iterable to an iterator, plain, curried, or a PipelineStage.

`pipelinefilter` turns a generator function `_name(data, ...)` into the curried `name(...)` whose
result is a stage that prints its arguments and pickles. Stages that need to know the epoch have a
method `start`, which the pipeline calls before each pass.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Concatenate, Generic, ParamSpec, Self, overload

from ._arguments import check_names
from ._closing import close_source

P = ParamSpec("P")


class PipelineStage:
    """Base for stages that are objects; the pipeline calls `run` with the source."""

    def run(self, src: Any, /) -> Iterator[Any]:
        """Iterate over what becomes of the source; subclasses write this (or the older `invoke`)."""
        return self.invoke(src)

    def invoke(self, *args: Any, **kw: Any) -> Iterator[Any]:
        """Older name of `run`."""
        raise NotImplementedError(f"{type(self).__name__} must define run(src)")


def single_stages(stages: Iterable[Any]) -> Iterator[Any]:
    """The stages; in place of those that hold others, in their attribute `inner_stages`, what they hold."""
    for stage in stages:
        yield from getattr(stage, "inner_stages", (stage,))


class FilterFunction:
    """A stage function with its arguments: call it with an iterable and it iterates."""

    def __init__(self, f: Callable[..., Iterator[Any]], *args: Any, **kw: Any) -> None:
        self._set(f, args, kw)

    @classmethod
    def of(cls, f: Callable[..., Iterator[Any]], args: tuple[Any, ...], kw: dict[str, Any]) -> Self:
        """The same, for arguments of any name (`f` is one of `map`)."""
        stage = cls.__new__(cls)
        stage._set(f, args, kw)
        return stage

    def _set(self, f: Callable[..., Iterator[Any]], args: tuple[Any, ...], kw: dict[str, Any]) -> None:
        self.f = f
        self.args = args
        self.kw = kw

    def __call__(self, data: Iterable[Any]) -> Iterator[Any]:
        return self.f(data, *self.args, **self.kw)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "f": _picklable(self.f)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        f = state["f"]
        self.__dict__.update(state, f=f.f if isinstance(f, RestCurried) else f)

    def __str__(self) -> str:
        name = getattr(self.f, "__name__", repr(self.f))
        return f"<{name} {self.args} {self.kw}>"

    __repr__ = __str__


class RestCurried(Generic[P]):
    """A stage function whose first argument, the data, comes later."""

    def __init__(
        self,
        f: Callable[Concatenate[Any, P], Iterator[Any]],
        stage: type[FilterFunction] = FilterFunction,
        trial: bool = False,
    ) -> None:
        """`trial`: call `f` without data when a stage is made, so that what it says of its arguments is said then."""
        self.f = f
        self.stage = stage
        self.trial = trial
        functools.update_wrapper(self, f)

    def __call__(self, /, *args: P.args, **kw: P.kwargs) -> FilterFunction:
        self._check(args, kw)
        stage = self.stage.of(self.f, args, kw)
        if self.trial:
            close_source(stage.f((), *stage.args, **stage.kw))
        return stage

    def _check(self, args: tuple[Any, ...], kw: dict[str, Any]) -> None:
        try:
            signature = inspect.signature(self.f)
        except (TypeError, ValueError):  # some builtins have none
            return
        name = getattr(self.f, "__name__", repr(self.f)).strip("_")
        check_names(name, kw, signature, {})
        try:
            signature.bind((), *args, **kw)
        except TypeError as exn:
            raise TypeError(f"{name}: {exn}; it takes {_shown_arguments(signature)}") from None
        check = getattr(self.f, "check_arguments", None)  # of functions that `checked` decorates
        if check is not None:
            check(((), *args), kw)

    def __reduce__(self) -> str | tuple[Any, ...]:
        if _picklable(self.f) is self:
            return str(self.f.__qualname__)
        return (RestCurried, (self.f, self.stage, self.trial))


def _picklable(f: Any) -> Any:
    """The function; or, where `pipelinefilter` decorated it and so took its name, what has the name now."""
    named = getattr(sys.modules.get(getattr(f, "__module__", "")), getattr(f, "__qualname__", ""), None)
    return named if isinstance(named, RestCurried) and named.f is f else f


def public_name(curried: RestCurried[Any]) -> str:
    """What programs call a curried stage."""
    module = sys.modules.get(curried.f.__module__)
    names = [name for name, value in vars(module).items() if value is curried] if module is not None else []
    return names[0] if names else curried.f.__name__.lstrip("_")


def _shown_arguments(signature: inspect.Signature) -> str:
    _, *names = signature.parameters
    return ", ".join(names) or "no arguments"


# The second one is for functions with **kw: a keyword might be called as their first parameter, says mypy.
@overload
def pipelinefilter(f: Callable[Concatenate[Any, P], Iterator[Any]]) -> RestCurried[P]: ...
@overload
def pipelinefilter(f: Callable[..., Iterator[Any]]) -> RestCurried[...]: ...  # type: ignore[overload-cannot-match]  # see above
def pipelinefilter(f: Callable[..., Iterator[Any]]) -> RestCurried[...]:
    """Curry `f(data, *args, **kw)`: the result called with args and kw is a picklable stage."""
    return RestCurried(f)


def checkedfilter(
    f: Callable[Concatenate[Any, P], Iterator[Any]], stage: type[FilterFunction] = FilterFunction
) -> RestCurried[P]:
    """As `pipelinefilter`, for functions that check their arguments when they are called, before they read."""
    return RestCurried(f, stage, trial=True)
