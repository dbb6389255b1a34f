"""The classic 0.1 API: every name of its help text, called with every argument that it lists, on real archives."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import inspect
import io
import itertools
import logging
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.utils.data

import webdataset as wds
from helpers import foreign_data, tar_bytes, write_picture_shards
from reading import golden, golden_names, hashed
from webdataset import dataset
from webdataset.classic import bare
from webdataset.dataset import Dataset, base_plus_ext, ignore_and_continue, reraise_exception, warn_and_continue
from webdataset.errors import DataError, DecodingError, EmptyDatasetError, OpenError, SecurityError
from webdataset.io import command_pipe, reader
from webdataset.samples import last_dot
from webdataset.webdataset import WebDataset, tariterator

HANDLERS = ["reraise_exception", "ignore_and_continue", "warn_and_continue", "ignore_and_stop", "warn_and_stop"]
NAMES_OF_OLD = ["WebDataset", "tariterator", "default_handlers", "imagehandler"]

TENBIN_SOCKETS = [
    *("zsend_single", "zrecv_single", "zsend_multipart", "zrecv_multipart"),
    *("sctp_send", "sctp_recv"),
]

ALL = {
    "webdataset": ["tenbin", "dataset", "writer"],
    "webdataset.dataset": ["Dataset", *NAMES_OF_OLD, *HANDLERS],
    "webdataset.io": ["gopen", "scheme_to_command"],
    "webdataset.writer": ["TarWriter", "ShardWriter"],
    "webdataset.webdataset": ["Dataset", *NAMES_OF_OLD],
    "webdataset.filters": NAMES_OF_OLD,
    "webdataset.autodecode": NAMES_OF_OLD,
    "webdataset.tenbin": ["read", "write", "save", "load", *TENBIN_SOCKETS],
}
"""Module to the `__all__` that its help text shows."""

COMMON = "epochs=1, keys=base_plus_ext, opener=reader, prepare_for_worker=True, length=None, handler=reraise_exception"
H = "handler=reraise_exception"

SEED = {
    "dataset.Dataset": f"urls, *, {COMMON}, suffixes=None, shuffle=False, initial_pipeline=None",
    "dataset.Dataset.decode": f"self, decoder='rgb', {H}",
    "dataset.Dataset.map": f"self, f, {H}",
    "dataset.Dataset.map_dict": f"self, {H}, **kw",
    "dataset.Dataset.map_tuple": f"self, *args, {H}",
    "dataset.Dataset.pipe": "self, stage",
    "dataset.Dataset.raw_iter": "self",
    "dataset.Dataset.rename": f"self, {H}, **kw",
    "dataset.Dataset.shard_selection": "self",
    "dataset.Dataset.shuffle": "self, size",
    "dataset.Dataset.to_tuple": f"self, *args, {H}",
    **{f"dataset.{name}": "exn" for name in HANDLERS},
    "webdataset.WebDataset": f"urls, *, {COMMON}, extensions=None, decoder='rgb', transforms=None, pipeline=None, "
    "verbose=False, shuffle=0, associate=None",
    "webdataset.WebDataset.shard_selection": "self",
    "webdataset.tariterator": "fileobj, keys=base_plus_ext, decoder=True, suffixes=None, "
    "tar_errors=reraise_exception, decode_errors=reraise_exception, *, check_sorted=False",
    "checks.check": "value, msg=''",
    "checks.checkcallable": "value, msg=''",
    "checks.checkmember": "value, values, msg=''",
    "checks.checknotnone": "value, msg=''",
    "checks.checkrange": "value, lo, hi, msg=''",
    "checks.checktype": "value, types, msg=''",
    "io.gopen": "url, mode='rb', bufsize=8192",
    "io.reader": "url",
    "writer.TarWriter": "fileobj, user='bigdata', group='bigdata', mode=292, compress=None, encoder=True, "
    "keep_meta=False",
    "writer.TarWriter.close": "self",
    "writer.TarWriter.dwrite": "self, key, **kw",
    "writer.TarWriter.write": "self, obj",
    "writer.ShardWriter": "pattern, maxcount=100000, maxsize=3000000000.0, post=None, **kw",
    "writer.ShardWriter.close": "self",
    "writer.ShardWriter.finish": "self",
    "writer.ShardWriter.next_stream": "self",
    "writer.ShardWriter.write": "self, obj",
    "autodecode.imagehandler": "data, imagespec",
    "tenbin.load": "fname, infos=False, nocheck=False",
    "tenbin.read": "stream, n=999999, infos=False",
    "tenbin.save": "fname, *args, infos=None, nocheck=False",
    "tenbin.sctp_recv": "socket, infos=False, maxsize=100000000",
    "tenbin.sctp_send": "socket, dest, l, infos=None",
    "tenbin.write": "stream, l, infos=None",
    "tenbin.zrecv_multipart": "socket, infos=False",
    "tenbin.zrecv_single": "socket, infos=False",
    "tenbin.zsend_multipart": "socket, l, infos=None",
    "tenbin.zsend_single": "socket, l, infos=None",
}
"""What the help texts list: name to parameters and defaults. `check_sorted` is in the text of its function only."""

OTHER_SIGNATURES = {
    "autodecode.imagehandler": "has the modern signature, and takes both: see the tests of images",
    "tenbin.read": "n is sys.maxsize by default since 0.2, where it was 999999",
}

PARAMETERS = {
    name: list(inspect.signature(eval(f"lambda {text}: 0", {**vars(dataset), "reader": reader})).parameters)
    for name, text in SEED.items()
}

KEYS = [f"pebble{number:04d}" for number in range(8)]
FIELDS = ("cls", "json", "txt")
TEXT = "maple lantern stone violet copper\n"  # of the second sample


@pytest.fixture
def urls() -> list[str]:
    """Three shards of the published package, with 3, 3 and 2 samples of the fields cls, json and txt."""
    return [str(foreign_data() / f"wds-0.2.100/amber-0.2.100-shard-{n:06d}.tar") for n in range(3)]


@pytest.fixture
def pattern(urls) -> str:
    return urls[0].replace("000000.tar", "{000000..000002}.tar")


@pytest.fixture
def pictures(tmp_path) -> str:
    """A shard of four samples jpg, cls, json, txt."""
    return write_picture_shards(tmp_path, 1, 4)[0]


def keys_of(samples: Any) -> list[str]:
    return [sample["__key__"] for sample in samples]


def written(path: Path, members: list[tuple[str, bytes]]) -> str:
    path.write_bytes(tar_bytes(members))
    return str(path)


# ---- what is there ---------------------------------------------------------------------------------------------------


def find(name: str) -> Any:
    module, *parts = name.split(".")
    value = importlib.import_module(f"webdataset.{module}")
    for part in parts:
        value = getattr(value, part)
    return value


@pytest.mark.parametrize("name", SEED)
def test_parameters_and_defaults(name):
    """Each callable has the parameters of its help text with these defaults; what is ours is passed by keyword."""
    if name in OTHER_SIGNATURES:
        return
    ours = inspect.signature(find(name)).parameters
    named = {**vars(dataset), "reader": reader}
    theirs = inspect.signature(eval(f"lambda {SEED[name]}: 0", named)).parameters
    for one, parameter in theirs.items():
        assert ours[one].kind == parameter.kind, one
        assert ours[one].default == parameter.default, one
    positional = [one for one, p in theirs.items() if p.kind == p.POSITIONAL_OR_KEYWORD]
    assert list(ours)[: len(positional)] == positional


def test_every_argument_is_passed():
    """In the code of these two files every callable of the table is called, with each of its arguments."""
    passed: dict[str, set[Any]] = {}
    for path in Path(__file__).parent.glob("test_second_seed*.py"):
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call):
                name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
                passed.setdefault(name, set()).update({*range(len(call.args)), *(word.arg for word in call.keywords)})
    lacking = []
    for name, parameters in PARAMETERS.items():
        called = passed.get(name.rpartition(".")[2])
        listed = [one for one in parameters if one not in ("self", "args", "kw")]
        lacking += [f"{name}({one})" for i, one in enumerate(listed) if called is None or not called & {i, one}]
        lacking += [name] if called is None else []
    assert lacking == []


@pytest.mark.parametrize("module", ALL)
def test_star_imports(module):
    """`from X import *` gives every name of the `__all__` of the help text."""
    names: dict[str, Any] = {}
    exec(f"from {module} import *", names)
    assert set(ALL[module]) <= names.keys()


def test_names_of_the_package():
    """`import webdataset` alone has Dataset, default_handlers and the modules of old, and imports none of them."""
    code = """
import sys, webdataset as wds
print(sorted(name for name in sys.modules if name in ("torch", "webdataset.dataset", "webdataset.classicdecoders")))
print(wds.Dataset is wds.dataset.Dataset, wds.webdataset.WebDataset is not wds.WebDataset)
print(wds.default_handlers is wds.autodecode.default_handlers is wds.dataset.default_handlers)
print("torch" in sys.modules, wds.io.__name__, wds.checks.__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["[]", "True True", "True", "False webdataset.io webdataset.checks", ""]


def test_the_modern_class_names_the_classic_one():
    """Classic keywords of wds.WebDataset are errors that name the class that takes them, and the other way round."""
    for word in ("extensions", "decoder", "transforms", "pipeline", "associate"):
        with pytest.raises(TypeError, match=rf"unknown argument '{word}': .*webdataset\.WebDataset\(urls, {word}="):
            Dataset("a.tar", **{word: None})
    for word in ("extensions", "decoder", "transforms", "pipeline", "epochs", "shuffle", "associate", "opener"):
        with pytest.raises(TypeError, match=rf"webdataset\.webdataset\.WebDataset\(urls, {word}=\.\.\.\)"):
            wds.WebDataset("a.tar", **{word: None})
    for word in ("suffixes", "initial_pipeline"):
        with pytest.raises(TypeError, match=rf"unknown argument '{word}': .*webdataset\.Dataset\(urls, {word}="):
            WebDataset("a.tar", **{word: None})
        with pytest.raises(TypeError, match=rf"webdataset\.Dataset\(urls, {word}=\.\.\.\)"):
            wds.WebDataset("a.tar", **{word: None})
    for kind in (Dataset, WebDataset):
        with pytest.raises(TypeError, match=r"unknown argument 'shardshuffle': .*webdataset\.WebDataset\(urls, shard"):
            kind("a.tar", shardshuffle=True)


# ---- Dataset ---------------------------------------------------------------------------------------------------------


def classic_dataset(path: str) -> Any:
    return Dataset(path)


def classic_webdataset(path: str) -> Any:
    return WebDataset(path, decoder=False)


def classic_tariterator(path: str) -> Iterator[Any]:
    with open(path, "rb") as stream:
        yield from tariterator(stream, decoder=False)


@pytest.mark.filterwarnings("ignore:.*(members follow|no end mark)")
@pytest.mark.parametrize("read", [classic_dataset, classic_webdataset, classic_tariterator])
@pytest.mark.parametrize("name", golden_names("expected.json"))
def test_archives_of_other_tools(name, read):
    """Each golden archive gives the samples that the tables list, without any field but them and `__key__`."""
    with contextlib.suppress(EmptyDatasetError):
        samples = [dict(sample) for sample in read(str(foreign_data() / name))]
    assert hashed([(sample.pop("__key__"), sample) for sample in samples]) == [
        (key, fields) for key, fields in golden("expected.json")[name]
    ]


@pytest.mark.filterwarnings("ignore:.*(members follow|no end mark|torn apart|follows the end)")
@pytest.mark.parametrize("name", golden_names("expected_corrupt.json"))
def test_damaged_archives(name):
    """Of each damaged archive come the samples that the modern class gives, and the same error."""
    path = str(foreign_data() / name)

    def outcome(samples: Any) -> Any:
        found: list[Any] = []
        try:
            found.extend(bare(sample) for sample in samples)
        except (DataError, EmptyDatasetError) as error:
            return found, type(error), str(error)
        return found, None, None

    expected = outcome(wds.WebDataset(path, shardshuffle=False))
    assert expected == outcome(Dataset(path)) == outcome(WebDataset(path, decoder=False))
    lenient = outcome(wds.WebDataset(path, shardshuffle=False, handler=ignore_and_continue))
    assert lenient == outcome(Dataset(path, handler=ignore_and_continue))


def test_urls(urls, pattern, tmp_path):
    """`urls` is a pattern with braces, or a list; nothing at all is an error."""
    assert KEYS == keys_of(Dataset(pattern)) == keys_of(Dataset(urls)) == keys_of(Dataset(urls=urls))
    assert Dataset(pattern).full_urls == urls
    with pytest.raises(EmptyDatasetError, match="no shards"):
        Dataset([])
    with pytest.raises(TypeError, match="cannot handle"):
        Dataset(5)
    with pytest.raises(EmptyDatasetError, match="no sample found"):
        list(Dataset(written(tmp_path / "a.tar", [("README", b"none")])))


def test_keys_and_suffixes(tmp_path):
    """`keys` is the naming rule, `suffixes` are the fields to keep."""
    url = written(tmp_path / "a.tar", [("a.b.txt", b"1"), ("a.b.cls", b"2"), ("c.d.txt", b"3")])
    assert [{"__key__": "a.b", "txt": b"1", "cls": b"2"}, {"__key__": "c.d", "txt": b"3"}] == list(
        Dataset(url, keys=last_dot)
    )
    assert [{"__key__": "a", "b.cls": b"2"}, {"__key__": "c"}] == list(Dataset(url, suffixes=["b.cls"]))
    assert [{"__key__": "a.b", "cls": b"2"}, {"__key__": "c.d"}] == list(
        Dataset(url, keys=last_dot, suffixes="cls other")
    )


def test_length(urls):
    """`len` is what `length` says, and nothing without it."""
    assert 17 == len(Dataset(urls, length=17))
    for kind in (Dataset, WebDataset):
        with pytest.raises(TypeError, match=rf"without a length: {kind.__name__}\(urls, length=n\) says"):
            len(kind(urls))
        assert KEYS == keys_of(kind(urls))
    assert 23 == len(WebDataset(urls, length=23))


def test_epochs(urls):
    """`epochs` passes make one iteration; the same key at the end of one and the start of the next are two samples."""
    assert KEYS * 3 == keys_of(Dataset(urls, epochs=3))
    one = str(foreign_data() / "wds-0.2.100/amber-0.2.100-shard-000000.tar")
    assert KEYS[:3] * 2 == keys_of(WebDataset(one, epochs=2))
    shuffled = keys_of(Dataset(urls, epochs=4, shuffle=True))
    assert sorted(KEYS * 4) == sorted(shuffled)
    assert len({tuple(shuffled[i : i + 8]) for i in range(0, 32, 8)}) > 1
    for kind in (Dataset, WebDataset):
        assert [] == list(kind(urls, epochs=0))


def opened_and_noted(seen, url):
    seen.append(url)
    return open(url, "rb")


@contextlib.contextmanager
def managed(seen, url):
    seen.append("opened")
    with open(url, "rb") as stream:
        yield stream
    seen.append("closed")


@pytest.mark.parametrize("kind", [Dataset, WebDataset])
def test_an_opener_that_is_a_function(kind, urls):
    """`opener` is called with each url and gives a stream, which is closed, or a context manager, which is left."""
    seen: list[str] = []
    assert KEYS == keys_of(kind(urls, opener=functools.partial(opened_and_noted, seen)))
    assert urls == seen
    seen = []
    assert KEYS == keys_of(kind(urls, opener=functools.partial(managed, seen)))
    assert ["opened", "closed"] * 3 == seen
    with pytest.raises(OpenError, match="the opener must give a binary stream, got 5"):
        list(kind(urls, opener=lambda url: 5))
    with pytest.raises(OpenError, match='stream of text: let it open the shard with "rb"'):
        list(kind(urls, opener=open))


@pytest.mark.parametrize("inside", [None, io.StringIO("text")])
def test_a_manager_around_no_binary_stream_is_left(inside, urls):
    """What the opener gave is an error; the context manager, which has been entered, is left all the same."""
    seen: list[str] = []

    @contextlib.contextmanager
    def opener(url):
        seen.append("entered")
        yield inside
        seen.append("left")

    with pytest.raises(OpenError, match=r"binary stream|stream of text"):
        list(Dataset(urls, opener=opener))
    assert ["entered", "left"] == seen


class Once:
    """A context manager that counts how often it is left."""

    left = 0

    def __init__(self, url):
        self.stream = reader(url)

    def __enter__(self):
        return self.stream

    def __exit__(self, *exc_info):
        self.stream.close()
        Once.left += 1


def test_a_manager_is_left_once(urls, monkeypatch):
    """Also where the iteration ends in the middle of a shard, and where the shard is damaged."""
    monkeypatch.setattr(Once, "left", 0)
    samples = iter(Dataset(urls, opener=Once))
    assert KEYS[:2] == [next(samples)["__key__"] for _ in range(2)]
    samples.close()
    assert 1 == Once.left
    with pytest.raises(tarfile.ReadError):
        list(Dataset(str(foreign_data() / "corrupt/amber-trunc-data.tar"), opener=Once))
    assert 2 == Once.left


@pytest.mark.parametrize("command", ["cat", "cat {}", "cat '{}'", "cat %s | cat", 'test -f "{}" && cat "{}"'])
@pytest.mark.parametrize("kind", [Dataset, WebDataset])
def test_an_opener_that_is_a_command(kind, command, urls):
    """A text is run by a shell, with the url in its place or at the end; what it writes is the shard."""
    assert KEYS == keys_of(kind(urls, opener=command))


def test_commands_are_safe(urls, tmp_path, monkeypatch):
    """A url is one word whatever it holds and no option; failures are errors; the security switch refuses commands."""
    odd = tmp_path / "-a b;touch 'x' $(touch y).tar"
    odd.write_bytes(Path(urls[0]).read_bytes())
    monkeypatch.chdir(tmp_path)
    assert KEYS[:3] == keys_of(Dataset([odd.name], opener="cat {}"))
    assert [odd.name] == [path.name for path in tmp_path.iterdir()]
    with pytest.raises(OpenError, match="exit status 3"):
        list(Dataset(urls, opener="cat {}; exit 3"))
    with pytest.warns(UserWarning, match="exit status 3"):
        assert [] == list(tariterator(command_pipe("cat {}; exit 3")(urls[0]), tar_errors=warn_and_continue))[3:]
    for empty in ("", " ", "{}", " %s\n"):
        with pytest.raises(ValueError, match="would run the shards themselves"):
            Dataset(urls, opener=empty)
    monkeypatch.setenv("WDS_SECURE", "1")
    with pytest.raises(SecurityError, match="unsafe_gopen is False"):
        list(Dataset(urls, opener="cat {}"))
    with pytest.raises(SecurityError):
        list(Dataset(urls))


def test_lists_from_elsewhere_run_no_command(tmp_path, urls):
    """A `pipe:` url in a list file is refused, as everywhere."""
    (tmp_path / "list.txt").write_text(f"pipe:cat {urls[0]}\n")
    with pytest.raises(SecurityError, match="pipe"):
        Dataset(f"@{tmp_path / 'list.txt'}")
    assert KEYS[:3] == keys_of(Dataset(f"pipe:cat {urls[0]}"))


@pytest.mark.parametrize("kind", [Dataset, functools.partial(WebDataset, decoder=False)])
def test_handler_of_reading(kind, urls, tmp_path):
    """`handler` decides about shards that cannot be opened or read; by default they raise."""
    bad = [urls[0], str(tmp_path / "none.tar"), str(foreign_data() / "corrupt/amber-trunc-data.tar"), urls[2]]
    with pytest.raises(FileNotFoundError, match=r"none\.tar"):
        list(kind(bad, handler=reraise_exception))
    assert keys_of(kind(bad, handler=ignore_and_continue)) == [*KEYS[:3], *KEYS[:2], *KEYS[6:]]
    with pytest.warns(UserWarning, match=r"none\.tar|trunc-data"):
        assert keys_of(kind(bad, handler=warn_and_continue)) == [*KEYS[:3], *KEYS[:2], *KEYS[6:]]
    assert keys_of(kind(bad, handler=dataset.ignore_and_stop)) == KEYS[:3]
    with pytest.warns(UserWarning, match=r"none\.tar"):
        assert keys_of(kind(bad, handler=dataset.warn_and_stop)) == KEYS[:3]


def test_the_five_handlers():
    """They raise, go on or stop, and two of them warn."""
    exn = ValueError("bad sample")
    with pytest.raises(ValueError, match="bad sample"):
        dataset.reraise_exception(exn)
    assert dataset.ignore_and_continue(exn) is True
    assert dataset.ignore_and_stop(exn) is False
    with pytest.warns(UserWarning, match="bad sample"):
        assert dataset.warn_and_continue(exn) is True
    with pytest.warns(UserWarning, match="bad sample"):
        assert dataset.warn_and_stop(exn) is False


def test_shuffle_of_shards(urls):
    """`shuffle` gives the shards another order in each pass, the same ones for the same seed."""
    data = Dataset(urls, shuffle=True)
    orders = [keys_of(data) for _ in range(6)]
    assert all(sorted(order) == KEYS for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    again = Dataset(urls, shuffle=True)
    assert orders == [keys_of(again) for _ in range(6)]


def test_prepare_for_worker(urls, monkeypatch):
    """True gives each worker its share, False all shards, a function is called first and may choose itself."""
    monkeypatch.setenv("WORKER", "1")
    monkeypatch.setenv("NUM_WORKERS", "2")
    for kind in (Dataset, WebDataset):
        assert KEYS[3:6] == keys_of(kind(urls, prepare_for_worker=True))
        assert KEYS == keys_of(kind(urls, prepare_for_worker=False))
        chosen = kind(urls, prepare_for_worker=lambda: setattr(chosen, "urls", chosen.full_urls[2:]))  # noqa: B023
        assert KEYS[6:] == keys_of(chosen)


@pytest.mark.parametrize("kind", [Dataset, WebDataset])
def test_shard_selection(kind, urls, caplog):
    """It takes each total-th shard of the subset; without a subset, of the worker. Too few shards are told."""
    data = kind(urls)
    data.subset = [np.int64(1), 2]
    data.shard_selection()
    assert data.urls == urls[1:2]
    assert KEYS[3:6] == keys_of(data)
    data.subset = None
    assert KEYS == keys_of(data)
    assert data.urls == urls
    data.subset = (0, 4)
    with caplog.at_level(logging.WARNING):
        assert KEYS[:3] == keys_of(data)
    assert "3 shards for 4 workers" in caplog.text
    data.subset = (3, 4)
    assert [] == list(data)
    for wrong in ((2, 2), (-1, 2), (0, 0), 5, (), (1, 2, 3), (0.5, 2)):
        data.subset = wrong
        with pytest.raises(ValueError, match=r"subset must be \(index, total\), the index below the total"):
            list(data)


def test_a_subclass_selects_shards_in_its_way(urls):
    """`shard_selection` may be overridden."""

    class Last(Dataset):
        def shard_selection(self):
            self.urls = self.full_urls[-1:]

    assert KEYS[6:] == keys_of(Last(urls))


def test_what_a_program_sets_later_counts(urls):
    """Epochs, shuffling and the function of the workers may be changed as attributes; opener and handler are there."""
    for kind in (Dataset, WebDataset):
        data = kind(urls, opener="cat", handler=ignore_and_continue, length=3)
        assert (1, False, None, 3) == (data.epochs, data.do_shuffle, data.subset, data.length)
        assert data.prepare_for_worker == data.shard_selection
        assert data.handler is ignore_and_continue
        with data.opener(urls[0]) as stream:
            assert KEYS[:3] == keys_of(tariterator(stream))
        data.epochs, data.length = 2, 16
        assert KEYS * 2 == keys_of(data)
        assert len(data) == 16
        data.do_shuffle = True
        assert len({tuple(keys_of(data)) for _ in range(4)}) > 1
        data.epochs, data.prepare_for_worker = 1, lambda: setattr(data, "urls", urls[1:2])  # noqa: B023
        assert KEYS[3:6] == keys_of(data)


def test_a_subclass_may_use_such_names_before(urls):
    """What it sets before it calls `__init__` does no harm, as it never did."""

    class Mine(Dataset):
        def __init__(self, urls, epochs):
            self.urls, self.epochs, self.subset, self.handler = urls, epochs, 5, None
            super().__init__(urls)

    assert KEYS == keys_of(Mine(urls, 9))


class Renamed(Dataset):
    """Members of the shards under other names."""

    def raw_iter(self):
        for name, data in super().raw_iter():
            yield f"x{name}", data


class ByHand(Dataset):
    """A loop over the shards, as Dataset had it."""

    def raw_iter(self):
        self.prepare_for_worker()
        for _ in range(self.epochs):
            for url in self.urls:
                with self.opener(url) as stream:
                    yield from dataset.tardata(stream, handler=self.handler)
                    dataset.maybe_collect()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_subclass_with_members_of_its_own(workers, urls):
    """What its `raw_iter` gives is grouped by `keys`, kept by `suffixes`, or goes through `initial_pipeline`."""

    def load(data):
        return sorted(torch.utils.data.DataLoader(data, batch_size=None, num_workers=workers), key=str)

    assert [["x" + key] for key in KEYS] == load(Renamed(urls).to_tuple("__key__"))
    assert [[key] for key in KEYS] == load(ByHand(urls).decode().to_tuple("__key__"))
    [first, *_] = load(Renamed(urls, keys=last_dot, suffixes="cls txt", epochs=2).decode())
    assert {"__key__": "x" + KEYS[0], "cls": 6} == {name: first[name] for name in ("__key__", "cls")}
    assert {"__key__", "cls", "txt"} == first.keys()
    assert 24 == len(load(ByHand(urls, initial_pipeline=[])))
    with pytest.raises(EmptyDatasetError, match="no sample found"):
        load(Renamed(urls, keys=lambda name: (None, None)))


def upper_names(pairs):
    return ((name.upper(), data) for name, data in pairs)


def test_initial_pipeline(urls):
    """Its stages stand in the place of the grouping: the first gets names and bytes; none at all lets them through."""
    pairs = list(Dataset(urls, initial_pipeline=[]))
    assert len(pairs) == 24
    assert ("pebble0000.cls", b"6") == pairs[0]
    upper = list(Dataset(urls, initial_pipeline=[upper_names, dataset.group_by_keys(lcase=False)]))
    assert [key.upper() for key in KEYS] == keys_of(upper)
    assert {"__key__", "CLS", "JSON", "TXT"} == upper[0].keys()
    some = Dataset(urls, initial_pipeline=[dataset.group_by_keys(keys=base_plus_ext, suffixes={"cls"})]).decode()
    assert {"__key__": KEYS[1], "cls": 4} == list(some)[1]


def test_raw_iter(urls):
    """It gives names and bytes of all members, whatever stages the data set has."""
    pairs = list(Dataset(urls).decode().raw_iter())
    assert [f"{key}.{field}" for key in KEYS for field in FIELDS] == [name for name, _ in pairs]
    assert b"4" == dict(pairs)["pebble0001.cls"]
    with open(urls[0], "rb") as stream:
        assert pairs[:9] == list(dataset.tardata(stream))
    data = Dataset(urls, shuffle=True)
    assert len({tuple(data.raw_iter()) for _ in range(6)}) > 1


def test_tardata_and_group_by_keys():
    """Which names `skip_meta` leaves out; handlers decide about damage and about a field that is there twice."""
    data = tar_bytes([("__meta__/a.txt", b""), ("b.txt", b""), ("b.cls", b"")])

    def names(data, **options):
        return [name for name, _ in dataset.tardata(io.BytesIO(data), **options)]

    assert ["b.txt", "b.cls"] == names(data)
    assert ["__meta__/a.txt", "b.txt", "b.cls"] == names(data, skip_meta=None)
    assert ["__meta__/a.txt", "b.cls"] == names(data, skip_meta=r".*b\.txt")
    with pytest.raises(tarfile.ReadError):
        names(data[:1200])
    assert ["b.txt"] == names(data[:1200], handler=ignore_and_continue)
    pairs = [("a.x", b""), ("b.x", b""), ("b.x", b""), ("c.x", b"")]
    with pytest.raises(ValueError, match="'x' is there twice"):
        list(dataset.group_by_keys()(pairs))
    assert ["a", "c"] == keys_of(dataset.group_by_keys(handler=ignore_and_continue)(pairs))


def test_stages_change_the_data_set(urls):
    """Every method gives the very object, so that its result may be dropped."""
    data = Dataset(urls)
    data.shuffle(100)
    data.decode()
    data.to_tuple("__key__", "cls")
    assert data.map_tuple(str.upper, None) is data
    assert {("PEBBLE0000", 6), ("PEBBLE0001", 4)} <= set(data)
    first = tuple(data)
    assert first != tuple(data)
    assert sorted(first) == sorted(data)


def failing(value):
    raise ArithmeticError(f"bad {value!r:.20}")


STAGES = {
    "decode": ((), {"decoder": {"txt": failing}}),
    "map": ((), {"f": failing}),
    "map_dict": ((), {"txt": failing}),
    "map_tuple": ((failing, None), {}),
    "rename": ((), {"text": "caption"}),
    "to_tuple": (("caption",), {}),
}


@pytest.mark.parametrize("name", STAGES)
def test_handler_of_each_stage(name, urls):
    """The handler of a stage gets what fails there, with the shard and the sample; by default it raises."""
    args, kw = STAGES[name]

    def made(**handler):
        data = Dataset(urls)
        if name == "map_tuple":
            data.to_tuple("txt", "cls")
        return getattr(data, name)(*args, **kw, **handler)

    seen: list[Exception] = []
    assert [] == list(made(handler=lambda exn: seen.append(exn) or True))
    assert len(seen) == 8
    assert [] == list(made(handler=ignore_and_continue))
    with pytest.raises((ArithmeticError, DataError)) as caught:
        list(made())
    if name != "map_tuple":  # tuples do not know where they come from
        assert "amber-0.2.100-shard-000000.tar!pebble0000" in "".join([str(caught.value), *notes(caught.value)])


def test_handlers_of_functions_and_rules(urls):
    """`decode` with a function, `select`, and `map` with rules give their handler what fails, too."""
    stages = {"decode": failing, "select": failing, "map": [("txt", failing)]}
    for name, f in stages.items():
        seen: list[Exception] = []
        assert [] == list(getattr(Dataset(urls), name)(f, handler=lambda exn: seen.append(exn) or True))  # noqa: B023
        assert len(seen) == 8, name
        with pytest.raises(ArithmeticError):
            list(getattr(Dataset(urls), name)(f))


def notes(exn: BaseException) -> list[str]:
    return getattr(exn, "__notes__", [])


def test_decoders(urls):
    """`decode` takes an image spec, True, False, None, a dict by extension, or a function of the sample."""
    plain = list(Dataset(urls))
    assert 4 == list(Dataset(urls).decode())[1]["cls"]
    assert {"i": 1} == list(Dataset(urls).decode(True))[1]["json"]
    for nothing in (False, None):
        assert plain == list(Dataset(urls).decode(nothing))
    by_table = list(Dataset(urls).decode(decoder={"txt": len}))
    assert [{**sample, "txt": len(sample["txt"])} for sample in plain] == by_table
    assert [sorted(sample) for sample in plain] == list(Dataset(urls).decode(sorted, handler=reraise_exception))
    with pytest.raises(ValueError, match=r"unknown decoder spec \(did you mean 'rgb'\?\)"):
        Dataset(urls).decode("rgb9")


def test_map_and_map_dict(urls):
    """`map` sees classic samples and keeps the key, `map_dict` changes fields."""
    assert [{"__key__": key, "names": ["__key__", *FIELDS]} for key in KEYS] == list(
        Dataset(urls).map(f=lambda sample: {"names": list(sample)}, handler=reraise_exception)
    )
    data = list(Dataset(urls).map_dict(handler=reraise_exception, cls=int, txt=len))
    assert [(4, 34)] == [(sample["cls"], sample["txt"]) for sample in data][1:2]


def test_rename_and_to_tuple(urls):
    """`rename` leaves the named fields only, `to_tuple` makes tuples of them; both take alternatives."""
    renamed = list(Dataset(urls).rename(handler=reraise_exception, label="id;cls", __key__="__key__"))
    assert {"label": b"4", "__key__": KEYS[1]} == renamed[1]
    assert (KEYS[1], b"4") == list(Dataset(urls).to_tuple("__key__", "id;cls", handler=reraise_exception))[1]
    assert (KEYS[1], b"4") == list(Dataset(urls).to_tuple("__key__ id;cls"))[1]
    assert [(None,)] * 8 == list(Dataset(urls).to_tuple("id", missing_is_error=False))


def test_map_tuple(urls):
    """One function for each position."""
    data = Dataset(urls).to_tuple("cls", "txt").map_tuple(int, len, handler=reraise_exception)
    assert (4, 34) == list(data)[1]


def pairs_of_keys(samples):
    keys = [sample["__key__"] for sample in samples]
    return iter(list(itertools.pairwise(keys)))


def test_pipe(urls):
    """`pipe` takes a function from an iterator over classic samples to another one."""
    assert list(itertools.pairwise(KEYS)) == list(Dataset(urls).pipe(stage=pairs_of_keys))
    assert list(itertools.pairwise(KEYS)) == list(Dataset(urls).add_stage(pairs_of_keys))
    assert [{"__key__", *FIELDS}] * 8 == [{*sample} for sample in Dataset(urls).pipe(iter)]
    keep = [{"__url__": "mine"}]
    assert keep == list(Dataset(urls).pipe(lambda samples: iter(keep)))


def hundred(tmp_path: Path) -> str:
    return written(tmp_path / "many.tar", [(f"{number}.id", b"") for number in range(100)])


def ahead(samples: Any) -> int:
    """By how many places some sample of `hundred` comes before its turn."""
    return max(int(key) - place for place, key in enumerate(keys_of(samples)))


def test_shuffle_of_samples(urls, tmp_path):
    """`shuffle(size)` mixes samples and shards; 0 does nothing."""
    assert KEYS == keys_of(Dataset(urls, handler=reraise_exception, prepare_for_worker=True).shuffle(0))
    shuffled = keys_of(Dataset(urls).shuffle(size=5))
    assert KEYS != shuffled
    assert sorted(KEYS) == sorted(shuffled)
    many = hundred(tmp_path)
    assert ahead(Dataset(many).shuffle(size=3)) <= 3
    assert ahead(Dataset(many).shuffle(size=90)) > 50
    assert int(next(iter(Dataset(many).shuffle(90, initial=2)))["__key__"]) <= 3
    assert int(next(iter(Dataset(many).shuffle(90)))["__key__"]) > 3
    only_shards = Dataset(urls).shuffle(1)
    assert only_shards.do_shuffle is True
    assert len({tuple(keys_of(only_shards)) for _ in range(6)}) > 1


def test_later_methods(urls):
    """What came after the help text is there, too: select, batched, slice; ResizedDataset and ChoppedDataset."""
    data = Dataset(urls).decode().select(lambda sample: "__url__" not in sample and sample["cls"] != 4)
    assert [6, 7, 8, 3, 6, 8] == [sample["cls"] for sample in data]
    [batch, *_] = Dataset(urls).decode().to_tuple("cls", "txt").batched(3)
    assert [6, 4] == list(batch[0])[:2]
    resized = wds.ResizedDataset(Dataset(urls).to_tuple("__key__"), length=5, nominal=2)
    assert len(resized) == 2
    assert [(key,) for key in KEYS + KEYS[:2]] == [*resized, *resized]
    assert 7 == len(wds.ChoppedDataset(Dataset(urls, length=7)))


WRONG = [
    ({"keys": "x"}, TypeError, "keys must be a function"),
    ({"epochs": -1}, ValueError, "epochs must be a whole number of passes, 0 or more"),
    ({"length": "many"}, TypeError, "length must be a whole number of samples or None"),
    ({"handler": "warn"}, TypeError, "handler must be a function of one exception"),
    ({"prepare_for_worker": "yes"}, TypeError, "prepare_for_worker must be True or False"),
    ({"opener": 5}, TypeError, "opener must be a function"),
    ({"lenght": 5}, TypeError, r"unknown argument 'lenght' \(did you mean 'length'\?\)"),
]

WRONG_FOR_DATASET = [
    ({"suffixes": 5}, TypeError, "suffixes must be names of fields"),
    ({"initial_pipeline": 5}, TypeError, "initial_pipeline must be a list of stages"),
    ({"shuffle": "yes"}, TypeError, "shuffle must be True or False"),
]

WRONG_FOR_WEBDATASET = [
    ({"extensions": 5}, ValueError, "extensions must be"),
    ({"extensions": [["a", 5]]}, ValueError, "extensions must be"),
    ({"transforms": 5}, TypeError, "transforms must be a function or a list of functions"),
    ({"pipeline": 5}, TypeError, "pipeline must be a function"),
    ({"associate": 5}, TypeError, "associator must be a function of the key or a dict"),
    ({"decoder": 5}, ValueError, "5: unknown decoder spec"),
    ({"shuffle": "yes"}, TypeError, "shuffle must be a number of samples"),
    ({"verbose": "yes"}, TypeError, "verbose must be True or False"),
]


@pytest.mark.parametrize(
    ("kind", "options", "error", "said"),
    [
        *((Dataset, *row) for row in WRONG + WRONG_FOR_DATASET),
        *((WebDataset, *row) for row in WRONG + WRONG_FOR_WEBDATASET),
    ],
)
def test_wrong_arguments(kind, options, error, said, urls):
    """A wrong argument is told when the data set is made."""
    with pytest.raises(error, match=said):
        kind(urls, **options)


# ---- WebDataset ------------------------------------------------------------------------------------------------------


def test_webdataset_urls(urls, pattern):
    """`urls` as for Dataset; without further arguments samples are decoded dicts."""
    samples = list(WebDataset(urls))
    assert samples == list(WebDataset(urls=pattern, handler=reraise_exception, prepare_for_worker=True))
    assert {"__key__": KEYS[1], "cls": 4, "json": {"i": 1}, "txt": TEXT} == samples[1]


@pytest.mark.parametrize("extensions", ["text;txt cls __key__", [["text", "txt"], ["cls"], ["__key__"]]])
def test_extensions(extensions, urls):
    """`extensions` are the fields of tuples, with alternatives, as words or as lists; nothing else is kept."""
    assert (TEXT, 4, KEYS[1]) == list(WebDataset(urls, extensions=extensions))[1]
    seen: list[Any] = []
    list(WebDataset(urls, extensions=extensions, decoder=lambda sample: seen.append({*sample}) or sample))
    assert [{"__key__", "txt", "cls"}] * 8 == seen


def test_wrong_extensions(urls):
    """A list of names, where lists of alternatives are wanted, is told at once; a missing field goes to the handler."""
    with pytest.raises(ValueError, match="extensions must be"):
        WebDataset(urls, extensions=["txt", "cls"])
    with pytest.raises(ValueError, match='no field "jpg"'):
        list(WebDataset(urls, extensions="jpg cls"))
    assert [] == list(WebDataset(urls, extensions="jpg cls", handler=ignore_and_continue))


@pytest.mark.parametrize("decoder", [True, False, None, "l8", "dict", "function"])
def test_decoder(decoder, pictures):
    """`decoder` is True (rgb), False or None, an image spec, a dict by extension, or a function of the sample."""
    given: Any = {"dict": {"txt": len}, "function": lambda sample: [len(sample["txt"])]}.get(decoder, decoder)
    [sample, *_] = WebDataset(pictures, decoder=given)
    if decoder == "function":
        assert sample == (9,)  # lists become tuples
        return
    assert sample["txt"] == {"dict": 9, True: "picture 0", "l8": "picture 0"}.get(decoder, b"picture 0")
    if decoder is True:
        assert sample["jpg"].dtype == np.float32
        assert sample["jpg"].shape == (6, 8, 3)
    elif decoder == "l8":
        assert sample["jpg"].dtype == np.uint8
        assert sample["jpg"].shape == (6, 8)
    else:
        assert isinstance(sample["jpg"], bytes)


def test_transforms(urls):
    """Functions for the values of a tuple, None for none, begun again where they are fewer; or one for all."""
    fields = "cls txt __key__"
    [_, sample, *_] = WebDataset(urls, extensions=fields, transforms=[str, len, None])
    assert ("4", len(TEXT), KEYS[1]) == sample
    [_, sample, *_] = WebDataset(urls, extensions=fields, transforms=[repr, None])
    assert ("4", TEXT, repr(KEYS[1])) == sample
    [_, sample, *_] = WebDataset(urls, extensions="cls __key__", transforms=str)
    assert ("4", KEYS[1]) == sample
    with pytest.raises(TypeError, match='which extensions="jpg cls" makes'):
        list(WebDataset(urls, transforms=[str]))
    assert [] == list(WebDataset(urls, extensions=fields, transforms=failing, handler=ignore_and_continue))
    with pytest.raises(ArithmeticError):
        list(WebDataset(urls, extensions=fields, transforms=failing))
    with pytest.raises(TypeError, match="transform 0 must be a function"):
        WebDataset(urls, extensions=fields, transforms=["str"])


def batches_of_three(samples):
    while batch := list(itertools.islice(samples, 3)):
        yield batch


def test_pipeline(urls):
    """`pipeline` sees one iterator over all samples; the lists that it gives become tuples."""
    batches = list(WebDataset(urls, extensions="__key__", pipeline=batches_of_three))
    assert [3, 3, 2] == [len(batch) for batch in batches]
    assert isinstance(batches[0], tuple)
    assert [(key,) for key in KEYS] == [sample for batch in batches for sample in batch]


def test_keys_of_webdataset(tmp_path):
    """`keys` is the naming rule."""
    url = written(tmp_path / "a.tar", [("a.b.txt", b"x"), ("a.b.cls", b"2")])
    assert [{"__key__": "a.b", "txt": "x", "cls": 2}] == list(WebDataset(url, keys=last_dot))


def test_verbose(urls, caplog):
    """`verbose` logs each shard that is opened."""
    with caplog.at_level(logging.INFO):
        for opener in (reader, "cat"):
            list(WebDataset(urls, verbose=True, opener=opener))
    assert len(re.findall(r"opening .*amber-0\.2\.100-shard-00000\d\.tar", caplog.text)) == 6


def test_shuffle_of_webdataset(urls, tmp_path):
    """1 shuffles the shards, more the samples too, in a buffer of that size; 0 nothing."""
    assert KEYS == keys_of(WebDataset(urls, shuffle=0))
    whole = {tuple(KEYS[:3]), tuple(KEYS[3:6]), tuple(KEYS[6:])}
    data = WebDataset(urls, shuffle=1, epochs=5)
    keys = keys_of(data)
    while keys:
        shard = next(shard for shard in whole if tuple(keys[: len(shard)]) == shard)
        keys = keys[len(shard) :]
    data = WebDataset(urls, shuffle=1)
    assert len({tuple(keys_of(data)) for _ in range(6)}) > 1
    assert ahead(WebDataset(hundred(tmp_path), shuffle=1)) == 0
    assert ahead(WebDataset(hundred(tmp_path), shuffle=3)) in (1, 2, 3)
    assert ahead(WebDataset(hundred(tmp_path), shuffle=90)) > 50
    mixed = keys_of(WebDataset(urls, shuffle=100))
    assert sorted(mixed) == KEYS
    assert mixed[:3] not in [list(shard) for shard in whole]


@pytest.mark.parametrize("associate", [{"pebble0001": {"more": 5}}, lambda key: {"more": 5} if key[-1] == "1" else {}])
def test_associate(associate, urls):
    """`associate` gives further fields by key: a dict, or a function."""
    samples = list(WebDataset(urls, associate=associate))
    assert [5] == [sample["more"] for sample in samples if "more" in sample]
    assert 5 == samples[1]["more"]
    known = {key: {"more": 1} for key in KEYS[1:]}
    assert KEYS[1:] == keys_of(WebDataset(urls, associate=known.__getitem__, handler=ignore_and_continue))
    with pytest.raises(KeyError, match="pebble0000"):
        list(WebDataset(urls, associate=known.__getitem__))


def test_extra_meta(urls, monkeypatch):
    """With the attribute `extra_meta`, samples say in `__webdataset__` which share of the shards they come from."""
    data = WebDataset(urls)
    assert data.extra_meta is False
    assert "__webdataset__" not in next(iter(data))
    data.extra_meta = True
    assert [(None,)] * 8 == [sample["__webdataset__"] for sample in data]
    data.subset = (1, 2)
    assert [((1, 2),)] * 3 == [sample["__webdataset__"] for sample in data]
    seen: list[Any] = []
    made = WebDataset(urls, pipeline=lambda samples: ({"n": seen.append({*s})} for s in samples), extra_meta=True)
    assert [{"n": None, "__webdataset__": (None,)}] * 8 == list(made)
    assert [{"__key__", *FIELDS}] * 8 == seen
    assert (6,) == next(iter(WebDataset(urls, extensions="cls", extra_meta=True)))
    monkeypatch.setenv("WORKER", "1")
    monkeypatch.setenv("NUM_WORKERS", "3")
    assert [((1, 3),)] * 3 == [s["__webdataset__"] for s in WebDataset(urls, extra_meta=True)]


def test_decoding_errors_know_their_place(tmp_path):
    """Bytes that are not what their name says are told with shard, sample and field, and go to the handler."""
    url = written(tmp_path / "a.tar", [("a.json", b"{"), ("b.json", b"{}")])
    with open(url, "rb") as stream:
        for samples in (Dataset(url).decode(), WebDataset(url), tariterator(stream)):
            with pytest.raises(DecodingError, match=r"a\.tar!a\.json: .*line 1"):
                list(samples)
    expected = [{"__key__": "b", "json": {}}]
    assert expected == list(WebDataset(url, handler=ignore_and_continue))
    assert expected == list(Dataset(url).decode(handler=ignore_and_continue))
    with open(url, "rb") as stream:
        assert expected == list(tariterator(stream, decode_errors=ignore_and_continue))


# ---- with torch ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Dataset, WebDataset])
def test_torch_data_sets(kind, urls):
    """Both are torch data sets."""
    assert isinstance(kind(urls), torch.utils.data.IterableDataset)
    assert issubclass(kind, torch.utils.data.IterableDataset)
    with pytest.raises(NotImplementedError):
        kind(urls)[0]
    assert KEYS + KEYS == keys_of(kind(urls) + kind(urls))


def text_length(sample):
    return len(sample["txt"])


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_in_a_dataloader(context, urls):
    """Workers divide the shards, also where everything is pickled; more workers than shards do no harm."""
    data = Dataset(urls, shuffle=True).shuffle(10).decode("rgb").to_tuple("__key__", "cls").map_tuple(str.upper, str)
    other = WebDataset(urls, extensions="__key__ cls", transforms=[str.upper, str], shuffle=10, opener="cat")
    options = {"num_workers": len(urls) + 1, "multiprocessing_context": context, "persistent_workers": True}
    for one in (data, other):
        loader = torch.utils.data.DataLoader(one, batch_size=None, **options)
        for _ in range(2):
            assert [key.upper() for key in KEYS] == sorted(key for key, _ in loader)


def test_batches_of_a_dataloader(urls):
    """torch's own batches are made of tuples, and `len` of the loader follows from `length`."""
    data = Dataset(urls, length=8).decode().to_tuple("cls", "txt")
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    assert len(loader) == 2
    [(numbers, texts), _] = loader
    assert numbers.tolist()[:2] == [6, 4]
    assert texts[1].startswith("maple")


# ---- tariterator -----------------------------------------------------------------------------------------------------


def test_tariterator_arguments(urls, tmp_path):
    """Samples of one open archive: naming rule, decoder, fields; the file stays open."""
    with open(urls[0], "rb") as stream:
        samples = list(tariterator(fileobj=stream, keys=base_plus_ext, decoder=True, suffixes=["cls"]))
        assert not stream.closed
    assert [{"__key__": KEYS[0], "cls": 6}, {"__key__": KEYS[1], "cls": 4}] == samples[:2]
    members = [("a.b.txt", b"x"), ("a.b.cls", b"2")]
    for decoder in ({"txt": len}, lambda sample: {**sample, "txt": 1}):
        assert [{"__key__": "a.b", "txt": 1, "cls": b"2"}] == list(
            tariterator(io.BytesIO(tar_bytes(members)), keys=last_dot, decoder=decoder)
        )


def test_tar_errors():
    """`tar_errors` decides about damage; the whole samples before it come."""
    path = foreign_data() / "corrupt/amber-trunc-data.tar"
    with open(path, "rb") as stream, pytest.raises(tarfile.ReadError, match=r"pebble0002\.txt"):
        list(tariterator(stream, decoder=False, tar_errors=reraise_exception))
    with open(path, "rb") as stream:
        samples = tariterator(stream, decoder=False, tar_errors=ignore_and_continue, decode_errors=reraise_exception)
        assert KEYS[:2] == keys_of(samples)
    twice = tar_bytes([("a.txt", b"1"), ("b.txt", b"2"), ("b.TXT", b"3"), ("c.txt", b"4")])
    with pytest.raises(ValueError, match="'txt' is there twice"):
        list(tariterator(io.BytesIO(twice)))
    assert ["a", "c"] == keys_of(tariterator(io.BytesIO(twice), tar_errors=ignore_and_continue))


SORTED = {
    "keys": ["a", "a-1", "b", "b/c"],
    "names of members": ["a-1", "a", "b"],
    "one": ["a"],
}


@pytest.mark.parametrize("name", SORTED)
def test_check_sorted_accepts(name):
    """Keys in the order of their bytes, or in that of the names of their members, are sorted."""
    members = [(f"{key}.{field}", b"1") for key in SORTED[name] for field in ("cls", "id")]
    assert SORTED[name] == keys_of(tariterator(io.BytesIO(tar_bytes(members)), check_sorted=True))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["b", "a"], "'a' at byte 2048 comes after 'b' at byte 0"),
        (["a", "b", "d", "c", "e"], "'c' at byte 6144 comes after 'd' at byte 4096"),
        (["a", "b", "a"], "'a' at byte 4096 comes after 'b' at byte 2048"),
        (["a", "a-1", "a"], "'a' at byte 4096 comes after 'a-1' at byte 2048"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*a sample is torn apart")
def test_check_sorted_finds(keys, said, tmp_path):
    """The first key out of order is told, with the one before it and where both are; the handler decides."""
    members = [(f"{key}.{field}", b"1") for key in keys for field in ("cls", "id")]
    path = written(tmp_path / "odd.tar", members)
    with open(path, "rb") as stream, pytest.raises(ValueError, match=rf"odd\.tar.*the keys are not sorted: {said}"):
        list(tariterator(stream, check_sorted=True))
    with open(path, "rb") as stream:
        assert keys == keys_of(tariterator(stream, check_sorted=False))
    with open(path, "rb") as stream, pytest.warns(UserWarning, match="not sorted") as warned:
        assert keys == keys_of(tariterator(stream, check_sorted=True, tar_errors=warn_and_continue))
    assert len(warned) == 1


def test_check_sorted_goes_by_the_naming_rule():
    """The keys that must be sorted are those of `keys`."""
    data = tar_bytes([("a.b.txt", b""), ("a.a.txt", b"")])
    assert ["a"] == keys_of(tariterator(io.BytesIO(data), check_sorted=True))
    with pytest.raises(ValueError, match=r"'a\.a' at byte 512 comes after 'a\.b' at byte 0"):
        list(tariterator(io.BytesIO(data), keys=last_dot, check_sorted=True))


def test_check_sorted_on_archives_of_other_tools():
    """An archive that a tool has sorted passes, one whose samples are interleaved does not."""
    with open(foreign_data() / "wds-0.2.100/amber-0.2.100-shard-000001.tar", "rb") as stream:
        assert KEYS[3:6] == keys_of(tariterator(stream, check_sorted=True))
    with (
        open(foreign_data() / "corrupt/amber-interleaved.tar", "rb") as stream,
        pytest.raises(ValueError, match=r"'pebble0000' at byte \d+ comes after 'pebble0001' at byte \d+"),
    ):
        list(tariterator(stream, check_sorted=True))
