"""Samples of bytes -> samples of values, as the classic 0.1 API decodes: by tables of extensions, images included.

The table of an image spec has the extensions of that time and no others: `npy` and `pth` stay bytes, as such programs
expect. What an entry does is what `webdataset.codecs` does, with one difference: an integer that is none stays bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias, cast

from ._arguments import check_handler, did_you_mean, shown
from ._stage import FilterFunction
from ._types import Handler, Sample
from .autodecode import Decoder
from .codecs import decoders
from .codecs.images import ImageHandler, imagespecs
from .filters._places import apply_each
from .handlers import reraise_exception

Table: TypeAlias = Mapping[str, Callable[[bytes], Any]]
SampleDecoder: TypeAlias = Callable[[Any], Any]

_INTEGERS = "cls cls2 class count index inx id"
_IMAGES = "png jpg jpeg img image pbm pgm ppm"
_OTHERS = "txt text transcript pyd pickle json jsn ten tb mp msgpack msg"


def maybe_int(data: bytes) -> int | bytes:
    """The integer that the bytes spell, or the bytes themselves."""
    try:
        return int(data)
    except ValueError:
        return data


def imagehandler(data: bytes, imagespec: str) -> Any:
    """The image in these bytes, as one of the 17 specs of `webdataset.autodecode.imagespecs` says.

    Raises ValueError for an unknown spec, and what Pillow raises for bytes that are no image.
    """
    return ImageHandler(imagespec, ["image"])(".image", data)


def make_handlers(imagetype: str) -> dict[str, Callable[[bytes], Any]]:
    """A table, extension to function of the bytes, whose images become what the spec says; it may be edited."""
    image = ImageHandler(imagetype).imagespec  # a wrong one is told here
    return {
        **dict.fromkeys(_INTEGERS.split(), maybe_int),
        **dict.fromkeys(_IMAGES.split(), partial(imagehandler, imagespec=image)),
        **{extension: decoders[extension] for extension in _OTHERS.split()},
    }


default_handlers: dict[str, dict[str, Callable[[bytes], Any]]] = {spec: make_handlers(spec) for spec in imagespecs}
"""Image spec to its table; what a program changes here counts for all decoders that are named by the spec."""


class TableDecoder(Decoder):
    """Decodes fields by the last part of their names with a table; fields without an entry stay bytes.

    Fields that begin with `_` become str, values that are not bytes stay as they are. Otherwise a `Decoder`, whose
    errors know shard, key and field.
    """

    def __init__(self, table: Table) -> None:
        super().__init__([], pre=[], post=[], partial=True)
        self.table = table

    def decode1(self, key: str, data: bytes) -> Any:
        """The value of one field with the name `key`."""
        return decode_item_based_on_extension(data, key, self.table)

    def _plan(self, field: str) -> str | Callable[[bytes], Any]:
        if field.startswith("_") or type(self).decode1 is not TableDecoder.decode1:
            return super()._plan(field)
        return self._remember(field, partial(self._decoded, field.rpartition(".")[2].lower()))

    def _decoded(self, extension: str, data: bytes) -> Any:
        decode = self.table.get(extension)  # when it is needed: programs edit tables
        return data if decode is None else decode(data)


def decode_item_based_on_extension(data: Any, tname: str, handlers: Table) -> Any:
    """One value, decoded by the last part of its name; text for names that begin with `_`."""
    if not isinstance(data, bytes):
        return data
    if tname.startswith("_"):
        return data.decode("utf-8")
    decode = handlers.get(tname.rpartition(".")[2].lower())
    return data if decode is None else decode(data)


def decode_sample_based_on_extensions(sample: Sample, handlers: Table) -> Sample:
    """The sample with each field decoded by its name; DecodingError for the first that cannot be."""
    return TableDecoder(handlers)(sample)


def make_decoder(spec: Any) -> SampleDecoder:
    """A function from sample to sample.

    Args:
        spec: True is "rgb", an image spec is its table in `default_handlers`, a dict a table of its own; a function
            from sample to sample is taken as it is; False or None decode nothing.

    Raises ValueError for anything else.
    """
    if spec is False or spec is None:
        return _unchanged
    if spec is True:
        spec = "rgb"
    if callable(spec):
        return cast(SampleDecoder, spec)
    if isinstance(spec, Mapping):
        return TableDecoder(spec)
    if isinstance(spec, str) and spec in default_handlers:
        return TableDecoder(default_handlers[spec])
    raise ValueError(
        f"{shown(spec)}: unknown decoder spec{did_you_mean(spec, default_handlers)}; it must be True, False, a dict of"
        f" functions by extension, a function of the sample, or one of {', '.join(default_handlers)}"
    )


def _unchanged(sample: Any) -> Any:
    return sample


def apply_decoder(decoder: Any = True, handler: Handler = reraise_exception) -> FilterFunction:
    """The stage that decodes samples; `decoder` is what `make_decoder` takes."""
    check_handler("decode", handler)
    return FilterFunction(_decoded, make_decoder(decoder), handler=handler)


def _decoded(data: Iterable[Any], decoder: SampleDecoder, handler: Handler) -> Iterator[Any]:
    return apply_each(data, decoder, handler, "decode")


__all__ = [
    "TableDecoder",
    "apply_decoder",
    "decode_item_based_on_extension",
    "decode_sample_based_on_extensions",
    "default_handlers",
    "imagehandler",
    "make_decoder",
    "make_handlers",
    "maybe_int",
]
