"""Tests of audio and video: types, shapes, ranges, every extension, damage, and missing libraries."""

from __future__ import annotations

import io
import pickle
import sys
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import webdataset.autodecode as ad
from codec_contract import same
from helpers import tar_bytes
from media import FRAMES, RATE, film, sound, tone
from webdataset import WebDataset
from webdataset.autodecode import AUDIO_EXTENSIONS, VIDEO_EXTENSIONS, Decoder, DecodingError
from webdataset.codecs import audio as audio_codec
from webdataset.codecs import encoders
from webdataset.codecs import video as video_codec
from webdataset.codecs.gz import gzipped
from webdataset.errors import EncodingError

FRAGMENTS = film("mp4", "libx264", "aac", movflags="frag_keyframe+empty_moov")  # the index comes first

AUDIO: dict[str, tuple[bytes, float]] = {  # extension to a file of tone(), and how exact it is
    "wav": (sound(tone(), "WAV", "PCM_16"), 1 / 32768),
    "flac": (sound(tone(), "FLAC", "PCM_16"), 1 / 32768),
    "ogg": (sound(tone(), "OGG", "VORBIS"), 0.05),
    "mp3": (sound(tone(), "MP3"), 0.05),
    "m4a": (film("ipod", audio="aac"), 0.05),
    "sox": (film("sox", audio="pcm_s32le"), 1e-6),
}

VIDEO: dict[str, bytes] = {
    "mp4": film("mp4", "libx264", "aac"),
    "mov": film("mov", "mpeg4", "pcm_s16le"),
    "webm": film("webm", "libvpx-vp9", "libopus"),
    "avi": film("avi", "mpeg4", "mp3"),
    "mpg": film("mpeg", "mpeg1video", "mp2"),
    "ogv": film("ogg", "libvpx", "libopus"),
    "mjpeg": film("mjpeg", "mjpeg"),
    "h264": film("h264", "libx264"),
}


def decoded(extension: str, data: bytes, *handlers: Any) -> Any:
    """The value of one field after a Decoder."""
    return Decoder(list(handlers))({"__key__": "k", "__url__": "x.tar", extension: data})[extension]


@pytest.mark.parametrize("extension", AUDIO)
def test_audio(extension: str) -> None:
    """Every kind gives a float32 tensor (channels, samples) in [-1, 1] with the sound in it, and the rate."""
    data, exactness = AUDIO[extension]
    samples, rate = decoded(extension, data, ad.torch_audio)
    assert isinstance(samples, torch.Tensor)
    assert (samples.dtype, samples.is_contiguous(), rate, type(rate)) == (torch.float32, True, RATE, int)
    wanted = tone()
    assert samples.shape[0] == 2
    assert wanted.shape[1] <= samples.shape[1] <= wanted.shape[1] + 2048  # codecs with blocks fill the last one
    assert np.abs(samples.numpy()[:, : wanted.shape[1]] - wanted)[:, 2000:-500].max() <= exactness


def test_audio_in_numpy() -> None:
    """audio("numpy") gives the same numbers as audio() and torch_audio, in a numpy array that may be changed."""
    data = AUDIO["flac"][0]
    samples, rate = decoded("flac", data, ad.audio("numpy"))
    assert (type(samples), samples.dtype, samples.shape, rate) == (np.ndarray, np.float32, (2, 8000), RATE)
    for handler in (ad.audio(), ad.audio("torch"), ad.torch_audio):
        assert same(samples, decoded("flac", data, handler)[0].numpy())
    samples[0, 0] = 1


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_integers_become_floats(subtype: str, channels: int) -> None:
    """Integer samples are divided by the largest magnitude, floats stay as they are."""
    levels = np.array([-1.0, -0.5, 0.0, 0.25, 0.5])
    samples = np.tile(levels, (channels, 1))
    data = sound(samples, "WAV", subtype)
    got, _ = decoded("wav", data, ad.audio("numpy"))
    assert got.shape == (channels, 5)
    step = {"PCM_U8": 1 / 128, "PCM_16": 1 / 32768}.get(subtype, 1e-6)
    assert np.abs(got - levels).max() <= step
    assert got.min() >= -1


def test_floats_are_not_clipped() -> None:
    """A wav file of floats beyond 1 keeps them, as published."""
    loud = np.array([[0.0, 2.5, -3.0]], np.float32)
    assert same(loud, decoded("wav", sound(loud, "WAV", "FLOAT"), ad.audio("numpy"))[0])


def test_long_audio_is_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files longer than a block are whole, with all channels in their places."""
    monkeypatch.setattr(audio_codec, "_BLOCK", 1001)
    samples = tone(3)
    assert same(samples, decoded("wav", sound(samples, "WAV", "FLOAT"), ad.audio("numpy"))[0])


def test_mp3_that_does_not_say_its_length() -> None:
    """mp3 of a variable rate without a header is decoded whole; libsndfile alone would guess how long it is."""
    noise = np.random.default_rng(0).normal(0, 0.2, 4 * RATE).astype(np.float32)
    noise[RATE:] = 0  # the silence is cheap: what follows the noise makes estimates wrong
    data = sound(noise[None], "MP3", bitrate_mode="VARIABLE", compression_level=0.3)
    header = data.index(b"\xff\xf3", 100)  # where the frame with the header ends
    assert b"Xing" in data[:header]
    with soundfile.SoundFile(io.BytesIO(data[header:])) as file:
        assert file.frames < 3 * RATE
    samples, rate = decoded("mp3", data[header:], ad.audio("numpy"))
    assert rate == RATE
    assert 4 * RATE <= samples.shape[1] < 4.2 * RATE
    assert decoded("mp3", data, ad.audio("numpy"))[0].shape[1] == 4 * RATE


@pytest.mark.parametrize("extension", VIDEO)
def test_video(extension: str) -> None:
    """Every kind gives uint8 frames (T, H, W, 3), float32 audio (channels, samples) and the rates."""
    frames, audio, info = decoded(extension, VIDEO[extension], ad.torch_video)
    assert (frames.dtype, tuple(frames.shape)) == (torch.uint8, (FRAMES, 48, 64, 3))
    assert frames.is_contiguous()
    levels = frames.float().mean(dim=(1, 2, 3)).numpy()
    assert np.abs(levels - 20 * np.arange(FRAMES)).max() < 4
    assert audio.dtype == torch.float32
    raw = extension in ("mjpeg", "h264")
    assert set(info) == ({"video_fps"} if raw else {"video_fps", "audio_fps"})
    assert type(info["video_fps"]) is float
    assert raw or info["video_fps"] == 24
    if raw:
        assert tuple(audio.shape) == (1, 0)
    else:
        rate = info["audio_fps"]
        assert type(rate) is int
        assert audio.shape[0] == 2
        assert 0.45 * rate < audio.shape[1] < 0.6 * rate
        loudness = audio[:, rate // 8 : 3 * rate // 8].square().mean(dim=1).sqrt()
        assert ((loudness > 0.3) & (loudness < 0.4)).all()  # a sine of 0.5


def test_video_in_numpy() -> None:
    """video("numpy") gives the same numbers in numpy arrays."""
    frames, audio, info = decoded("mp4", VIDEO["mp4"], ad.video("numpy"))
    for handler in (ad.video(), ad.torch_video):
        tensors = decoded("mp4", VIDEO["mp4"], handler)
        assert same(frames, tensors[0].numpy())
        assert same(audio, tensors[1].numpy())
        assert info == tensors[2]
    frames[0] = 0


def test_colours_are_red_first() -> None:
    """The last axis is red, green, blue."""
    import av

    stream = io.BytesIO()
    with av.open(stream, "w", format="mjpeg") as out:
        video: Any = out.add_stream("mjpeg", rate=24)
        video.width, video.height, video.pix_fmt = 32, 32, "yuvj444p"
        red = np.zeros((32, 32, 3), np.uint8)
        red[..., 0] = 250
        out.mux(video.encode(av.VideoFrame.from_ndarray(red, format="rgb24")))
        out.mux(video.encode())
    frames, _, _ = decoded("mjpeg", stream.getvalue(), ad.video("numpy"))
    assert np.abs(frames.mean(axis=(0, 1, 2)) - [250, 0, 0]).max() < 6


def test_extensions() -> None:
    """torch_audio and torch_video take their own extensions, in any case, under any prefix; others pass."""
    assert set(AUDIO_EXTENSIONS) == {"flac", "mp3", "sox", "wav", "m4a", "ogg", "wma"}
    assert set(VIDEO_EXTENSIONS) == {"mp4", "ogv", "mjpeg", "avi", "mov", "h264", "mpg", "webm", "wmv"}
    wav = AUDIO["wav"][0]
    for key in (".wav", "wav", ".left.wav", ".WAV"):
        assert ad.torch_audio(key, wav)[1] == RATE
    for key in (".opus", ".wavx", ".mp4", ".wav.gz"):
        assert ad.torch_audio(key, wav) is None
        assert ad.torch_video(key.replace("mp4", "mp3"), wav) is None
    assert decoded("opus", sound(tone(rate=48000), "OGG", "OPUS", 48000), ad.audio("numpy", "opus"))[1] == 48000
    assert decoded("clip", AUDIO["wav"][0], ad.audio("numpy", ["clip", "x"]))[1] == RATE
    assert decoded("wav.gz", gzipped(wav), ad.torch_audio)[1] == RATE
    assert decoded("wav", wav) is wav
    assert decoded("mp4", VIDEO["mp4"]) is VIDEO["mp4"]


def test_the_content_decides() -> None:
    """A file under a wrong extension of audio is decoded as what it is."""
    assert decoded("wav", AUDIO["m4a"][0], ad.audio("numpy"))[1] == RATE
    assert decoded("m4a", AUDIO["wav"][0], ad.audio("numpy"))[1] == RATE


def test_handlers_pickle_and_work_in_a_pipeline(tmp_path: Any) -> None:
    """The handlers pickle, and `decode` takes them beside image specs."""
    shard = tmp_path / "a.tar"
    shard.write_bytes(tar_bytes({"a.wav": AUDIO["wav"][0], "a.mp4": VIDEO["mp4"], "a.txt": b"x"}))
    handlers = pickle.loads(pickle.dumps([ad.torch_audio, ad.torch_video, ad.audio("numpy")]))
    (sample,) = WebDataset(str(shard), shardshuffle=False).decode("rgb", *handlers)
    assert (sample["wav"][0].shape, sample["mp4"][0].shape, sample["txt"]) == ((2, 8000), (FRAMES, 48, 64, 3), "x")


@pytest.mark.parametrize("make", [ad.audio, ad.video])
def test_unknown_container(make: Any) -> None:
    """The error names what there is."""
    with pytest.raises(ValueError, match=r"unknown container for \w+: 'pil'; use 'torch' or 'numpy'"):
        make("pil")


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3", "m4a"])
@pytest.mark.parametrize("part", [0.3, 0.9])
def test_cut_audio(extension: str, part: float, capfd: pytest.CaptureFixture[str]) -> None:
    """A file that was cut is an error with the place, never less sound without a word."""
    data = AUDIO[extension][0]
    with pytest.raises(DecodingError, match=rf"x\.tar!k\.{extension}: .*(cut|decode)") as caught:
        decoded(extension, data[: int(len(data) * part)], ad.audio("numpy"))
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)


@pytest.mark.parametrize("extension", ["mp4", "mov", "webm", "avi", "ogv", "fragments"])
@pytest.mark.parametrize("part", [0.2, 0.9, 0.999])
def test_cut_video(extension: str, part: float) -> None:
    """A container that knows its length and was cut is an error, also where FFmpeg would give fewer frames."""
    data = VIDEO.get(extension, FRAGMENTS)
    with pytest.raises(DecodingError, match=r"x\.tar!k\.mp4: .*(cut|decode)"):
        decoded("mp4", data[: int(len(data) * part)], ad.video("numpy"))


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg", "mp3", "m4a", "sox", "wma"])
def test_no_audio(extension: str) -> None:
    """What is no audio at all is an error that says so."""
    for data in (b"", b"no audio", bytes(2000)):
        with pytest.raises(DecodingError, match=rf"k\.{extension}: (libsndfile|FFmpeg) cannot decode this"):
            decoded(extension, data, ad.torch_audio)
    with pytest.raises(DecodingError, match="there is no audio in it"):
        decoded(extension, film("mp4", "libx264"), ad.torch_audio)


@pytest.mark.parametrize("data", [b"", b"no video", bytes(2000), AUDIO["wav"][0], AUDIO["m4a"][0]])
def test_no_video(data: bytes) -> None:
    """What is no video is an error that says so."""
    with pytest.raises(DecodingError, match=r"k\.mp4: (FFmpeg cannot decode this|there is no video in it)"):
        decoded("mp4", data, ad.torch_video)


def test_lengths_of_streaming_writers() -> None:
    """Writers that cannot seek leave lengths open: such files are decoded to their end."""
    wav = bytearray(AUDIO["wav"][0])
    at = wav.index(b"data") + 4
    for size in (b"\xff\xff\xff\xff", b"\x00\x00\xff\x7f"):
        wav[at : at + 4] = size
        assert decoded("wav", bytes(wav), ad.audio("numpy"))[0].shape == (2, 8000)
    live = film("webm", "libvpx-vp9", "libopus", live="1")
    assert decoded("webm", live, ad.video("numpy"))[0].shape == (FRAMES, 48, 64, 3)


def test_junk_behind_the_end() -> None:
    """Bytes behind a whole file are no sign of a cut."""
    for junk in (b"\n", bytes(100), b"appended by a tool" * 9):
        for extension in ("mp4", "mov"):
            assert decoded(extension, VIDEO[extension] + junk, ad.video("numpy"))[0].shape == (FRAMES, 48, 64, 3)
        for extension in ("wav", "flac"):
            assert decoded(extension, AUDIO[extension][0] + junk, ad.audio("numpy"))[0].shape == (2, 8000)


def test_silence_without_a_sample() -> None:
    """A wav file with no samples gives none."""
    assert decoded("wav", sound(np.zeros((2, 0)), "WAV"), ad.audio("numpy"))[0].shape == (2, 0)


def test_sizes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that expand beyond the limit are errors that name it."""
    monkeypatch.setattr(audio_codec, "max_bytes", 60_000)
    for extension in ("flac", "m4a"):
        with pytest.raises(DecodingError, match=r"more than 60000 bytes; .* webdataset\.codecs\.audio\.max_bytes"):
            decoded(extension, AUDIO[extension][0], ad.torch_audio)
    for limit in (9_000, 100_000):  # less than a frame, less than all
        monkeypatch.setattr(video_codec, "max_bytes", limit)
        with pytest.raises(DecodingError, match=rf"more than {limit} bytes; .* webdataset\.codecs\.video\.max_bytes"):
            decoded("mp4", VIDEO["mp4"], ad.torch_video)


def test_claims_take_no_memory() -> None:
    """A flac header that claims 2**36 samples is an error, not an allocation."""
    data = bytearray(AUDIO["flac"][0])
    data[21] |= 15
    data[22:26] = b"\xff" * 4
    with pytest.raises(DecodingError, match=r"k\.flac: "):
        decoded("flac", bytes(data), ad.torch_audio)


@pytest.mark.parametrize(
    ("missing", "extension", "data", "handler", "match"),
    [
        ("soundfile", "wav", AUDIO["wav"][0], ad.torch_audio, "decoding audio needs soundfile: pip install soundfile"),
        ("av", "m4a", AUDIO["m4a"][0], ad.torch_audio, r"decoding audio of this kind .* needs av: pip install av"),
        ("av", "mp4", VIDEO["mp4"], ad.torch_video, "decoding video needs av: pip install av"),
        ("torch", "wav", AUDIO["wav"][0], ad.torch_audio, "decoding audio to torch needs torch: pip install torch"),
    ],
)
def test_missing_libraries(
    missing: str, extension: str, data: bytes, handler: Any, match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the field and the pip line of the library that is missing."""
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(DecodingError, match=rf"x\.tar!k\.{extension}: {match}"):
        decoded(extension, data, handler)


def test_numpy_needs_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """audio("numpy") and video("numpy") work without torch."""
    monkeypatch.setitem(sys.modules, "torch", None)
    assert decoded("wav", AUDIO["wav"][0], ad.audio("numpy"))[0].shape == (2, 8000)
    assert decoded("mp4", VIDEO["mp4"], ad.video("numpy"))[0].shape == (FRAMES, 48, 64, 3)


@pytest.mark.parametrize("extension", ["wav", "flac"])
@pytest.mark.parametrize("bits", [16, 24])
def test_written_audio_comes_back(extension: str, bits: int) -> None:
    """What was decoded from files of 16 or 24 bits and is written again comes back exactly, from numpy and torch."""
    rng = np.random.default_rng(0)
    samples = (rng.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), (2, 999)) / 2 ** (bits - 1)).astype(np.float32)
    for value in ((samples, RATE), [torch.from_numpy(samples), RATE]):
        data = encoders[extension](value)
        again, rate = decoded(extension, data, ad.audio("numpy"))
        assert rate == RATE
        assert same(samples, again)
    mono = samples[0]
    assert same(mono[None], decoded(extension, encoders[extension]((mono, RATE)), ad.audio("numpy"))[0])


@pytest.mark.parametrize("extension", ["wav", "flac"])
def test_int16_is_written_with_16_bits(extension: str) -> None:
    """Arrays of int16 are written as they are."""
    samples = np.array([[-32768, 0, 1, 32767]], np.int16)
    data = encoders[extension]((samples, RATE))
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        assert file.subtype == "PCM_16"
        assert same(samples[0], file.read(dtype="int16"))


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (np.zeros(5), r"needs \(samples, rate\), got ndarray"),
        ((np.zeros((1, 2, 3)), RATE), r"shape \(channels, samples\), got \(1, 2, 3\)"),
        ((np.zeros((2, 0)), RATE), r"got \(2, 0\)"),
        ((np.zeros((2, 5), np.int64), RATE), "floats from -1 to 1 or int16, got int64"),
        ((np.full((1, 5), 1.5), RATE), "out of range: floats must be from -1 to 1, got 1.5 to 1.5"),
        ((np.full((1, 5), np.nan), RATE), "out of range"),
        ((np.zeros((200, 5)), RATE), "200 channels at 16000 Hz cannot be written as flac"),
        ((np.zeros((1, 5)), "fast"), "1 channels at fast Hz cannot be written as flac"),
    ],
)
def test_audio_that_cannot_be_written(value: Any, match: str) -> None:
    """The error says what was given and what is possible."""
    with pytest.raises(EncodingError, match=match):
        encoders["flac"](value)
