"""`xdecode`: fields -> values, by functions that read from a stream, chosen by file name patterns."""

from __future__ import annotations

import fnmatch
import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from .._arguments import a, check_flag, check_function, check_items, checked, shown
from .._stage import checkedfilter
from ..errors import DecodingError
from ..handlers import reraise_exception
from ._places import apply_each, check_dict

StreamDecoder = Callable[[Any], Any] | Literal[False] | None
"""Called with a binary stream: the value. False passes the field on as it is, None stands for no decoder."""

Rule = tuple[str, StreamDecoder]


def decode_bin(stream: Any) -> Any:
    """The bytes."""
    return stream.read()


def decode_text(stream: Any) -> str:
    """UTF-8 text."""
    text: str = stream.read().decode("utf-8")
    return text


def decode_pickle(stream: Any) -> Any:
    """What a pickle holds, within what the restricted unpickler of `.pyd` fields allows."""
    from ..codecs import decoders

    return decoders["pyd"](stream.read())


default_decoders: list[Rule] = [("*.bin", decode_bin), ("*.txt", decode_text), ("*.pyd", decode_pickle)]


def find_decoder(decoders: Iterable[Rule], path: str) -> StreamDecoder:
    """The decoder of the last rule whose pattern matches the name, or the name with a dot in front; None for none.

    The name is compared in lower case.
    """
    name = path.lower()
    found: StreamDecoder = None
    for pattern, decoder in decoders:
        if fnmatch.fnmatchcase("." + name, pattern) or fnmatch.fnmatchcase(name, pattern):
            found = decoder
    return found


@checked("xdecode", must_decode=check_flag, defaults=a(check_items, "a list of rules"))
def _xdecode(
    source: Iterable[Any],
    *args: Rule,
    must_decode: bool = True,
    defaults: list[Rule] = default_decoders,
    **kw: StreamDecoder,
) -> Iterator[Any]:
    """Decode each field by the last rule that fits its name: `xdecode(("*.dcm", read_dicom), npy=numpy.load)`.

    Args:
        args: pairs of pattern and function; functions get a binary stream, False leaves a field as it is.
        must_decode: a field without decoder raises DecodingError; otherwise it stays as it is.
        defaults: rules that come before all others.
        kw: `ext=function` is short for the pair `("*.ext", function)`.
    """
    for rule in args:
        if not (isinstance(rule, (tuple, list)) and len(rule) == 2 and isinstance(rule[0], str)):
            raise TypeError(f'xdecode: a rule must be a pattern and a function, ("*.png", read_png), got {shown(rule)}')
    for name, function in (*args, *kw.items()):
        if function is not None and function is not False:
            check_function("xdecode", f"the function for {name!r}", function)
    rules = [*defaults, *args, *((f"*.{extension}", decoder) for extension, decoder in kw.items())]

    def decoded(sample: Any) -> Any:
        check_dict(sample, "xdecode")
        result = dict(sample)
        for name, value in sample.items():
            if name.startswith("__"):
                continue
            decoder = find_decoder(rules, name)
            if decoder is None and must_decode:
                message = f'no decoder for "{name}": add a rule for it, or pass must_decode=False'
                raise DecodingError(k=name, message=message)
            if decoder:
                result[name] = decoder(io.BytesIO(value) if isinstance(value, bytes) else value)
        return result

    return apply_each(source, decoded, reraise_exception, "xdecode")


xdecode = checkedfilter(_xdecode)  # type: ignore[arg-type]  # **kw, see pipelinefilter
