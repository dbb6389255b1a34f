"""Audio fields <-> (samples, rate): float32 of the shape (channels, samples), and the samples per second.

Integers become -1 to 1 (2**15, 2**23, 2**31 are 1); files of floats and lossy codecs may go beyond by what they hold.
soundfile reads wav, flac, ogg, opus and mp3, PyAV the kinds that it does not know; both read from memory. Memory is
taken as samples arrive, whatever a header claims.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np

from .._optional import require
from ..errors import EncodingError
from .claims import check_complete

AUDIO_EXTENSIONS: list[str] = ["flac", "mp3", "sox", "wav", "m4a", "ogg", "wma"]
"""Extensions that `torch_audio` decodes."""

max_bytes: int = 1 << 32
"""The most that one audio field may hold when it is decoded, in bytes; a program may assign another limit."""

Audio = tuple[np.ndarray[Any, Any], int]

_BLOCK = 1 << 22  # samples that are read at once, all channels together


def audio_arrays(data: bytes) -> Audio:
    """The samples of an audio file, numpy float32 of the shape (channels, samples), and their rate in Hz.

    Raises:
        MissingDependencyError: the library for this kind is not installed.
        ValueError: not audio, damaged, cut, or larger than `max_bytes`.
    """
    if data[4:8] == b"ftyp" or data[:4] in (b"\x30\x26\xb2\x75", b".SoX", b"XoS.") or _length_is_a_guess(data):
        return _with_pyav(data)
    return _with_soundfile(data)


def audio_tensors(data: bytes) -> tuple[Any, int]:
    """As `audio_arrays`, with a torch tensor."""
    torch = require("torch", "torch", "decoding audio to torch")
    samples, rate = audio_arrays(data)
    return torch.from_numpy(samples), rate


def _length_is_a_guess(data: bytes) -> bool:
    """Whether this is mp3 without a header that says how long it is: libsndfile would guess, and stop there."""
    start = 0
    if data[:3] == b"ID3" and len(data) > 10:
        start = 10 + sum((byte & 127) << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
    head = data[start : start + 200]
    if head[:1] != b"\xff" or head[1:2] < b"\xe0":
        return False
    return not any(name in head for name in (b"Xing", b"Info", b"VBRI"))


def _with_soundfile(data: bytes) -> Audio:
    soundfile = require("soundfile", "soundfile", "decoding audio")
    check_complete(data)
    parts = []
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            rate, channels, expected = file.samplerate, file.channels, file.frames
            left = expected
            while left > 0:
                part = file.read(max(1, _BLOCK // channels), dtype="float32", always_2d=True)
                left -= len(part)
                if not len(part):
                    break
                if (expected - left) * channels * 4 > max_bytes:
                    raise _too_large()
                parts.append(part)
    except soundfile.LibsndfileError as exn:
        raise ValueError(f"libsndfile cannot decode this: {exn.error_string.rstrip('.')}") from exn
    if left or (not expected and data[:4] == b"OggS"):  # of ogg without its end, libsndfile says that it is empty
        raise ValueError(f"the audio is cut: {expected - left} of {expected} samples are there")
    samples = np.empty((channels, expected), np.float32)
    start = 0
    for part in parts:
        samples[:, start : start + len(part)] = part.T
        start += len(part)
    return samples, rate


def _with_pyav(data: bytes) -> Audio:
    from .ffmpeg import Samples, opened

    with opened(data, "decoding audio of this kind (m4a, wma, sox, mp3 without a length)") as container:
        if not container.streams.audio:
            raise ValueError("there is no audio in it")
        samples = Samples()
        for frame in container.decode(audio=0):
            samples.add(frame)
            if samples.nbytes > max_bytes:
                raise _too_large()
        return samples.array(), container.streams.audio[0].rate


def _too_large() -> ValueError:
    return ValueError(
        f"audio data expands to more than {max_bytes} bytes; if that is right, raise webdataset.codecs.audio.max_bytes"
    )


def wav_dumps(value: Any) -> bytes:
    """A wav file of (samples, rate); floats are written as 32-bit floats, which come back exactly.

    Args:
        value: samples as numpy array or torch tensor of floats or int16, (channels, samples) or (samples,), and rate.
    """
    return _dumps(value, "WAV", "FLOAT")


def flac_dumps(value: Any) -> bytes:
    """A flac file of (samples, rate); floats from -1 to 1 are written with 24 bits, int16 with 16."""
    return _dumps(value, "FLAC", "PCM_24")


def _dumps(value: Any, kind: str, subtype: str) -> bytes:
    soundfile = require("soundfile", "soundfile", "encoding audio")
    if not (isinstance(value, tuple | list) and len(value) == 2):
        raise EncodingError(f"an audio field needs (samples, rate), got {type(value).__name__}")
    samples, rate = np.asarray(value[0]), value[1]
    samples = samples[np.newaxis] if samples.ndim == 1 else samples
    if samples.ndim != 2 or not samples.size:
        raise EncodingError(f"audio has the shape (channels, samples), got {samples.shape}")
    if samples.dtype == np.int16:
        subtype = "PCM_16"
    elif samples.dtype.kind != "f":
        raise EncodingError(f"audio holds floats from -1 to 1 or int16, got {samples.dtype}")
    elif subtype == "PCM_24":
        low, high = float(samples.min()), float(samples.max())
        if not (low >= -1 and high <= 1):
            raise EncodingError(f"audio values out of range: floats must be from -1 to 1, got {low} to {high}")
        # libsndfile multiplies by 2**23 - 1, but divides by 2**23.
        exact = np.clip(np.rint(samples.astype(np.float64) * 2**23), -(2**23), 2**23 - 1)
        samples = exact.astype(np.int32) << 8
    stream = io.BytesIO()
    try:
        soundfile.write(stream, samples.T, int(rate), format=kind, subtype=subtype)
    except (soundfile.LibsndfileError, TypeError, ValueError) as exn:
        what = f"{samples.shape[0]} channels at {rate} Hz"
        raise EncodingError(f"audio of {what} cannot be written as {kind.lower()}: {exn}") from exn
    return stream.getvalue()


CODECS: dict[str, tuple[Callable[[bytes], Any] | None, Callable[[Any], bytes]]] = {
    "wav": (None, wav_dumps),
    "flac": (None, flac_dumps),
}
