"""The stages from urls to samples: arguments, handlers, and what they close."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

import webdataset as wds
from helpers import FailAfter, TrickleReader, tar_bytes, write_shards
from reading import PATHS, SCANS, fused, read, staged
from webdataset import tariterators
from webdataset.errors import DataError, DuplicateFieldError, NotFoundError, StreamError
from webdataset.handlers import (
    ignore_and_continue,
    ignore_and_stop,
    reraise_exception,
    warn_and_continue,
)
from webdataset.tariterators import (
    expand_and_group,
    group_by_keys,
    tar_file_expander,
    tar_file_iterator,
    tarfile_samples,
    tarfile_to_samples,
    url_opener,
)

MEMBERS = {f"{n}.{field}": f"{n} {field}".encode() for n in range(4) for field in ("cls", "txt")}
GOOD = tar_bytes(MEMBERS)
CUT = GOOD[: 3 * 1024 + 512]  # inside the second sample


def sources(*streams: Any) -> list[dict[str, Any]]:
    """What an opener gives."""
    return [{"url": f"shard-{number}", "stream": stream} for number, stream in enumerate(streams)]


def keys(samples: Any) -> list[str]:
    """The keys of samples, in order."""
    return [sample["__key__"] for sample in samples]


def test_members_of_any_object_with_read() -> None:
    """`tar_file_iterator` reads any object with `read`, gives dicts of name and bytes, and leaves the stream open."""
    stream = TrickleReader(GOOD)
    files = list(tar_file_iterator(stream))
    assert files == [{"fname": name, "data": data} for name, data in MEMBERS.items()]
    assert not stream.closed


def test_members_about_the_archive_are_left_out() -> None:
    """By default `__meta__/...` is left out; skip_meta is another pattern, matched from the start, or None."""
    archive = tar_bytes({"__meta__/a.json": b"", "__info__": b"", "b/__meta__/c.txt": b"", "d.txt": b""})

    def names(**options: Any) -> list[str]:
        return [file["fname"] for file in tar_file_iterator(io.BytesIO(archive), **options)]

    assert names() == ["b/__meta__/c.txt", "d.txt"]
    assert names(skip_meta="b/") == ["__meta__/a.json", "d.txt"]
    assert names(skip_meta=None) == ["__meta__/a.json", "b/__meta__/c.txt", "d.txt"]


@pytest.mark.parametrize("scan", SCANS)
def test_select_and_rename(scan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are changed first and chosen then; each function is called once a member."""
    SCANS[scan](monkeypatch)
    renamed: list[str] = []
    selected: list[str] = []

    def rename(name: str) -> str:
        renamed.append(name)
        return f"new/{name}"

    def select(name: str) -> bool:
        selected.append(name)
        return name.endswith(".cls")

    files = list(tar_file_iterator(io.BytesIO(GOOD), select_files=select, rename_files=rename))
    assert [file["fname"] for file in files] == [f"new/{n}.cls" for n in range(4)]
    assert renamed == list(MEMBERS)
    assert selected == [f"new/{name}" for name in MEMBERS]


@pytest.mark.parametrize("path", PATHS)
def test_streams_are_closed_at_their_end(path: str) -> None:
    """Each stream is closed before the next one is taken."""
    streams = [TrickleReader(GOOD, seed) for seed in range(3)]
    opened = []

    def opener() -> Any:
        for source in sources(*streams):
            assert all(stream.closed for stream in opened)
            opened.append(source["stream"])
            yield source

    assert len(list(PATHS[path](opener()))) == 12
    assert all(stream.closed for stream in streams)


@pytest.mark.parametrize("path", PATHS)
def test_an_early_stop_closes_everything(path: str) -> None:
    """Closing the samples in the middle closes the stream that was being read and the source of streams."""
    stream = TrickleReader(GOOD)
    ended = []

    def opener() -> Any:
        try:
            yield {"url": "u", "stream": stream}
        finally:
            ended.append(True)

    samples = PATHS[path](opener())
    assert next(samples)["__key__"] == "0"
    samples.close()  # type: ignore[attr-defined]
    assert stream.closed
    assert ended == [True]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("broken", [CUT, b"rubbish" * 200, b"", tar_bytes([("a.x", b""), ("a.x", b"")])])
def test_an_error_closes_everything(path: str, broken: bytes) -> None:
    """After an error the stream is closed, also while the error is still held."""
    streams = [TrickleReader(broken), TrickleReader(GOOD)]
    with pytest.raises(DataError) as caught:
        list(PATHS[path](sources(*streams)))
    assert streams[0].closed
    assert caught.value.url == "shard-0"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("handler", "expected"),
    [(ignore_and_continue, ["0", *"0123", *"0123"]), (ignore_and_stop, ["0", *"0123"])],
)
def test_handlers_decide_about_damaged_shards(path: str, handler: Any, expected: list[str]) -> None:
    """Damage inside an archive ends this one, true or false; no archive at all ends the stage where it says false."""
    streams = [io.BytesIO(data) for data in (CUT, GOOD, b"rubbish" * 200, GOOD)]
    assert keys(PATHS[path](sources(*streams), handler)) == expected


@pytest.mark.parametrize("path", PATHS)
def test_warnings_name_the_place(path: str) -> None:
    """The warning of `warn_and_continue` says shard, member and offset."""
    with pytest.warns(UserWarning, match=r"shard-0!1\.txt: .*\(byte 3072\)"):
        assert keys(PATHS[path](sources(io.BytesIO(CUT), io.BytesIO(GOOD)), warn_and_continue)) == ["0", *"0123"]


class Custom(Exception):
    """What a stream of a program may raise."""


class RaisingReader(TrickleReader):
    """A stream that raises an exception of the program at its end."""

    def read(self, size: int = -1) -> bytes:
        data = super().read(size)
        if not data:
            raise Custom("the program's own")
        return data


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("path", PATHS)
def test_streams_that_break(path: str, scan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An OSError of the stream becomes a StreamError with the cause; another exception stays and gets a note."""
    SCANS[scan](monkeypatch)
    reading = read(PATHS[path], FailAfter(GOOD, 3 * 1024 + 512))
    assert [key for key, _ in reading.samples] == ["0"]
    assert isinstance(reading.error, StreamError)
    assert isinstance(reading.error.__cause__, OSError)
    assert reading.error.url == "shard-0"
    assert reading.error.offset == 3072
    with pytest.raises(Custom, match="the program's own") as caught:
        list(PATHS[path](sources(RaisingReader(CUT))))
    assert any("shard-0" in note for note in caught.value.__notes__)
    streams = [RaisingReader(CUT), io.BytesIO(GOOD)]
    assert keys(PATHS[path](sources(*streams), ignore_and_continue)) == ["0", *"0123"]


def test_renamed_samples_stay_whole() -> None:
    """With renamed members too, the sample that a fault is in is not delivered."""
    archive = tar_bytes({"x/a.txt": b"1", "x/b.txt": b"2", "x/b.json": b"3" * 9000})[:3000]
    samples = staged(sources(io.BytesIO(archive)), ignore_and_continue, rename_files=lambda name: name[2:])
    assert keys(samples) == ["a"]


def test_functions_of_the_program_that_raise() -> None:
    """What select_files raises goes to the handler; the sample that the member belongs to is given up, no other."""

    def select(name: str) -> bool:
        if name == "1.txt":
            raise Custom("no idea")
        return True

    with pytest.raises(Custom):
        list(staged(sources(io.BytesIO(GOOD)), select_files=select))
    assert keys(staged(sources(io.BytesIO(GOOD)), ignore_and_continue, select_files=select)) == ["0", "2", "3"]
    shards = sources(io.BytesIO(GOOD), io.BytesIO(tar_bytes({"a.txt": b""})))
    assert keys(staged(shards, ignore_and_stop, select_files=select)) == ["0", "a"]


def test_the_group_handler_is_another_one() -> None:
    """What the handler of grouping raises is raised, whatever the handler of reading is."""
    doubled = tar_bytes([("a.txt", b""), ("a.txt", b""), ("b.txt", b"")])
    with pytest.raises(DuplicateFieldError):
        list(expand_and_group(sources(io.BytesIO(doubled)), ignore_and_continue, reraise_exception))
    samples = expand_and_group(sources(io.BytesIO(doubled)), reraise_exception, ignore_and_continue)
    assert keys(samples) == ["b"]


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("path", PATHS)
def test_stopping_at_a_doubled_field(path: str, scan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handler that stops at a doubled field ends the stage there: no later sample, no later shard."""
    SCANS[scan](monkeypatch)
    members = [("a.txt", b""), ("b.txt", b""), ("b.txt", b""), *((f"c{n}.txt", b"") for n in range(30))]
    for number, expected in ((0, ["a"]), (1, [])):
        streams = [io.BytesIO(tar_bytes(members[number:])), io.BytesIO(GOOD)]
        assert keys(PATHS[path](sources(*streams), ignore_and_stop)) == expected


def test_markers_between_shards() -> None:
    """`eof_value` comes after each shard, `{}` parts samples, and without it neighbouring shards stay apart too."""
    streams = [io.BytesIO(tar_bytes({"a.txt": b"1"})), io.BytesIO(tar_bytes({"a.cls": b"2"}))]
    files = list(tar_file_expander(sources(*streams), eof_value={}))
    assert files == [
        {"fname": "a.txt", "data": b"1", "__url__": "shard-0"},
        {},
        {"fname": "a.cls", "data": b"2", "__url__": "shard-1"},
        {},
    ]
    assert len(list(group_by_keys(files))) == 2
    plain = [{"fname": name, "data": b"", "__url__": "same"} for name in ("a.txt", "a.cls")]
    assert len(list(group_by_keys(plain))) == 1
    assert len(list(group_by_keys([plain[0], {}, plain[1]]))) == 2
    streams = [io.BytesIO(tar_bytes({"a.txt": b"1"})), io.BytesIO(tar_bytes({"a.cls": b"2"}))]
    same_url = [{"url": "same", "stream": stream} for stream in streams]
    assert [sample.keys() & {"txt", "cls"} for sample in staged(same_url)] == [{"txt"}, {"cls"}]


def test_grouping_by_other_rules() -> None:
    """`keys`, `lcase` and `suffixes` of group_by_keys; the samples are those of plain dicts of files."""
    files = [{"fname": name, "data": b"", "__url__": "u"} for name in ("a.X.TXT", "a.y.TXT", "b.X.TXT")]
    assert [list(s)[2:] for s in group_by_keys(files)] == [["x.txt", "y.txt"], ["x.txt"]]
    assert [list(s)[2:] for s in group_by_keys(files, lcase=False)] == [["X.TXT", "y.TXT"], ["X.TXT"]]
    assert [list(s)[2:] for s in group_by_keys(files, suffixes=["y.txt"])] == [["y.txt"], []]
    last_dot = group_by_keys(files, keys=lambda name: tuple(name.rsplit(".", 1)))  # type: ignore[arg-type, return-value]
    assert keys(last_dot) == ["a.X", "a.y", "b.X"]


def test_local_paths_reach_the_samples() -> None:
    """A `local_path` beside the stream becomes `__local_path__` of each sample."""
    for path in (fused, staged):
        source = {"url": "u", "stream": io.BytesIO(GOOD), "local_path": "/data/u.tar"}
        assert {sample["__local_path__"] for sample in path([source])} == {"/data/u.tar"}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("wrong", ["shard.tar", {"url": "shard.tar"}, 7])
def test_what_no_opener_gives(path: str, wrong: Any) -> None:
    """Urls where streams are expected are refused with a word about the opener."""
    with pytest.raises(TypeError, match=r"expected .* from an opener such as url_opener, got"):
        list(PATHS[path]([wrong]))


def test_text_streams_are_refused(tmp_path: Path) -> None:
    """A file that was opened as text is refused with what to do about it."""
    (tmp_path / "text").write_bytes(GOOD.replace(b"\0", b" "))
    with (tmp_path / "text").open() as stream, pytest.raises(TypeError, match="binary mode"):
        list(fused(sources(stream)))


def test_urls_to_samples(tmp_path: Path) -> None:
    """`tarfile_samples` is a stage as it stands and opens what it reads; `tarfile_to_samples(...)` takes arguments."""
    urls = write_shards(tmp_path, 2, 3)
    expected = [f"{n:06d}" for n in range(6)]
    listed = [{"url": url} for url in urls]
    assert keys(tarfile_samples(listed)) == expected
    assert keys(wds.DataPipeline(wds.SimpleShardList(urls), tarfile_samples)) == expected
    assert keys(tarfile_to_samples(handler=ignore_and_continue)(listed)) == expected
    only_text = tarfile_to_samples(select_files=lambda name: name.endswith("txt"))(listed)
    assert [list(sample)[2:] for sample in only_text] == [["txt"]] * 6


def test_shardlist_gives_the_urls_of_a_pattern() -> None:
    """`shardlist`, an old source of pipelines, expands patterns, and shuffles where it is asked to."""
    pattern = "a-{0..9}.tar"
    assert list(tariterators.shardlist(pattern)) == list(wds.SimpleShardList(pattern))
    shuffled = [shard["url"] for shard in tariterators.shardlist(pattern, shuffle=True)]
    assert shuffled != sorted(shuffled) == [f"a-{n}.tar" for n in range(10)]


def test_urls_that_cannot_be_opened(tmp_path: Path) -> None:
    """A missing shard goes to the handler, with its url; the others are read."""
    urls = write_shards(tmp_path, 2, 3)
    listed = [{"url": urls[0]}, {"url": str(tmp_path / "missing.tar")}, {"url": urls[1]}]
    with pytest.raises(NotFoundError, match=r"missing\.tar"):
        list(tarfile_samples(listed))
    assert len(keys(tarfile_samples(listed, handler=ignore_and_continue))) == 6
    assert len(keys(tarfile_samples(listed, handler=ignore_and_stop))) == 3
    assert [source["url"] for source in closing(url_opener(listed, handler=ignore_and_continue))] == urls


def closing(opened: Any) -> Any:
    """The items of an opener, each with its stream closed."""
    for source in opened:
        source["stream"].close()
        yield source
