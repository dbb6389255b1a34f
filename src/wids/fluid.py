"""The methods of `WebDataset` that give one sample for one: stages of `webdataset`, applied to each sample alone.

    ds.decode("rgb").to_tuple("jpg", "cls")      a new data set, map-style as before

Rules: names of fields may be written with their dot or without. Fields are bytes for these stages, with names as
`webdataset` has them, and get their dots back.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from webdataset import filters
from webdataset.errors import SampleError

Self = TypeVar("Self", bound="WithTransform")


class WithTransform(Protocol):
    """What these methods are added to."""

    dots: bool

    def with_transform(self: Self, transform: Callable[[Any], Any]) -> Self: ...


class Staged:
    """A stage as a function of one sample.

    Attributes:
        stage: called with samples, gives samples.
        dots: whether the fields of the result that came with a dot get it back.
    """

    def __init__(self, stage: Callable[[Iterable[Any]], Iterable[Any]], name: str, dots: bool) -> None:
        self.stage = stage
        self.name = name
        self.dots = dots

    def __call__(self, sample: Any) -> Any:
        results = list(self.stage([_undotted(sample) if isinstance(sample, dict) else sample]))
        if len(results) != 1:
            key = sample.get("__key__") if isinstance(sample, dict) else None
            raise SampleError(f"{self.name} gave {len(results)} samples for one, in a data set with an index", key=key)
        result = results[0]
        return _dotted(result) if self.dots and isinstance(result, dict) else result


def _undotted(sample: dict[str, Any]) -> dict[str, Any]:
    return {
        key[1:] if key.startswith(".") else key: value.getvalue() if isinstance(value, io.BytesIO) else value
        for key, value in sample.items()
    }


def _dotted(sample: dict[Any, Any]) -> dict[Any, Any]:
    return {
        key if not isinstance(key, str) or key.startswith(("_", ".")) else f".{key}": value
        for key, value in sample.items()
    }


def _names(specs: Iterable[Any]) -> list[Any]:
    """Names of fields without their dots, also in `a;b` and `a b`."""
    return [";".join(name.lstrip(".") for name in spec.split(";")) if isinstance(spec, str) else spec for spec in specs]


class FluidMethods:
    """Each method gives a new data set; what they take, the stages of the same names in `webdataset.filters` say."""

    def map(self: Self, f: Callable[[Any], Any]) -> Self:
        """`f(sample)` instead of each sample, which comes with its dots."""
        return self.with_transform(f)

    def decode(self: Self, *args: Any, **kw: Any) -> Self:
        """Fields that are not decoded yet, decoded; `transformations=[]` leaves all of them."""
        return self.with_transform(Staged(filters.decode(*args, **kw), "decode", self.dots))

    def to_tuple(self: Self, *args: Any, **kw: Any) -> Self:
        """The named fields of each sample, as a tuple."""
        names = _names(args[0].split() if len(args) == 1 and isinstance(args[0], str) else args)
        return self.with_transform(Staged(filters.to_tuple(*names, **kw), "to_tuple", False))

    def map_tuple(self: Self, *fs: Callable[[Any], Any]) -> Self:
        """One function for each element of each tuple."""
        return self.with_transform(Staged(filters.map_tuple(*fs), "map_tuple", False))

    def map_dict(self: Self, **fs: Callable[[Any], Any]) -> Self:
        """One function for each named field."""
        named = {name.lstrip("."): f for name, f in fs.items()}
        return self.with_transform(Staged(filters.map_dict(**named), "map_dict", self.dots))

    def rename(self: Self, **names: str) -> Self:
        """`new="old;older"`: fields under other names."""
        given = {new.lstrip("."): _names([old])[0] for new, old in names.items()}
        return self.with_transform(Staged(filters.rename(**given), "rename", self.dots))
