"""Index files that others left beside shards: read where they fit, and never the cause of a wrong sample."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import webdataset as wds
from helpers import foreign_data, tar_bytes
from nginx import Nginx
from test_indexed import as_pairs, streamed, write_shards
from test_reader_property import Spec, build, several, specs
from webdataset.errors import DuplicateFieldError, SampleError, ShardListError, StaleIndexError
from webdataset.shardindex import write_sidecar


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes are cached in a folder of the test."""
    monkeypatch.setenv("WDS_CACHE", str(tmp_path / "cache"))


def test_offsets_are_checked_once_more_when_many_samples_are_read(tmp_path: Path) -> None:
    """A sidecar with offsets only serves all samples of a large shard; one that hides a cut sample is found out."""
    path = Path(write_shards(tmp_path, 200)[0])
    expected = streamed(path)
    sidecar = Path(write_sidecar(path))
    ds = wds.IndexedDataset(str(path), cache_dir="")
    assert as_pairs(ds[i] for i in range(len(ds))) == expected
    assert as_pairs(wds.IndexedDataset(str(path), cache_dir="")) == expected
    offsets = np.frombuffer(sidecar.read_bytes(), "<u8")
    np.insert(offsets, 101, offsets[100] + 1024).tofile(sidecar)
    cut = wds.IndexedDataset(str(path), cache_dir="")
    with pytest.raises(StaleIndexError, match="does not fit the shard"):
        list(cut[:80])


def test_what_lies_beside_a_shard_is_where_the_shard_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GOPEN_REWRITE leads to counts, indexes and tables as it leads to their shard, and they are written there."""
    folder = tmp_path / "real"
    folder.mkdir()
    for ending in (".tar", "_stats.json", ".parquet"):
        shutil.copy(foreign_data() / "img2dataset-amber" / f"00000{ending}", folder)
    monkeypatch.setenv("GOPEN_REWRITE", f"shards://={folder}/")
    url, made = "shards://00000.tar", tmp_path / "cache"
    assert len(wds.IndexedDataset(url)) == 3
    assert write_sidecar(url) == str(folder / "00000.tar.idx")
    assert as_pairs(wds.IndexedDataset(url)) == streamed(folder / "00000.tar")
    assert not made.exists()
    assert len(wds.IndexedDataset(url).where(lambda row: row["caption"] == "nothing")) == 0
    with wds.TarWriter(str(folder / "a.tar.gz"), seekable=True) as sink:
        sink.write({"__key__": "a", "txt": "a"})
    assert write_sidecar("shards://a.tar.gz", "gzi") == str(folder / "a.tar.gz.gzi")


@pytest.mark.parametrize("parts", [["dali"], ["energon"]])
def test_indexes_that_we_write_are_read(parts: list[str], tmp_path: Path) -> None:
    """Sidecars that we write have the bytes that the other tools write, and give the samples."""
    home = foreign_data()
    kind = parts[0]
    names = ["dali/amber-dali.tar"] if kind == "dali" else [f"energon/shards/amber-00{i}.tar" for i in range(3)]
    for name in names:
        path = tmp_path / Path(name).name
        shutil.copy(home / name, path)
        written = Path(write_sidecar(path, kind))
        reference = (home / name).with_suffix(".idx" if kind == "dali" else ".tar.idx")
        assert written.name == reference.name
        assert written.read_bytes() == reference.read_bytes()
        assert as_pairs(wds.IndexedDataset(str(path), cache_dir="")) == streamed(path)


def test_a_writer_leaves_indexes_beside_its_shards(tmp_path: Path) -> None:
    """`ShardWriter(post=write_sidecar)` writes the index of each shard as soon as it is there."""
    with wds.ShardWriter(str(tmp_path / "a-%d.tar"), maxcount=3, post=write_sidecar) as sink:
        for i in range(7):
            sink.write({"__key__": str(i), "txt": str(i)})
    assert sorted(path.name for path in tmp_path.glob("*.idx")) == [f"a-{i}.tar.idx" for i in range(3)]
    ds = wds.IndexedDataset(str(tmp_path / "a-{0..2}.tar"))
    assert [sample["txt"] for sample in ds] == [str(i).encode() for i in range(7)]
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("version", ["amber-dali.idx", "amber-dali-v11.idx", "amber-dali-stale.idx"])
def test_dali_indexes(version: str, tmp_path: Path) -> None:
    """Both versions of DALI's index are read; one with a wrong offset gives no wrong sample."""
    path = tmp_path / "amber-dali.tar"
    shutil.copy(foreign_data() / "dali/amber-dali.tar", path)
    shutil.copy(foreign_data() / "dali" / version, tmp_path / "amber-dali.idx")
    ds = wds.IndexedDataset(str(path), cache_dir="")
    assert as_pairs(ds[i] for i in range(len(ds))) == streamed(path)


def test_a_sidecar_older_than_its_shard_is_not_used(tmp_path: Path) -> None:
    """A shard that was written anew has its index made anew."""
    (path,) = map(Path, write_shards(tmp_path, 4))
    sidecar = write_sidecar(path)
    os.utime(sidecar, (1, 1))
    path.write_bytes(tar_bytes({"x.txt": b"1", "x.cls": b"2", "y.cls": b"3"}))
    assert as_pairs(wds.IndexedDataset(str(path), cache_dir="")) == streamed(path)


def damaged_sidecars(right: bytes) -> dict[str, bytes]:
    """Indexes that do not fit the shard that `right` fits."""
    offsets = np.frombuffer(right, "<u8")
    return {
        "cut inside a number": right[:-3],
        "cut": right[:-8],
        "empty": b"",
        "text": b"this is no index, but eight and eight characters",
        "a sample left out": np.delete(offsets, 4).tobytes(),
        "a sample moved": np.insert(np.delete(offsets, 4), 4, offsets[4] + 512).tobytes(),
        "a sample begun late": np.insert(np.delete(offsets, 4), 4, offsets[4] + 1024).tobytes(),
        "the first one begun late": np.insert(np.delete(offsets, 0), 0, offsets[0] + 1024).tobytes(),
        "a sample cut in two": np.insert(offsets, 4, offsets[3] + 1024).tobytes(),
        "of a longer shard": np.append(offsets, offsets[-1] + 2048).tobytes(),
        "backwards": offsets[::-1].tobytes(),
    }


@pytest.mark.parametrize("fault", damaged_sidecars(np.arange(41, dtype="<u8").tobytes()))
@pytest.mark.parametrize("count", [6, 40])
@pytest.mark.parametrize("remote", [False, True])
def test_a_sidecar_that_does_not_fit_never_gives_a_wrong_sample(
    fault: str, count: int, remote: bool, nginx: Nginx, tmp_path: Path
) -> None:
    """Each sample is the right one, or there is an error that names the shard."""
    with tempfile.TemporaryDirectory(dir=nginx.folder) as folder:
        path = Path(write_shards(Path(folder), count)[0])
        expected = streamed(path)
        sidecar = Path(write_sidecar(path))
        sidecar.write_bytes(damaged_sidecars(sidecar.read_bytes())[fault])
        url = nginx.url(str(path.relative_to(nginx.folder))) if remote else str(path)
        errors = check(wds.IndexedDataset(url, cache_dir=""), expected)
    assert all(url in error and "does not fit the shard" in error for error in errors)


def test_an_index_of_another_shard_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """DALI's index of a shard of the same sizes, with other names, is told in the log, and another one made."""
    one, other = map(Path, write_shards(tmp_path, 9, 9))
    shutil.copy(write_sidecar(other, "dali"), tmp_path / "a-0.idx")
    assert as_pairs(wds.IndexedDataset(str(one), cache_dir="")) == streamed(one)
    assert "sample 0 is '1-000000', says the index, and '0-000000', says the shard" in caplog.text


def check(ds: Any, expected: list[Any]) -> list[str]:
    """The messages of samples that cannot be had; all others are samples of the shard, and the right ones."""
    errors = []
    for number in (*range(len(ds) - 1, -1, -1), *range(len(ds))):
        try:
            (found,) = as_pairs([ds[number]])
        except StaleIndexError as exn:
            errors.append(str(exn))
        else:
            assert found in expected
            assert len(ds) != len(expected) or found == expected[number]
    assert errors or len(ds) == len(expected)
    return errors


numbers = st.integers(0, 1 << 30)


def places_in(path: Path) -> list[int]:
    """Where the members of an archive begin and end, those of archives inside of it too."""
    data = path.read_bytes()
    return [at for at in range(0, len(data) + 1, 512) if data[at + 257 : at + 262] == b"ustar" or at % 1536 == 0]


def change_offsets(right: bytes, change: tuple[str, int, int], places: list[int]) -> bytes:
    """Energon's offsets with something changed."""
    kind, one, other = change
    offsets = np.frombuffer(right, "<u8")
    at = one % len(offsets)
    place = places[other % len(places)]
    return {
        "moved": lambda: np.concatenate([offsets[:at], [place], offsets[at + 1 :]]).astype("<u8").tobytes(),
        "moved a little": lambda: (offsets + 512 * (other % 7 - 3) * (np.arange(len(offsets)) == at)).tobytes(),
        "put in": lambda: np.unique(np.append(offsets, place)).astype("<u8").tobytes(),
        "left out": lambda: np.delete(offsets, at).tobytes(),
        "flipped": lambda: flipped(right, one, other),
        "cut": lambda: right[: other % len(right)],
        "shifted": lambda: (offsets + place).astype("<u8").tobytes(),
    }[kind]()


def change_dali(right: bytes, change: tuple[str, int, int], places: list[int]) -> bytes:
    """DALI's lines with something changed."""
    kind, one, other = change
    lines = right.decode("utf-8", "surrogateescape").split("\n")[:-1]
    row = 1 + one % (len(lines) - 1)
    words = lines[row].split(" ")
    word = other % len(words)
    place = places[other // len(words) % len(places)]

    def replaced(text: str) -> list[str]:
        return [*lines[:row], " ".join([*words[:word], text, *words[word + 1 :]]), *lines[row + 1 :]]

    def counted(body: list[str]) -> list[str]:
        return [f"{lines[0].split()[0]} {len(body)}", *body]

    step = 4 if lines[0].startswith("v1.2") else 3
    new = {
        "moved": lambda: replaced(str(place + 512)),
        "moved a little": lambda: replaced(str(int(words[word]) + 512) if words[word].isdecimal() else "x"),
        "put in": lambda: counted([*lines[1 : row + 1], *lines[row:]]),
        "left out": lambda: counted(lines[1:row] + lines[row + 1 :]),
        "flipped": lambda: flipped(right, one, other).decode("utf-8", "surrogateescape").split("\n")[:-1],
        "cut": lambda: [*lines[:row], " ".join(words[: word // step * step]), *lines[row + 1 :]],
        "shifted": lambda: counted(
            [*lines[1:row], " ".join(words[:step]), " ".join(words[step:]) or "x", *lines[row + 1 :]]
        ),
    }[kind]()
    return ("\n".join(new) + "\n").encode("utf-8", "surrogateescape")


def flipped(data: bytes, one: int, other: int) -> bytes:
    """One bit is another one."""
    at = one % len(data)
    return data[:at] + bytes([data[at] ^ (1 << other % 8)]) + data[at + 1 :]


def without_names(right: bytes) -> bytes:
    """DALI's v1.1, of a v1.2 index."""
    first, *lines = right.decode("utf-8", "surrogateescape").split("\n")[:-1]
    words = [line.split(" ") for line in lines]
    kept = [" ".join(word for i, word in enumerate(line) if i % 4 < 3) for line in words]
    return ("\n".join([first.replace("v1.2", "v1.1"), *kept]) + "\n").encode("utf-8", "surrogateescape")


KINDS = ["moved", "moved", "moved a little", "put in", "left out", "flipped", "cut", "shifted"]
changes = st.tuples(st.sampled_from(KINDS), numbers, numbers)
Change = Callable[[bytes, tuple[str, int, int], list[int]], bytes]


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("version", ["energon", "v1.1", "v1.2"])
@several
@given(spec=specs(), other=specs(), change=changes | st.none())
def test_no_change_of_a_sidecar_gives_a_wrong_sample(
    version: str, remote: bool, spec: Spec, other: Spec, change: tuple[str, int, int] | None, nginx: Nginx
) -> None:
    """Whatever is changed in an index, or if it is another shard's: the right samples, or StaleIndexError, or it is
    not used."""
    with tempfile.TemporaryDirectory(dir=nginx.folder) as folder:
        path, its = Path(folder) / "a.tar", Path(folder) / "b.tar"
        path.write_bytes(build(spec))
        its.write_bytes(build(other if change is None else spec))
        try:
            written = Path(write_sidecar(its, "energon" if version == "energon" else "dali"))
        except (DuplicateFieldError, SampleError, StaleIndexError):
            return
        right = written.read_bytes()
        if version == "v1.1":
            right = without_names(right)
        if change is not None:
            right = (change_offsets if version == "energon" else change_dali)(right, change, places_in(path))
        sidecar = Path(folder) / ("a.tar.idx" if version == "energon" else "a.idx")
        sidecar.write_bytes(right)
        expected = streamed(path)
        url = nginx.url(str(path.relative_to(nginx.folder))) if remote else str(path)
        try:
            ds = wds.IndexedDataset(url, cache_dir="")
        except DuplicateFieldError:  # it was not used, and the shard has such a fault
            return
        check(ds, expected)
        try:
            assert len(ds) != len(expected) or as_pairs(ds.fetch(range(len(ds)))) == expected
        except StaleIndexError:
            pass


@pytest.mark.parametrize("new", [b'["txt", "clz"]', b"[]", b'["txt"]'])
def test_a_changed_head_of_a_cached_index_is_noticed(new: bytes, tmp_path: Path) -> None:
    """Names of fields are part of what the checksum is of: a changed index is made anew, and gives no wrong field."""
    (path,) = write_shards(tmp_path, 20)
    expected = streamed(Path(path))
    wds.IndexedDataset(path, cache_dir=tmp_path / "cache")
    (cached,) = (tmp_path / "cache").rglob("*.index")
    head, _, body = cached.read_bytes().partition(b"\n")
    fields = json.loads(head)["fields"]
    changed = head.replace(json.dumps(fields).encode(), new)
    assert changed != head
    cached.write_bytes(changed + b"\n" + body)
    assert as_pairs(wds.IndexedDataset(path, cache_dir=tmp_path / "cache")) == expected


def test_numbers_beyond_any_shard_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Counts and offsets of absurd size, and JSON of absurd depth, are one line each."""
    (path,) = write_shards(tmp_path, 20)
    for count in (10**30, 1 << 62):
        with pytest.raises(ShardListError, match="nsamples must be a number of samples"):
            wds.IndexedDataset([{"url": path, "nsamples": count}])
    Path(path).with_suffix(".idx").write_text(f"v1.1 1\ntxt {'9' * 5000} 1\n")
    assert len(wds.IndexedDataset(path, cache_dir="")) == 20
    assert "is no list of members" in caplog.text
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 100_000)
    for kind in (wds.WebDataset, wds.IndexedDataset):
        with pytest.raises(ShardListError, match=r"deep\.json: cannot be read as JSON"):
            kind(str(deep))
