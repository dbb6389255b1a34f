"""Media bytes -> frames of video and samples of audio, through PyAV, from memory.

Rule for an editor: data must not make FFmpeg open anything else. Playlists, lists of files and session descriptions
name files and urls to read, so only containers that hold their own streams are on the list, and no protocol is.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from .._optional import require
from .claims import check_complete

_CONTAINERS = (
    "mov,matroska,webm,avi,ogg,mpeg,mpegvideo,mpegts,h264,hevc,m4v,mjpeg,jpeg_pipe,gif,apng,ivf,flv,asf,"
    "wav,w64,flac,mp3,aac,ac3,amr,aiff,au,caf,sox,tta,wv"
)


@contextmanager
def opened(data: bytes, purpose: str) -> Iterator[Any]:
    """An open PyAV container; what goes wrong in the block is one ValueError in plain words.

    Raises:
        MissingDependencyError: PyAV is not installed.
        ValueError: the data is no such container, damaged or cut.
    """
    av = require("av", "av", purpose)
    check_complete(data)
    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "none"}
    try:
        with av.open(io.BytesIO(data), options=options) as container:
            yield container
    except av.FFmpegError as exn:
        raise ValueError(f"FFmpeg cannot decode this: {exn.strerror}") from exn


class Samples:
    """Gathers the audio frames of one stream: float32 samples, (channels, samples)."""

    def __init__(self) -> None:
        self._resampler = require("av", "av", "decoding audio").AudioResampler(format="fltp")
        self._parts: list[np.ndarray[Any, Any]] = []
        self.nbytes = 0

    def add(self, frame: Any) -> None:
        """Take one frame; None says that there are no more."""
        for planar in self._resampler.resample(frame):
            part = planar.to_ndarray()
            self._parts.append(part)
            self.nbytes += part.nbytes

    def array(self) -> np.ndarray[Any, Any]:
        """All samples; (1, 0) when there were none."""
        if self._parts:
            self.add(None)
        return np.concatenate(self._parts, axis=1) if self._parts else np.empty((1, 0), np.float32)
