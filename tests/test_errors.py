"""Errors: each knows its place, says it in one line, and takes it along wherever it is raised again."""

from __future__ import annotations

import pickle
import re
import traceback
import warnings
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

import webdataset as wds
from helpers import loaded, tar_bytes, write_shards
from webdataset import errors
from webdataset._crossing import arrived, departing
from webdataset.errors import (
    DataError,
    DecodingError,
    DuplicateFieldError,
    EmptyDatasetError,
    MissingFieldError,
    NotFoundError,
    TornSampleError,
    TruncatedError,
    WebDatasetError,
)
from webdataset.places import add_place, add_reader, place_of

GOOD = [("000.json", b"{}"), ("000.cls", b"1")]


def archive(folder: Path, members, cut: int | None = None) -> str:
    path = folder / "shard.tar"
    path.write_bytes(tar_bytes(members)[:cut])
    return str(path)


def not_found(folder):
    return wds.WebDataset([str(folder / "shard.tar")])


def cut_in_a_member(folder):
    return wds.WebDataset([archive(folder, [("000.txt", b"a" * 2000)], 1500)])


def doubled_field(folder):
    return wds.WebDataset([archive(folder, [*GOOD, ("000.JSON", b"{}")])])


def torn_sample(folder):
    members = [("000.a", b"1"), ("000.b", b"2"), ("001.a", b"1"), ("001.b", b"2"), ("000.a", b"3"), ("002.a", b"4")]
    return wds.WebDataset([archive(folder, members)], torn="error")


def bad_json(folder):
    return wds.WebDataset([archive(folder, [("000.json", b"{no}"), ("000.cls", b"1")])]).decode()


def missing_field(folder):
    return wds.WebDataset([archive(folder, GOOD)]).to_tuple("jsn")


def required_field(folder):
    return wds.WebDataset([archive(folder, GOOD)], require=("cls", "jpg;png"))


# what makes it, class, stage, other parts, text behind the url
FAULTS = {
    "not found": (not_found, NotFoundError, "open", {}, r": .*no such file"),
    "cut": (cut_in_a_member, TruncatedError, "read", {"member": "000.txt"}, r"!000\.txt: .* \(byte \d+\)$"),
    "doubled": (
        doubled_field,
        DuplicateFieldError,
        "group",
        {"member": "000.JSON", "key": "000", "field": "json", "offset": 2048},
        r"!000\.JSON: field 'json' is there twice",
    ),
    "torn": (torn_sample, TornSampleError, "group", {"key": "000"}, r"!000: a sample is torn apart: .*LC_ALL=C sort"),
    "json": (bad_json, DecodingError, "decode", {"key": "000", "field": "json"}, r"!000\.json: invalid JSON at byte 1"),
    "missing": (
        missing_field,
        MissingFieldError,
        "to_tuple",
        {"key": "000"},
        r'!000: no field "jsn" \(did you mean "json"\?\); has: json, cls \[in to_tuple\]$',
    ),
    "required": (required_field, MissingFieldError, "require_fields", {"key": "000"}, r'!000: no field "jpg" or "png"'),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_errors_know_their_place(tmp_path, fault):
    """Url, stage and what else is known are attributes, and one line says where and what."""
    make, kind, stage, parts, text = FAULTS[fault]
    with pytest.raises(kind, match=text) as caught:
        list(make(tmp_path))
    error = caught.value
    assert (str(tmp_path / "shard.tar"), stage, None) == (error.url, error.stage, error.worker)
    assert parts == {part: getattr(error, part) for part in parts}
    assert str(error).startswith(error.url)
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("fault", "start"),
    [("cut", "fork"), ("json", "fork"), ("missing", "fork"), ("not found", "fork"), ("json", "spawn")],
)
def test_errors_arrive_whole_from_workers(tmp_path, monkeypatch, fault, start):
    """From a DataLoader worker come the class, the line and every part of the place, and which reader it was."""
    make, kind, stage, parts, _ = FAULTS[fault]
    dataset = make(tmp_path)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
        loader = DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context=start)
        with pytest.raises(kind) as caught:
            loaded(loader)
    error = caught.value
    assert kind is type(error)
    assert {"url": str(tmp_path / "shard.tar"), "stage": stage, "worker": "0/0", **parts} == {
        part: getattr(error, part) for part in ("url", "stage", "worker", *parts)
    }
    assert "[reader 0/0]" in str(error)
    (note,) = error.__notes__
    assert note.startswith(f"Caught {kind.__name__} in DataLoader worker process 0")
    assert "webdataset error: " not in note


def fail_on_seven(sample):
    if sample["__key__"] == "000007":
        raise ZeroDivisionError("seven")
    return sample


def test_exceptions_of_user_functions_keep_their_type(tmp_path, monkeypatch):
    """Their text stays too; a note says stage and sample, and through a worker the reader."""
    (url,) = write_shards(tmp_path, shards=1, samples=10)
    dataset = wds.WebDataset([url]).map(fail_on_seven)
    with pytest.raises(ZeroDivisionError) as caught:
        list(dataset)
    assert "seven" == str(caught.value)
    assert [f"in map, sample {url}!000007"] == caught.value.__notes__
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
        with pytest.raises(ZeroDivisionError) as caught:
            loaded(DataLoader(dataset, batch_size=None, num_workers=1))
    assert f"in map, sample {url}!000007\nin reader 0/0" in str(caught.value)


def test_a_key_error_in_a_function_says_what_the_sample_has(tmp_path):
    """The commonest mistake, a field that is not there, is seen at once; other KeyErrors are told the place only."""
    (url,) = write_shards(tmp_path, shards=1, samples=1)
    for name, notes in (("jpg", [f"in map, sample {url}!000000", "the sample has: cls, txt"]), ("cls", None)):
        with pytest.raises(KeyError) as caught:
            list(wds.WebDataset([url]).map(lambda sample, name=name: {}[name] if name in sample else sample[name]))
        assert (notes or [f"in map, sample {url}!000000"]) == caught.value.__notes__


def refuse(name):
    raise RuntimeError("no names today")


@pytest.mark.parametrize(
    ("arguments", "stage"),
    [
        ({"select_files": refuse}, "rename_files or select_files"),
        ({"rename_files": refuse}, "rename_files or select_files"),
        ({"keys": refuse}, "keys"),
    ],
)
def test_functions_of_names_say_which_name(tmp_path, arguments, stage):
    """A failing function of member names is told the member and the shard, once."""
    (url,) = write_shards(tmp_path, shards=1, samples=10)
    with pytest.raises(RuntimeError, match="no names today") as caught:
        list(wds.WebDataset([url], **arguments))
    assert [f"in {stage}, member {url}!000000.cls"] == caught.value.__notes__


def test_the_reader_is_said_where_there_are_several(tmp_path, monkeypatch):
    """Rank and worker are in the error when there is more than one reader, and not otherwise."""
    dataset = bad_json(tmp_path)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "WORKER": "0", "NUM_WORKERS": "3"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DecodingError, match=r"\[in decode\] \[reader 0/0\]$") as caught:
        list(dataset)
    assert "0/0" == caught.value.worker


def all_data_errors():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, DataError)]
    assert len(kinds) > 10
    return kinds


@pytest.mark.parametrize("kind", all_data_errors(), ids=lambda kind: kind.__name__)
def test_every_data_error_crosses_as_torch_makes_it(kind):
    """torch calls `type(message=text)` with the traceback as text: place and fact come out of it."""
    error = kind(message="wrong: ü \n line", url="http://u:p@h/a.tar?sig=1", key="k", field="f", offset=3, stage="map")
    assert getattr(kind, "message", None)
    note = departing(error.message, {**place_of(error), "url": "http://h/a.tar"})
    text = f"Caught {kind.__name__} in DataLoader worker process 1.\nOriginal Traceback\n{kind.__name__}: x\n{note}\n"
    again = kind(message=text)
    assert ("wrong: ü \n line", "http://h/a.tar", "k", "f", 3, "map", None) == (
        *(again.message, again.url, again.key, again.field, again.offset, again.stage, again.worker),
    )
    assert [text.replace(note + "\n", "").rstrip()] == again.__notes__


def test_other_errors_of_ours_arrive_as_one_line(tmp_path):
    """An empty data set, a spent budget, a refusal: a DataLoader worker gives the line, and the traceback as a note."""
    shard = tmp_path / "empty.tar"
    shard.write_bytes(tar_bytes({}))
    dataset = wds.WebDataset([str(shard)])
    with pytest.raises(EmptyDatasetError) as caught:
        loaded(DataLoader(dataset, batch_size=None, num_workers=1))
    assert str(caught.value).startswith(f"{shard}: no sample found. ")
    assert "\n" not in str(caught.value)
    assert caught.value.__notes__[0].startswith("Caught EmptyDatasetError in DataLoader worker process 0")
    for kind in (EmptyDatasetError, errors.ErrorBudgetError, errors.SecurityError, errors.MissingDependencyError):
        text = f"Caught {kind.__name__} in DataLoader worker process 1.\n{kind.__name__}: x\n{departing('x', {})}\n"
        assert "x" == str(kind(text)) == str(pickle.loads(pickle.dumps(kind(text))))


@pytest.mark.parametrize(
    "text",
    ["", "wrong", "Caught a cold", "Caught X\nwebdataset error: {", "Caught X\nwebdataset error: [1]\n",
     'Caught X\nwebdataset error: {"url": 1}', 'webdataset error: {"message": "m"}'],
)  # fmt: skip
def test_other_texts_stay_as_they_are(text):
    """Only what a worker wrote is taken apart."""
    assert arrived(text) is None
    assert text == DataError(text).message


def test_secrets_do_not_cross():
    """The url that leaves a worker is without password and query."""
    error = DataError("x", url="https://user:secret@host/a.tar?token=abc")
    import torch.utils.data

    class Info:
        id, num_workers = 0, 1

    real, torch.utils.data.get_worker_info = torch.utils.data.get_worker_info, Info
    try:
        add_reader(error)
        add_reader(error)
    finally:
        torch.utils.data.get_worker_info = real
    (note,) = error.__notes__
    assert "https://host/a.tar" in note
    assert "secret" not in note
    assert "abc" not in note


def test_a_place_is_added_once():
    """What is known stays; a second layer adds only what the first did not know."""
    error = add_all(ValueError("x"))
    assert ["in map, sample a.tar!k", "in reader 0/1"] == error.__notes__
    assert {"stage": "map", "url": "a.tar", "key": "k", "worker": "0/1"} == place_of(error)
    ours = add_all(DataError("x"))
    assert "a.tar!k: x [in map] [reader 0/1]" == str(ours)
    assert not hasattr(ours, "__notes__")


def add_all(error):
    add_place(error, stage="map", url="a.tar", key="k")
    add_place(error, stage="select", url="b.tar", key=None)
    add_place(error, worker="0/1")
    add_place(error, worker="0/2")
    return error


def test_errors_pickle_with_their_notes():
    """Copies have the same class, line, attributes and notes."""
    error = DecodingError("a.tar", "k", "json", message="bad")
    error.add_note("said")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(error), "k", ["said"]) == (str(copy), copy.key, copy.__notes__)
    assert "said" in "".join(traceback.format_exception(copy))


@pytest.mark.parametrize("place", ["the docstring", "docs/errors.md"])
def test_the_tree_that_is_drawn_is_true(place):
    """Every class is drawn, each below its base, with the builtins that it is besides; no other is."""
    text = errors.__doc__ if place == "the docstring" else (Path(__file__).parent.parent / place).read_text("utf-8")
    drawn, above = {}, []
    for indent, name, builtins in re.findall(r"^    ([│├└─ ]*)([A-Z]\w+)(?: +\((.*?)\))?", text, re.MULTILINE):
        above[len(indent) // 4 :] = [name]
        drawn[name] = {*above[-2:-1], *(builtins.replace("tarfile.", "").split(", ") if builtins else [])}
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, WebDatasetError)]
    assert {k.__name__: {base.__name__ for base in k.__bases__} for k in kinds} == {
        **drawn,
        "WebDatasetError": {"Exception"},
    }
