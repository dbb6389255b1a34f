"""Rules: which functions make what of which fields, in `decode`, `map` and `batched`."""

from __future__ import annotations

import io
import json
import pickle
import re
from collections import Counter
from typing import Any, Optional, Union

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import webdataset as wds
from contracts import StageCase, stage_contract
from helpers import tar_bytes
from webdataset import filters
from webdataset.errors import CollationError, DecodingError, DuplicateFieldError
from webdataset.places import place_of
from webdataset.rules import Continue, Rename, collate_by_rules, map_by_rules

META = {"__key__": "a/b", "__url__": "x.tar"}


def fail(value):
    raise LookupError(f"not {value}")


def inverse(value):
    return 1 / value


NUMBERS = [{**META, "x": i, "txt": b"t"} for i in (1, 2, 3)]
ZERO = [{**META, "x": 0, "txt": b"t"}]
RAW = [{**META, "x": b"1"} for _ in range(3)]
BAD = [{**META, "x": b"one"}]

CASES = {
    "map": StageCase(lambda **kw: filters.map([("x", inverse), ("", None)], **kw), NUMBERS, ZERO),
    "decode": StageCase(lambda **kw: filters.decode([("x", int)], **kw), RAW, BAD),
    "batched": StageCase(lambda: filters.batched(2, [("x", sum)]), NUMBERS),
}


@stage_contract(CASES)
def test_the_contract_of_stages(check, case):
    """With rules, the stages are as lazy, closed, pickled, printed and forgiving as without."""
    check(case)


@pytest.mark.parametrize(
    ("rule", "taken"),
    [
        ("jpg", ["jpg", "seg.JPG"]),
        (".jpg", ["jpg", "seg.JPG"]),
        ("JPG", ["jpg", "seg.JPG"]),
        ("seg.jpg", ["seg.JPG"]),
        ("jpg; txt", ["jpg", "seg.JPG", "txt"]),
        ("g", []),
        ("", ["jpg", "seg.JPG", "txt", "n"]),
        (re.compile(r"^jpg$"), ["jpg"]),
        (re.compile(r"\.jpg$"), ["jpg", "seg.JPG"]),
        (re.compile("g"), ["jpg", "seg.JPG"]),
        (re.compile("J"), []),
        (int, ["n"]),
        (bytes, ["jpg", "seg.JPG", "txt"]),
        (int | float, ["n"]),
        (Union[int, float], ["n"]),  # noqa: UP007 what older programs write
        (Optional[int], ["n"]),  # noqa: UP045
        (Rename("txt", "txt"), ["txt"]),
    ],
)
def test_which_fields_a_rule_takes(rule, taken):
    """Ends of names in whole parts without case, expressions in lower-case names, types of values."""
    sample = {**META, "jpg": b"1", "seg.JPG": b"2", "txt": b"3", "n": 4}
    assert list(map_by_rules(sample, [(rule, None)])) == [*META, *taken]


def test_names_with_a_dot_in_front():
    """The fields of wids, which begin with a dot, are taken by the same rules."""
    assert map_by_rules({"__key__": "a", ".jpg": b"1", ".txt": b"2"}, [("jpg", len)]) == {"__key__": "a", ".jpg": 1}


def test_the_first_rule_has_the_field():
    """The order of the list decides; what no rule takes is left out, metadata stays."""
    rules = [("seg.png", len), ("png", str), (bytes, bytes.decode)]
    sample = {**META, "_note": 5, "png": b"1", "seg.png": b"22", "txt": b"x", "n": 1}
    assert map_by_rules(sample, rules) == {**META, "_note": 5, "png": "b'1'", "seg.png": 2, "txt": "x"}


def test_rename_and_continue():
    """A result gets another name; behind a Continue the same value, under its own name, goes on to later rules."""
    rules = [
        (Continue("cls", "label"), int),
        (Continue(Continue("cls", "inner"), "outer"), None),
        (Rename(re.compile("^c"), "text"), bytes.decode),
        ("cls", fail),
    ]
    assert map_by_rules({"cls": b"7", "x": b""}, rules) == {"label": 7, "outer": b"7", "text": "7"}
    assert map_by_rules({"cls": b"7"}, [(Rename(Continue("cls", "a"), "b"), int), ("", None)]) == {"b": 7, "cls": b"7"}


def test_two_results_of_one_name():
    """Nothing is overwritten: the error names rule, field and sample."""
    stage = filters.map([(Rename("jpg;png", "image"), None)])
    with pytest.raises(DuplicateFieldError) as caught:
        list(stage([{**META, "jpg": 1, "png": 2}]))
    assert str(caught.value) == (
        "x.tar!a/b.png: another field has given 'image' before; name the results apart with Rename"
        " [rule 1, Rename('jpg;png', 'image')] [in map]"
    )


def test_map_drops_nothing_else():
    """None is a value like any other, samples are not changed, and only dicts have fields."""
    sample = {**META, "x": 1}
    assert list(filters.map([("x", lambda value: None)])([sample])) == [{**META, "x": None}]
    assert sample == {**META, "x": 1}
    with pytest.raises(TypeError, match="map with rules: a sample must be a dict"):
        list(filters.map([("x", None)])([(1, 2)]))


def test_an_error_of_a_function_in_map():
    """It keeps its type and text, and is told rule, field, stage and sample."""
    with pytest.raises(LookupError, match=r"^not 3\nin field x\n") as caught:
        list(filters.map([("txt", len), ("seg.x;x", fail)])([{**META, "txt": "", "x": 3}]))
    notes = "\n".join(caught.value.__notes__)
    for part in ("rule 2, 'seg.x;x'", "x.tar", "a/b", "in map"):
        assert part in notes
    assert place_of(caught.value) == {"field": "x", "stage": "map", "key": "a/b", "url": "x.tar"}


def png(width: int, mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (width, 2)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def url(tmp_path):
    members = {
        "a.png": png(3),
        "a.seg.png": png(5),
        "a.cls": b"3",
        "a.json": b'{"caption": "c"}',
        "a.scan": png(4),
        "a.note.txt": b"dropped",
    }
    path = tmp_path / "x.tar"
    path.write_bytes(tar_bytes(members))
    return str(path)


def test_decoding_by_rules(url):
    """Functions, image specs, None for what decode does anyway; only what the rules make is in the sample."""
    rules = [
        (Rename("seg.png", "mask"), "l8"),
        (Continue("json", "caption"), lambda data: json.loads(data)["caption"]),
        ("json", None),
        (Rename("png", "image"), None),
        (Rename(re.compile("^scan$"), "scanned"), "pil"),
        (Rename("cls", "label"), None),
    ]
    (sample,) = wds.WebDataset(url, shardshuffle=False).decode("rgb8", rules)
    names = ["image", "mask", "label", "caption", "json", "scanned"]
    assert [name for name in sample if not name.startswith("_")] == names
    assert sample["image"].shape == (2, 3, 3)
    assert sample["image"].dtype == np.uint8
    assert sample["mask"].shape == (2, 5)
    assert sample["scanned"].size == (4, 2)
    assert (sample["label"], sample["caption"], sample["json"]) == (3, "c", {"caption": "c"})


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([("cls", fail)], r"x\.tar!a\.cls: LookupError: not b'3'; the field starts with b'3' \[rule 1, 'cls'\]"),
        ([("", None), ("cls", int)], r"x\.tar!a\.json: invalid JSON at byte 0"),
        ([("cls", None), ("txt;json", "rgb")], r"x\.tar!a\.json: cannot identify image file.*\[rule 2, 'txt;json'\]"),
    ],
)
def test_an_error_while_decoding(tmp_path, rules, said):
    """It is a DecodingError as without rules, which names shard, key, field and rule, and has the sample."""
    path = tmp_path / "x.tar"
    path.write_bytes(tar_bytes({"a.cls": b"3", "a.json": b"?"}))
    dataset = wds.WebDataset(str(path), shardshuffle=False)
    with pytest.raises(DecodingError, match=said) as caught:
        list(dataset.decode(rules))
    assert caught.value.sample["cls"] == b"3"
    assert caught.value.stage == "decode"
    assert list(dataset.decode(rules, handler=wds.ignore_and_continue)) == []


def test_decode_as_without_rules(url):
    """One rule for all fields that does nothing gives what decode gives without."""
    plain, ruled = (list(wds.WebDataset(url, shardshuffle=False).decode("pil", *more)) for more in ([], [[("", None)]]))
    assert list(plain[0]) == list(ruled[0])
    assert [plain[0][name] for name in ("cls", "json", "note.txt")] == [
        ruled[0][name] for name in ("cls", "json", "note.txt")
    ]


def test_a_batch_by_rules():
    """Functions get lists of values; None and metadata are combined as by default; types go by the first value."""
    samples = [{"__key__": str(i), "x": np.full(2, i), "cls": i, "txt": "t" * i, "left": 0} for i in range(3)]
    rules = [
        (Continue("cls", "count"), Counter),
        (Rename(np.ndarray, "sum"), sum),
        ("txt", ",".join),
        ("cls", None),
    ]
    batch = next(filters.batched(3, collation_fn=rules)(samples))
    assert list(batch) == ["__key__", "sum", "count", "cls", "txt"]
    assert batch["__key__"] == ["0", "1", "2"]
    assert batch["sum"].tolist() == [3, 3]
    assert batch["count"] == Counter([0, 1, 2])
    assert batch["cls"].tolist() == [0, 1, 2]
    assert batch["txt"] == ",t,tt"
    assert collate_by_rules(samples, [("cls", max)]) == {"__key__": ["0", "1", "2"], "cls": 2}


def test_errors_of_batches():
    """A missing field and unlike shapes name the sample; a failing function the rule and the field."""
    samples = [
        {"__key__": "a", "__url__": "u.tar", "x": np.zeros(2)},
        {"__key__": "b", "__url__": "u.tar", "x": np.zeros(3)},
    ]
    with pytest.raises(CollationError, match=r"u\.tar!b\.x: column 'x': sample 1 of the batch has shape \(3,\)"):
        collate_by_rules(samples, [("x", None)])
    lacking = [{"__key__": "a", "x": 1}, {"__key__": "b"}]
    with pytest.raises(CollationError, match=r"^b\.x: sample 1 of the batch has no such field.*\[rule 1, 'x'\]"):
        collate_by_rules(lacking, [("x", sum)])
    assert collate_by_rules(lacking, [("y", sum)]) == {"__key__": ["a", "b"]}
    with pytest.raises(LookupError) as caught:
        list(filters.batched(2, [("x", fail)])(NUMBERS))
    assert caught.value.__notes__[:2] == ["in the batch of the samples a/b to a/b", "in field x"]
    assert caught.value.__notes__[2:] == ["in rule 1, 'x'", "in batched"]
    with pytest.raises(CollationError, match="put batched before to_tuple"):
        collate_by_rules([(1, 2)], [("x", None)])


def test_the_whole_way(url):
    """Decoding, augmentation and collation by rules, one after the other, as methods, also pickled."""
    dataset = (
        wds.WebDataset([url, url, url], shardshuffle=False)
        .decode("rgb8", [(Rename("seg.png", "mask"), "l8"), (Rename("png", "image"), None), ("cls", int)])
        .map([("image;mask", np.fliplr), ("", None)])
        .batched(2, collation_fn=[("image;mask", np.stack), (Rename("cls", "label"), np.array)])
    )
    stages = pickle.loads(pickle.dumps(dataset.pipeline[-1:]))
    for batches in (list(dataset), list(wds.DataPipeline(*dataset.pipeline[:-1], *stages))):
        assert [batch["image"].shape for batch in batches] == [(2, 2, 3, 3), (1, 2, 3, 3)]
        assert [list(batch["label"]) for batch in batches] == [[3, 3], [3]]


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([], "at least one"),
        ([("x",)], r"rule 1 must be a pair, what it is for and a function, \(\"jpg;png\", f\), got \('x',\)"),
        ([("y", None), "x"], "rule 2 must be a pair"),
        (("x", len), "rule 1 must be a pair"),
        ([("x", 3)], "rule 1 must have a function or None, got 3"),
        ([("x", "rgb")], "rule 1 must have a function or None, got 'rgb'"),
        ([(3, len)], "rule 1 must be for the end of a name"),
        ([(wds.Continue("x", "y"), len)], r"rules take webdataset\.rules\.Continue"),
        ([(Rename("x", 3), len)], "new name of a field must be a str, not empty, got 3"),
        ([(re.compile(b"x"), len)], "is for bytes"),
    ],
)
def test_wrong_rules_are_told_when_the_stage_is_made(rules, said):
    """The line names the stage, which rule, what it must be and what it is."""
    for make in (filters.map, lambda rules: filters.batched(2, rules)):
        with pytest.raises(TypeError, match=said):
            make(rules)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("jpg;", "rule 1: 'jpg;' has an empty part, which would take every field"),
        (".", "has an empty part"),
        (" ", "has an empty part"),
        ("*.jpg", "has a star, but is the end of a name"),
        (Rename("jpg", ""), "new name of a field must be a str, not empty"),
        (list[int] | None, r"no value can be told by the type list\[int\] \| None"),
        (Any, r"no value can be told by the type typing\.Any"),
    ],
)
def test_a_semicolon_too_many_took_every_field(rule, said):
    """What would take all fields, or none, or fail with the first sample, is refused when the stage is made."""
    with pytest.raises((TypeError, ValueError), match=said):
        filters.map([(rule, None)])


def test_errors_without_a_pipeline_did_not_name_the_sample():
    """Rules that are called by hand name sample, field and rule, and say what is no sample or no batch."""
    with pytest.raises(LookupError) as caught:
        map_by_rules({**META, "txt": 1}, [("txt", fail)])
    assert place_of(caught.value) == {"url": "x.tar", "key": "a/b", "field": "txt"}
    with pytest.raises(LookupError) as caught:
        collate_by_rules([{"x": 1}, {"x": 2}], [("x", fail)])
    assert "in the batch of the samples 0 to 1" in caught.value.__notes__
    assert collate_by_rules(iter([{"x": 1}, {"x": 2}]), [("x", sum)]) == {"x": 3}
    for wrong in ((1, 2), None):
        with pytest.raises(TypeError, match="map_by_rules: a sample must be a dict with named fields"):
            map_by_rules(wrong, [("", None)])
    with pytest.raises(TypeError, match="rules are for fields with names, got a field 1"):
        map_by_rules({1: 2}, [("", None)])
    with pytest.raises(CollationError, match="no samples to make a batch of"):
        collate_by_rules([], [("", None)])
    with pytest.raises(TypeError, match="collate_by_rules: samples must be a list of samples, got None"):
        collate_by_rules(None, [("", None)])


def test_rules_that_take_nothing_gave_empty_samples_without_a_word(caplog):
    """Where no rule takes a field of the first sample, the log names its fields, once; a later fit says nothing."""
    rules = [("jpeg", None), ("txt", None)]
    assert list(filters.map(rules)([{**META, "jpg": 1, "cls": 2}, {**META, "png": 1}])) == [META, META]
    assert caplog.messages == ["map: no rule takes any of the fields jpg, cls; they are left out"]
    caplog.clear()
    assert list(filters.map(rules)([META, {**META, "txt": 1}, {**META, "cls": 2}]))[1:] == [{**META, "txt": 1}, META]
    assert collate_by_rules([{"x": 1}], [("y", None)]) == {}
    assert caplog.messages == ["collate_by_rules: no rule takes any of the fields x; they are left out"]


def test_wrong_rules_of_decode():
    """An image spec may stand there, if there is such a one; and one list."""
    with pytest.raises(ValueError, match="did you mean 'rgb8'"):
        filters.decode([("x", "rgb88")])
    with pytest.raises(TypeError, match=r"must be a pair.* got 'x'; rules stand in a list, also a single one"):
        filters.decode(("x", len))
    with pytest.raises(TypeError, match="one list of rules"):
        filters.decode([("x", None)], [("y", None)])


NAMES = st.sampled_from(["x", "y", "a.x", "a.y", "b.a.x", "X", "_m"])
RULES = st.lists(
    st.tuples(
        st.one_of(
            st.sampled_from(["x", "a.x", "", "y", int, str, re.compile(r"^a\."), re.compile("x$")]),
        ),
        st.sampled_from([None, "Rename", "Continue"]),
    ),
    min_size=1,
    max_size=5,
)


@given(st.lists(st.dictionaries(NAMES, st.one_of(st.integers(0, 3), st.text("xy", max_size=2))), max_size=4), RULES)
def test_rules_as_a_loop_applies_them(samples, drawn):
    """What is remembered of names and types changes nothing: each sample is as the plain loop over rules makes it."""
    kinds = {None: lambda rule, _: rule, "Rename": Rename, "Continue": Continue}
    rules = [(kinds[kind](rule, f"new{i}"), repr) for i, (rule, kind) in enumerate(drawn)]

    def matches(rule, name, value):
        if isinstance(rule, str):
            return ("." + name.lower()).endswith("." + rule) or rule == ""
        if isinstance(rule, re.Pattern):
            return rule.search(name.lower()) or rule.search("." + name.lower())
        return isinstance(value, rule)

    def plain(sample):
        made = []
        for name, value in sample.items():
            if name.startswith("_"):
                made.append((name, value))
                continue
            for i, (rule, kind) in enumerate(drawn):
                if matches(rule, name, value):
                    made.append((name if kind is None else f"new{i}", repr(value)))
                    if kind != "Continue":
                        break
        return None if len(dict(made)) < len(made) else dict(made)

    stage = filters.map(rules, handler=wds.ignore_and_continue)
    assert list(stage(samples)) == [made for sample in samples if (made := plain(sample)) is not None]
