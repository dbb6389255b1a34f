"""Field values -> bytes, by the last extension of the field's name.

The table is `default_handlers`, made from the codecs that the decoders use, so that what is encoded
here is decoded there. Bytes pass, text becomes UTF-8 under any name, `.gz` compresses what the name
before it says. Names that begin with "_" are metadata and pass as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

from ._arguments import check_function, check_items, shown
from .codecs import encoders
from .codecs.gz import gzipped
from .errors import EncodingError, MissingDependencyError
from .tar.template import Memo

FieldEncoder: TypeAlias = Callable[[Any], Any]
SampleEncoder: TypeAlias = Callable[[Any], Mapping[str, Any]]
EncoderSpec: TypeAlias = bool | Mapping[str, FieldEncoder] | SampleEncoder | None


def make_encoder(spec: Any) -> SampleEncoder:
    """An encoder of samples: True for the default table, a table, False or None for none, a callable for itself.

    "default" is an older way to say True.

    Raises:
        ValueError: it is none of these.
    """
    if spec is False or spec is None:
        return _unchanged
    if callable(spec):
        return cast(SampleEncoder, spec)
    if spec is True or spec == "default":
        return _TableEncoder(default_handlers)
    if isinstance(spec, dict):
        return _TableEncoder(spec)
    raise ValueError(f"encoder must be True, False, a dict of encoders by extension or a function, got {shown(spec)}")


def _unchanged(sample: Mapping[str, Any]) -> Mapping[str, Any]:
    return sample


class _TableEncoder:
    """`encode_based_on_extension` with its table, as a callable that pickles."""

    def __init__(self, handlers: dict[str, FieldEncoder]) -> None:
        self.handlers = handlers

    def __call__(self, sample: Any) -> Mapping[str, Any]:
        return encode_based_on_extension(sample, self.handlers)


def encode_based_on_extension(sample: Mapping[str, Any], handlers: Mapping[str, FieldEncoder]) -> dict[str, Any]:
    """The sample with each field encoded as `encode_based_on_extension1` does.

    Raises:
        EncodingError: a field cannot be encoded; the message names it.
    """
    if type(sample) is not dict and not isinstance(sample, Mapping):
        raise EncodingError(f"a sample must be a dict, got {type(sample).__name__}")
    encoded: dict[str, Any] = {}
    extensions = _extensions
    for name, value in sample.items():
        extension = extensions[name]
        if extension is None:
            encoded[name] = value if name[0] == "_" else encode_based_on_extension1(value, name, handlers)
        elif type(value) is bytes:
            encoded[name] = value
        else:
            encoded[name] = _encode_value(value, name, extension, handlers)
    return encoded


def encode_based_on_extension1(data: Any, tname: str, handlers: Mapping[str, FieldEncoder]) -> Any:
    """One field's value as bytes (or another buffer), by the last extension of its name `tname`.

    Metadata, whose names begin with "_", comes back as it is.

    Raises:
        EncodingError: the table has no such extension, or its encoder fails.
    """
    extension = _extensions[tname]
    if extension is not None:
        return _encode_value(data, tname, extension, handlers)
    if tname.startswith("_"):
        return data
    return gzipped(encode_based_on_extension1(data, tname[:-3], handlers))


def _encode_value(data: Any, name: str, extension: str, handlers: Mapping[str, FieldEncoder]) -> Any:
    if isinstance(data, str):
        try:
            return data.encode()
        except UnicodeEncodeError as exn:
            raise EncodingError(f"field {name!r}: {exn}") from exn
    if isinstance(data, (bytes, bytearray, memoryview)):
        return data
    encoder = handlers.get(extension)
    if encoder is None:
        raise EncodingError(
            f"field {name!r}: no handler found for {extension}, and it is {type(data).__name__}, not bytes; "
            "encode it to bytes, or name it for what it is (json, npy, jpg, ...)"
        )
    try:
        return encoder(data)
    except MissingDependencyError:
        raise
    except EncodingError as exn:
        raise EncodingError(f"field {name!r}: {exn}") from exn
    except Exception as exn:
        raise EncodingError(f"field {name!r}: {type(data).__name__} cannot be encoded: {exn}") from exn


def _extension(name: Any) -> str | None:
    """The extension that decides, in lower case; None for names that need more than that."""
    if not isinstance(name, str):
        raise EncodingError(f"field names must be strings, got {name!r}")
    if name.startswith("_") or name.endswith(".gz"):
        return None
    return name.rpartition(".")[2].lower()


_extensions: Memo[Any, str | None] = Memo(_extension)


default_handlers: dict[str, FieldEncoder] = encoders
"""The table of `TarWriter(encoder=True)`; add to it to encode more extensions everywhere."""


def make_handlers() -> dict[str, FieldEncoder]:
    """A copy of the default table, to be changed: extension -> callable from value to bytes."""
    return dict(default_handlers)


def add_handlers(d: dict[str, FieldEncoder], keys: str | list[str], value: FieldEncoder) -> None:
    """Enter one encoder under several extensions, a list or words in a string."""
    check_function("add_handlers", "value", value)
    if not isinstance(keys, str):
        check_items("add_handlers", "keys", keys, "extensions, a str or a list")
    for key in keys.split() if isinstance(keys, str) else keys:
        d[key] = value


def bytestr(data: Any) -> bytes:
    """Bytes as they are, anything else as the ASCII bytes of its `str`."""
    return data if isinstance(data, bytes) else str(data).encode("ascii")
