"""energon, Cosmos and others: decoders used by hand, own handlers of media, errors of fields, small helpers by name."""

from __future__ import annotations

import io
import json
import pickle
import re
import wave

import numpy as np
import pytest
import torch
from PIL import Image

import webdataset as wds
import webdataset.autodecode
from helpers import tar_bytes, write_picture_shards
from webdataset import filters, shardlists
from webdataset.autodecode import Continue, Decoder, DecodingError, imagehandler
from webdataset.compat import FluidInterface
from webdataset.pipeline import DataPipeline
from webdataset.pytorch import IterableDataset
from webdataset.utils import identity, lookup_sym, pytorch_worker_info, pytorch_worker_seed, safe_eval

SHARDS, SAMPLES = 3, 4


@pytest.fixture
def urls(tmp_path):
    return write_picture_shards(tmp_path, SHARDS, SAMPLES, image="png")


class MediaDecoder:
    """Decodes what has one of its extensions, and says no to all else by None."""

    def __init__(self, rate_only=False):
        self.rate_only = rate_only

    def __call__(self, key, data):
        extension = re.sub(r".*[.]", "", key)
        if extension not in ("wav", "mp4", "mov"):
            return None
        with wave.open(io.BytesIO(data)) as sound:
            return sound.getframerate() if self.rate_only else sound.readframes(sound.getnframes())


class SampleDecoder:
    """A decoder object made of ours, with a configuration that can be saved; it pickles."""

    def __init__(self, *, image_decode="torchrgb", rate_only=False):
        self._config = {"image_decode": image_decode, "rate_only": rate_only}
        self._decoder = webdataset.autodecode.Decoder(
            [webdataset.autodecode.imagehandler(image_decode), MediaDecoder(rate_only)]
        )

    def __call__(self, sample):
        return self._decoder(sample)

    def decode(self, name, raw):
        base, extension = re.fullmatch(r"((?:.*/)?[^.]+)[.](.*)", name).groups()
        return self._decoder({"__key__": base, extension: raw})[extension]

    def config(self):
        return self._config


def sound(rate):
    stream = io.BytesIO()
    with wave.open(stream, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(bytes(20))
    return stream.getvalue()


def picture(width):
    stream = io.BytesIO()
    Image.new("RGB", (width, 6)).save(stream, "PNG")
    return stream.getvalue()


def test_a_decoder_used_by_hand(urls, load):
    """A Decoder decodes single files, fields of samples and whole streams, before and after it was pickled."""
    decoder = pickle.loads(pickle.dumps(SampleDecoder(image_decode="torchrgb", rate_only=True)))
    assert (3, 6, 9) == decoder.decode("folder/a.view.png", picture(9)).shape
    assert 16000 == decoder.decode("b.wav", sound(16000))
    assert ("text", [1]) == (decoder.decode("c.txt", b"text"), decoder.decode("c.json", b"[1]"))
    assert b"raw" == decoder.decode("c.unknown", b"raw")
    samples = load(wds.WebDataset(urls, shardshuffle=False).map(decoder))
    assert list(range(SHARDS * SAMPLES)) == sorted(sample["json"]["number"] for sample in samples)
    assert {torch.float32} == {sample["png"].dtype for sample in samples}


class NestedPictures:
    """Fields that hold several pictures, each decoded by a handler of ours."""

    def __init__(self, handler):
        self.handler = handler

    def __call__(self, key, data):
        return [self.handler(".png", part) for part in pickle.loads(data)] if key.endswith(".pngs") else None


def test_handlers_inside_handlers(tmp_path, load):
    """An image handler is a function of key and data; Continue hands over to the handlers behind."""
    for number in range(2):
        members = {"a.pngs": pickle.dumps([picture(8), picture(9)]), "a.b64.txt": b"74657874", "a.cls": b"3"}
        (tmp_path / f"{number}.tar").write_bytes(tar_bytes(members))
    images = imagehandler("rgb8")

    def from_hex(key, data):
        return Continue(key.replace(".b64", ""), bytes.fromhex(data.decode())) if ".b64" in key else None

    decoder = Decoder([images, NestedPictures(images), from_hex])
    assert decoder.only is None
    assert not decoder.partial
    samples = load(wds.WebDataset(str(tmp_path / "{0..1}.tar"), shardshuffle=False).map(decoder))
    for sample in samples:
        assert [(6, 8, 3), (6, 9, 3)] == [tuple(array.shape) for array in sample["pngs"]]
        assert ("text", 3) == (sample["b64.txt"], sample["cls"])
    assert 2 == len(samples)


def test_errors_of_fields(tmp_path, load, workers):
    """A field that does not decode is a DecodingError and a ValueError; handlers see it and go on."""
    for number in range(2):
        members = {"a.json": b'{"n": 1}', "b.json": b"{broken", "c.json": b"{}"}
        (tmp_path / f"{number}.tar").write_bytes(tar_bytes(members))
    ds = wds.WebDataset(str(tmp_path / "{0..1}.tar"), shardshuffle=False)
    seen = []

    def skip_decoding_errors(exn):
        seen.append(exn)
        return isinstance(exn, DecodingError)

    assert ["a", "a", "c", "c"] == sorted(s["__key__"] for s in load(ds.decode(handler=skip_decoding_errors)))
    if workers == 0:
        assert [("b", "json")] * 2 == [(exn.key, exn.k) for exn in seen]
        assert [str(tmp_path / f"{number}.tar") for number in range(2)] == [exn.url for exn in seen]
        assert all(isinstance(exn.__cause__, json.JSONDecodeError) for exn in seen)
    with pytest.raises(DecodingError):
        load(ds.decode())
    with pytest.raises(ValueError):
        load(ds.decode())


class Fluid(DataPipeline, FluidInterface):
    """A data set of another format under the fluid methods, with a switch for everything that ours has."""

    def __init__(
        self, sources, handler=wds.warn_and_continue, shardshuffle=None, nodesplitter=shardlists.single_node_only
    ):
        super().__init__()
        self.sources = sources
        self.append(sources if isinstance(sources, IterableDataset) else shardlists.SimpleShardList(sources))
        self.append(nodesplitter)
        self.append(shardlists.split_by_worker)
        if shardshuffle:
            self.append(filters.shuffle(shardshuffle))
        self.append(self._read)

    def _read(self, src):
        for shard in src:
            for number in range(3):
                yield {"__key__": f"{shard['url']}/{number}", "__url__": shard["url"], "cls": b"%d" % number}


class Shards(IterableDataset):
    """Cosmos's shard lists derive from the name in webdataset.pytorch, and split by rank and worker themselves."""

    def __init__(self, names):
        super().__init__()
        self.names = names

    def __iter__(self):
        rank, world_size, worker, num_workers = pytorch_worker_info()
        assert (rank, world_size) == (0, 1)
        assert pytorch_worker_seed() == worker < num_workers
        return iter([{"url": name} for name in self.names])


@pytest.mark.parametrize("names", [["a", "b", "c", "d"], Shards(["a", "b", "c", "d"])], ids=["list", "data set"])
def test_another_format_under_the_fluid_methods(names, load):
    """FluidInterface over a DataPipeline: shuffle, decode, select, tuples, batches of a reader of the program."""
    ds = Fluid(names, shardshuffle=10).shuffle(5, initial=2).decode().select(lambda sample: sample["cls"] > 0)
    items = load(ds.rename(label="cls").to_tuple("__key__", "label").batched(3))
    assert isinstance(ds, Fluid)
    assert sorted(f"{name}/{number}" for name in "abcd" for number in (1, 2)) == sorted(
        k for keys, _ in items for k in keys
    )
    assert all(labels.dtype == torch.int64 for _, labels in items)


def test_small_helpers(monkeypatch):
    """identity, lookup_sym, safe_eval and the numbers of the reader, as programs import them."""
    value = object()
    assert identity(value) is value
    assert lookup_sym("dumps", ["io", "json", "pickle"]) is json.dumps
    assert lookup_sym("no such name", ["json"]) is None
    assert (12, True) == (safe_eval("12"), safe_eval("True"))
    for name, number in {"RANK": 2, "WORLD_SIZE": 4, "WORKER": 1, "NUM_WORKERS": 3}.items():
        monkeypatch.setenv(name, str(number))
    assert ((2, 4, 1, 3), 2001) == (pytorch_worker_info(), pytorch_worker_seed())
    assert isinstance(wds.pytorch.TorchTensor, type)
    assert isinstance(torch.zeros(1), wds.pytorch.TorchTensor)
    assert not isinstance(np.zeros(1), wds.pytorch.TorchTensor)
