"""Handlers that take a field by its extension: (key, data) -> value, or None for fields of other kinds.

Key and extensions are compared without case, whole components from the right: `"png"` takes `.seg.png`, not `.xpng`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from .._arguments import check_function, check_items, check_text
from .audio import AUDIO_EXTENSIONS, audio_arrays, audio_tensors
from .video import VIDEO_EXTENSIONS, video_arrays, video_tensors


def handle_extension(extensions: str, f: Callable[[bytes], Any]) -> functools.partial[Any]:
    """A handler that calls `f(data)` for fields with one of these extensions.

    Args:
        extensions: extensions separated by blanks, of one or more parts (`"jpg seg.png"`); case does not matter,
            and `"png"` takes `seg.png` too.
        f: gets the bytes; when it returns None, the field goes to the next handler.
    """
    check_text("handle_extension", "extensions", extensions)
    check_function("handle_extension", "f", f)
    return functools.partial(call_extension_handler, f=f, extensions=extensions.lower().split())


def call_extension_handler(key: str, data: bytes, f: Callable[[bytes], Any], extensions: Iterable[str]) -> Any:
    """`f(data)` when the key ends in one of the extensions, None otherwise."""
    return f(data) if has_extension(key, extensions) else None


def has_extension(key: str, extensions: Iterable[str]) -> bool:
    """Whether the key ends in one of the extensions."""
    dotted = "." + key.lower()
    return any(dotted.endswith("." + extension) for extension in extensions)


def audio(container: str = "torch", extensions: str | Iterable[str] = tuple(AUDIO_EXTENSIONS)) -> Any:
    """A handler for audio fields: (samples, rate), where samples are float32 of the shape (channels, samples).

    Args:
        container: "torch" or "numpy", what holds the samples.
        extensions: fields with one of these extensions, as in `handle_extension`.

    Raises:
        ValueError: another container.
    """
    return _media_handler("audio", {"torch": audio_tensors, "numpy": audio_arrays}, container, extensions)


def video(container: str = "torch", extensions: str | Iterable[str] = tuple(VIDEO_EXTENSIONS)) -> Any:
    """A handler for video fields: (frames, audio, info), as `video_arrays` says; arguments as in `audio`."""
    return _media_handler("video", {"torch": video_tensors, "numpy": video_arrays}, container, extensions)


def _media_handler(
    kind: str, loaders: dict[str, Callable[[bytes], Any]], container: str, extensions: str | Iterable[str]
) -> functools.partial[Any]:
    load = loaders.get(container)
    if load is None:
        raise ValueError(f"unknown container for {kind}: {container!r}; use {' or '.join(map(repr, loaders))}")
    if not isinstance(extensions, str):
        check_items(kind, "extensions", extensions, "extensions, a str or a list")
    return handle_extension(extensions if isinstance(extensions, str) else " ".join(extensions), load)


def torch_audio(key: str, data: bytes) -> Any:
    """(samples, rate) of flac mp3 sox wav m4a ogg wma fields: float32 tensor (channels, samples), samples per second.

    None for other fields. Needs soundfile, and PyAV (`av`) for m4a, wma and sox.
    """
    return call_extension_handler(key, data, audio_tensors, AUDIO_EXTENSIONS)


def torch_video(key: str, data: bytes) -> Any:
    """(frames, audio, info) of mp4 ogv mjpeg avi mov h264 mpg webm wmv fields; needs PyAV (`av`).

    frames is a uint8 tensor (frames, height, width, 3), audio a float32 tensor (channels, samples), (1, 0) for none,
    info a dict with `video_fps` and, where there is audio, `audio_fps`. None for other fields.
    """
    return call_extension_handler(key, data, video_tensors, VIDEO_EXTENSIONS)
