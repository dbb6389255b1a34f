"""stable-audio-tools and its relatives: stages of the library replaced in its modules, decoders of sound, `select`."""

from __future__ import annotations

import io
import json
import logging
import wave
from pathlib import Path

import numpy as np
import pytest

import webdataset as wds
from helpers import tar_bytes

logger = logging.getLogger(__name__)


def log_and_continue(exn):
    logger.warning("Handling webdataset error (%r). Ignoring.", exn)
    return True


def group_by_keys(data, keys=wds.tariterators.base_plus_ext, lcase=True, suffixes=None, handler=None):
    """The program's own grouping, put in the place of the library's: a doubled field replaces the one before."""
    current = None
    for member in data:
        if not member:
            continue
        prefix, suffix = keys(member["fname"])
        if prefix is None:
            continue
        if current is None or prefix != current["__key__"]:
            if wds.tariterators.valid_sample(current):
                yield current
            current = {"__key__": prefix, "__url__": member["__url__"]}
        current[suffix.lower() if lcase else suffix] = member["data"]
    if wds.tariterators.valid_sample(current):
        yield current


def sound(frames, rate=8000):
    stream = io.BytesIO()
    with wave.open(stream, "wb") as out:
        out.setnchannels(2)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(np.zeros((frames, 2), "<i2").tobytes())
    return stream.getvalue()


def write_songs(path, numbers, doubled=()):
    members = []
    for number in numbers:
        members.append((f"song{number}.wav", sound(100 + number)))
        if number in doubled:
            members.append((f"song{number}.wav", sound(777)))
        members.append((f"song{number}.json", json.dumps({"prompt": f"song {number}"}).encode()))
    path.write_bytes(tar_bytes(members))
    return str(path)


@pytest.fixture
def urls(tmp_path):
    return [write_songs(tmp_path / f"{shard}.tar", range(4 * shard, 4 * shard + 4)) for shard in range(3)]


def read_sound(key, data):
    """A decoder of the program: (channels x frames, rate), None for other fields."""
    if not key.endswith(".wav"):
        return None
    with wave.open(io.BytesIO(data)) as sound:
        samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2")
        return samples.reshape(-1, sound.getnchannels()).T.astype(np.float32), sound.getframerate()


def pipeline(urls, minimum=0, decoder=read_sound):
    return wds.DataPipeline(
        wds.SimpleShardList(urls),
        wds.split_by_worker,
        wds.tarfile_to_samples(handler=log_and_continue),
        wds.decode(decoder, handler=log_and_continue),
        wds.map(lambda sample: {**sample, "frames": sample["wav"][0].shape[-1]}, handler=log_and_continue),
        wds.select(lambda sample: sample["frames"] >= minimum),
        wds.to_tuple("wav", "json", "frames", handler=log_and_continue),
    )


@pytest.mark.parametrize("decoder", [read_sound, wds.torch_audio], ids=["own decoder", "torch_audio"])
def test_sound_comes_with_its_rate(urls, load, decoder):
    """Decoders give (channels x frames, rate); short pieces are left out by `select`."""
    items = load(pipeline(urls, minimum=103, decoder=decoder))
    assert list(range(103, 112)) == sorted(frames for _, _, frames in items)
    assert {(2, 8000)} == {(waveform.shape[0], rate) for (waveform, rate), _, _ in items}
    assert {f"song {number}" for number in range(3, 12)} == {info["prompt"] for _, info, _ in items}


def test_a_grouping_put_into_the_module_is_used(tmp_path, urls, load, monkeypatch):
    """`wds.tariterators.group_by_keys = f` holds for tarfile_to_samples, in workers too."""
    doubled = write_songs(tmp_path / "doubled.tar", [20, 21], doubled=[21])
    monkeypatch.setattr(wds.tariterators, "group_by_keys", group_by_keys)
    frames = sorted(frames for _, _, frames in load(pipeline([*urls, doubled])))
    assert [*range(100, 112), 120, 777] == frames


def test_an_opener_put_into_the_module_is_used(urls, load, monkeypatch):
    """`wds.tariterators.url_opener = f` holds for tarfile_to_samples."""
    archives = {f"memory:{number}": Path(url).read_bytes() for number, url in enumerate(urls)}

    def url_opener(data, handler=wds.reraise_exception, **kw):
        for sample in data:
            yield {**sample, "stream": io.BytesIO(archives[sample["url"]])}

    monkeypatch.setattr(wds.tariterators, "url_opener", url_opener)
    assert 12 == len(load(pipeline(list(archives))))


def test_an_expander_put_into_the_module_is_used(urls, load, monkeypatch):
    """`wds.tariterators.tar_file_expander = f` holds for tarfile_to_samples."""
    original = wds.tariterators.tar_file_expander

    def without_first(data, *args, **kw):
        members = original(data, *args, **kw)
        return (member for member in members if not member.get("fname", "").startswith("song0."))

    monkeypatch.setattr(wds.tariterators, "tar_file_expander", without_first)
    assert 11 == len(load(pipeline(urls)))


def test_a_command_gives_the_shards(urls, load):
    """`pipe:` urls, as programs make them for object stores, feed the same pipeline."""
    assert 12 == len(load(pipeline([f"pipe:cat {url}" for url in urls])))
