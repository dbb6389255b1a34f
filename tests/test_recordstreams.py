"""Shards of MsgPack and CBOR records."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import random
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cbor
import cbor2
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

import webdataset as wds
from helpers import TrickleReader, foreign_data, upstream_data, write_shards
from servers import Page, serve
from webdataset.cborsiterators import cbor2_iterator, cbor_iterator
from webdataset.errors import DataError, DecodingError, ErrorBudgetError
from webdataset.filetypes import record_kind
from webdataset.msgpackiterators import msgpack_iterator, msgpack_samples
from webdataset.recordstreams import WINDOW


class Kind(NamedTuple):
    """A stage, the function that reads raw records, and what writes them."""

    stage: Callable[..., Any]
    iterator: Callable[..., Any]
    dumps: Callable[[Any], bytes]


KINDS = {
    "msgpack": Kind(wds.msgpack_to_samples, msgpack_iterator, msgpack.packb),
    "cbor": Kind(wds.cbors_to_samples, cbor_iterator, cbor.dumps),
    "cbor2": Kind(wds.cbors2_to_samples, cbor2_iterator, cbor2.dumps),
}
EACH = pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
SAMPLES: list[dict[str, Any]] = [
    {"__key__": f"dir/{n}", "n": n, "txt": f"ü{n}", "data": bytes([n]) * n * 40_000, "list": [1.5, None, {"a": -n}]}
    for n in range(9)
]


def write(folder: Path, kind: Kind, samples: list[Any] = SAMPLES, shards: int = 3) -> list[str]:
    """Shards `0.bin`, `1.bin`, ... that share the samples out."""
    each = len(samples) // shards
    for n in range(shards):
        (folder / f"{n}.bin").write_bytes(b"".join(map(kind.dumps, samples[n * each : (n + 1) * each])))
    return [str(folder / f"{n}.bin") for n in range(shards)]


def read(urls: Any, kind: Kind, *stages: Any, **kw: Any) -> list[Any]:
    return list(wds.DataPipeline(wds.SimpleShardList(urls), kind.stage(**kw), *stages))


def without_place(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in sample.items() if name != "__url__"} for sample in samples]


@EACH
def test_all_shards_are_read(kind, tmp_path):
    """All records of all shards come with their types and their shard's url, from files and through pipes."""
    urls = write(tmp_path, kind)
    for shards in (urls, [f"pipe:cat {url}" for url in urls]):
        samples = read(shards, kind)
        assert without_place(samples) == SAMPLES
        assert [sample["__url__"] for sample in samples] == [url for url in shards for _ in range(3)]


@EACH
def test_shards_come_from_servers_and_compressed(kind, tmp_path):
    """Records come over http, and out of gzip, bzip2, xz and zstd, which are known by their first bytes."""
    import bz2
    import lzma

    urls = write(tmp_path, kind)
    contents = [Path(url).read_bytes() for url in urls]
    with serve({f"/{n}.bin": Page(data) for n, data in enumerate(contents)}) as server:
        assert without_place(read([server.url(f"/{n}.bin") for n in range(3)], kind)) == SAMPLES
    for pack, url, data in zip((gzip.compress, bz2.compress, lzma.compress), urls, contents, strict=True):
        Path(url).write_bytes(pack(data))
    assert without_place(read(urls, kind)) == SAMPLES
    Path(urls[1]).write_bytes(gzip.compress(contents[1])[:-20])
    with pytest.raises(DataError, match=rf"{urls[1]}: the gzip stream ends too early"):
        read(urls, kind)


def test_streams_of_other_writers():
    """Every golden stream gives exactly the samples that it should, and a cut one an error after them."""
    expected = json.loads((foreign_data() / "expected.json").read_text())
    names = [name for name in expected if name.startswith("streams/")]
    assert len(names) == 9
    for name in names:
        stage = wds.msgpack_to_samples if name.endswith(".mp") else wds.cbors_to_samples
        source = wds.SimpleShardList([str(foreign_data() / name)])
        found, faults = [], []
        stage = stage(handler=lambda exn, faults=faults: not faults.append(str(exn)))
        for sample in wds.DataPipeline(source, stage):
            fields = {n: v if isinstance(v, bytes) else str(v).encode() for n, v in sample.items() if n[:2] != "__"}
            found.append([sample["__key__"], {n: hashlib.sha256(v).hexdigest() for n, v in fields.items()}])
        assert len(faults) == ("truncated" in name)
        assert all(f"{name}!record 3: the stream ends inside it, after 2" in fault for fault in faults)
        assert found == expected[name]


def test_fields_of_the_published_archive_as_records(tmp_path):
    """The msgpack fields of mpdata.tar, written one behind the other, are a stream of records with the same values."""
    fields = [sample["mp"] for sample in wds.WebDataset(str(upstream_data() / "mpdata.tar"), shardshuffle=False)]
    assert len(fields) == 100
    (tmp_path / "all.mp").write_bytes(b"".join(fields))
    samples = read([str(tmp_path / "all.mp")], KINDS["msgpack"])
    assert [{"x": sample["x"], "y": sample["y"]} for sample in samples] == list(map(msgpack.unpackb, fields))
    assert (samples[0]["x"], samples[0]["y"], samples[0]["__key__"]) == (0, 0, "all/000000000")


@EACH
def test_records_without_a_key_get_one(kind, tmp_path):
    """The key is the name of the shard and the number in it; keys that are bytes or numbers become texts."""
    records = [{"a": 1}, {"__key__": b"k1"}, {"__key__": 7}, {"__url__": "liar", "__key__": "k"}, {}]
    (tmp_path / "train-01.v2.bin").write_bytes(b"".join(map(kind.dumps, records)))
    url = str(tmp_path / "train-01.v2.bin")
    samples = read([url], kind)
    assert [sample["__key__"] for sample in samples] == ["train-01/000000000", "k1", "7", "k", "train-01/000000004"]
    assert {sample["__url__"] for sample in samples} == {url}
    (first, *_) = read([f"pipe:cat {url}"], kind)
    assert first["__key__"].startswith("pipe-")
    assert first["__key__"].endswith("/000000000")


@EACH
def test_records_are_decoded_and_go_on(kind, tmp_path):
    """The other stages take them: decode, shuffle, tuples, batches, and archives that are written from them."""
    records = [{"__key__": f"{n}", "cls": b"%d" % n, "json": b'{"a": 1}', "caption": f"c{n}", "n": n} for n in range(8)]
    urls = write(tmp_path, kind, records, 2)
    samples = read(urls, kind, wds.shuffle(100), wds.decode(partial=True))
    assert sorted(s["cls"] for s in samples) == list(range(8))
    assert {s["json"]["a"] for s in samples} == {1}
    batches = read(urls, kind, wds.decode(only="cls", partial=True), wds.to_tuple("cls", "caption"), wds.batched(4))
    assert [list(batch[0]) for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with wds.TarWriter(str(tmp_path / "a.tar")) as sink:
        for sample in read(urls, kind):
            sink.write({"__key__": sample["__key__"], "cls": sample["cls"], "txt": sample["caption"]})
    assert len(list(wds.WebDataset(str(tmp_path / "a.tar")))) == 8


@EACH
def test_every_cut_is_told(kind, tmp_path):
    """Cut anywhere, a stream gives its whole records, then an error with file, record and byte; at a border, none."""
    records = [
        {"__key__": "a", "x": b"12345", "y": [1, "ü", 2.5]},
        {"__key__": "b", "z": {"q": None}},
        {"__key__": "c"},
    ]
    data = [kind.dumps(record) for record in records]
    begins = [0, len(data[0]), len(data[0] + data[1]), len(b"".join(data))]
    path = tmp_path / "a.bin"
    for length in range(begins[-1] + 1):
        path.write_bytes(b"".join(data)[:length])
        whole = sum(begin <= length for begin in begins[1:])
        found: list[Any] = []
        stream = wds.DataPipeline(wds.SimpleShardList([str(path)]), kind.stage(), wds.map(found.append))
        if length in begins:
            assert list(stream) == []
        else:
            fact = f"the stream ends inside it, after {length - begins[whole]} of its bytes"
            with pytest.raises(DecodingError) as caught:
                list(stream)
            assert str(caught.value) == f"{path}!record {whole}: {fact} (byte {begins[whole]})"
            assert (caught.value.member, caught.value.offset) == (f"record {whole}", begins[whole])
        assert without_place(found) == records[:whole]


@EACH
def test_an_archive_under_the_name_of_records_says_so(kind, tmp_path):
    """The error of an archive that is read as records says what it is."""
    path = write_shards(tmp_path, 1, 2)[0]
    with pytest.raises(DecodingError, match="record 0: not records, but a tar archive: give it a name that ends in"):
        read([str(path)], kind)


@EACH
def test_the_handler_decides(kind, tmp_path):
    """A damaged shard is left where the damage is, a record that makes no sample is left out; or the stage ends."""
    urls = write(tmp_path, kind)
    Path(urls[0]).write_bytes(Path(urls[0]).read_bytes()[:-1])
    content = [
        kind.dumps(SAMPLES[3]),
        kind.dumps(17),
        kind.dumps(SAMPLES[4]),
        kind.dumps({1: 2}),
        kind.dumps(SAMPLES[5]),
    ]
    Path(urls[1]).write_bytes(b"".join(content))
    with pytest.warns(UserWarning, match="record") as seen:
        samples = read(urls, kind, handler=wds.warn_and_continue)
    assert without_place(samples) == SAMPLES[:2] + SAMPLES[3:]
    said = [str(warning.message) for warning in seen]
    assert any("1.bin!record 1: a sample is a map of fields, or an array, got int" in text for text in said)
    assert any("1.bin!record 3: the names of fields are texts, got 1 (byte" in text for text in said)
    assert without_place(read(urls, kind, handler=wds.ignore_and_stop)) == SAMPLES[:2]
    assert without_place(read(urls[1:], kind, handler=wds.ignore_and_stop)) == SAMPLES[3:4]
    policy = wds.ErrorPolicy(max_fraction=0.9)
    assert len(read(urls, kind, handler=policy)) == 8
    assert sum(policy.counts.values()) == 3
    with pytest.raises(ErrorBudgetError):
        read(urls, kind, handler=wds.ErrorPolicy(max_fraction=0, after=0))
    with pytest.raises(FileNotFoundError):
        read(["missing.bin"], kind)


NOT_RECORDS = {
    "html": b"<html><body>please log in</body></html>",
    "text": b"hello world, this is only a text\n",
    "json": b'{"a": 1}\n{"a": 2}\n',
    "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "jpeg": b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(100),
    "zeros": bytes(1000),
    "ones": b"\xff" * 1000,
    "zip": b"PK\x03\x04" + bytes(100),
    "gzip that is none": b"\x1f\x8b" + b"x" * 100,
}


@EACH
@pytest.mark.parametrize("name", NOT_RECORDS)
def test_what_is_no_stream_of_records(kind, name, tmp_path):
    """Something else under such a name gives one line with the file, and no sample."""
    path = tmp_path / "a.bin"
    path.write_bytes(NOT_RECORDS[name])
    found: list[Any] = []
    with pytest.raises(DataError) as caught:
        found += wds.DataPipeline(wds.SimpleShardList([str(path)]), kind.stage())
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert [type(sample) for sample in found] in ([], [list])  # PNG begins as an array of CBOR does


@EACH
def test_an_archive_is_no_stream_of_records(kind, tmp_path):
    """A tar archive is refused at its first byte."""
    with pytest.raises(DecodingError, match=r"record 0: .*\(byte 0\)"):
        read(write_shards(tmp_path, 1, 3), kind)


BOMBS = {
    "lists": b"\x81" * 200_000,
    "endless lists": b"\x9f" * 200_000,
    "MsgPack lists": b"\x91" * 200_000,
    "maps": b"\xa1\x61a" * 100_000,
    "MsgPack maps": b"\x81\xa1a" * 100_000,
    "tags": b"\xc1" * 200_000,
    "CBOR list of 2**40": b"\x9b" + (1 << 40).to_bytes(8, "big") + b"\x01" * 100,
    "CBOR map of 2**40": b"\xbb" + (1 << 40).to_bytes(8, "big") + b"\x01" * 100,
    "CBOR bytes, 1 TB": b"\xa1\x61a\x5b" + (1 << 40).to_bytes(8, "big") + bytes(100),
    "CBOR text, 1 TB": b"\x7b" + (1 << 40).to_bytes(8, "big") + b"a" * 100,
    "MsgPack list of 2**32": b"\x81\xa1a\xdd\xff\xff\xff\xff" + b"\x01" * 100,
    "MsgPack map of 2**32": b"\xdf\xff\xff\xff\xff" + b"\x01" * 100,
    "MsgPack bytes, 4 GB": b"\x81\xa1a\xc6\xff\xff\xff\xff" + bytes(100),
}


@EACH
@pytest.mark.parametrize("name", BOMBS)
def test_bombs(kind, name, tmp_path):
    """Deep nesting and lengths that are only claimed are one line of an error, without the memory they ask for."""
    (tmp_path / "a.bin").write_bytes(BOMBS[name])
    tracemalloc.start()
    try:
        with pytest.raises(DecodingError, match=r"a\.bin!record [01]: "):
            read([str(tmp_path / "a.bin")], kind)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@EACH
def test_records_beyond_max_bytes(kind, tmp_path):
    """A record that is longer than `max_bytes` is an error before it is read whole; one of many windows is none."""
    large = {"__key__": "large", "data": random.Random(0).randbytes(9 * WINDOW + 1)}
    urls = write(tmp_path, kind, [*SAMPLES[:3], large, SAMPLES[3], SAMPLES[4]], 2)
    assert without_place(read(urls, kind)) == [*SAMPLES[:3], large, SAMPLES[3], SAMPLES[4]]
    with pytest.raises(DecodingError, match=r"1\.bin!record 0: it has more than 1e\+06 bytes; if .* raise max_bytes"):
        read(urls, kind, max_bytes=1e6)
    for wrong, error in ((0, ValueError), ("1", TypeError)):
        with pytest.raises(error, match="max_bytes must be"):
            read(urls, kind, max_bytes=wrong)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats(allow_nan=False) | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
records = st.lists(st.dictionaries(st.text(max_size=6).filter(lambda name: name[:2] != "__"), values, max_size=5))


@EACH
@given(items=records, seed=st.integers(0, 9))
def test_any_records_come_back(kind, items, seed):
    """What a package wrote comes back, however few bytes a read gives."""
    data = b"".join(map(kind.dumps, items))
    source = [{"url": "u", "stream": TrickleReader(data, seed)}]
    assert list(kind.iterator(source)) == items


@EACH
@given(items=records, position=st.floats(0, 1, exclude_max=True), new=st.binary(min_size=1, max_size=9))
def test_changed_bytes(kind, items, position, new):
    """Whatever bytes are changed, there are records or one error of ours, of one line, from a record there is."""
    data = bytearray(b"".join(map(kind.dumps, items)))
    start = int(position * len(data))
    data[start : start + len(new)] = new
    said = ""
    try:
        list(kind.iterator([{"url": "u", "stream": io.BytesIO(data)}]))
    except DataError as exn:
        said = str(exn)
    assert "\n" not in said
    assert not said or said.startswith("u")


@EACH
@pytest.mark.parametrize("size", [300, 70_000, WINDOW - 30, WINDOW + 30])
def test_no_seams_between_windows(kind, size, tmp_path):
    """Records of any size come back over many windows, also from streams of few bytes a read; and cuts are told."""
    chance = random.Random(size)
    items = [{"n": n, "data": chance.randbytes(size + chance.randrange(20))} for n in range(max(9, 900_000 // size))]
    pieces = [kind.dumps(item) for item in items]
    data = b"".join(pieces)
    path = tmp_path / "a.bin"
    path.write_bytes(data)
    with path.open("rb") as stream:
        assert list(kind.iterator([{"url": "u", "stream": stream}])) == items
    assert list(kind.iterator([{"url": "u", "stream": TrickleReader(data)}])) == items
    length = len(data) - len(pieces[-1]) - len(pieces[-2]) // 2
    begin = len(data) - len(pieces[-1]) - len(pieces[-2])
    found = kind.iterator([{"url": "u", "stream": io.BytesIO(data[:length])}])
    assert list(islice(found, len(items) - 2)) == items[:-2]
    with pytest.raises(DecodingError, match=rf"record {len(items) - 2}: the stream ends .* \(byte {begin}\)"):
        next(found)


@EACH
def test_streams_are_closed(kind):
    """Each stream is closed at its end, when it is damaged, and when the iterator is left."""
    whole = kind.dumps(1) + kind.dumps(2)
    streams = [io.BytesIO(whole), io.BytesIO(whole + kind.dumps("text")[:2]), io.BytesIO(whole)]
    assert list(kind.iterator([{"url": "u", "stream": streams[0]}])) == [1, 2]
    with pytest.raises(DecodingError, match=r"u!record 2: the stream ends inside it, after 2 of its bytes \(byte 2\)"):
        list(kind.iterator([{"url": "u", "stream": streams[1]}]))
    items = kind.iterator([{"url": "u", "stream": streams[2]}])
    assert next(items) == 1
    items.close()
    assert [stream.closed for stream in streams] == [True] * 3


def test_a_slow_stream_is_not_waited_for():
    """A record comes as soon as its bytes are there, also while the pipe stays open."""
    reading, writing = os.pipe()
    with open(reading, "rb") as stream, open(writing, "wb", buffering=0) as out:
        samples = msgpack_iterator([{"url": "u", "stream": stream}])
        for n in range(5):
            out.write(msgpack.packb({"n": n, "data": bytes(1000)}))
            assert next(samples)["n"] == n
        samples.close()


def test_a_command_that_fails_is_told(tmp_path):
    """A pipe whose command ends badly is an error, though all records were whole."""
    (url,) = write(tmp_path, KINDS["msgpack"], SAMPLES, 1)
    with pytest.raises(DataError, match="status 3"):
        read([f"pipe:cat {url}; exit 3"], KINDS["msgpack"])


def test_records_from_the_time_before_texts(tmp_path):
    """In the old MsgPack texts and bytes are one: what is UTF-8 is text, nested too."""
    old = [
        {"__key__": f"k{n}", "jpg": bytes([255, n % 256]), "txt": "ü", "sub": [{"a": b"\xff"}, "b"]} for n in range(300)
    ]
    (tmp_path / "old.mp").write_bytes(b"".join(msgpack.packb(record, use_bin_type=False) for record in old))
    assert without_place(read([str(tmp_path / "old.mp")], KINDS["msgpack"])) == old


def test_arrays_of_values_pass():
    """An array is given as the list that it is, as the published stage gives it."""
    data = cbor2.dumps([1, b"x"]) + cbor2.dumps({"a": 1})
    samples = list(wds.cborsiterators.cbors_samples([]))
    assert samples == []
    stream = [{"url": "u", "stream": io.BytesIO(data)}]
    assert next(cbor_iterator(stream)) == [1, b"x"]


def test_names_tell_formats():
    """The format of a file is known by its name, also below a compression, and in a url."""
    known = ("a.mp", "a.msgpack", "a.msg", "http://x/a.mp?b=c.tar", "A.MP.GZ", "x.cbor", "x.cbors.zst", "s3://b/x.cbor")
    assert [record_kind(name) for name in known] == ["msgpack"] * 5 + ["cbor"] * 3
    others = ("a.tar", "mp", "a.mp.tar", "http://x/a?b=c.mp", "a.cbor.tgz", "pipe:cat a.mp.tar")
    assert [record_kind(name) for name in others] == [None] * 6


def named(folder: Path) -> list[str]:
    """Shards of all kinds, by name: MsgPack, gzipped CBOR, and a tar archive."""
    names = ["0.mp", "1.cbors.gz"]
    for n, name in enumerate(names):
        with wds.RecordWriter(folder / name) as sink:
            for sample in SAMPLES[3 * n : 3 * n + 3]:
                sink.write(sample)
    with wds.TarWriter(folder / "2.tar") as tar:
        tar.write({"__key__": "in tar", "txt": "text"})
    return [str(folder / name) for name in (*names, "2.tar")]


def test_webdataset_reads_them_by_name(tmp_path):
    """`WebDataset` takes shards that are named as records, among archives, with shuffling, decoding and its checks."""
    urls = named(tmp_path)
    samples = list(wds.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [*(f"dir/{n}" for n in range(6)), "in tar"]
    assert [sample["__url__"] for sample in samples] == [urls[0]] * 3 + [urls[1]] * 3 + [urls[2]]
    assert samples[1]["data"] == SAMPLES[1]["data"]
    assert samples[0]["__local_path__"] == urls[0]
    dataset = wds.WebDataset(urls[:2], shardshuffle=2).shuffle(10).decode(partial=True).to_tuple("__key__", "list")
    assert sorted(dataset) == [(f"dir/{n}", [1.5, None, {"a": -n}]) for n in range(6)]
    with pytest.raises(DataError, match="no field"):
        list(wds.WebDataset(urls[:1], require="jpg"))


def test_webdataset_asks_its_handler_about_records(tmp_path):
    """A damaged stream of records among other shards is left, or ends the data set, as the handler says."""
    urls = named(tmp_path)
    data = Path(urls[0]).read_bytes()
    Path(urls[0]).write_bytes(data[:-5])
    with pytest.raises(DecodingError, match=r"0\.mp!record 2: the stream ends inside it"):
        list(wds.WebDataset(urls, shardshuffle=False))
    assert len(list(wds.WebDataset(urls, wds.ignore_and_continue, shardshuffle=False))) == 6
    assert len(list(wds.WebDataset(urls, wds.ignore_and_stop, shardshuffle=False))) == 2
    with pytest.raises(DataError, match="WebDataset reads streams of records, without select_files and rename_files"):
        list(wds.WebDataset(urls, select_files=lambda name: True, shardshuffle=False))


def test_a_list_that_counts_records_wrongly_is_told(tmp_path):
    """Where a list says how many samples a shard has, a stream of records must have so many."""
    urls = named(tmp_path)[:2]
    assert len(list(wds.WebDataset([{"url": url, "nsamples": 3} for url in urls], shardshuffle=False))) == 6
    with pytest.raises(DataError, match=r"nsamples 4, the shard has 3"):
        list(wds.WebDataset([{"url": url, "nsamples": 4} for url in urls], shardshuffle=False))


def test_records_go_through_the_cache(tmp_path):
    """Copies of streams of records are kept, and an error page in place of one is not."""
    url = named(tmp_path)[0]
    pages = {"/a.mp": Page(Path(url).read_bytes()), "/b.mp": Page(b"<html>please log in</html>")}
    (tmp_path / "cache").mkdir()
    with serve(pages) as server:
        for _ in range(2):
            samples = list(wds.WebDataset([server.url("/a.mp")], cache_dir=str(tmp_path / "cache")))
            assert [sample["n"] for sample in samples] == [0, 1, 2]
        assert len(server.requests) <= 2
        with pytest.raises(DataError, match="HTML"):
            list(wds.WebDataset([server.url("/b.mp")], cache_dir=str(tmp_path / "cache")))
    assert len([path for path in (tmp_path / "cache").iterdir() if "a" in path.name[:1]]) == 1


def test_the_packages_are_asked_for(monkeypatch, tmp_path):
    """Without its package a stage says which one to install; CBOR is read by the older one too, if more slowly."""
    (url,) = write(tmp_path, KINDS["cbor"], SAMPLES, 1)
    block = "import sys; sys.modules[sys.argv[1]] = None\nimport webdataset as wds\n"
    run = "print(len(list(wds.DataPipeline(wds.SimpleShardList(sys.argv[2:]), getattr(wds, {stage!r})()))))"
    for package, stage, said in (
        ("msgpack", "msgpack_to_samples", "a stream of MsgPack needs msgpack: pip install msgpack"),
        ("cbor2", "cbors2_to_samples", "a stream of CBOR needs cbor2: pip install cbor2"),
        ("cbor2", "cbors_to_samples", "9"),
    ):
        code = block + run.format(stage=stage)
        done = subprocess.run([sys.executable, "-c", code, package, url], capture_output=True, text=True)
        assert said in (done.stdout if said == "9" else done.stderr)


def test_stages_pickle_and_check_their_arguments(tmp_path):
    """The stages cross processes, print as they are written, and name an argument that they do not have."""
    for kind in KINDS.values():
        urls = write(tmp_path, kind)
        stage = pickle.loads(pickle.dumps(kind.stage(handler=wds.ignore_and_continue)))
        assert without_place(list(wds.DataPipeline(wds.SimpleShardList(urls), stage))) == SAMPLES
    with pytest.raises(TypeError, match="handler"):
        list(msgpack_samples([], handler=3))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        wds.msgpack_to_samples(nothing=1)


def test_memory_does_not_grow_with_the_stream(tmp_path):
    """A stream of 60 MB is read in a few windows' memory."""
    with open(tmp_path / "a.mp", "wb") as out:
        for n in range(600):
            out.write(msgpack.packb({"__key__": str(n), "data": bytes(100_000)}))
    tracemalloc.start()
    try:
        for sample in wds.DataPipeline(wds.SimpleShardList([str(tmp_path / "a.mp")]), wds.msgpack_to_samples()):
            del sample
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_values_that_come_often_are_made_once(tmp_path):
    """A record that says a huge value in few bytes is not unfolded, and one that holds itself comes to an end."""
    many = ["x"]
    for _ in range(12):
        many = [many] * 9
    (tmp_path / "a.cbors").write_bytes(
        cbor2.dumps({"v": many}, value_sharing=True) + bytes.fromhex("a16178d81c81d81d00")
    )
    huge, cyclic = wds.DataPipeline(wds.SimpleShardList([str(tmp_path / "a.cbors")]), wds.cbors2_to_samples())
    assert huge["v"][0] is huge["v"][8]
    assert cyclic["x"][0] is cyclic["x"]


FAILING = """
import gc, sys
import webdataset as wds
for url in sys.argv[1:]:
    try:
        list(wds.DataPipeline(wds.SimpleShardList([url]), wds.cbors_to_samples()))
    except wds.DataError as error:
        error.itself = error
    gc.collect()
"""


def test_errors_left_a_word_of_python_about_closing(tmp_path):
    """What a failed read leaves is closed without an error, which Python 3.13, or its development mode, would print."""
    cut = tmp_path / "cut.cbor"
    cut.write_bytes(cbor2.dumps({"a": b"x" * 9000})[:-1])
    with serve({}) as server:
        command = [sys.executable, "-X", "dev", "-c", FAILING, str(cut), server.url("/missing.cbor")]
        done = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True)
    assert "ignored" not in done.stderr
