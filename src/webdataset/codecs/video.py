"""Video fields -> (frames, audio, info), through PyAV, from memory.

Frames come in the order in which they are shown, all of them: choose frames in a handler of your own for long films.
No rotation tag is applied. Audio is what audio fields are: float32, integers become -1 to 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._optional import require
from .ffmpeg import Samples, opened

VIDEO_EXTENSIONS: list[str] = ["mp4", "ogv", "mjpeg", "avi", "mov", "h264", "mpg", "webm", "wmv"]
"""Extensions that `torch_video` decodes."""

max_bytes: int = 1 << 34
"""The most that one video field may hold when it is decoded, in bytes; a program may assign another limit."""

Video = tuple[Any, Any, dict[str, Any]]


def video_arrays(data: bytes) -> Video:
    """The frames, the audio of the first audio stream, and the rates of a video file.

    Returns:
        (frames, audio, info): numpy uint8 of the shape (frames, height, width, 3), red first; numpy float32
        (channels, samples), (1, 0) without audio; a dict with `video_fps`, a float, and with audio `audio_fps`, an int.

    Raises:
        MissingDependencyError: PyAV is not installed.
        ValueError: not a video, damaged, cut, or larger than `max_bytes`.
    """
    frames: list[np.ndarray[Any, Any]] = []
    info: dict[str, Any] = {}
    with opened(data, "decoding video") as container:
        streams = [*container.streams.video[:1], *container.streams.audio[:1]]
        if not container.streams.video:
            raise ValueError("there is no video in it")
        picture = streams[0].codec_context
        used = picture.width * picture.height * 3  # one frame ahead: the claim of the header is checked first
        _check_size(used)
        samples = Samples()
        for packet in container.demux(streams):
            for frame in packet.decode():
                if packet.stream.type == "audio":
                    samples.add(frame)
                else:
                    frames.append(_pixels(frame, frames))
                    used += frames[-1].nbytes
                _check_size(used + samples.nbytes)
        rate = streams[0].average_rate
        if rate is not None:
            info["video_fps"] = float(rate)
        if container.streams.audio:
            info["audio_fps"] = streams[1].rate
        audio = samples.array()
    return np.stack(frames) if frames else np.empty((0, 1, 1, 3), np.uint8), audio, info


def _check_size(size: int) -> None:
    if size > max_bytes:
        raise ValueError(
            f"video data expands to more than {max_bytes} bytes;"
            " if that is right, raise webdataset.codecs.video.max_bytes"
        )


def _pixels(frame: Any, before: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    pixels: np.ndarray[Any, Any] = frame.to_ndarray(format="rgb24")
    if before and pixels.shape != before[0].shape:
        raise ValueError(f"frame {len(before)} has the shape {pixels.shape}, those before {before[0].shape}")
    return pixels


def video_tensors(data: bytes) -> Video:
    """As `video_arrays`, with torch tensors."""
    torch = require("torch", "torch", "decoding video to torch")
    frames, audio, info = video_arrays(data)
    return torch.from_numpy(frames), torch.from_numpy(audio), info
