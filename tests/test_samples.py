"""The naming rule and the grouping: what makes a sample, and that runs are grouped as single members are."""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from helpers import tar_bytes
from reading import PATHS, SCANS, read
from webdataset import runs
from webdataset.errors import DuplicateFieldError, TornSampleError
from webdataset.grouping import Grouper
from webdataset.handlers import ignore_and_continue, ignore_and_stop, reraise_exception
from webdataset.samples import base_plus_ext, decode_name, is_metadata_member, valid_sample
from webdataset.tar.scan import scan
from webdataset.tariterators import expand_and_group


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("a.txt", ("a", "txt")),
        ("a.b.txt", ("a", "b.txt")),
        ("d.e/a.txt", ("d.e/a", "txt")),
        ("d/e.f/g.h.i", ("d/e.f/g", "h.i")),
        ("./a.txt", ("./a", "txt")),
        ("../a.txt", ("../a", "txt")),
        ("/x/a.TXT", ("/x/a", "TXT")),
        ("a b.txt", ("a b", "txt")),
        ("a.", ("a", "")),
        ("a..txt", ("a", ".txt")),
        ("d/.hidden", ("d/", "hidden")),
        ("d/.hidden.txt", ("d/", "hidden.txt")),
        ("d.e/.hidden", (None, None)),
        (".hidden", (None, None)),
        ("a", (None, None)),
        ("a/b.c/d", (None, None)),
        ("..txt", (None, None)),
        ("a.txt/", (None, None)),
        ("", (None, None)),
        ("a\nb.txt", ("a\nb", "txt")),
        ("größe-日本語.Ä.TXT", ("größe-日本語", "Ä.TXT")),
        ("caf\udce9.txt", ("caf\udce9", "txt")),
    ],
)
def test_key_and_field(path: str, split: tuple[str | None, str | None]) -> None:
    """Key and field part at the first dot of the last path component, with the published rule's oddities."""
    assert base_plus_ext(path) == split


@pytest.mark.parametrize(
    ("name", "skipped"),
    [
        ("__meta__/info.json", True),
        ("__meta__", True),
        ("__meta__/deep/x.txt", True),
        ("____", True),
        ("__a.b__", True),
        ("__meta__.json", False),
        ("part/__meta__/x.txt", False),
        ("./__meta__/x.txt", False),
        ("__meta", False),
        ("_meta_/x", False),
        ("__x__y.json", False),
    ],
)
def test_members_about_the_archive(name: str, skipped: bool) -> None:
    """`__anything__` at the top of an archive, a file or a folder, is no part of a sample."""
    assert is_metadata_member(name) is skipped


def test_names_become_text() -> None:
    """Names are UTF-8; other bytes survive as lone surrogates."""
    assert decode_name("größe".encode()) == "größe"
    assert decode_name(b"caf\xe9").encode("utf-8", "surrogateescape") == b"caf\xe9"


@pytest.mark.parametrize(
    ("sample", "valid"),
    [
        ({"__key__": "a"}, True),
        ({"__key__": "a", "__bad__": False}, True),
        ({"__key__": "a", "__bad__": b""}, True),
        ({"__key__": "a", "__bad__": b"x"}, False),
        ({}, False),
        (None, False),
        ([("__key__", "a")], False),
    ],
)
def test_valid_samples(sample: Any, valid: bool) -> None:
    """A sample is a dict with something in it and without a true `__bad__`."""
    assert valid_sample(sample) is valid


def group(*members: tuple[str, bytes], handler: Any = reraise_exception, **options: Any) -> list[dict[str, Any]]:
    """The samples that a Grouper makes of members, one every 1024 bytes."""
    grouper = Grouper("u", None, handler, **options)
    samples = []
    for number, (name, data) in enumerate(members):
        samples.append(grouper.add(name, data, number * 1024))
        if grouper.stopped:
            return [sample for sample in samples if sample is not None]
    samples.append(grouper.flush())
    return [sample for sample in samples if sample is not None]


def test_neighbours_make_a_sample() -> None:
    """Neighbours with one key are a sample; fields are lower-cased, keys are not; the order of fields is kept."""
    samples = group(("a.TXT", b"1"), ("a.Seg.PNG", b"2"), ("A.txt", b"3"))
    assert samples == [
        {"__key__": "a", "__url__": "u", "txt": b"1", "seg.png": b"2"},
        {"__key__": "A", "__url__": "u", "txt": b"3"},
    ]
    assert list(samples[0]) == ["__key__", "__url__", "txt", "seg.png"]


def test_members_without_a_field_end_no_sample() -> None:
    """A member without an extension belongs to no sample and does not part one."""
    assert group(("a.txt", b"1"), ("README", b"x"), ("a.cls", b"2")) == [
        {"__key__": "a", "__url__": "u", "txt": b"1", "cls": b"2"}
    ]


def test_local_path_comes_behind_the_first_field() -> None:
    """The local path of a shard is in each sample, behind its first field, as published."""
    grouper = Grouper("u", "/data/x.tar", reraise_exception)
    assert grouper.add("a.txt", b"", 0) is None
    assert grouper.add("a.cls", b"", 1024) is None
    assert list(grouper.flush() or {}) == ["__key__", "__url__", "txt", "__local_path__", "cls"]
    assert grouper.flush() is None


@pytest.mark.parametrize("field", ["__key__", "__url__", "__local_path__", "__KEY__"])
def test_members_never_overwrite_metadata(field: str) -> None:
    """A member whose field is named like metadata is left out; the sample is delivered without it."""
    assert group(("a.txt", b"1"), (f"a.{field}", b"evil"), ("a.cls", b"2")) == [
        {"__key__": "a", "__url__": "u", "txt": b"1", "cls": b"2"}
    ]


def test_bad_samples_are_left_out() -> None:
    """A sample with a member `__bad__` that is not empty is not delivered."""
    samples = group(("a.txt", b"1"), ("a.__bad__", b"yes"), ("b.txt", b"2"), ("b.__bad__", b""), ("c.txt", b"3"))
    assert [sample["__key__"] for sample in samples] == ["b", "c"]


def test_a_field_twice_costs_the_whole_sample() -> None:
    """A doubled field drops its sample, whichever came first and whatever follows; the next sample comes."""
    errors: list[Exception] = []
    members = [("a.txt", b"1"), ("b.txt", b"1"), ("b.TXT", b"2"), ("b.cls", b"3"), ("b.txt", b"4"), ("c.txt", b"5")]
    samples = group(*members, handler=lambda error: errors.append(error) or True)
    assert [sample["__key__"] for sample in samples] == ["a", "c"]
    (error,) = errors
    assert isinstance(error, DuplicateFieldError)
    assert (error.url, error.member, error.key, error.field, error.offset) == ("u", "b.TXT", "b", "txt", 2048)
    assert "twice" in str(error)


def test_a_field_twice_is_the_handler_s_decision() -> None:
    """The default raises; a handler that stops ends the shard in front of the bad sample."""
    members = [("a.txt", b"1"), ("b.txt", b"1"), ("b.txt", b"2"), ("c.txt", b"5")]
    with pytest.raises(DuplicateFieldError, match=r"u!b\.txt: field 'txt' is there twice"):
        group(*members)
    assert [sample["__key__"] for sample in group(*members, handler=ignore_and_stop)] == ["a"]


def test_custom_keys_suffixes_and_case() -> None:
    """The naming rule, the fields to keep, and lower-casing can be chosen."""
    by_letter = group(("ax", b"1"), ("ay", b"2"), ("bx", b"3"), ("?", b""), keys=lambda n: (n[0], n[1:] or None))
    assert [{k: v for k, v in s.items() if k != "__url__"} for s in by_letter] == [
        {"__key__": "a", "x": b"1", "y": b"2"},
        {"__key__": "b", "x": b"3"},
    ]
    kept = group(("a.txt", b"1"), ("a.TXT", b"2"), lcase=False)
    assert kept == [{"__key__": "a", "__url__": "u", "txt": b"1", "TXT": b"2"}]
    some = group(("a.txt", b"1"), ("a.cls", b"2"), ("b.cls", b"3"), suffixes=frozenset(["txt"]))
    assert some == [{"__key__": "a", "__url__": "u", "txt": b"1"}, {"__key__": "b", "__url__": "u"}]


def test_what_is_whole_when_the_archive_is_damaged() -> None:
    """The header of another key proves that the sample before it is whole; nothing else does."""
    for damaged, whole in (("b.txt", True), ("a.cls", False), ("README", False), (None, False)):
        grouper = Grouper("u", None, reraise_exception)
        grouper.add("a.txt", b"1", 0)
        assert (grouper.flush_before(damaged) is not None) is whole


TORN = [("a.txt", b""), ("a.cls", b""), ("b.txt", b""), ("a.json", b""), ("c.txt", b""), ("b.cls", b"")]


def test_torn_samples_are_told_once() -> None:
    """A key that comes back with a part of the fields gives one warning a shard, with both places and the remedy."""
    with pytest.warns(UserWarning, match="torn apart") as caught:
        samples = group(*TORN)
    assert [sample["__key__"] for sample in samples] == ["a", "b", "a", "c", "b"]
    assert len(caught) == 1
    text = str(caught[0].message)
    assert "key 'a' comes back at byte 3072 (it was at byte 0)" in text
    assert "LC_ALL=C sort | tar" in text


def test_torn_samples_can_be_errors() -> None:
    """With torn="error" the part that comes back goes to the handler, here to raise; what is whole was delivered."""
    grouper = Grouper("u", None, reraise_exception, torn="error")
    done = [grouper.add(name, data, number * 1024) for number, (name, data) in enumerate(TORN[:4])]
    assert [sample["__key__"] for sample in done if sample is not None] == ["a", "b"]
    with pytest.raises(TornSampleError, match="comes back at byte 3072") as caught:
        grouper.add(*TORN[4], 4096)
    assert (caught.value.url, caught.value.key, caught.value.offset) == ("u", "a", 3072)


def test_a_handler_may_go_on_without_torn_samples() -> None:
    """With torn="error" and a handler that goes on, only the parts that come back are left out."""
    seen: list[Exception] = []
    members = {f"{key}.{field}": b"x" for key, field in (("a", "txt"), ("b", "txt"), ("a", "cls"), ("c", "txt"))}
    source = [{"url": "u", "stream": io.BytesIO(tar_bytes(members))}]
    samples = expand_and_group(source, lambda exn: seen.append(exn) or True, torn="error")
    assert [(sample["__key__"], set(sample) - {"__key__", "__url__"}) for sample in samples] == [
        ("a", {"txt"}),
        ("b", {"txt"}),
        ("c", {"txt"}),
    ]
    assert [type(exn) for exn in seen] == [TornSampleError]


def test_torn_samples_in_runs_raise_after_the_whole_ones() -> None:
    """With torn="error" whole samples in front of the torn one are delivered, in runs too."""
    members = [(f"{n}.{field}", b"") for n in range(5) for field in ("cls", "txt")]
    run = scan(tar_bytes([*members, ("1.cls", b""), ("5.cls", b"")]), 0)
    assert run is not None
    grouper = Grouper("u", None, reraise_exception, torn="error")
    samples = grouper.add_run(run, 0)
    assert [next(samples)["__key__"] for _ in range(5)] == ["0", "1", "2", "3", "4"]
    with pytest.raises(TornSampleError, match="key '1' comes back"):
        next(samples)


def test_whole_samples_may_come_back() -> None:
    """A key that comes back with all fields is another sample, of which nothing is said, however often it happens."""
    members = [(f"{key}.{field}", b"") for _ in range(3000) for key in "ab" for field in ("cls", "txt")]
    assert len(group(*members)) == 6000


@pytest.mark.parametrize("scan_setting", SCANS)
@pytest.mark.parametrize("path", PATHS)
def test_torn_archives(path: str, scan_setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On every path and in runs, torn samples are noticed, with the offsets of their members."""
    SCANS[scan_setting](monkeypatch)
    members = [(f"{n:03d}.{field}", b"") for n in range(40) for field in ("cls", "txt")]
    members.append(("007.json", b"{}"))
    members += [(f"{n:03d}.{field}", b"") for n in range(40, 60) for field in ("cls", "txt")]
    reading = read(PATHS[path], io.BytesIO(tar_bytes(members)))
    assert len(reading.samples) == 61
    assert len(reading.warnings) == 1
    assert "key '007' comes back at byte 40960 (it was at byte 7168)" in reading.warnings[0]


keys = st.sampled_from(["a", "b", "cc", "dir/a", "v1.2/a", "größe", "Key", "k" * 60])
fields = st.sampled_from(["txt", "TXT", "cls", "seg.png", "", ".txt", "__key__", "__bad__", "Ä"])
odd_names = st.sampled_from(["README", "__meta__/a.txt", "__x.txt", "d/.hidden", ".hidden", "a\nb.txt", "v.1/.h"])
regular_layouts = st.builds(
    lambda names, count: [(f"{n:03d}.{field}", str(n).encode()) for n in range(count) for field in names],
    st.lists(st.sampled_from(["cls", "txt", "PNG", "seg.png", "__key__", ""]), min_size=1, max_size=4),
    st.integers(1, 30),
)
plain_names = st.builds(lambda key, field: f"{key}.{field}", keys, fields)
mixed_layouts = st.one_of(
    st.lists(st.tuples(names, st.binary(max_size=3)), max_size=40)
    for names in (plain_names, plain_names, plain_names | odd_names)
)
layouts = st.lists(regular_layouts | mixed_layouts, min_size=1, max_size=3).map(
    lambda parts: list(itertools.chain(*parts))
)


@settings(deadline=None)
@given(members=layouts, handler=st.sampled_from([ignore_and_continue, ignore_and_stop]), data=st.data())
def test_runs_are_grouped_as_single_members(
    members: list[tuple[str, bytes]], handler: Any, data: st.DataObject
) -> None:
    """However the members of a shard are divided into runs and single ones, the samples are the same."""
    archive = tar_bytes(members)
    one_by_one, in_runs = Grouper("u", "local", handler), Grouper("u", "local", handler)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torn samples
        expected = []
        for name, content in members:
            if not is_metadata_member(name) and not one_by_one.stopped:
                expected.append(one_by_one.add(name, content, 0))
        got = []
        begin = at = 0
        for count in [*data.draw(st.lists(st.integers(1, 20), max_size=4)), len(members)]:
            end = at + sum(512 + (512 if content else 0) for _, content in members[begin : begin + count])
            run = scan(archive[:end], at)
            if run is not None and not in_runs.stopped:
                got += list(in_runs.add_run(run, 0))
            begin, at = begin + count, end
        if not one_by_one.stopped:
            expected.append(one_by_one.flush())
            got.append(in_runs.flush())
    assert in_runs.stopped == one_by_one.stopped
    assert [sample for sample in got if sample] == [sample for sample in expected if sample]
    assert [list(sample) for sample in got if sample] == [list(sample) for sample in expected if sample]
    event(f"stopped: {one_by_one.stopped}")


def test_alike_and_mixed_build_the_same() -> None:
    """Both ways of building samples from a run give the same, and each refuses what it cannot do."""

    def build(members: list[tuple[str, bytes]], count: int) -> Iterator[Any]:
        run = scan(tar_bytes(members), 0)
        assert run is not None
        split = runs.split_names(run)
        assert split is not None
        end = len(run.sizes)
        built = (
            runs.build_alike(run, split, 0, end, count, "u", "local", runs.FieldNames()),
            runs.build_mixed(run, split, 0, end, "u", "local", runs.FieldNames()),
        )
        for keys_and_samples in built:
            if keys_and_samples is not None:
                keys, samples = keys_and_samples[0], list(keys_and_samples[1])
                assert keys == [sample["__key__"] for sample in samples]
                yield samples
            else:
                yield None

    alike, mixed = build([(f"dir/{n}.{f}", f"{n}{f}".encode()) for n in range(9) for f in ("Cls", "txt", "x.y")], 3)
    assert alike == mixed
    assert len(alike) == 9
    assert alike[4] == {
        "__key__": "dir/4",
        "__url__": "u",
        "cls": b"4Cls",
        "__local_path__": "local",
        "txt": b"4txt",
        "x.y": b"4x.y",
    }
    alike, mixed = build([("a.txt", b"1"), ("a.cls", b"2"), ("b.cls", b"3"), ("b.txt", b"4")], 2)
    assert alike is None
    assert [list(sample)[2] for sample in mixed] == ["txt", "cls"]
    alike, mixed = build([("a.txt", b"1"), ("a.TXT", b"2"), ("b.txt", b"3"), ("b.TXT", b"4")], 2)
    assert alike is None
    assert mixed is None
