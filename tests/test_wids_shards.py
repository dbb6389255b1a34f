"""Archives by number: `MMIndexedTar`, `IndexedTarSamples` and the helpers beside them, over what other tools wrote."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from helpers import foreign_data, tar_bytes
from webdataset.errors import DuplicateFieldError, NotFoundError, TarError, TruncatedError, WrongContentError
from wids.wids import (
    IndexedTarSamples,
    compute_file_md5sum,
    compute_num_samples,
    find_index_file,
    group_by_key,
    splitname,
)
from wids.wids_mmtar import MMIndexedTar, keep_while_reading, next_header, parse_tar_header
from wids.wids_tar import TarFileReader

LONG = "folder/" * 20 + "name"
MEMBERS = {f"{LONG}.txt": b"long", "a.txt": b"", "a.bin": bytes(3000), "README": b"read me"}


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", [MMIndexedTar, TarFileReader])
def test_members(tmp_path, format, packed, kind):
    """Long names in every format, compressed or not: names, bytes, by number, by name, in order."""
    data = tar_bytes(MEMBERS, format)
    path = tmp_path / "a.tar"
    path.write_bytes(gzip.compress(data) if packed else data)
    tar = kind(str(path))
    assert list(tar.names()) == list(MEMBERS)
    assert list(tar) == list(MEMBERS.items())
    assert [tar.get_file(i)[1].getvalue() for i in range(len(tar))] == list(MEMBERS.values())
    assert tar["a.bin"] == tar[2] == tar.get_by_name("a.bin") == ("a.bin", bytes(3000))
    assert tar.get_at_offset(tar.by_index[2][1]) == ("a.bin", bytes(3000))
    with pytest.raises(KeyError):
        tar["none"]
    with pytest.raises(IndexError):
        tar[4]
    tar.close()


def test_the_files_that_tarfile_sees():
    """For each archive that other tools wrote, the members are those of the standard library, sparse ones too."""
    compared = 0
    for path in sorted(foreign_data().rglob("*.tar")):
        if {"corrupt", "streams"} & set(path.parts):
            continue
        try:
            with tarfile.open(path) as oracle:
                expected = [(m.name, oracle.extractfile(m).read()) for m in oracle if m.isreg()]
        except tarfile.TarError:
            continue
        tar = MMIndexedTar(str(path))
        assert list(tar) == expected, path
        tar.close()
        compared += 1
    assert compared > 20


def test_equal_names_do_not_shift_the_others(tmp_path):
    """A name twice: both have their numbers, and the name is the last one."""
    (tmp_path / "a.tar").write_bytes(tar_bytes([("a.x", b"1"), ("a.x", b"2"), ("b.x", b"3")]))
    tar = MMIndexedTar(tmp_path / "a.tar")
    assert [tar[i][1] for i in range(3)] == [b"1", b"2", b"3"]
    assert tar["a.x"] == ("a.x", b"2")
    tar.close()
    with pytest.raises(DuplicateFieldError):
        IndexedTarSamples(path=tmp_path / "a.tar")


def test_headers():
    """The fields of a header are bytes; the next header is where the data ends."""
    data = tar_bytes({"a.txt": b"x" * 700, "b.txt": b""})
    header = parse_tar_header(data[:512])
    assert (header.name.rstrip(b"\0"), header.typeflag, header.magic) == (b"a.txt", b"0", b"ustar\0")
    assert next_header(0, header) == 512 + 1024
    assert parse_tar_header(data[1536:]).name.startswith(b"b.txt\0")
    with pytest.raises(TruncatedError):
        parse_tar_header(b"x")


@pytest.mark.parametrize("data", [b"", b"no archive", tar_bytes({"a.txt": b"x" * 5000})[:2000]])
def test_what_is_no_archive(tmp_path, data):
    """Empty, damaged and cut files are errors that name the file, and are closed."""
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    before = len(os.listdir("/proc/self/fd"))
    for make in (lambda: MMIndexedTar(str(path)), lambda: IndexedTarSamples(path=str(path))):
        with pytest.raises(TarError, match=r"a\.tar"):
            make()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_last_reader_removes_the_file(tmp_path):
    """With `keep_while_reading`, a file goes when the last one who reads it closes it."""
    path = tmp_path / "a.tar"
    path.write_bytes(tar_bytes({"a.txt": b"x"}))
    first, second = (MMIndexedTar(str(path), cleanup_callback=keep_while_reading) for _ in range(2))
    first.close()
    assert path.exists()
    assert second["a.txt"] == ("a.txt", b"x")
    second.close()
    assert not path.exists()
    with pytest.raises(ValueError, match="phase"):
        keep_while_reading("x", 0, "middle")
    with pytest.raises(ValueError, match="delay"):
        keep_while_reading("x", 0, "start", delay=1.0)


def test_samples(tmp_path):
    """Samples by number, from the end too; their fields are streams; sizes and MD5 are checked."""
    data = tar_bytes({"a.txt": b"1", "a.seg.PNG": b"2", "README": b"", "b.txt": b"3"})
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    digest = hashlib.md5(data).hexdigest()
    samples = IndexedTarSamples(path=path, md5sum=digest, expected_size=len(data))
    assert len(samples) == 2
    assert {key: maybe_bytes(value) for key, value in samples[0].items()} == {
        ".txt": b"1",
        ".seg.PNG": b"2",
        "__key__": "a",
    }
    assert [sample["__key__"] for sample in samples] == ["a", "b"]
    assert samples[-1]["__key__"] == "b"
    assert samples.samples == [[0, 1], [2]]
    for index in (2, -3):
        with pytest.raises(IndexError, match="has 2 samples"):
            samples[index]
    assert str(path) in repr(samples)
    samples.close()
    assert compute_file_md5sum(path) == digest
    assert compute_num_samples(path) == 2
    with open(path, "rb") as file:
        assert (compute_file_md5sum(file, 100), compute_num_samples(str(path))) == (digest, 2)
    with IndexedTarSamplesFrom(data) as samples:
        assert samples[1][".txt"].getvalue() == b"3"
    for wrong in ({"md5sum": "x"}, {"expected_size": 3}):
        with pytest.raises(WrongContentError):
            IndexedTarSamples(path=path, **wrong)
    with pytest.raises(NotFoundError):
        IndexedTarSamples(path=tmp_path / "none.tar")
    with pytest.raises(ValueError, match="path= or stream="):
        IndexedTarSamples()


class IndexedTarSamplesFrom:
    """Samples of an archive in memory."""

    def __init__(self, data: bytes) -> None:
        self.samples = IndexedTarSamples(stream=io.BytesIO(data))

    def __enter__(self) -> IndexedTarSamples:
        return self.samples

    def __exit__(self, *exc: object) -> None:
        self.samples.close()


def maybe_bytes(value: object) -> object:
    return value.getvalue() if isinstance(value, io.BytesIO) else value


def test_names():
    """The published rules of names: the dot stays, and equal keys are neighbours."""
    assert [splitname(name) for name in ("a/b.c.d", ".h", "a.b/c")] == [("a/b", ".c.d"), ("", ".h"), ("a", ".b/c")]
    with pytest.raises(ValueError, match="no extension"):
        splitname("x")
    assert group_by_key(["a.x", "a.y", "b.x"]) == [[0, 1], [2]]
    assert group_by_key(["a.x", "b.x", "a.y"]) == [[0], [1], [2]]
    with pytest.warns(UserWarning, match="has no extension"):
        assert group_by_key(["a", "b.x"]) == [[1]]
    assert [find_index_file(name) for name in ("a.tar", "a.tar._123_", "x._12_.tar")] == [
        "a.tar.index",
        "a.tar.index",
        "x._12_.tar.index",
    ]


def test_index_files_of_published_wids_are_not_read(tmp_path):
    """They are pickles: one that would run code lies beside an archive, and nothing happens."""
    path = tmp_path / "a.tar"
    path.write_bytes(tar_bytes({"a.txt": b"x"}))
    Path(find_index_file(path)).write_bytes(b"cos\nsystem\n(S'touch %s'\ntR." % str(tmp_path / "ran").encode())
    tar = TarFileReader(str(path))
    assert tar.names() == ["a.txt"]
    tar.close()
    assert not (tmp_path / "ran").exists()
