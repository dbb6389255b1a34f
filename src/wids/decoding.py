"""Samples of open streams -> samples of values, by the last part of each field's name; what else is done to samples.

Rules: callables that travel to worker processes. The table is `webdataset.codecs`: nothing is unpickled that
`webdataset` would not unpickle. What has no decoder stays a stream. Names are case-sensitive, as published.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any

from webdataset._optional import require
from webdataset.codecs import decoders
from webdataset.codecs.failures import describe
from webdataset.codecs.gz import gunzip
from webdataset.codecs.pickles import torch_loads
from webdataset.errors import DecodingError, SecurityError, WebDatasetError

Sample = dict[str, Any]
Transformation = Callable[[Any], Any]

IMAGES = frozenset(("jpg", "png", "ppm", "pgm", "pbm", "pnm"))
BY_TABLE = frozenset(("txt", "text", "cls", "cls2", "json", "npy", "mp", "pickle", "pkl"))
"""Extensions that `webdataset.codecs.decoders` decodes here."""


class DefaultDecoder:
    """Called with a sample, gives it decoded; `default_decoder` with its format.

    Attributes:
        format: "PIL", "numpy", or True, which leaves images as streams.
    """

    def __init__(self, format: str | bool = True) -> None:
        if format not in (*_IMAGE_READERS, True):
            raise ValueError(f"the format of images must be {' or '.join(map(repr, _IMAGE_READERS))}, got {format!r}")
        self.format = format

    def __call__(self, sample: Sample) -> Sample:
        return default_decoder(sample, self.format)

    def __repr__(self) -> str:
        return f"DefaultDecoder({self.format!r})"


def default_decoder(sample: Sample, format: str | bool = True) -> Sample:
    """The sample with its streams decoded; it stays as it was itself.

    | last part of the name | gives |
    |---|---|
    | txt text | str |
    | cls cls2 | int |
    | jpg png ppm pgm pbm pnm | a Pillow image as it is in the file, read when it is used; or a numpy array |
    | json, npy, mp, pickle pkl, pt pth | what `webdataset` decodes them to |
    | gz | what is inside, by the part before |
    | anything else, also jpeg | the stream |

    Args:
        format: "PIL" or "numpy" for images; True leaves them as streams.

    Raises:
        DecodingError: a field is not what its name says; the message names shard, key and field.
        SecurityError: a pickle asks for more than data.
    """
    return {key: _decoded(key, value, sample, format) for key, value in sample.items()}


def _decoded(key: str, stream: Any, sample: Sample, format: str | bool) -> Any:
    if not isinstance(stream, io.BytesIO):
        return stream
    reader = reader_of(key, format)
    if reader is io.BytesIO:
        return stream
    data = stream.getvalue()
    try:
        return reader(data)
    except WebDatasetError:
        raise
    except Exception as exn:
        raise DecodingError(
            sample.get("__shard__"), sample.get("__key__"), key.lstrip("."), message=describe(exn, data)
        ) from exn


def reader_of(name: str, format: str | bool) -> Callable[[bytes], Any]:
    """What makes a value of the bytes of a field with this name; `io.BytesIO` where it stays a stream."""
    extensions = [] if name.startswith("__") else name.split(".")
    zipped = extensions[-1:] == ["gz"]
    kind = "".join(extensions[:-1][-1:] if zipped else extensions[-1:])
    reader: Callable[[bytes], Any] = io.BytesIO
    if kind in IMAGES and format is not True:
        reader = _IMAGE_READERS[str(format)]
    elif kind in ("pt", "pth"):
        reader = torch_loads
    elif kind in BY_TABLE:
        reader = decoders[kind]
    return partial(_unzipped, reader) if zipped else reader


def _unzipped(reader: Callable[[bytes], Any], data: bytes) -> Any:
    return reader(gunzip(data))


def _pil_image(data: bytes) -> Any:
    image = require("PIL.Image", "pillow", "decoding images").open(io.BytesIO(data))
    if image.format == "EPS":
        raise SecurityError("this image is EPS, which is a program that ghostscript would run")
    return image


def _numpy_image(data: bytes) -> Any:
    import numpy as np

    return np.array(_pil_image(data))


_IMAGE_READERS: dict[str, Callable[[bytes], Any]] = {"PIL": _pil_image, "numpy": _numpy_image}


def interpret_transformations(transformations: Any) -> list[Transformation]:
    """The functions that one transformation, or a list of them, stands for: "PIL", "numpy", or any callable.

    Raises:
        TypeError: one is neither.
    """
    if not isinstance(transformations, (list, tuple)):
        transformations = [transformations]
    found: list[Transformation] = []
    for one in transformations:
        if isinstance(one, str):
            found.append(DefaultDecoder(one))
        elif callable(one):
            found.append(one)
        else:
            raise TypeError(f"transformations: each one is 'PIL', 'numpy' or a function of a sample, got {one!r}")
    return found
