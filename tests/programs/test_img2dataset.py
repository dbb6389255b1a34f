"""Programs that write: img2dataset, video2dataset, converters for energon, classes derived from ShardWriter."""

from __future__ import annotations

import io
import json
import logging
import pickle
import threading
from pathlib import Path
from queue import Queue

import numpy as np
import pytest
from PIL import Image

import webdataset as wds
from webdataset.writer import (
    ShardWriter,
    TarWriter,
    add_handlers,
    default_handlers,
    imageencoder,
    make_encoder,
    numpy_dumps,
)


def jpeg(number):
    stream = io.BytesIO()
    Image.new("RGB", (8, 6), (number, 0, 0)).save(stream, "JPEG")
    return stream.getvalue()


class SampleWriter:
    """img2dataset's: a file of the program's own around a TarWriter, bytes and text in the samples."""

    def __init__(self, shard_id, folder, save_caption, encode_format="jpg"):
        self.shard_id, self.save_caption, self.encode_format = shard_id, save_caption, encode_format
        self.tar_fd = open(Path(folder) / f"{shard_id:05d}.tar", "wb")  # noqa: SIM115 -- closed in close
        self.tarwriter = wds.TarWriter(self.tar_fd)

    def write(self, image, key, caption, meta):
        if image is None:
            return
        sample = {"__key__": key, self.encode_format: image}
        if self.save_caption:
            sample["txt"] = str(caption) if caption is not None else ""
        if meta is not None:
            sample["json"] = json.dumps(meta, indent=4)
        self.tarwriter.write(sample)

    def close(self):
        self.tarwriter.close()
        assert not self.tar_fd.closed
        self.tar_fd.close()


def test_shards_of_downloaded_pictures(tmp_path, load):
    """What the program writes is read back: text as text, dicts by json, failed downloads left out."""
    for shard in range(2):
        writer = SampleWriter(shard, tmp_path, save_caption=True)
        for number in range(4):
            image = None if number == 2 else jpeg(number)
            caption = None if number == 3 else f"größe {number}"
            writer.write(image, f"{shard:05d}{number:04d}", caption, {"status": "success", "width": 8})
        writer.close()
    ds = wds.WebDataset(str(tmp_path / "{00000..00001}.tar"), shardshuffle=False).decode("rgb8")
    samples = load(ds.to_tuple("__key__", "jpg", "txt", "json"))
    assert [f"{shard:05d}{number:04d}" for shard in range(2) for number in (0, 1, 3)] == sorted(s[0] for s in samples)
    assert {"größe 0", "größe 1", ""} == {sample[2] for sample in samples}
    assert {(6, 8, 3)} == {tuple(sample[1].shape) for sample in samples}
    assert {8} == {sample[3]["width"] for sample in samples}


def test_streams_of_a_video_and_bytes_without_encoding(tmp_path, load):
    """encoder=False takes bytes as they are, under any name; fields with dots make several streams of one sample."""
    path = tmp_path / "a.tar"
    with wds.TarWriter(str(path), encoder=False) as writer:
        for number in range(3):
            writer.write({"__key__": f"{number:03d}", "mp4": b"video", "audio.m4a": b"sound", "data": b"\x80any"})
    with pytest.raises(ValueError, match="json"), wds.TarWriter(str(tmp_path / "b.tar"), encoder=False) as writer:
        writer.write({"__key__": "a", "json": {"not": "encoded"}})
    samples = load(wds.DataPipeline(wds.SimpleShardList([str(path)]), wds.split_by_worker, wds.tarfile_to_samples()))
    for sample in samples:
        assert (b"video", b"sound", b"\x80any") == (sample["mp4"], sample["audio.m4a"], sample["data"])
    assert 3 == len(samples)


@pytest.fixture
def table():
    saved = dict(default_handlers)
    yield default_handlers
    default_handlers.clear()
    default_handlers.update(saved)


def test_encoders_that_the_program_enters(tmp_path, table, load):
    """add_handlers extends the default table for all writers; imageencoder and numpy_dumps are plain functions."""
    add_handlers(
        default_handlers, "jpgs", lambda images: pickle.dumps([imageencoder(image, "jpg") for image in images])
    )
    add_handlers(default_handlers, ["joined", "joint"], lambda parts: "|".join(parts).encode())
    with ShardWriter(str(tmp_path / "made-%d.tar"), maxcount=2) as writer:
        for number in range(4):
            images = [np.full((6, 8, 3), number, np.uint8)] * 2
            flow = numpy_dumps(np.full((2, 2), number, np.float16))
            writer.write({"__key__": f"{number}", "jpgs": images, "joined": ["a", str(number)], "flow.npy": flow})
    shards = str(tmp_path / "made-{0..1}.tar")
    samples = load(wds.WebDataset(shards, shardshuffle=False).decode(only="flow.npy"), collate_fn=lambda sample: sample)
    for sample in samples:
        number = int(sample["__key__"])
        assert [(8, 6)] * 2 == [Image.open(io.BytesIO(image)).size for image in pickle.loads(sample["jpgs"])]
        assert f"a|{number}".encode() == sample["joined"]
        assert (np.float16, number) == (sample["flow.npy"].dtype, sample["flow.npy"][1, 1])


def test_encoders_of_a_writer(tmp_path):
    """make_encoder takes True, a table or a function, and gives a function of samples."""
    sample = {"__key__": "a", "cls": 3}
    assert b"3" == make_encoder(True)(sample)["cls"]
    assert sample == make_encoder(False)(sample)
    assert b"three" == make_encoder({"cls": lambda value: b"three"})(sample)["cls"]
    with wds.TarWriter(str(tmp_path / "a.tar"), encoder=lambda sample: {**sample, "cls": b"own"}) as writer:
        writer.write(sample)
    [read] = wds.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False)
    assert b"own" == read["cls"]


class NamedShardWriter(wds.ShardWriter):
    """Names the shards itself, in `next_stream`, and hands each finished one on in `finish`."""

    def __init__(self, folder, *args, **kwargs):
        self.folder, self.sent = folder, []
        super().__init__("", *args, **kwargs)

    def next_stream(self):
        self.finish()
        self.fname = str(self.folder / f"{self.shard:09d}.tar")
        if self.verbose:
            logging.info("writing %s after %d samples, %.1f GB", self.fname, self.total, self.size / 1e9)
        self.shard += 1
        self.tarstream = wds.TarWriter(self.fname, **self.kw)
        self.count = 0
        self.size = 0

    def finish(self):
        super().finish()
        if self.fname is not None and Path(self.fname).exists() and self.fname not in self.sent:
            self.sent.append(self.fname)


class StridedShardWriter(wds.ShardWriter):
    """Every n-th number, for as many processes."""

    def __init__(self, step, *args, **kwargs):
        self.step = step
        super().__init__(*args, **kwargs)

    def next_stream(self):
        self.finish()
        self.fname = self.pattern % self.shard
        self.shard += self.step
        self.tarstream = TarWriter(self.fname, **self.kw)
        self.count = self.size = 0


class QueuedShardWriter(wds.ShardWriter):
    """Written to by a thread; asked for its counters by others."""

    def __init__(self, pattern, maxcount=100000, maxsize=3e9, post=None, start_shard=0, **kw):
        super().__init__(pattern, maxcount, maxsize, post, start_shard)
        self.verbose = False
        self.queue = Queue()
        self.thread = threading.Thread(target=self.write_queued)
        self.thread.start()

    def write_queued(self):
        for sample in iter(self.queue.get, None):
            self.write(sample)

    def close(self):
        self.queue.put(None)
        self.thread.join()
        super().close()


def read_keys(urls, load):
    ds = wds.DataPipeline(wds.SimpleShardList(urls), wds.split_by_worker, wds.tarfile_to_samples())
    return sorted(sample["__key__"] for sample in load(ds))


def samples(count):
    return [{"__key__": f"{number:06d}", "cls": number, "npy": np.arange(number)} for number in range(count)]


def test_writers_that_derive_from_shard_writer(tmp_path, load):
    """Subclasses that name shards in next_stream, act in finish, or write from a thread make whole shards."""
    with NamedShardWriter(tmp_path, maxcount=2) as writer:
        for sample in samples(5):
            writer.write(sample)
    assert [str(tmp_path / f"{number:09d}.tar") for number in range(3)] == writer.sent
    assert [f"{number:06d}" for number in range(5)] == read_keys(writer.sent, load)

    with StridedShardWriter(3, str(tmp_path / "strided-%02d.tar"), maxcount=2, start_shard=1, mtime=0) as writer:
        for sample in samples(4):
            writer.write(sample)
    urls = [str(tmp_path / "strided-01.tar"), str(tmp_path / "strided-04.tar")]
    assert ["000000", "000001", "000002", "000003"] == read_keys(urls, load)

    done = []
    writer = QueuedShardWriter(str(tmp_path / "queued-%d.tar"), 3, post=done.append)
    for sample in samples(7):
        writer.queue.put(sample)
    writer.close()
    assert [str(tmp_path / f"queued-{number}.tar") for number in range(3)] == done
    assert 7 == len(read_keys(done, load))


def test_shards_that_the_program_opens_itself(tmp_path, load):
    """opener and post together put shards wherever the program wants them."""
    written = []
    with ShardWriter(
        "remote/part-%d.tar",
        maxcount=3,
        opener=lambda name: open(tmp_path / Path(name).name, "wb"),
        post=written.append,
    ) as writer:
        for sample in samples(4):
            writer.write(sample)
    assert ["remote/part-0.tar", "remote/part-1.tar"] == written
    assert 4 == len(read_keys(sorted(str(path) for path in tmp_path.glob("part-*.tar")), load))
