"""Other schemes through fsspec: its file systems do what openers must, and its errors are ours."""

from __future__ import annotations

import subprocess
import sys
import uuid

import fsspec
import pytest

import webdataset as wds
from opener_contract import DATA, OpenerContract
from webdataset.errors import MissingDependencyError, NotFoundError, OpenError, SecurityError, UnknownSchemeError
from webdataset.gopen import gopen
from webdataset.storage import places
from webdataset.storage.target import Entry, Stat


@pytest.fixture
def folder():
    """A folder in fsspec's memory, as a url."""
    name = f"memory://{uuid.uuid4().hex}"
    yield name
    fsspec.filesystem("memory").store.clear()


def put(url: str, data: bytes) -> str:
    fsspec.filesystem("memory").pipe_file(url, data)
    return url


class TestMemory(OpenerContract):
    """fsspec's file system in memory."""

    @pytest.fixture
    def url_of(self, folder):
        return lambda data: put(f"{folder}/a b/object.tar", data)

    @pytest.fixture
    def missing(self, folder):
        return f"{folder}/nothing.tar"

    @pytest.fixture
    def target(self, folder):
        url = f"{folder}/new/written.tar"
        return url, lambda: fsspec.filesystem("memory").cat_file(url)


def test_the_whole_seam(folder):
    """Ranges, size and listings come from fsspec too."""
    url = put(f"{folder}/x/b.tar", DATA)
    other = put(f"{folder}/x/a.tar", b"a")
    put(f"{folder}/y.tar", b"y")
    assert places.stat(url) == Stat(len(DATA), None)
    assert places.read_part(url, 5, 100)[0] == DATA[5:100]
    assert places.read_part(url, len(DATA) - 2, len(DATA) + 9)[0] == DATA[-2:]
    assert places.read_part(url, len(DATA), len(DATA) + 9)[0] == places.read_part(url, 9, 9)[0] == b""
    assert list(places.entries(f"{folder}/x/")) == [Entry(other, 1), Entry(url, len(DATA))]
    assert [entry.url for entry in places.entries(f"{folder}/x/b")] == [url]
    assert list(places.entries(f"{folder}/nothing/at/all")) == []
    with pytest.raises(NotFoundError, match="this is a folder"):
        places.stat(f"{folder}/x")


def test_data_sets(folder):
    """A data set is written to, and read from, a scheme that only fsspec knows."""
    with wds.ShardWriter(f"{folder}/train-%02d.tar", maxcount=2) as sink:
        for number in range(5):
            sink.write({"__key__": f"{number}", "cls": number})
    with pytest.raises(OpenError, match="it exists; "), wds.ShardWriter(f"{folder}/train-%02d.tar") as sink:
        sink.write({"__key__": "x", "cls": 9})
    samples = wds.WebDataset(f"{folder}/train-{{00..02}}.tar", shardshuffle=False).decode()
    assert [sample["cls"] for sample in samples] == [0, 1, 2, 3, 4]


def test_a_write_that_is_given_up(folder):
    """A write that is given up leaves nothing."""
    stream = gopen(f"{folder}/a.tar", "wb")
    stream.write(b"x" * (20 << 20))
    stream.abort()
    assert list(places.entries(folder)) == []


def test_the_switch(folder, monkeypatch):
    """The security switch closes what fsspec opens, since that may be local files; unknown schemes stay unknown."""
    monkeypatch.setenv("WDS_SECURE", "1")
    for url in (f"{folder}/a.tar", "local:///etc/passwd", "simplecache::file:///etc/passwd"):
        for mode in ("rb", "wb"):
            with pytest.raises(SecurityError, match="unsafe_gopen is False, cannot open what fsspec opens"):
                gopen(url, mode)
    with pytest.raises(UnknownSchemeError):
        gopen("foo://x")


def test_programs_schemes_win(folder, monkeypatch):
    """What a program has registered is asked before fsspec."""
    monkeypatch.setitem(wds.gopen_schemes, "memory", lambda url, mode, bufsize, **kw: "mine")
    assert gopen(f"{folder}/a.tar") == "mine"


class Broken(fsspec.AbstractFileSystem):
    """A file system whose errors are its own, and tell secrets."""

    protocol = "broken"

    def _open(self, path, mode="rb", **kw):
        raise RuntimeError("cannot ask https://me:S3CR3T@h/x?sig=S3CR3T\nfor it")


def test_errors_are_ours(monkeypatch):
    """Whatever a file system raises is an OpenError of one line, without credentials."""
    fsspec.register_implementation("broken", Broken, clobber=True)
    with pytest.raises(OpenError, match=r"broken://b/x: RuntimeError: cannot ask https://h/x") as caught:
        gopen("broken://b/x")
    assert "S3CR3T" not in str(caught.value) + repr(caught.value.__cause__)
    assert "\n" not in str(caught.value)


def test_file_systems_that_need_a_package():
    """A file system whose package is missing is said to need it, in fsspec's words."""
    with pytest.raises(MissingDependencyError, match="opening gdrive urls through fsspec: Please install gdrive_fs"):
        gopen("gdrive://x/y")


def test_without_fsspec(tmp_path):
    """Without fsspec an unknown scheme is told from the known ones, and fsspec is named."""
    code = """
import sys
sys.modules["fsspec"] = None
import webdataset as wds
try:
    wds.gopen("memory://a")
except wds.errors.UnknownSchemeError as exn:
    print(exn)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "memory://a: no gopen handler defined for 'memory'; there are abfs, " in done.stdout
    assert "or install what knows many more: pip install fsspec" in done.stdout
    code = "import sys, webdataset as wds; wds.WebDataset('memory://a.tar'); print('fsspec' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
