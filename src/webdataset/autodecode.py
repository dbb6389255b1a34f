"""Samples of bytes -> samples of values, field by field, through a chain of handlers.

A handler is called with `".field"` and the bytes. It returns the value; or None, which leaves the
field to the next handler; or `Continue(key, data)`, which goes on with another name and other bytes
(that is how `.gz` is peeled off). A field that no handler takes stays bytes.

Rules for an editor: `decoders` is looked up when a field is decoded, so that programs may edit it; so
may `handlers`, `only` and `partial` of a Decoder, and subclasses may have their own `decode1`.
Handlers of ours can tell from the name alone that a field is not theirs; `Decoder` asks them once a
field name (`_declines`) and leaves them out from then on. Handlers of others stay in the chain.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable, Iterable
from typing import Any, overload

from ._arguments import check_flag, check_items
from ._lazy import names_of
from ._types import FieldDecoder, Sample
from .codecs import decoders
from .codecs.arrays import npy_loads, npz_loads, tenbin_loads
from .codecs.audio import AUDIO_EXTENSIONS
from .codecs.basic import cbor_loads, json_loads, msgpack_loads
from .codecs.extensions import (
    audio,
    call_extension_handler,
    handle_extension,
    has_extension,
    torch_audio,
    torch_video,
    video,
)
from .codecs.failures import describe
from .codecs.gz import gunzip
from .codecs.images import IMAGE_EXTENSIONS, ImageHandler, imagespecs
from .codecs.images import imagehandler as _image_handler
from .codecs.pickles import allowed_globals, torch_loads, unpickle_loads, weights_only_of_environment
from .codecs.video import VIDEO_EXTENSIONS
from .errors import DecodingError

logger = logging.getLogger(__name__)

pytorch_weights_only: bool
"""Whether pth fields load tensors and plain containers only: True, unless WDS_PYTORCH_WEIGHTS_ONLY is 0.

False lets them run any code that they hold. What a program assigns wins over the environment.
"""


WebDataset: type[Any]
default_handlers: dict[str, dict[str, Callable[[bytes], Any]]]
"""The tables of the classic 0.1 API: see `webdataset.classicdecoders`."""
make_decoder: Callable[[Any], Callable[[Any], Any]]
tariterator: Callable[..., Any]

_classic = names_of(
    __name__,
    **dict.fromkeys(["apply_decoder", "default_handlers", "make_decoder", "make_handlers"], "classicdecoders"),
    **dict.fromkeys(["decode_item_based_on_extension", "decode_sample_based_on_extensions"], "classicdecoders"),
    maybe_int="classicdecoders",
    tariterator="webdataset",
    WebDataset="fluid",
)


def __getattr__(name: str) -> Any:
    return weights_only_of_environment() if name == "pytorch_weights_only" else _classic(name)


class Continue:
    """What a handler returns to go on with another key and other data."""

    def __init__(self, key: str, data: bytes) -> None:
        self.key = key
        self.data = data


def gzfilter(key: str, data: bytes) -> Continue | None:
    """Peel off `.gz`: the handlers that follow see the expanded data under the shorter name."""
    if not key.endswith(".gz"):
        return None
    return Continue(key[:-3], gunzip(data))


@overload
def imagehandler(imagespec: str, extensions: Iterable[str] = IMAGE_EXTENSIONS) -> ImageHandler: ...
@overload
def imagehandler(data: bytes, imagespec: str) -> Any: ...
@functools.wraps(_image_handler, assigned=())  # the modern signature
def imagehandler(*args: Any, **kw: Any) -> Any:
    """An ImageHandler, as a function. The classic `imagehandler(data, imagespec)` gives the image itself."""
    if "data" in kw or isinstance(next(iter(args), None), (bytes, bytearray, memoryview)):
        from .classicdecoders import imagehandler as decode_image

        return decode_image(*args, **kw)
    return _image_handler(*args, **kw)


def basichandlers(key: str, data: bytes) -> Any:
    """What `decoders` makes of the data by the last extension of the key; None where it has no entry."""
    decode = decoders.get(_extension(key))
    return None if decode is None else decode(data)


def _extension(key: str) -> str:
    return key[key.rfind(".") + 1 :]


default_pre_handlers: list[FieldDecoder] = [gzfilter]
"""Handlers before those of the program, unless it gives `pre`."""

default_post_handlers: list[FieldDecoder] = [basichandlers]
"""Handlers after those of the program, unless it gives `post`."""

_FOUND_OUT = ("_seen_handlers", "_seen_only", "_plans", "_passed")  # what a Decoder finds out again elsewhere

_MANY_FIELDS = 10_000  # names of fields come from the data: what is remembered about them is bounded


class Decoder:
    """Decodes the fields of samples, each by the first handler that takes it.

    The decoded sample is a new dict with the same fields in the same order, `txt.gz` under its own
    name too. Fields that start with `__` become str. In a field of `decoders`, None is a value: a
    JSON `null` gives None.

    Args:
        handlers: handlers of the program, a list; the attribute `handlers` is the whole chain, which may be edited.
        pre: handlers before them, default `default_pre_handlers`.
        post: handlers after them, default `default_post_handlers`.
        only: names of the fields to decode, a str with blanks or a collection; the others stay as they are.
        partial: let values through that are not bytes (decoded before); otherwise they are errors.

    Raises:
        DecodingError: from calls; says shard, key, field and what is wrong, with the first error as its cause.
    """

    only: Any = None
    partial = False
    _seen_handlers: list[FieldDecoder] | None = None  # what the plans were made for
    _seen_only: Any = None

    def __init__(
        self,
        handlers: list[FieldDecoder],
        pre: list[FieldDecoder] | None = None,
        post: list[FieldDecoder] | None = None,
        only: str | Iterable[str] | None = None,
        partial: bool = False,
    ) -> None:
        if not isinstance(handlers, list):
            raise TypeError(f"Decoder: handlers must be a list of functions, got {type(handlers).__name__}")
        for name, given in (("pre", pre), ("post", post)):
            check_items("decode", name, given, "a list of functions", optional=True)
        check_flag("decode", "partial", partial)
        pre = default_pre_handlers if pre is None else pre
        post = default_post_handlers if post is None else post
        self.handlers: list[FieldDecoder] = [*pre, *handlers, *post]
        for handler in self.handlers:
            if not callable(handler):
                raise TypeError(f"Decoder: a decoding handler must be a function of key and data, got {handler!r:.100}")
        if not isinstance(only, (str, Iterable, type(None))):
            raise TypeError(f"Decoder: only must be names of fields, a str or a collection, got {only!r:.100}")
        self.only = None if only is None else set(only.split() if isinstance(only, str) else only)
        self.partial = partial

    def __call__(self, sample: Sample) -> Sample:
        """The decoded sample; see `decode`."""
        return self.decode(sample)

    def decode(self, sample: Sample) -> Sample:
        """The decoded sample, a new dict."""
        if not isinstance(sample, dict):
            raise TypeError(
                f"decode needs samples that are dicts, got {type(sample).__name__}: put it before to_tuple and batched"
            )
        result = sample.copy()
        if self.handlers != self._seen_handlers or self.only != self._seen_only:
            self._begin()
        plans, passed = self._plans, self._passed
        field = None
        try:
            for field, value in sample.items():
                if type(value) is bytes:
                    plan = plans.get(field)
                    if plan is None:
                        plan = self._plan(field)
                    if isinstance(plan, str):
                        decode = decoders.get(plan)
                        if decode is not None:
                            result[field] = decode(value)
                    else:
                        result[field] = plan(value)
                elif field not in passed:
                    result[field] = self._other(field, value)
        except Exception as exn:
            raise self._failure(exn, field, sample) from exn
        return result

    def decode1(self, key: str, data: bytes) -> Any:
        """The value of one field with the name `key` (no leading dot)."""
        return _run("." + key, data, self.handlers)

    def _begin(self) -> None:
        """Make plans anew: this is the first sample, or the program has edited the decoder."""
        self._seen_handlers, self._seen_only = [*self.handlers], copy.copy(self.only)
        self._plans: dict[str, str | Callable[[bytes], Any]] = {}
        self._passed: set[str] = set()  # names of fields whose values need not be bytes

    def _plan(self, field: str) -> str | Callable[[bytes], Any]:
        """How to decode a field: an extension to look up in `decoders`, or a function of the bytes."""
        plan: str | Callable[[bytes], Any]
        if field[:2] == "__":
            plan = functools.partial(_metadata, field)
        elif self.only is not None and field not in self.only:
            plan = bytes
        elif type(self).decode1 is not Decoder.decode1:
            plan = functools.partial(self.decode1, field)
        else:
            key = "." + field
            chain: list[FieldDecoder] = []
            for position, handler in enumerate(self.handlers):
                if not _declines(handler, key):
                    if handler is basichandlers and not chain and position == len(self.handlers) - 1:
                        return self._remember(field, _extension(key))
                    # This one may go on with another key: what the later ones say to this key is no guide.
                    chain = [handler, *self.handlers[position + 1 :]]
                    break
            plan = functools.partial(_run, key, chain=chain)
        return self._remember(field, plan)

    def _remember(self, field: str, plan: str | Callable[[bytes], Any]) -> str | Callable[[bytes], Any]:
        if len(self._plans) >= _MANY_FIELDS:
            self._plans.clear()
        self._plans[field] = plan
        return plan

    def _other(self, field: str, value: Any) -> Any:
        """What becomes of a value whose type is not exactly bytes."""
        if field[:2] == "__" or (self.only is not None and field not in self.only):
            if len(self._passed) >= _MANY_FIELDS:
                self._passed.clear()
            self._passed.add(field)
            return value
        if isinstance(value, bytes):
            return self.decode1(field, bytes(value))
        if self.partial:
            return value
        raise ValueError(
            f"the value is {type(value).__name__}, not bytes;"
            " if it was decoded before, pass partial=True to let it through"
        )

    def _failure(self, exn: Exception, field: str | None, sample: Sample) -> DecodingError:
        data = None if field is None else sample.get(field)
        url, key = (sample.get(name) for name in ("__url__", "__key__"))
        return DecodingError(url, key, field, sample, message=describe(exn, data))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in _FOUND_OUT}


def _metadata(field: str, data: bytes) -> str | bytes:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        logger.warning("metadata field %s is not UTF-8 and stays bytes: %.60r", field, data)
        return data


def _declines(handler: Any, key: str) -> bool:
    """Whether a handler returns None for this key whatever the data is; False when that is not known."""
    if handler is gzfilter:
        return not key.endswith(".gz")
    if handler is torch_audio:
        return not has_extension(key, AUDIO_EXTENSIONS)
    if handler is torch_video:
        return not has_extension(key, VIDEO_EXTENSIONS)
    if type(handler) is ImageHandler:
        return not handler.accepts(key)
    if type(handler) is functools.partial and handler.func is call_extension_handler and not handler.args:
        return not has_extension(key, handler.keywords["extensions"])
    return False


def _run(key: str, data: bytes, chain: list[FieldDecoder]) -> Any:
    for handler in chain:
        if handler is basichandlers:
            decode = decoders.get(_extension(key))
            if decode is not None:
                return decode(data)
            continue
        result = handler(key, data)
        if isinstance(result, Continue):
            key, data = result.key, result.data
        elif result is not None:
            return result
    return data


default_decoder = Decoder([])
"""Decodes everything but images."""

__all__ = [
    "AUDIO_EXTENSIONS",
    "IMAGE_EXTENSIONS",
    "VIDEO_EXTENSIONS",
    "Continue",
    "Decoder",
    "DecodingError",
    "ImageHandler",
    "WebDataset",
    "allowed_globals",
    "audio",
    "basichandlers",
    "call_extension_handler",
    "cbor_loads",
    "decoders",
    "default_decoder",
    "default_handlers",
    "default_post_handlers",
    "default_pre_handlers",
    "gzfilter",
    "handle_extension",
    "imagehandler",
    "imagespecs",
    "json_loads",
    "make_decoder",
    "msgpack_loads",
    "npy_loads",
    "npz_loads",
    "pytorch_weights_only",
    "tariterator",
    "tenbin_loads",
    "torch_audio",
    "torch_loads",
    "torch_video",
    "unpickle_loads",
    "video",
]
