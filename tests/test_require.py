"""What WebDataset asks of samples: required fields, the rule for keys, the case of fields."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import webdataset as wds
from helpers import tar_bytes
from reading import SCANS
from webdataset.errors import EmptyDatasetError, MissingFieldError
from webdataset.linking import fuse_stages
from webdataset.samples import base_plus_ext, last_dot
from webdataset.tariterators import expand_and_group, group_by_keys, tar_file_expander

MEMBERS = [
    ("000.jpg", b"j0"), ("000.json", b"{}"),
    ("001.json", b"{}"),
    ("002.png", b"p2"), ("002.json", b"{}"),
    ("003.jpg", b"j3"),
    ("004.jpg", b"j4"), ("004.json", b"{}"),
]  # fmt: skip


@pytest.fixture
def url(tmp_path):
    path = tmp_path / "shard.tar"
    path.write_bytes(tar_bytes(MEMBERS))
    return str(path)


def keys(dataset):
    return [sample["__key__"] for sample in dataset]


def fields(sample):
    return {name: value for name, value in sample.items() if not name.startswith("__")}


def test_a_missing_field_is_an_error_that_says_which_are_there(url):
    """By default the first sample without a field raises, with place, field and fields."""
    with pytest.raises(MissingFieldError, match=r'shard\.tar!001: no field "jpg".*; has: json') as caught:
        list(wds.WebDataset([url], require=("jpg", "json")))
    assert ("001", url, "require_fields") == (caught.value.key, caught.value.url, caught.value.stage)
    with pytest.raises(MissingFieldError, match=r'no field "jsn" \(did you mean "json"\?\)'):
        list(wds.WebDataset([url], require="jsn"))


def test_the_handler_decides_about_samples_without_fields(url):
    """on_missing="error" goes to the handler: skip, stop, or count."""
    assert ["000", "004"] == keys(wds.WebDataset([url], wds.ignore_and_continue, require=("jpg", "json")))
    assert ["000"] == keys(wds.WebDataset([url], wds.ignore_and_stop, require=("jpg", "json")))
    policy = wds.ErrorPolicy(1.0)
    assert ["000", "004"] == keys(wds.WebDataset([url], policy, require=("jpg", "json")))
    assert {"MissingFieldError in require_fields": 3} == policy.counts


@pytest.mark.parametrize("fields", [("jpg;png", "json"), [["jpg", "png"], "json"], "jpg;png json"])
def test_alternatives_are_enough(url, fields):
    """A field may have alternatives; one of them must be there."""
    assert ["000", "002", "004"] == keys(wds.WebDataset([url], require=fields, on_missing="skip"))


def test_skipped_samples_are_counted_and_reported_once(url, caplog):
    """One line at the end of each pass says how many, of how many, and what they lacked."""
    dataset = wds.WebDataset([url], require=("jpg", "json"), on_missing="skip")
    assert ["000", "004"] == keys(dataset)
    assert [f'{url}: 3 of 5 samples lack a field and were skipped: 2 without "jpg", 1 without "json"'] == (
        caplog.messages
    )
    assert ["000", "004"] == keys(dataset)
    assert 2 == len(caplog.messages)


def test_nothing_is_said_where_nothing_is_missing(url, caplog):
    """Whole samples pass without a word, and are the samples that come without `require`."""
    assert list(wds.WebDataset([url])) == list(wds.WebDataset([url], require="jpg;png;json", on_missing="skip"))
    assert [] == caplog.messages


def test_missing_fields_can_be_none(url, caplog):
    """on_missing="empty" gives every sample all fields; decode(partial=True) and to_tuple let None through."""
    dataset = wds.WebDataset([url], require=("jpg;png", "json"), on_missing="empty")
    assert [("001", None), ("003", b"j3")] == [
        (s["__key__"], s["jpg"]) for s in dataset if s["__key__"] in ("001", "003")
    ]
    assert 'were given None: 1 without "jpg;png", 1 without "json"' in caplog.text
    decoded = dataset.decode(only="json", partial=True).to_tuple("__key__", "json", none_is_error=False)
    assert [("000", {}), ("001", {}), ("002", {}), ("003", None), ("004", {})] == list(decoded)


def test_a_data_set_that_loses_all_samples_is_an_error(url):
    """Where no sample has the fields, the data set is empty, and says so."""
    with pytest.raises(EmptyDatasetError, match="no sample found"):
        list(wds.WebDataset([url], require="npy", on_missing="skip"))


def test_the_stage_stands_alone_too():
    """`require_fields` is a stage for any samples."""
    stage = wds.filters.require_fields(("a",), "skip")
    assert [{"a": 1}] == list(stage([{"a": 1}, {"b": 2}]))
    with pytest.raises(TypeError, match="require_fields: a sample must be a dict"):
        list(stage([(1,)]))
    with pytest.raises(ValueError, match='on_missing must be "error" or "skip" or "empty", got \'skipp\''):
        wds.filters.require_fields(("a",), "skipp")


DOTTED = [("2024.01.02.JPG", b"a"), ("2024.01.02.json", b"b"), ("2024.01.03.jpg", b"c"), ("x/y.z/v1.5.jpg", b"d")]


@pytest.fixture
def dotted(tmp_path):
    path = tmp_path / "dotted.tar"
    path.write_bytes(tar_bytes(DOTTED))
    return str(path)


def test_keys_may_have_dots(dotted):
    """ "last-dot" divides at the last dot of the last path component; fields then have none."""
    samples = list(wds.WebDataset([dotted], keys="last-dot"))
    assert [("2024.01.02", ["jpg", "json"]), ("2024.01.03", ["jpg"]), ("x/y.z/v1.5", ["jpg"])] == [
        (sample["__key__"], list(fields(sample))) for sample in samples
    ]
    assert ["2024", "x/y.z/v1"] == keys(wds.WebDataset([dotted], keys="first-dot"))


def test_keys_may_be_a_function(dotted):
    """A function from the name to (key, field) is the rule; (None, None) leaves a member out."""

    def rule(name):
        return (name[:7], name[8:]) if name.startswith("2024") else (None, None)

    (sample,) = wds.WebDataset([dotted], keys=rule)
    assert {"02.jpg": b"a", "02.json": b"b", "03.jpg": b"c"} == fields(sample)


def test_a_function_sees_names_without_a_dot(tmp_path):
    """Members that the usual rules leave out reach a function."""
    path = tmp_path / "plain.tar"
    path.write_bytes(tar_bytes([("a/jpg", b"1"), ("a/json", b"2"), ("b/jpg", b"3"), ("__meta__/x", b"4")]))
    samples = list(wds.WebDataset([str(path)], keys=lambda name: tuple(name.split("/"))))
    assert [("a", b"1"), ("b", b"3")] == [(sample["__key__"], sample["jpg"]) for sample in samples]


def test_fields_may_keep_their_case(dotted):
    """lcase=False leaves field names as they are."""
    first = next(iter(wds.WebDataset([dotted], keys="last-dot", lcase=False)))
    assert b"a" == first["JPG"]
    assert "jpg" not in first


NAMES = st.lists(
    st.builds(
        "".join,
        st.lists(st.sampled_from(["a", "B", ".", "/", "b.c", "..", "__", "x/", "ü"]), min_size=1, max_size=6),
    ).filter(lambda name: not name.endswith("/") and not name.startswith("/") and "//" not in name),
    max_size=30,
    unique=True,
)


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("lcase", [True, False])
@pytest.mark.parametrize("rule", [base_plus_ext, last_dot])
@pytest.mark.filterwarnings("ignore:.*torn apart")
@settings(deadline=None)
@given(names=NAMES)
def test_fused_and_staged_agree_for_every_rule(scan, lcase, rule, names):
    """Whatever the names, the rule and the case: the fused stage gives what the separate stages give."""
    archive = tar_bytes([(name, name.encode()) for name in names], format=2)
    with pytest.MonkeyPatch.context() as patch:
        SCANS[scan](patch)
        options = {"keys": rule, "lcase": lcase}
        fused = list(expand_and_group(source(archive), wds.ignore_and_continue, **options))
        staged = group_by_keys(tar_file_expander(source(archive)), handler=wds.ignore_and_continue, **options)
        assert list(staged) == fused


def source(archive):
    return [{"url": "shard", "stream": io.BytesIO(archive)}]


@settings(deadline=None)
@given(folder=st.sampled_from(["", "a/", "a.b/"]), key=st.text("ab.", min_size=1), field=st.text("xy"))
def test_the_last_dot_divides(folder, key, field):
    """Key and field joined by a dot come apart again, as long as the field has no dot."""
    assert (folder + key, field) == last_dot(f"{folder}{key}.{field}")


def test_rules_and_case_keep_the_fused_way(dotted):
    """A choice of rule or case does not cost the fused stage."""
    for options in ({"keys": "last-dot"}, {"lcase": False}, {"keys": base_plus_ext}):
        dataset = wds.WebDataset([dotted], **options)
        names = [getattr(getattr(stage, "f", None), "__name__", None) for stage in fuse_stages(dataset.pipeline)]
        assert "expand_and_group" in names


def test_dots_in_keys_are_guessed_from_a_missing_field(tmp_path):
    """Where the field is the end of one that is there, as when keys have dots, the error says what to write."""
    shard = tmp_path / "dots.tar"
    shard.write_bytes(tar_bytes({"2024.01.02.jpg": b"", "2024.01.02.cls": b"1", "2024.01.03.jpg": b""}))
    hint = r'no field "jpg"; has: 01.02.jpg, .*; where keys have dots, read with keys="last-dot"'
    with pytest.raises(MissingFieldError, match=hint):
        list(wds.WebDataset([shard]).to_tuple("jpg"))
    with pytest.raises(MissingFieldError, match=r'no field "png"; has: [^;]*$'):
        list(wds.WebDataset([shard]).to_tuple("png", "01.02.cls"))
    assert ["2024.01.02", "2024.01.03"] == keys(wds.WebDataset([shard], keys="last-dot", require="jpg"))
