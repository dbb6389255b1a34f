"""Samples to streams of records."""

from __future__ import annotations

import gzip
import io
import os
import sys

import cbor2
import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import webdataset as wds
from webdataset.errors import EncodingError, MissingDependencyError
from webdataset.recordwriter import RecordWriter, writer_of

STAGES = {"mp": wds.msgpack_to_samples, "cbors": wds.cbors_to_samples}
EACH = pytest.mark.parametrize("kind", STAGES)


def read(path, kind):
    return list(wds.DataPipeline(wds.SimpleShardList([str(path)]), STAGES[kind](), wds.decode(partial=True)))


@EACH
def test_samples_come_back(kind, tmp_path):
    """Values that the format knows keep their types, others are encoded by name and decoded again; metadata is left."""
    array = np.arange(6, dtype="f4").reshape(2, 3)
    sample = {
        "__key__": "a/b", "__url__": "u", "_x": "y", "txt": "ü", "cls": 3, "n": np.int64(7), "on": np.bool_(True),
        "list": [1, 2.5, None, {"a": b"x"}], "t": (1, 2), "data": bytearray(b"x"), "view": memoryview(b"y"),
        "weights.npy": array, "json": {"a": [1]}, "pyd": {1, 2}, "none": None,
    }  # fmt: skip
    path = tmp_path / f"a.{kind}"
    with RecordWriter(path) as sink:
        assert sink.write(sample) > 100
        assert os.listdir(tmp_path) == [f"a.{kind}.partial"]
        sink.write({"cls": 1})
    (first, second) = read(path, kind)
    assert np.array_equal(first.pop("weights.npy"), array)
    del sample["weights.npy"], sample["_x"]
    sample.update(__url__=str(path), t=[1, 2], data=b"x", view=b"y", n=7, on=True)
    assert first == sample
    assert second == {"cls": 1, "__key__": "a/000000001", "__url__": str(path)}


@EACH
@pytest.mark.parametrize("compression", ["", ".gz", ".xz", ".bz2", ".zst"])
def test_names_say_how(kind, compression, tmp_path):
    """The name tells format and compression; the same samples give the same bytes."""
    for name in "ab":
        with RecordWriter(str(tmp_path / f"{name}.{kind}{compression}")) as sink:
            for n in range(100):
                sink.write({"__key__": str(n), "txt": "text"})
    data = (tmp_path / f"a.{kind}{compression}").read_bytes()
    assert data == (tmp_path / f"b.{kind}{compression}").read_bytes()
    assert [sample["__key__"] for sample in read(tmp_path / f"a.{kind}{compression}", kind)] == list(
        map(str, range(100))
    )


def test_the_bytes_are_those_of_the_packages(tmp_path):
    """A record is what msgpack or cbor2 make of the dict, nothing before it and nothing behind."""
    samples = [{"__key__": "a", "n": n} for n in range(3)]
    for form, dumps in (("msgpack", msgpack.packb), ("cbor", cbor2.dumps)):
        out = io.BytesIO()
        with RecordWriter(out, form) as sink:
            for sample in samples:
                sink.write(sample)
        assert out.getvalue() == b"".join(map(dumps, samples))
    with RecordWriter(f"pipe:cat > {tmp_path}/x.mp", "msgpack", compress="gz") as sink:
        sink.write(samples[0])
    assert gzip.decompress((tmp_path / "x.mp").read_bytes()) == msgpack.packb(samples[0])


@pytest.mark.parametrize("kind", ["mp", "msg", "MsgPack", "cbors"])
def test_a_format_may_be_called_as_names_end(kind, tmp_path):
    """`format` takes what names of files of records end with, and goes before the name."""
    with RecordWriter(tmp_path / "a.bin", kind) as sink, RecordWriter(tmp_path / "b.mp", kind) as other:
        sink.write({"__key__": "k"})
        other.write({"__key__": "k"})
    dumps = cbor2.dumps if kind == "cbors" else msgpack.packb
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.mp").read_bytes() == dumps({"__key__": "k"})
    for wrong in ("mp.gz", "tar", "", 3):
        with pytest.raises(ValueError, match='format must be "msgpack" or "cbor", got'):
            RecordWriter(tmp_path / "c.mp", wrong)


def test_encoders_of_the_program(tmp_path):
    """A table, a function, or none; metadata if it is asked for."""
    with RecordWriter(tmp_path / "a.mp", encoder={"x": lambda value: b"x%d" % len(value)}, keep_meta=True) as sink:
        sink.write({"__key__": "k", "__n__": 5, "x": {1, 2}, "y": 3})
        with pytest.raises(EncodingError, match="sample 'k': field 'z': no handler found for z"):
            sink.write({"__key__": "k", "z": {1}})
    (sample,) = read(tmp_path / "a.mp", "mp")
    assert sample == {"__key__": "k", "__n__": 5, "x": b"x2", "y": 3, "__url__": str(tmp_path / "a.mp")}
    with RecordWriter(tmp_path / "b.mp", encoder=lambda sample: {**sample, "y": 1}) as sink:
        sink.write({"__key__": "k"})
    with RecordWriter(tmp_path / "c.mp", encoder=False) as sink:
        with pytest.raises(EncodingError, match="field 'z': set cannot be written as MsgPack"):
            sink.write({"__key__": "k", "z": {1}})
        sink.write({"__key__": "k"})
    assert read(tmp_path / "b.mp", "mp")[0]["y"] == 1


def test_what_cannot_be_written(tmp_path):
    """A sample that cannot be written is refused whole, by name; the writer goes on."""
    with RecordWriter(tmp_path / "a.mp") as sink:
        for wrong, match in (
            ({"__key__": "k", "n": 1 << 70}, "sample 'k': field 'n': int cannot be written as MsgPack"),
            ({"__key__": "k", "list": [{1}]}, "field 'list': list cannot be written"),
            ({"__key__": 5}, "__key__ must be a string, got int; use str"),
            ({5: 1}, "field names must be strings, got 5"),
            ({"txt": "\udcff"}, "field 'txt': str cannot be written"),
            ([1], "a sample must be a dict, got list"),
        ):
            with pytest.raises(EncodingError, match=match):
                sink.write(wrong)
        sink.write({"__key__": "whole"})
    assert [sample["__key__"] for sample in read(tmp_path / "a.mp", "mp")] == ["whole"]


def test_files_appear_whole_or_not_at_all(tmp_path):
    """An exception in the block leaves what was there; so does a writer that is dropped, with a warning."""
    path = tmp_path / "a.mp"
    path.write_bytes(b"before")

    def fails():
        with RecordWriter(path) as sink:
            sink.write({"__key__": "a"})
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fails()
    assert os.listdir(tmp_path) == ["a.mp"]
    assert path.read_bytes() == b"before"
    sink = RecordWriter(path)
    sink.write({"__key__": "a"})
    with pytest.warns(UserWarning, match=r"a\.mp: the writer was not closed"):
        del sink
    with RecordWriter(path) as sink:
        sink.write({"__key__": "a"})
    sink.close()
    with pytest.raises(ValueError, match="closed RecordWriter"):
        sink.write({"__key__": "a"})
    assert len(read(path, "mp")) == 1


def test_wrong_arguments(tmp_path):
    """A name that tells no format, an unknown one, and things that cannot be written to are told."""
    with pytest.raises(ValueError, match="say format="):
        RecordWriter(tmp_path / "a.bin")
    with pytest.raises(ValueError, match="format"):
        RecordWriter(tmp_path / "a.bin", "json")
    with pytest.raises(TypeError, match="must be a path, a url or have a method write"):
        RecordWriter(3, "cbor")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="compress="):
        RecordWriter(tmp_path / "a.mp", compress="rar")
    assert os.listdir(tmp_path) == []


@EACH
def test_shards_of_records(kind, tmp_path):
    """A ShardWriter whose pattern is named for records writes numbered streams of them, whole or not at all."""
    posted = []
    pattern = f"{tmp_path}/r-%03d.{kind}.gz"
    with wds.ShardWriter(pattern, maxcount=3, post=posted.append, verbose=0, encoder=False) as sink:
        for n in range(8):
            sink.write({"__key__": str(n), "n": n})
            assert (len(list(tmp_path.glob("*.partial"))), sink.total) == (1, n + 1)
    names = [pattern % number for number in range(3)]
    assert posted == names == sorted(map(str, tmp_path.iterdir()))
    assert [sample["n"] for sample in wds.WebDataset(names, shardshuffle=False)] == list(range(8))
    with pytest.raises(ValueError, match="streams of records have no index"):
        wds.ShardWriter(pattern, index=True)
    with pytest.raises(TypeError, match="mtime"):
        wds.ShardWriter(f"{tmp_path}/s-%03d.{kind}", mtime=3)

    def fails():
        with wds.ShardWriter(f"{tmp_path}/t-%03d.{kind}", maxcount=3) as sink:
            for n in range(5):
                sink.write({"__key__": str(n)})
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fails()
    assert [path.name for path in tmp_path.glob("t-*")] == [f"t-000.{kind}"]


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats(allow_nan=False) | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
samples = st.lists(
    st.dictionaries(st.text(min_size=1, max_size=6).filter(lambda name: name[0] != "_"), values, max_size=5)
)


@EACH
@given(items=samples)
def test_any_samples_come_back(kind, items):
    """Whatever is written is read."""
    out = io.BytesIO()
    with RecordWriter(out, {"mp": "msgpack", "cbors": "cbor"}[kind]) as sink:
        for number, item in enumerate(items):
            sink.write({"__key__": str(number), **item})
    stage = {"mp": wds.msgpackiterators.msgpack_iterator, "cbors": wds.cborsiterators.cbor_iterator}[kind]
    found = list(stage([{"url": "u", "stream": io.BytesIO(out.getvalue())}]))
    assert found == [{"__key__": str(number), **item} for number, item in enumerate(items)]


@pytest.mark.parametrize("name", ["a.mp.zst", "a.tar.zst"])
def test_a_missing_package_leaves_no_file(name, tmp_path, monkeypatch):
    """A writer whose compression is not installed says so, and leaves nothing where its file would have been."""
    for module in ("backports.zstd", "compression.zstd"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        writer_of(name)(str(tmp_path / name))
    assert os.listdir(tmp_path) == []
