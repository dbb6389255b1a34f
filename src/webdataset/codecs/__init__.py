"""Extension <-> value: one table of (decode, encode) pairs, seen as the two dicts `decoders` and `encoders`.

Both dicts may be edited: the reader and the writer look a function up when they need it. Each module
here holds one family in a dict `CODECS`, whose keys are extensions separated by blanks. Images have
no entry in `decoders`: a pixel format must be chosen first (`webdataset.autodecode.ImageHandler`). Audio and video
have none either: they are decoded where a program asks for it (`webdataset.autodecode.audio`, `video`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .arrays import CODECS as ARRAYS
from .audio import CODECS as AUDIO
from .basic import CODECS as BASIC
from .images import CODECS as IMAGES
from .pickles import CODECS as PICKLES

decoders: dict[str, Callable[[bytes], Any]] = {}
"""Extension (`"json"`) to the function that turns the bytes of such a field into a value."""

encoders: dict[str, Callable[[Any], bytes]] = {}
"""Extension to the function that turns a value into the bytes of such a field."""

Family = Mapping[str, tuple[Callable[[bytes], Any] | None, Callable[[Any], bytes]]]


def _fill(*families: Family) -> None:
    for family in families:
        for extensions, (decode, encode) in family.items():
            for extension in extensions.split():
                if decode is not None:
                    decoders[extension] = decode
                encoders[extension] = encode


_fill(BASIC, ARRAYS, PICKLES, IMAGES, AUDIO)

__all__ = ["decoders", "encoders"]
