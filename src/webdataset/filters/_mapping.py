"""Stages that apply functions: to samples, to fields, to positions of a tuple.

None of them changes the sample that comes in: other branches of a program may still hold it. A
handler that returns true drops the sample, false ends the stream; the exception is the function's
own, with a note that names stage, key and shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import cycle
from typing import Any

from .._arguments import check_function, check_handler, shown
from .._closing import close_source
from .._stage import checkedfilter
from .._types import Handler
from ..errors import DecodingError
from ..handlers import reraise_exception
from ..rules import Rule, RuleList, is_rules, unchanged
from ._places import add_place, apply_each, check_dict, missing_field


def _map(
    data: Iterable[Any], f: Callable[[Any], Any] | Sequence[Rule], handler: Handler = reraise_exception
) -> Iterator[Any]:
    """Apply `f` to each sample; a result of None drops it.

    A dict made of a dict keeps the `__key__` of the sample (None where it had none), whatever `f` put there. A list of
    rules instead of a function makes each field anew, as `webdataset.rules.map_by_rules` does.
    """
    if is_rules(f):
        rules = RuleList(f, "map")

        def mapped(sample: Any) -> Any:
            check_dict(sample, "map with rules")
            return rules.of_sample(sample, unchanged)

        return apply_each(data, mapped, handler, "map")
    check_function("map", "f", f)
    assert callable(f)
    return apply_each(data, f, handler, "map", keep_key=True)


map = checkedfilter(_map)


def _select(
    data: Iterable[Any], predicate: Callable[[Any], Any], *, handler: Handler = reraise_exception
) -> Iterator[Any]:
    """Keep the samples for which the predicate is true."""
    check_function("select", "predicate", predicate)
    check_handler("select", handler)
    return _selected(data, predicate, handler)


def _selected(data: Iterable[Any], predicate: Callable[[Any], Any], handler: Handler) -> Iterator[Any]:
    source = iter(data)
    try:
        for sample in source:
            try:
                wanted = predicate(sample)
            except Exception as exn:
                add_place(exn, "select", sample)
                if handler(exn):
                    continue
                return
            if wanted:
                yield sample
    finally:
        close_source(source)


select = checkedfilter(_select)


def _decode(data: Iterable[Any], *args: Any, handler: Handler = reraise_exception, **kw: Any) -> Iterator[Any]:
    """Decode the fields of each sample by their names; fields that nobody knows stay bytes.

    With a list of rules among the arguments, samples have those fields only that the rules make (`webdataset.rules`);
    the function None stands for what the other arguments make of a field.

    Args:
        args: image specs (`"rgb"`, `"pil"`, `"torchrgb8"`, ...), functions `(key, data) -> value or None`, rules.
        handler: error policy.
        kw: `pre`, `post`, `only`, `partial`, as `webdataset.autodecode.Decoder` takes them.
    """
    from ..autodecode import Decoder, imagehandler

    handlers = [imagehandler(arg) if isinstance(arg, str) else arg for arg in args if not is_rules(arg)]
    decoder = Decoder(handlers, **kw)
    rules = [RuleList(arg, "decode", _image_decoder) for arg in args if is_rules(arg)]
    if len(rules) > 1:
        raise TypeError("decode: there can be one list of rules; write them as one, in their order")

    def decoded(sample: Any) -> Any:
        check_dict(sample, "decode")
        return decoder(sample)

    def decoded_by_rules(sample: Any) -> Any:
        check_dict(sample, "decode")
        try:
            return rules[0].of_sample(sample, lambda name, value: decoder({name: value})[name], _decoding_error)
        except DecodingError as exn:
            exn.sample = sample
            raise

    return apply_each(data, decoded_by_rules if rules else decoded, handler, "decode")


def _image_decoder(imagespec: str) -> Callable[[bytes], Any]:
    from ..autodecode import imagehandler

    return partial(imagehandler(imagespec), ".png")  # the content says what it is


def _decoding_error(exn: Exception, field: str, data: Any, rule: str) -> DecodingError:
    from ..codecs.failures import describe

    return exn if isinstance(exn, DecodingError) else DecodingError(k=field, message=f"{describe(exn, data)} [{rule}]")


decode = checkedfilter(_decode)  # type: ignore[arg-type]  # **kw, see pipelinefilter


def _map_dict(data: Iterable[Any], handler: Handler = reraise_exception, **kw: Callable[[Any], Any]) -> Iterator[Any]:
    """Apply a function to each named field, `map_dict(json=f, png=g)`; the other fields stay.

    A field called `handler` cannot be mapped. Raises MissingFieldError (a KeyError) for a sample without the field.
    """
    if not kw:
        raise ValueError("map_dict needs at least one field=function")
    for field, function in kw.items():
        check_function("map_dict", field, function)

    def mapped(sample: Any) -> Any:
        check_dict(sample, "map_dict")
        values = dict(sample)
        for field, f in kw.items():
            if field not in sample:
                raise missing_field(sample, [field])
            try:
                values[field] = f(sample[field])
            except Exception as exn:
                exn.add_note(f"in the function for field {field!r}")
                raise
        return values

    return apply_each(data, mapped, handler, "map_dict")


map_dict = checkedfilter(_map_dict)  # type: ignore[arg-type]  # **kw, see pipelinefilter


def _map_tuple(
    data: Iterable[Any], *args: Callable[[Any], Any] | None, handler: Handler = reraise_exception
) -> Iterator[Any]:
    """Apply the i-th function to the i-th position of each tuple or list; gives tuples.

    None leaves a position as it is; positions without a function, and functions without a position, are passed over.
    """

    for position, function in enumerate(args):
        check_function("map_tuple", f"function {position}", function, optional=True)

    def mapped(sample: Any) -> Any:
        if not isinstance(sample, (list, tuple)):
            raise TypeError(
                f"map_tuple: a sample must be a tuple or list, got {type(sample).__name__}: put to_tuple before it"
            )
        values = list(sample)
        for i, f in enumerate(args[: len(values)]):
            if f is not None:
                try:
                    values[i] = f(values[i])
                except Exception as exn:
                    exn.add_note(f"in the function for position {i}")
                    raise
        return tuple(values)

    return apply_each(data, mapped, handler, "map_tuple")


map_tuple = checkedfilter(_map_tuple)


def _associate(
    data: Iterable[Any], associator: Any, *, handler: Handler = reraise_exception, **kw: Any
) -> Iterator[Any]:
    """Add fields that are kept elsewhere: `associator(key)`, or `associator.get(key, {})`, is a dict of them.

    Other keyword arguments are ignored; kept for 0.2 callers.
    """
    if not callable(associator) and not hasattr(associator, "get"):
        raise TypeError(f"associate: associator must be a function of the key or a dict, got {shown(associator)}")
    lookup: Callable[[Any], Any]
    lookup = associator if callable(associator) else lambda key: associator.get(key, {})

    def associated(sample: Any) -> Any:
        check_dict(sample, "associate")
        if "__key__" not in sample:
            raise missing_field(sample, ["__key__"])
        return {**sample, **lookup(sample["__key__"])}

    return apply_each(data, associated, handler, "associate")


associate = checkedfilter(_associate)  # type: ignore[arg-type]  # **kw, see pipelinefilter


def transform_with(sample: Sequence[Any], transformers: Sequence[Callable[[Any], Any] | None] | None) -> Any:
    """The list of `transformers[i](sample[i])`; None, or no transformer at that position, leaves a value as it is.

    Without any transformers the sample itself comes back. Raises ValueError for more transformers than values.
    """
    if not transformers:
        return sample
    if len(transformers) > len(sample):
        raise ValueError(f"transform_with: {len(transformers)} transformers for {len(sample)} values")
    values = list(sample)
    for i, f in enumerate(transformers):
        if f is not None:
            values[i] = f(values[i])
    return values


def transformer(transformers: Sequence[Callable[[Any], Any] | None] | None) -> Callable[[Any], Any]:
    """The classic function of one tuple: what the functions make of its values, begun again where they are fewer."""
    return partial(_cycled, tuple(transformers or (None,)))


def _cycled(functions: Sequence[Callable[[Any], Any] | None], sample: Any) -> list[Any]:
    if not isinstance(sample, (tuple, list)):
        raise TypeError(f'transforms need tuples, which extensions="jpg cls" makes; got {type(sample).__name__}')
    return [value if f is None else f(value) for value, f in zip(sample, cycle(functions), strict=False)]
