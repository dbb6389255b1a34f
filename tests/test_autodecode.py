"""Tests of the Decoder: the chain of handlers, the names of fields, and archives of the published writers."""

from __future__ import annotations

import ast
import hashlib
import json
import logging
import pickle
import tarfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
import torch

import webdataset.autodecode as ad
from codec_contract import same
from helpers import foreign_data
from webdataset.autodecode import Continue, Decoder, DecodingError, ImageHandler, handle_extension
from webdataset.codecs import encoders
from webdataset.codecs.gz import gzipped


def decoded(sample: dict[str, Any], *handlers: Any, **kw: Any) -> dict[str, Any]:
    """The sample after one new Decoder."""
    return Decoder(list(handlers), **kw)({"__key__": "k", **sample})


def upper(data: bytes) -> str:
    """A handler's function."""
    return data.decode().upper()


def test_fields_are_decoded_in_place() -> None:
    """A new dict with the same names in the same order; the sample given is left alone."""
    sample = {
        "__key__": "a",
        "__url__": "u",
        "b.txt": b"x",
        "cls": b" 7\n",
        "jpg": b"raw",
        "foo": b"raw",
        "json": b"[1]",
    }
    before = dict(sample)
    result = Decoder([])(sample)
    expected = {**sample, "b.txt": "x", "cls": 7, "json": [1]}
    assert result == expected
    assert list(result) == list(expected)
    assert sample == before


def test_unknown_extensions_stay_bytes() -> None:
    """A field that nothing decodes is the same bytes object."""
    data = b"some bytes"
    for name in ("foo", "TXT", "tar", "pt", "yaml", "csv", "gz_", "", "txt.", "txt.foo"):
        assert decoded({name: data})[name] is data


def test_metadata() -> None:
    """Fields with two underscores become text, pass when they are anything else, and never see a handler."""

    def refuse(key: str, data: bytes) -> None:
        raise AssertionError(key)

    sample = {"__url__": b"caf\xc3\xa9", "__n__": 5, "__none__": None, "__x__.txt": b"y"}
    assert decoded(sample, refuse) == {
        "__key__": "k",
        "__url__": "café",
        "__n__": 5,
        "__none__": None,
        "__x__.txt": "y",
    }
    assert decoded({"_note.txt": b"x"})["_note.txt"] == "x"


def test_metadata_that_is_no_text(caplog: pytest.LogCaptureFixture) -> None:
    """Metadata that is not UTF-8 stays bytes, and the log says so."""
    with caplog.at_level(logging.WARNING, "webdataset.autodecode"):
        assert decoded({"__x__": b"\xff"})["__x__"] == b"\xff"
    assert "__x__ is not UTF-8" in caplog.text


def test_null_is_a_value() -> None:
    """A null in a field of the table decodes to None."""
    for extension in ("json", "mp", "cbor", "pyd"):
        assert decoded({extension: encoders[extension](None)})[extension] is None
    assert decoded({"json.gz": gzipped(b"null")})["json.gz"] is None


def test_gz_is_peeled_off() -> None:
    """A compressed field is decoded by the name before .gz, and keeps its name; unknown ones are expanded."""
    sample = {"txt.gz": gzipped(b"x"), "a.json.gz": gzipped(b"[1]"), "foo.gz": gzipped(b"y"), "gz": gzipped(b"z")}
    assert decoded(sample) == {"__key__": "k", "txt.gz": "x", "a.json.gz": [1], "foo.gz": b"y", "gz": b"z"}
    image = np.zeros((2, 3), np.uint8)
    assert same(image, decoded({"png.gz": gzipped(encoders["png"](image))}, ImageHandler("l8"))["png.gz"])
    assert decoded({"txt.gz": gzipped(b"x")}, handle_extension("txt", upper))["txt.gz"] == "X"


def test_the_chain() -> None:
    """The first result that is not None wins; None leaves the field to the next handler."""
    calls = []

    def first(key: str, data: bytes) -> Any:
        calls.append(key)
        return 1 if key == ".a.txt" else None

    def second(key: str, data: bytes) -> Any:
        return 2

    assert decoded({"a.txt": b"x", "b.txt": b"x"}, first, second) == {"__key__": "k", "a.txt": 1, "b.txt": 2}
    assert decoded({"b.txt": b"x"}, first)["b.txt"] == "x"
    assert calls == [".a.txt", ".b.txt", ".b.txt"]


def test_continue() -> None:
    """Continue goes on with the next handler, another key and other data."""
    seen = []

    def rename(key: str, data: bytes) -> Any:
        return Continue(".json", b"[" + data + b"]") if key == ".list" else None

    def spy(key: str, data: bytes) -> None:
        seen.append((key, data))

    assert decoded({"list": b"1,2"}, rename, spy)["list"] == [1, 2]
    assert seen == [(".json", b"[1,2]")]
    assert decoded({"x": b"1"}, lambda key, data: Continue(".unknown", data * 2))["x"] == b"11"


def test_continue_reaches_handlers_that_decline_the_old_name() -> None:
    """What a handler says to the old key is no guide to what it does with the new one."""
    image = np.zeros((2, 3), np.uint8)
    handlers = [lambda key, data: Continue(".png", data) if key == ".picture" else None, ImageHandler("l8")]
    assert same(image, decoded({"picture": encoders["png"](image)}, *handlers)["picture"])


def test_handle_extension() -> None:
    """Extensions match whole components from the right, in any case."""
    handler = handle_extension("jpg Seg.png", len)
    for key in (".jpg", ".x.JPG", ".seg.png", ".a.seg.png", "jpg", ".SEG.PNG"):
        assert handler(key, b"xyz") == 3
    for key in (".png", ".jpg.gz", ".xjpg", ".aseg.png", "."):
        assert handler(key, b"xyz") is None
    assert pickle.loads(pickle.dumps(handler))(".jpg", b"xy") == 2


def test_handlers_of_the_program_come_first() -> None:
    """handle_extension takes a field before the table, and what it leaves goes on."""
    assert decoded({"txt": b"x", "y.txt": b"y", "json": b"1"}, handle_extension("y.txt", upper)) == {
        "__key__": "k",
        "txt": "x",
        "y.txt": "Y",
        "json": 1,
    }
    assert decoded({"txt": b"x"}, handle_extension("txt", lambda data: None))["txt"] == "x"


def test_pre_and_post() -> None:
    """pre and post replace the defaults, whose lists are looked up when a Decoder is made."""
    assert decoded({"txt": b"x", "a.gz": b"y"}, pre=[], post=[]) == {"__key__": "k", "txt": b"x", "a.gz": b"y"}
    assert decoded({"a.gz": b"y"}, pre=[])["a.gz"] == b"y"
    ad.default_post_handlers.append(handle_extension("foo", upper))
    try:
        assert decoded({"foo": b"x"})["foo"] == "X"
    finally:
        ad.default_post_handlers.pop()
    assert decoded({"foo": b"x"})["foo"] == b"x"


def test_only() -> None:
    """only names whole fields; the others pass as they are, whatever they are."""
    sample = {"cls": b"1", "y.cls": b"2", "txt": b"x", "n": 5, "__x__": b"z"}
    for only in ("cls txt", ["cls", "txt"], {"txt", "cls"}):
        expected = {"__key__": "k", "cls": 1, "y.cls": b"2", "txt": "x", "n": 5, "__x__": "z"}
        assert decoded(sample, only=only) == expected


def test_values_that_are_not_bytes() -> None:
    """They are errors that say what to do; with partial they pass."""
    for value in ("text", 5, None, bytearray(b"x"), memoryview(b"x")):
        with pytest.raises(DecodingError, match=r"u\.tar!k\.txt: the value is \w+, not bytes; .*partial=True"):
            decoded({"txt": value, "__url__": "u.tar"})
        assert decoded({"txt": value, "cls": b"1"}, partial=True) == {"__key__": "k", "txt": value, "cls": 1}
    twice = Decoder([], partial=True)
    assert twice(twice({"__key__": "k", "json": b"null", "txt": b"x"})) == {"__key__": "k", "json": None, "txt": "x"}


def test_bytes_of_a_subclass_are_bytes() -> None:
    """An instance of a subclass of bytes is decoded."""

    class Bytes(bytes):
        pass

    assert decoded({"txt": Bytes(b"x"), "foo": Bytes(b"y")}) == {"__key__": "k", "txt": "x", "foo": b"y"}


def test_the_table_may_be_edited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Decoder that is at work follows additions, changes and removals in `decoders`."""
    decoder = Decoder([ImageHandler("rgb")])
    sample = {"__key__": "k", "txt": b"x", "foo": b"y", "foo.gz": gzipped(b"z")}
    assert decoder(sample) == {"__key__": "k", "txt": "x", "foo": b"y", "foo.gz": b"z"}
    monkeypatch.setitem(ad.decoders, "foo", upper)
    monkeypatch.setitem(ad.decoders, "txt", upper)
    assert decoder(sample) == {"__key__": "k", "txt": "X", "foo": "Y", "foo.gz": "Z"}
    monkeypatch.delitem(ad.decoders, "txt")
    assert decoder(sample)["txt"] == b"x"


def test_every_path_gives_the_same() -> None:
    """Fields decoded by a remembered plan, by the plain chain and by decode1 are equal."""
    image = encoders["png"](np.arange(6, dtype=np.uint8).reshape(2, 3))
    sample = {
        "__key__": "k",
        "txt": b"x",
        "a.cls": b"1",
        "png": image,
        "b.png.gz": gzipped(image),
        "foo": b"y",
        "gz": b"",
    }
    decoder = Decoder([handle_extension("a.cls", int), ImageHandler("l8")])
    opaque = Decoder([lambda key, data: None, *decoder.handlers], pre=[], post=[])
    first = decoder(sample)
    for other in (
        decoder(sample),
        opaque(sample),
        {k: decoder.decode1(k, v) for k, v in sample.items() if k != "__key__"},
    ):
        assert all(same(first[field], value) for field, value in other.items())


def test_failures_name_the_place() -> None:
    """An error in any handler becomes one DecodingError with shard, key, field, sample and cause."""

    def fail(key: str, data: bytes) -> None:
        raise RuntimeError("out of\nsomething")

    sample = {"__key__": "dir/k", "__url__": "http://user:secret@host/x.tar?token=1", "x.foo": b"data"}
    with pytest.raises(DecodingError) as caught:
        Decoder([fail])(sample)
    error = caught.value
    assert str(error) == "http://host/x.tar!dir/k.x.foo: RuntimeError: out of something; the field starts with b'data'"
    assert isinstance(error.__cause__, RuntimeError)
    assert (error.url, error.key, error.k, error.field) == (sample["__url__"], "dir/k", "x.foo", "x.foo")
    assert error.sample is sample
    assert isinstance(error, ValueError)


def test_decoding_errors_pickle_without_the_sample() -> None:
    """The error crosses processes whole but for the sample, which may be large."""
    error = DecodingError("x.tar", "k", "json", {"json": bytes(1_000_000)}, message="invalid")
    data = pickle.dumps(error)
    assert len(data) < 1000
    copied = pickle.loads(data)
    assert str(copied) == str(error) == "x.tar!k.json: invalid"
    assert (copied.url, copied.key, copied.k, copied.sample) == ("x.tar", "k", "json", None)


def test_control_signals_pass() -> None:
    """KeyboardInterrupt is not a decoding error."""

    def interrupt(key: str, data: bytes) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decoded({"foo": b"x"}, interrupt)


def test_wrong_arguments() -> None:
    """Handlers must be a list of callables, samples must be dicts."""
    with pytest.raises(TypeError, match="handlers must be a list of functions, got str"):
        Decoder("rgb")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a decoding handler must be a function"):
        Decoder(["rgb"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="needs samples that are dicts, got tuple"):
        Decoder([])((b"x",))  # type: ignore[arg-type]


def test_decoders_cross_to_spawned_processes() -> None:
    """A Decoder that is at work pickles, and works the same in a new interpreter."""
    decoder = Decoder([ImageHandler("rgb8"), handle_extension("cls", int)], only="cls txt png")
    image = encoders["png"](np.zeros((2, 3, 3), np.uint8))
    sample = {"__key__": "k", "cls": b"1", "txt": b"x", "png": image, "json": b"1"}
    here = decoder(sample)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert same(here, pool.submit(decoder, sample).result())


def test_names_of_fields_do_not_pile_up() -> None:
    """What is remembered about names of fields is bounded, however many the data brings."""
    decoder = Decoder([], partial=True)
    for number in range(25_000):
        decoder({"__key__": "k", f"{number}.txt": b"x", f"__{number}": 1})
    assert len(decoder._plans) + len(decoder._passed) <= 20_000


@pytest.mark.parametrize(("version", "count"), [("1.0.2", 2), ("0.2.100", 1)])
def test_archives_of_the_published_writers(version: str, count: int) -> None:
    """Every field that webdataset 0.2.100 and 1.0.2 encode comes back as the value that was given to their writer."""
    folder = foreign_data() / f"wds-{version}"
    samples: dict[str, dict[str, Any]] = {}
    with tarfile.open(folder / f"amber-{version}-all.tar") as archive:
        for member in archive:
            directory, _, name = member.name.rpartition("/")
            stem, _, field = name.partition(".")
            content = archive.extractfile(member)
            assert content is not None
            samples.setdefault(f"{directory}/{stem}".lstrip("/"), {})[field] = content.read()
    expected = json.loads((folder / "values.json").read_text())
    assert list(samples) == [values["__key__"] for values in expected[:count]]
    decoder = Decoder([ImageHandler("rgb8")])
    for values in expected[:count]:
        check_published_sample(decoder({"__key__": values["__key__"], **samples[values["__key__"]]}), values)


def array_of(value: dict[str, Any]) -> np.ndarray:
    """The array that values.json describes."""
    array = np.array(value["data"], value["dtype"])
    return array.reshape(value.get("shape", array.shape))


def check_published_sample(sample: dict[str, Any], values: dict[str, Any]) -> None:
    """Compare a decoded sample with its entry in values.json."""
    for field in ("txt", "cls", "json", "id", "html"):
        assert same(values[field], sample[field]), field
    assert same(array_of(values["npy"]), sample["npy"])
    assert same({name: array_of(value) for name, value in values["npz"].items()}, sample["npz"])
    for field in ("ten", "tb"):
        assert same([array_of(value) for value in values[field]], sample[field])
    assert same(ast.literal_eval(values["pyd"]), sample["pyd"])
    *first, power, last = values["pickle"].strip("[]").split(",")
    assert power.strip() == "2**70"
    assert same([*(int(number) for number in first), 2**70, last.strip() == "True"], sample["pickle"])
    assert torch.equal(sample["pth"]["t"], torch.from_numpy(array_of(values["pth"]["t"])))
    assert sample["pth"]["n"] == values["pth"]["n"]
    for field in ("mp", "cbor"):
        wanted = {name.removesuffix("_hex"): value for name, value in values[field].items()}
        wanted["b"] = bytes.fromhex(wanted["b"])
        assert wanted == sample[field]
    for field in ("png", "ppm"):
        assert sample[field].shape == tuple(values[field]["shape"])
        assert hashlib.sha256(sample[field].tobytes()).hexdigest() == values[field]["sha256_rgb"]
    grey = np.ascontiguousarray(sample["pgm"][:, :, 0])
    assert hashlib.sha256(grey.tobytes()).hexdigest() == values["pgm"]["sha256_l"]
    assert np.median(abs(sample["jpg"].astype(int) - sample["png"])) <= 1  # the image has one sharp edge
    assert sample["left.png"].shape == sample["tiff"].shape == sample["pbm"].shape == sample["png"].shape
    assert sample["txt.gz"] == values["txt.gz (gunzipped)"]


class Tagging(Decoder):
    """A program's decoder: its own decode1 around the library's, and names that pass."""

    def __init__(self, *args: Any, passed: tuple[str, ...] = (), **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.passed = passed

    def decode1(self, key: str, data: bytes) -> Any:
        return data if key in self.passed else (key, super().decode1(key, data))


def test_subclasses_with_their_own_decode1() -> None:
    """decode calls the subclass's decode1 with the field's name, for bytes of wanted fields, and after pickling too."""
    sample = {"__key__": "k", "txt": b"x", "a.cls": b"1", "foo": b"y", "json": b"2"}
    expected = {"__key__": "k", "txt": ("txt", "x"), "a.cls": ("a.cls", 1), "foo": b"y", "json": b"2"}
    decoder = Tagging([], passed=("foo",), only="txt a.cls foo")
    for one in (decoder, decoder, pickle.loads(pickle.dumps(decoder))):
        assert one(sample) == expected
    assert Tagging([], partial=True)({"txt": 5, "cls": b"1"}) == {"txt": 5, "cls": ("cls", 1)}
    with pytest.raises(DecodingError, match=r"k\.a\.cls: not an integer"):
        decoder({"__key__": "k", "a.cls": b"x"})


def test_subclasses_with_their_own_loop() -> None:
    """A decode of one's own may use handlers, only, partial and decode1; decode is what a call does."""

    class Own(Decoder):
        def decode(self, sample: dict[str, Any]) -> dict[str, Any]:
            wanted = {k: v for k, v in sample.items() if self.only is None or k in self.only}
            assert self.partial is False
            return {k: v if k[0] == "_" else self.decode1(k, v) for k, v in wanted.items()}

    assert Own([handle_extension("foo", upper)], only=["foo", "cls"])({"foo": b"x", "cls": b"1", "txt": b"z"}) == {
        "foo": "X",
        "cls": 1,
    }


def test_subclasses_that_set_the_attributes_themselves() -> None:
    """A subclass may leave out the constructor, as long as it sets `handlers`."""

    class Bare(Decoder):
        def __init__(self) -> None:
            self.handlers = [ad.basichandlers]

    assert Bare()({"__key__": "k", "txt": b"x"}) == {"__key__": "k", "txt": "x"}


def test_decoders_are_edited_at_work() -> None:
    """A Decoder follows what the program does to `handlers`, `only` and `partial`, in place or anew."""
    sample = {"__key__": "k", "foo": b"x", "txt": b"y", "cls": b"1"}
    decoder = Decoder([], only="cls")
    assert decoder(sample) == {**sample, "cls": 1}
    decoder.only.add("txt")
    assert decoder(sample) == {**sample, "cls": 1, "txt": "y"}
    decoder.only = None
    decoder.handlers.insert(0, handle_extension("foo", upper))
    assert decoder(sample) == {"__key__": "k", "foo": "X", "txt": "y", "cls": 1}
    decoder.handlers[0] = handle_extension("foo", len)
    assert decoder(sample)["foo"] == 1
    decoder.handlers = []
    assert decoder(sample) == sample
    decoder.partial = True
    assert decoder({**sample, "n": 5}) == {**sample, "n": 5}


def test_tables_are_replaced() -> None:
    """The program may put another table in the place of `autodecode.decoders`."""
    decoder = Decoder([])
    sample = {"__key__": "k", "txt": b"x", "foo": b"y"}
    assert decoder(sample) == {"__key__": "k", "txt": "x", "foo": b"y"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ad, "decoders", {"foo": upper})
        assert decoder(sample) == {"__key__": "k", "txt": b"x", "foo": "Y"}
        assert ad.basichandlers(".foo", b"y") == "Y"


def test_image_handlers_are_subclassed() -> None:
    """A subclass of ImageHandler may use imagespec, extensions and the library's call; `imagehandler` makes one."""

    class Named(ImageHandler):
        def __call__(self, key: str, data: bytes) -> Any:
            image = super().__call__(key, data)
            return None if image is None else (self.imagespec, "png" in self.extensions, image.shape)

    image = encoders["png"](np.zeros((2, 3), np.uint8))
    sample = {"png": image, "jpg": b"raw", "txt": b"x"}
    assert decoded(sample, Named("l8", ["png"])) == {
        "__key__": "k",
        "png": ("l8", True, (2, 3)),
        "jpg": b"raw",
        "txt": "x",
    }
    assert type(ad.imagehandler("l8")) is ImageHandler
    assert ad.imagehandler("l8", extensions=["foo"])(".foo", image).shape == (2, 3)
    assert ad.imagehandler("l8", ["foo"])(".png", image) is None
