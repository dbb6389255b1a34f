"""Audio and video that the tests are made of, encoded by the libraries themselves."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np
import soundfile

RATE = 16000
FRAMES = 12


def tone(channels: int = 2, seconds: float = 0.5, rate: int = RATE) -> np.ndarray:
    """Sines of a different pitch in each channel: float32 from -0.5 to 0.5, (channels, samples)."""
    times = np.arange(int(seconds * rate)) / rate
    return np.stack([0.5 * np.sin(2 * np.pi * 220 * (i + 1) * times) for i in range(channels)]).astype(np.float32)


def sound(samples: np.ndarray, kind: str, subtype: str | None = None, rate: int = RATE, **kw: Any) -> bytes:
    """A file that libsndfile writes of (channels, samples)."""
    stream = io.BytesIO()
    soundfile.write(stream, samples.T, rate, format=kind, subtype=subtype, **kw)
    return stream.getvalue()


def film(
    container: str, video: str | None = None, audio: str | None = None, size: tuple[int, int] = (64, 48), **options: str
) -> bytes:
    """A file that FFmpeg writes: FRAMES grey frames at 24 a second, frame i of the value 20 * i, and `tone()`."""
    stream = io.BytesIO()
    with av.open(stream, "w", format=container, options=options) as out:
        pictures: Any = out.add_stream(video, rate=24) if video else None
        sounds: Any = out.add_stream(audio, rate=RATE) if audio else None
        if sounds:
            sounds.layout = "stereo"
        if pictures:
            pictures.width, pictures.height = size
            pictures.pix_fmt = "yuvj420p" if video == "mjpeg" else "yuv420p"
            for i in range(FRAMES):
                pixels = np.full((size[1], size[0], 3), i * 20, np.uint8)
                out.mux(pictures.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            out.mux(pictures.encode())
        if sounds:
            frame = av.AudioFrame.from_ndarray(tone(), format="fltp", layout="stereo")
            frame.rate, frame.pts = RATE, 0
            size_of_frame = sounds.codec_context.frame_size or 0
            shape = av.AudioResampler(sounds.format, "stereo", RATE, frame_size=size_of_frame)
            for part in [*shape.resample(frame), *shape.resample(None)]:
                out.mux(sounds.encode(part))
            out.mux(sounds.encode())
    return stream.getvalue()
