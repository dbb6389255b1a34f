"""The classic 0.1 API beside its data sets: images and tables of decoders, checks, urls and commands, writers."""

from __future__ import annotations

import inspect
import io
import itertools
import json
import os
import pickle
import socket
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zmq
from PIL import Image

import webdataset as wds
from helpers import foreign_data, tar_bytes
from webdataset import autodecode, checks, dataset, filters, tenbin, writer
from webdataset.dataset import Dataset
from webdataset.errors import DecodingError, OpenError, SecurityError
from webdataset.io import command_pipe, gopen, reader, scheme_to_command
from webdataset.webdataset import WebDataset
from webdataset.writer import ShardWriter, TarWriter


@pytest.fixture
def urls() -> list[str]:
    """Three shards of the published package, with 3, 3 and 2 samples of the fields cls, json and txt."""
    return [str(foreign_data() / f"wds-0.2.100/amber-0.2.100-shard-{n:06d}.tar") for n in range(3)]


SPECS = {
    "l8": (np.ndarray, "uint8", (12, 16)),
    "rgb8": (np.ndarray, "uint8", (12, 16, 3)),
    "rgba8": (np.ndarray, "uint8", (12, 16, 4)),
    "l": (np.ndarray, "float32", (12, 16)),
    "rgb": (np.ndarray, "float32", (12, 16, 3)),
    "rgba": (np.ndarray, "float32", (12, 16, 4)),
    "torchl8": (torch.Tensor, "torch.uint8", (12, 16)),
    "torchrgb8": (torch.Tensor, "torch.uint8", (3, 12, 16)),
    "torchrgba8": (torch.Tensor, "torch.uint8", (4, 12, 16)),
    "torchl": (torch.Tensor, "torch.float32", (12, 16)),
    "torchrgb": (torch.Tensor, "torch.float32", (3, 12, 16)),
    "torch": (torch.Tensor, "torch.float32", (3, 12, 16)),
    "torchrgba": (torch.Tensor, "torch.float32", (4, 12, 16)),
    "pill": (Image.Image, "L", (16, 12)),
    "pil": (Image.Image, "RGB", (16, 12)),
    "pilrgb": (Image.Image, "RGB", (16, 12)),
    "pilrgba": (Image.Image, "RGBA", (16, 12)),
}
"""The 17 image specs: class, numbers or mode, shape or size of an image of 16 x 12 pixels."""


EXTENSIONS = (
    ("cls", "cls2", "class", "count", "index", "inx", "id"),
    ("txt", "text", "transcript"),
    ("png", "jpg", "jpeg", "img", "image", "pbm", "pgm", "ppm"),
    ("pyd", "pickle", "json", "jsn", "mp", "msgpack", "msg"),
    ("ten", "tb"),
)
"""What a table decodes: integers, texts, images, structures, tensors."""


@pytest.fixture(scope="module")
def png() -> bytes:
    """A colour image of 16 x 12 pixels that the published package has written."""
    [sample, *_] = Dataset(str(foreign_data() / "wds-0.2.100/amber-0.2.100-all.tar"))
    return sample["png"]


@pytest.mark.parametrize("spec", SPECS)
def test_imagehandler(spec, png):
    """`imagehandler(data, imagespec)` gives the image; so do the modern one, `decode` and the table of the spec."""
    kind, numbers, shape = SPECS[spec]
    images = [
        autodecode.imagehandler(png, spec),
        wds.imagehandler(data=png, imagespec=spec),
        autodecode.imagehandler(png, imagespec=spec),
        dataset.imagehandler(png, spec),
        wds.imagehandler(spec)("x.png", png),
        wds.default_handlers[spec]["png"](png),
        autodecode.make_decoder(spec)({"png": png})["png"],
    ]
    for image in images:
        assert isinstance(image, kind)
        if kind is Image.Image:
            assert (image.mode, image.size) == (numbers, shape)
        else:
            assert (str(image.dtype), tuple(image.shape)) == (numbers, shape)
        assert np.array_equal(np.asarray(image), np.asarray(images[0]))


def test_imagehandler_says_what_is_wrong(png):
    """An unknown spec is named; bytes that are no image are an error; the modern signature is what `inspect` shows."""
    with pytest.raises(ValueError, match="Unknown imagespec: 'rgb9'"):
        autodecode.imagehandler(png, "rgb9")
    with pytest.raises(OSError, match="cannot identify image"):
        autodecode.imagehandler(b"none", "rgb")
    assert ["imagespec", "extensions"] == list(inspect.signature(wds.imagehandler).parameters)


def test_default_handlers(png):
    """A table for each of the 17 specs, with the extensions of 0.1; what is changed there counts."""
    assert {*SPECS} == {*wds.default_handlers} == {*autodecode.imagespecs}
    table = wds.default_handlers["rgb"]
    assert sorted(table) == sorted(itertools.chain(*EXTENSIONS))
    table["secret"] = lambda data: data[::-1]
    try:
        assert "ab" == autodecode.make_decoder("rgb")({"x.secret": b"ba"})["x.secret"].decode()
    finally:
        del table["secret"]
    assert [3, b"x"] == [table["cls"](data) for data in (b"3", b"x")]


def test_every_extension_of_a_table(tmp_path):
    """What the published package has written, each extension of the table decodes to its value; others stay bytes."""
    url = str(foreign_data() / "wds-0.2.100/amber-0.2.100-all.tar")
    for sample, values in zip(Dataset(url).decode("rgb8"), golden_values()[:1], strict=True):
        for field in ("txt", "cls", "json", "id"):
            assert sample[field] == values[field]
        assert sample["png"].shape == tuple(values["png"]["shape"])
        assert [array.tolist() for array in sample["ten"]] == [
            np.array(one["data"]).reshape(one["shape"]).tolist() for one in values["ten"]
        ]
        assert sample["mp"]["l"] == values["mp"]["l"]
        assert sample["pickle"] == eval(values["pickle"])
        assert all(isinstance(sample[field], bytes) for field in ("npy", "npz", "pth", "cbor", "html"))


def golden_values() -> Any:
    return json.loads((foreign_data() / "wds-0.2.100/values.json").read_text(encoding="utf-8"))


def test_pickles_run_nothing(tmp_path):
    """`pyd` and `pickle` fields go through the restricted unpickler here, too."""

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    url = str(tmp_path / "a.tar")
    Path(url).write_bytes(tar_bytes({"a.pyd": pickle.dumps(Evil())}))
    with pytest.raises(DecodingError):
        list(WebDataset(url))
    assert not (tmp_path / "made").exists()


def test_make_decoder():
    """What decoders do with metadata, with values that are no bytes, and with names in several parts."""
    sample = {"__key__": "a", "_note": b"text", "x.CLS": b"7", "n": 5, "t": "str", "none": None, "unknown": b"?"}
    decoded = autodecode.make_decoder(True)(sample)
    assert {**sample, "_note": "text", "x.CLS": 7} == decoded
    assert sample == autodecode.make_decoder(False)(sample)
    with pytest.raises(ValueError, match="5: unknown decoder spec"):
        autodecode.make_decoder(5)
    assert 7 == autodecode.decode_item_based_on_extension(b"7", "a.cls", wds.default_handlers["rgb"])
    assert {"a.cls": 7} == autodecode.decode_sample_based_on_extensions({"a.cls": b"7"}, autodecode.make_handlers("l"))
    assert [{"cls": 7}] == list(autodecode.apply_decoder()([{"cls": b"7"}]))
    assert autodecode.maybe_int(b"x") == b"x"


def test_stages_of_the_classic_filters():
    """`curried` and `map_stream` make stages, `transformer` a function of one tuple."""
    function = pickle.loads(pickle.dumps(filters.transformer([str, None])))
    assert ["1", 2, "3"] == function((1, 2, 3))
    assert [["1", 2], ["3", 4]] == list(filters.map_stream(function)([(1, 2), (3, 4)]))
    assert [1, 2] == list(filters.curried(itertools.islice)(2)([1, 2, 3]))


CHECKS = [
    (checks.check, {"value": [1]}, {"value": []}, r"\[\] should be true"),
    (checks.checkcallable, {"value": len}, {"value": 5}, "5 should be callable"),
    (checks.checkmember, {"value": 2, "values": [1, 2]}, {"value": 3, "values": [1, 2]}, r"3 should be in \[1, 2\]"),
    (checks.checknotnone, {"value": 0}, {"value": None}, "None should not be None"),
    (checks.checkrange, {"value": 5, "lo": 0, "hi": 5}, {"value": 6, "lo": 0, "hi": 5}, "6 should be in range 0 5"),
    (checks.checkrange, {"value": 0, "lo": 0, "hi": 5}, {"value": -1, "lo": 0, "hi": 5}, "-1 should be in range 0 5"),
    (checks.checktype, {"value": "a", "types": str}, {"value": 3, "types": (str, list)}, "3 should be of type"),
]


@pytest.mark.parametrize(("check", "right", "wrong", "said"), CHECKS)
def test_checks(check, right, wrong, said):
    """Each gives None for what is right, and a ValueError that says what it should be."""
    assert check(**right) is None
    with pytest.raises(ValueError, match=f"ERROR the reason: {said}"):
        check(**wrong, msg="the reason")
    with pytest.raises(ValueError, match=f"ERROR : {said}"):
        check(**wrong)


def test_checks_by_position():
    """They are called by position as well."""
    assert checks.check(1, "m") is None
    assert checks.checkcallable(len, "m") is None
    assert checks.checkmember(1, [1], "m") is None
    assert checks.checknotnone(1, "m") is None
    assert checks.checkrange(1, 0, 2, "m") is None
    assert checks.checktype(1, int, "m") is None


def test_gopen_reads_and_writes(urls, tmp_path):
    """`gopen(url, mode, bufsize)`: files, `file:` urls and commands, for reading and writing."""
    data = Path(urls[0]).read_bytes()
    for url in (urls[0], f"file:{urls[0]}", f"pipe:cat '{urls[0]}'", f"pipenoerr:cat '{urls[0]}'; exit 3"):
        with gopen(url=url, mode="rb", bufsize=1024) as stream:
            assert data == stream.read()
        if not url.startswith("pipenoerr"):
            with reader(url) as stream:
                assert data == stream.read()
    for url in (str(tmp_path / "a"), f"pipe:cat > '{tmp_path}/b'", f"pipenoerr:cat > '{tmp_path}/c'; exit 3"):
        with gopen(url, "wb") as stream:
            stream.write(data)
    assert data == (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()
    with pytest.raises(FileNotFoundError):
        gopen(str(tmp_path / "d"))


def test_scheme_to_command(urls, monkeypatch):
    """The table has the commands of the schemes that are left to commands; `gopen` runs what a program adds."""
    assert {"ais", "ftps", "scp", "sftp"} == scheme_to_command.keys()
    assert all("{}" in command for command in scheme_to_command.values())
    monkeypatch.setitem(scheme_to_command, "mine", "cat $(echo {} | sed s,mine:,,)")
    with gopen(f"mine:{urls[0]}") as stream:
        assert Path(urls[0]).read_bytes() == stream.read()
    with pytest.raises(ValueError, match="no gopen handler"):
        gopen(f"mine:{urls[0]}", "wb")
    monkeypatch.setenv("WDS_SECURE", "1")
    for url in (f"mine:{urls[0]}", f"pipenoerr:cat {urls[0]}"):
        with pytest.raises(SecurityError):
            gopen(url)


def headers_of(path: Path) -> list[tuple[str, str, str, int]]:
    with tarfile.open(path) as tar:
        return [(member.name, member.uname, member.gname, member.mode) for member in tar]


def test_tarwriter_arguments(tmp_path):
    """Owner, group and permission bits stand in the headers; metadata is written where it is asked for."""
    with TarWriter(fileobj=str(tmp_path / "a.tar")) as sink:
        assert 7 == sink.write(obj={"__key__": "a", "cls": 12, "txt": "hello", "_note": "x"})
    assert headers_of(tmp_path / "a.tar") == [(f"a.{field}", "bigdata", "bigdata", 292) for field in ("cls", "txt")]
    sink = TarWriter(str(tmp_path / "b.tar"), user="me", group="us", mode=0o600, compress=None, keep_meta=True)
    assert 2 == sink.write({"__key__": "b", "cls": 1, "_note": "x"})
    sink.close()
    assert headers_of(tmp_path / "b.tar") == [(f"b.{field}", "me", "us", 0o600) for field in ("_note", "cls")]


@pytest.mark.parametrize(("name", "compress"), [("a.tgz", None), ("a.tar.gz", None), ("a.tar", True), ("a.tar", "gz")])
def test_compress(name, compress, tmp_path):
    """`.tgz` is compressed by its name, anything else by the argument; the library reads both."""
    with TarWriter(str(tmp_path / name), compress=compress) as sink:
        sink.write({"__key__": "a", "txt": "hello"})
    assert (tmp_path / name).read_bytes()[:2] == b"\x1f\x8b"
    assert [{"__key__": "a", "txt": "hello"}] == list(Dataset(str(tmp_path / name)).decode())


ENCODERS = {
    "True": (True, {"cls": 7, "txt": "x"}),
    "default": ("default", {"cls": 7, "txt": "x"}),
    "False": (False, {"cls": b"7", "txt": b"x"}),
    "dict": ({"cls": lambda value: b"7", "txt": lambda value: b"x"}, {"cls": None, "txt": []}),
    "function": (lambda sample: {"__key__": "a", "cls": b"7", "txt": b"x"}, {"anything": 5}),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_encoder(name, tmp_path):
    """`encoder` is True, False for bytes, a dict by extension, or a function of the sample."""
    encoder, fields = ENCODERS[name]
    with TarWriter(str(tmp_path / "a.tar"), encoder=encoder) as sink:
        sink.write({"__key__": "a", **fields})
    assert [{"__key__": "a", "cls": b"7", "txt": b"x"}] == list(Dataset(str(tmp_path / "a.tar")))
    if name == "False":
        with TarWriter(io.BytesIO(), encoder=False) as sink, pytest.raises(ValueError, match="bytes"):
            sink.write({"__key__": "a", "cls": 7})


def test_dwrite(tmp_path):
    """`dwrite(key, **fields)` writes one sample, with "." for each "_" in the names of fields."""
    image = np.full((4, 5, 3), 0.5, np.float32)
    with TarWriter(str(tmp_path / "a.tar")) as sink:
        sink.dwrite("a/b", png=image, output_png=image, cls=3)
        sink.dwrite(key="a/c", txt="x")
    names = ["a/b.cls", "a/b.output.png", "a/b.png", "a/c.txt"]
    assert names == [name for name, *_ in headers_of(tmp_path / "a.tar")]
    [sample, _] = Dataset(str(tmp_path / "a.tar")).decode("rgb")
    assert np.abs(sample["output.png"] - image).max() < 0.01


def test_what_the_decoder_decodes_the_encoder_makes(tmp_path):
    """Values of every extension of the table come back from an archive."""
    structure, arrays = {"a": [1, "b"]}, [np.arange(6.0).reshape(2, 3)]
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    integers, texts, _, structures, tensors = EXTENSIONS
    values = {
        **{
            field: value
            for fields, value in ((integers, 12), (texts, "text"), (structures, structure))
            for field in fields
        },
        **dict.fromkeys(tensors, arrays),
        **dict.fromkeys(("png", "ppm"), pixels),
    }
    with TarWriter(str(tmp_path / "a.tar")) as sink:
        sink.write({"__key__": "a", **values})
    [sample] = Dataset(str(tmp_path / "a.tar")).decode("rgb8")
    assert sample.keys() == {"__key__", *values}
    for field, value in values.items():
        np.testing.assert_equal(sample[field], value)


def test_shardwriter(tmp_path):
    """Shards by count and by size, names given to `post` when they are there, arguments of TarWriter passed on."""
    posted: list[str] = []
    pattern = str(tmp_path / "s-%03d.tar")
    with ShardWriter(pattern=pattern, maxcount=3, maxsize=1e9, post=posted.append, user="me", mode=0o640) as sink:
        for number in range(7):
            sink.write(obj={"__key__": f"{number:04d}", "cls": number})
    assert [3, 3, 1] == [len(list(Dataset(url))) for url in posted]
    assert [pattern % number for number in range(3)] == posted
    assert [("0006.cls", "me", "bigdata", 0o640)] == headers_of(Path(posted[2]))
    sink = ShardWriter(str(tmp_path / "t-%03d.tar"), 100, 10)
    for number in range(4):
        sink.write({"__key__": f"{number}", "txt": "ten bytes!"})
    sink.next_stream()
    sink.write({"__key__": "last", "txt": "x"})
    sink.finish()
    sink.close()
    assert [1, 1, 1, 1, 1] == [len(list(Dataset(str(path)))) for path in sorted(tmp_path.glob("t-*.tar"))]


def test_writers_of_the_package_are_those_of_the_module():
    """There is one TarWriter and one ShardWriter."""
    assert (writer.TarWriter, writer.ShardWriter) == (wds.TarWriter, wds.ShardWriter)


ARRAYS = [np.arange(6, dtype="f4").reshape(2, 3), np.arange(3, dtype="u4")]


def same(found: list[Any]) -> bool:
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(ARRAYS, found, strict=True))


def test_tenbin_files(tmp_path):
    """Arrays go into files and streams, and come back, with their infos where these are asked for."""
    path = str(tmp_path / "a.ten")
    tenbin.save(path, *ARRAYS, infos=["a", "b"], nocheck=False)
    assert same(tenbin.load(path))
    arrays, infos = tenbin.load(fname=path, infos=True, nocheck=False)
    assert same(arrays)
    assert infos == ["a", "b"]
    with pytest.raises(ValueError, match=r"\.ten"):
        tenbin.save(str(tmp_path / "a.bin"), *ARRAYS)
    tenbin.save(str(tmp_path / "a.bin"), *ARRAYS, nocheck=True)
    assert same(tenbin.load(str(tmp_path / "a.bin"), nocheck=True))
    stream = io.BytesIO()
    tenbin.write(stream, ARRAYS, infos=["a", "b"])
    tenbin.write(stream=stream, l=ARRAYS)
    stream.seek(0)
    first, infos = tenbin.read(stream, n=2, infos=True)
    assert same(first)
    assert infos == ["a", "b"]
    assert same(tenbin.read(stream))


def test_tenbin_over_zeromq(tmp_path):
    """Arrays go over ZeroMQ in one part and in several."""
    with zmq.Context() as context, context.socket(zmq.PUSH) as out, context.socket(zmq.PULL) as into:
        out.bind(f"ipc://{tmp_path}/s")
        into.connect(f"ipc://{tmp_path}/s")
        tenbin.zsend_single(out, ARRAYS, infos=["a", "b"])
        assert tenbin.zrecv_single(into, infos=True)[1] == ["a", "b"]
        tenbin.zsend_single(out, ARRAYS)
        assert same(tenbin.zrecv_single(into))
        tenbin.zsend_multipart(socket=out, l=ARRAYS, infos=["a", "b"])
        assert tenbin.zrecv_multipart(into, infos=True)[1] == ["a", "b"]
        tenbin.zsend_multipart(out, ARRAYS)
        assert same(tenbin.zrecv_multipart(into))


def test_tenbin_over_packets():
    """`sctp_send` and `sctp_recv`, here over AF_UNIX SOCK_SEQPACKET, which keeps messages apart as SCTP does."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        tenbin.sctp_send(left, None, ARRAYS, infos=["a", "b"])
        arrays, infos = tenbin.sctp_recv(right, infos=True, maxsize=100000)
        assert same(arrays)
        assert infos == ["a", "b"]
        tenbin.sctp_send(socket=left, dest=None, l=ARRAYS)
        assert same(tenbin.sctp_recv(socket=right))


NAMES = [
    "$(touch made)",
    "a;touch made",
    "`touch made`",
    "a'$(touch made)'b",
    'a"$(touch made)"b',
    "a\ntouch made",
    "a b",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "command",
    [
        "cat {}",
        "cat '{}'",
        'cat "{}"',
        "cat < %s # it's a comment",
        'cat "./{}"',
        "cat './{}'",
        """printf %s "a"{}"b" """.replace("%s", "x"),
        "sh -c 'cat {}'",
        "echo `cat {}`",
        "cat <<end\n{}\nend\n",
        "# it's {}\ncat './{}'",
    ],
)
def test_names_in_lists_run_no_commands(tmp_path, monkeypatch, command, name):
    """Whatever a shard is called, and wherever the command has its place, it is read or refused; nothing else runs."""
    monkeypatch.chdir(tmp_path)
    Path(name).write_text("content")
    try:
        with command_pipe(command)(name) as stream:
            stream.read()
    except (SecurityError, OpenError):
        pass
    assert not Path("made").exists()


def test_harmless_names_may_stand_within_quotes(tmp_path, monkeypatch):
    """Old commands with the place among other text in quotes go on for names that no shell takes apart."""
    monkeypatch.chdir(tmp_path)
    Path("a-0.tar").write_bytes(b"content")
    for command in ("cat './{}'", 'cat "./{}"', "sh -c 'cat {}'", "cat {}", "cat '%s'", "cat"):
        with command_pipe(command)("a-0.tar") as stream:
            assert stream.read() == b"content"
