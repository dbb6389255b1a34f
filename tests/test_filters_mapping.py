"""Stages that apply functions to samples, fields and positions, and those that choose and name fields."""

from __future__ import annotations

import inspect
import io
import json
import pickle
import re

import pytest

from contracts import StageCase, run, stage_contract
from webdataset import filters
from webdataset.errors import DecodingError, DuplicateFieldError, MissingFieldError, SampleError, SecurityError
from webdataset.handlers import ignore_and_continue, ignore_and_stop


def sample(number: int, **fields) -> dict:
    return {"__key__": f"{number:06d}", "__url__": "a/b.tar", **fields}


def double(value):
    return value * 2


def inverse(value):
    return 1 / value


def inverse_x(one):
    return {"x": 1 / one["x"]}


def positive(one):
    return 1 / one["x"] > 0


def by_key(key):
    return {"z": key}


NUMBERS = [sample(i, x=i, txt=str(i)) for i in (1, 2, 3)]
ZERO = [sample(9, x=0, txt="0")]
BARE = [sample(8, other=1)]
RAW = [sample(i, txt=b"t", cls=str(i).encode()) for i in range(3)]

CASES = {
    "map": StageCase(lambda **kw: filters.map(inverse_x, **kw), NUMBERS, ZERO),
    "select": StageCase(lambda **kw: filters.select(positive, **kw), NUMBERS, ZERO),
    "map_dict": StageCase(lambda **kw: filters.map_dict(x=inverse, **kw), NUMBERS, ZERO + BARE),
    "map_tuple": StageCase(lambda **kw: filters.map_tuple(None, inverse, **kw), [("a", 1), ("b", 2)], [("c", 0), 7]),
    "associate": StageCase(lambda **kw: filters.associate(by_key, **kw), NUMBERS, [7]),
    "to_tuple": StageCase(lambda **kw: filters.to_tuple("x", "txt", **kw), NUMBERS, BARE),
    "rename": StageCase(lambda **kw: filters.rename(y="x", **kw), NUMBERS, BARE),
    "extract_keys": StageCase(lambda **kw: filters.extract_keys("x", "*.txt", **kw), NUMBERS, BARE),
    "rename_keys": StageCase(lambda: filters.rename_keys(y="x", text="t*"), NUMBERS),
    "xdecode": StageCase(lambda: filters.xdecode(cls=json.load), RAW),
}


@stage_contract(CASES)
def test_stages_keep_the_contract(case, check):
    """Each mapping stage is lazy, closes, pickles, repeats, leaves samples alone and honours its handler."""
    check(case)


SIGNATURES = {
    "associate": "(data, associator, +handler, **kw)",
    "decode": "(data, *args, handler, **kw)",
    "extract_keys": "(source, *patterns, duplicate_is_error=True, ignore_missing=False, +handler)",
    "map": "(data, f, handler)",
    "map_dict": "(data, handler, **kw)",
    "map_tuple": "(data, *args, handler)",
    "rename": "(data, handler, keep=True, **kw)",
    "rename_keys": "(source, *args, keep_unselected=False, must_match=True, duplicate_is_error=True, **kw)",
    "select": "(data, predicate, +handler)",
    "to_tuple": "(data, *args, handler, missing_is_error=True, none_is_error=None)",
    "xdecode": "(source, *args, must_decode=True, defaults, **kw)",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_the_published_ones(name):
    """Names, order and defaults as published; what is ours (+) is keyword-only and last."""
    stage, twin = getattr(filters, name), getattr(filters, f"_{name}")
    assert inspect.signature(stage) == inspect.signature(twin)
    shown = []
    for parameter in inspect.signature(twin).parameters.values():
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        default = "" if parameter.name in ("handler", "defaults") else parameter.default
        plain = default in ("", parameter.empty)
        shown.append(star + parameter.name + ("" if plain else f"={default!r}"))
    assert f"({', '.join(shown)})" == SIGNATURES[name].replace("+", "")
    if "+handler" in SIGNATURES[name]:
        assert inspect.signature(twin).parameters["handler"].kind is inspect.Parameter.KEYWORD_ONLY


# map, select, decode


def test_map_drops_none_and_keeps_the_key():
    """None drops a sample; a new dict has the `__key__` of the old one, None where there was none."""
    stage = filters.map(lambda one: None if one["x"] == 2 else {"__key__": "new", "y": one["x"]})
    assert list(stage(NUMBERS)) == [{"__key__": "000001", "y": 1}, {"__key__": "000003", "y": 3}]
    assert list(filters.map(lambda one: {"__key__": "new"})([{"x": 1}])) == [{"__key__": None}]
    assert list(filters._map([1, 2], double)) == [2, 4]


def test_errors_of_user_functions_come_as_they_are_with_a_note():
    """The type and message are the user's; a note names stage, key and shard, without passwords."""
    bad = {"__key__": "k", "__url__": "https://me:secret@host/a.tar?token=1", "x": 0}
    with pytest.raises(ZeroDivisionError, match="division by zero") as info:
        list(filters.map(inverse_x)([bad]))
    assert info.value.__notes__ == ["in map, sample https://host/a.tar!k"]
    with pytest.raises(ZeroDivisionError) as info:
        list(filters.map(inverse)([0]))
    assert info.value.__notes__ == ["in map"]
    assert pickle.loads(pickle.dumps(info.value)).__notes__ == ["in map"]


def test_keyboard_interrupt_does_not_reach_the_handler():
    """Only `Exception` is a matter of policy."""

    def interrupted(one):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(filters.map(interrupted, handler=ignore_and_continue)(NUMBERS))


def test_select_passes_what_the_predicate_wants():
    """Whatever the item, None too."""
    assert list(filters.select(lambda item: item is None or item > 1)([1, None, 2])) == [None, 2]


def test_decode_decodes_fields_by_name():
    """txt and cls have decoders, unknown fields stay bytes, metadata stays; the sample does not change."""
    raw = sample(1, txt=b"hi", cls=b"7", zzz=b"raw")
    assert list(filters.decode()([raw])) == [sample(1, txt="hi", cls=7, zzz=b"raw")]
    assert raw == sample(1, txt=b"hi", cls=b"7", zzz=b"raw")
    assert list(filters.decode(only="txt")([raw])) == [sample(1, txt="hi", cls=b"7", zzz=b"raw")]
    assert next(filters._decode([raw], lambda key, data: key if key == ".zzz" else None))["zzz"] == ".zzz"


def test_decode_tells_the_place_of_bad_bytes_to_the_handler():
    """The error knows url, key and field; a handler may skip or stop."""
    data = [sample(1, cls=b"1"), sample(2, cls=b"x"), sample(3, cls=b"3")]
    with pytest.raises(DecodingError, match=re.escape("a/b.tar!000002.cls: ")):
        list(filters.decode()(data))
    assert [one["cls"] for one in filters.decode(handler=ignore_and_continue)(data)] == [1, 3]
    assert [one["cls"] for one in filters.decode(handler=ignore_and_stop)(data)] == [1]


@pytest.mark.parametrize(
    "stage",
    [filters.decode(), filters.map_dict(x=double), filters.to_tuple("x"), filters.rename(y="x"), filters.xdecode()],
)
def test_stages_of_fields_say_where_tuples_belong(stage):
    """A tuple where a dict is needed is a TypeError that says what to move."""
    with pytest.raises(
        TypeError, match=r"a sample must be a dict with named fields, got tuple: put \w+ before (to_tuple and|what)"
    ):
        list(stage([(1, 2)]))


# map_dict, map_tuple, associate, transform_with


def test_map_dict_maps_named_fields():
    """The others stay; the function's error names its field, a missing field is a KeyError."""
    assert list(filters.map_dict(x=double, txt=str.upper)([sample(1, x=2, txt="a", y=3)])) == [
        sample(1, x=4, txt="A", y=3)
    ]
    with pytest.raises(ZeroDivisionError) as info:
        list(filters.map_dict(x=inverse)(ZERO))
    assert info.value.__notes__ == ["in the function for field 'x'", "in map_dict, sample a/b.tar!000009"]
    with pytest.raises(KeyError):
        list(filters.map_dict(z=double)(NUMBERS))
    with pytest.raises(ValueError, match="at least one field=function"):
        filters.map_dict()(NUMBERS)


def test_map_tuple_maps_positions():
    """None leaves a position; more functions or more values than the other side are passed over."""
    assert list(filters.map_tuple(None, str)([(1, 2, 3), [1]])) == [(1, "2", 3), (1,)]
    with pytest.raises(TypeError, match="got dict: put to_tuple before it"):
        list(filters.map_tuple(str)(NUMBERS))
    with pytest.raises(ZeroDivisionError) as info:
        list(filters.map_tuple(None, inverse)([(1, 0)]))
    assert info.value.__notes__[0] == "in the function for position 1"


def test_associate_adds_fields_by_key():
    """A mapping or a function; a key that is not in the mapping adds nothing; other arguments are ignored."""
    data = [{"__key__": "a", "x": 1}, {"__key__": "b"}]
    assert list(filters.associate({"a": {"z": 1}}, ignored=1)(data)) == [{"__key__": "a", "x": 1, "z": 1}, data[1]]
    assert list(filters.associate(by_key)(data))[1] == {"__key__": "b", "z": "b"}
    with pytest.raises(KeyError, match=re.escape('no field "__key__"; has: x')):
        list(filters.associate({})([{"x": 1}]))


def test_transform_with_applies_by_position():
    """Fewer transformers and None leave values; none at all gives the sample itself; too many are an error."""
    assert filters.transform_with([1, 2], [str]) == ["1", 2]
    assert filters.transform_with((1, 2), [None, str]) == [1, "2"]
    pair = (1, 2)
    assert filters.transform_with(pair, []) is pair
    assert filters.transform_with(pair, None) is pair
    with pytest.raises(ValueError, match="2 transformers for 1 values"):
        filters.transform_with([1], [str, str])


# to_tuple, rename, getfirst


def test_to_tuple_takes_fields_in_order():
    """Separate arguments, one string, alternatives as string or list."""
    one = sample(1, jpg="J", cls=3)
    for fields in (("png;jpg", "cls"), ("png;jpg cls",), (["png", "jpg"], "cls"), ("  png;jpg \n cls ",)):
        assert list(filters.to_tuple(*fields)([one])) == [("J", 3)]
    assert list(filters.to_tuple("__key__")([one])) == [("000001",)]
    assert list(filters.to_tuple()([one])) == [()]
    with pytest.raises(ValueError, match="'png cls' holds a space"):
        filters.to_tuple("png cls", "jpg")([one])


def test_a_missing_field_says_what_there_is():
    """Shard, key, the field asked for, the fields there are, and the one that was probably meant."""
    with pytest.raises(MissingFieldError) as info:
        list(filters.to_tuple("jpg")([sample(1, cls=1, txt="")]))
    assert str(info.value) == 'a/b.tar!000001: no field "jpg"; has: cls, txt [in to_tuple]'
    with pytest.raises(MissingFieldError) as info:
        list(filters.rename(image="png;JPG")([sample(1, cls=1, jpg="")]))
    assert str(info.value) == (
        'a/b.tar!000001: no field "png" or "JPG" (did you mean "jpg"?); has: cls, jpg [in rename]'
    )
    assert isinstance(info.value, ValueError)
    assert isinstance(info.value, KeyError)
    many = {f"field{i:02d}": i for i in range(50)}
    with pytest.raises(MissingFieldError, match=r"field19, … 30 more$"):
        filters.getfirst(many, "zzz")
    with pytest.raises(MissingFieldError, match=r"has: no fields$"):
        filters.getfirst({}, "zzz")


def test_to_tuple_can_put_none_for_missing_fields():
    """`missing_is_error` and `none_is_error` are two questions; the second follows the first unless set."""
    one = sample(1, a=1, b=None)
    assert list(filters.to_tuple("a c", missing_is_error=False)([one])) == [(1, None)]
    assert list(filters.to_tuple("a b", none_is_error=False)([one])) == [(1, None)]
    with pytest.raises(SampleError, match=re.escape("a/b.tar!000001.b: is None, and none_is_error is set")):
        list(filters.to_tuple("a b")([one]))
    with pytest.raises(ValueError, match='no field "c"'):
        list(filters.to_tuple("a c", missing_is_error=False, none_is_error=True)([one]))


def test_rename_reads_all_values_first():
    """Names can be swapped; all alternatives go; without `keep` only the new fields are left."""
    one = {"__key__": "k", "a": 1, "b": 2, "c": 3}
    assert list(filters.rename(x="a;b")([one])) == [{"__key__": "k", "c": 3, "x": 1}]
    assert list(filters.rename(a="b", b="a")([one])) == [{"__key__": "k", "c": 3, "a": 2, "b": 1}]
    assert list(filters.rename(x=["zz", "b"], keep=False)([one])) == [{"x": 2}]


def test_getfirst_and_parse_field_spec():
    """Alternatives by string or list; a default where missing is no error."""
    assert filters.getfirst({"a": 1}, "b;a") == filters.getfirst({"a": 1}, ["b", "a"]) == 1
    assert filters.getfirst({"a": 1}, "x", default=7, missing_is_error=False) == 7
    with pytest.raises(ValueError, match="holds a space"):
        filters.getfirst({"a": 1}, "b c")
    assert filters.parse_field_spec("a;b c") == [["a", "b"], ["c"]]
    assert filters.parse_field_spec(["a;b", "c"]) == [["a", "b"], ["c"]]


# patterns

FIELDS = {"__key__": "k", "__url__": "u", "jpg": 1, "a.cls": 2, "B.TXT": 3, "x/y.cls": 4}


@pytest.mark.parametrize(
    ("patterns", "options", "expected"),
    [
        (["*.jpg"], {}, (1,)),
        (["jpg", "__key__"], {}, (1, "k")),
        (["*.cls"], {"duplicate_is_error": False}, (2,)),
        (["zz", "jpg"], {"ignore_missing": True}, (1,)),
        ([["zz", "jpg"], "*.B.TXT"], {}, (1, 3)),
        (["jpg;.jpg"], {}, (1,)),
        ([], {}, ()),
    ],
)
def test_extract_keys_finds_fields_by_pattern(patterns, options, expected):
    """With and without a dot in front, case as it is."""
    assert list(filters.extract_keys(*patterns, **options)([FIELDS])) == [expected]


def test_extract_keys_wants_exactly_one_field():
    """None and several are errors that name them."""
    with pytest.raises(MissingFieldError, match=re.escape('u!k: no field "*.txt"')):
        list(filters.extract_keys("*.txt")([FIELDS]))
    with pytest.raises(DuplicateFieldError, match=re.escape("a.cls and x/y.cls all match *.cls")):
        list(filters.extract_keys("*.cls")([FIELDS]))


@pytest.mark.parametrize(
    ("args", "options", "expected"),
    [
        ([("x", "*jpg")], {}, {"x": 1}),
        ([], {"x": "*jpg", "y": "*.txt"}, {"x": 1, "y": 3}),
        ([("x", "*.cls")], {"duplicate_is_error": False}, {"x": 2}),
        ([], {"x": "*", "y": "*jpg", "duplicate_is_error": False}, {"x": "k", "y": 1}),
        ([], {"x": "zz", "must_match": False}, {}),
        ([], {"x": "y.cls"}, {"x": 4}),
        (
            [("x", "*jpg")],
            {"keep_unselected": True},
            {"__key__": "k", "__url__": "u", "x": 1, "a.cls": 2, "B.TXT": 3, "x/y.cls": 4},
        ),
    ],
)
def test_rename_keys_renames_by_pattern(args, options, expected):
    """The last rule wins, names are compared in lower case without folders, unmatched fields go."""
    assert list(filters.rename_keys(*args, **options)([FIELDS])) == [expected]


def test_rename_keys_refuses_doubles_and_idle_patterns():
    """Two fields of one name, and a pattern that matches nothing, are errors."""
    with pytest.raises(ValueError, match='two fields become "x"'):
        list(filters.rename_keys(x="*.cls")([FIELDS]))
    with pytest.raises(ValueError, match='two fields become "jpg"'):
        list(filters.rename_keys(jpg="a.cls", keep_unselected=True)([FIELDS]))
    with pytest.raises(ValueError, match=re.escape("no field matches *.CLS; has: __key__")):
        list(filters.rename_keys(x="*.CLS")([FIELDS]))


def test_xdecode_reads_fields_from_streams():
    """Later rules win, patterns see lower case with or without a dot; False and metadata pass."""
    one = {"__key__": "k", "a.txt": b"hi", "b.bin": b"1", "Z.TXT": b"z", "q": b"[1]"}
    decoded = {"__key__": "k", "a.txt": "hi", "b.bin": b"1", "Z.TXT": "z", "q": [1]}
    assert list(filters.xdecode(q=json.load)([one])) == [decoded]
    assert list(filters.xdecode(must_decode=False)([one])) == [{**decoded, "q": b"[1]"}]
    assert next(filters.xdecode(("*.txt", False), ("q", json.load))([one]))["a.txt"] == b"hi"
    with pytest.raises(ValueError, match=re.escape('k.q: no decoder for "q": add a rule')):
        list(filters.xdecode()([one]))


def test_find_decoder_takes_the_last_rule():
    """None where nothing fits."""
    rules = [("*.a", filters.decode_bin), ("*.a", filters.decode_text)]
    assert filters.find_decoder(rules, "x.a") is filters.decode_text
    assert filters.find_decoder(rules[:1], "X.A") is filters.find_decoder(rules[:1], "a") is filters.decode_bin
    assert filters.find_decoder(rules, "b") is None


def test_xdecode_does_not_run_code_from_pickles():
    """`.pyd` goes through the restricted unpickler."""
    assert filters.decode_pickle(io.BytesIO(pickle.dumps({"a": [1]}))) == {"a": [1]}
    with pytest.raises(SecurityError):
        list(filters.xdecode()([{"pyd": pickle.dumps(json.loads)}]))


# composing


def test_functions_compose_from_left_to_right():
    """compose2, compose, pipeline, identity."""
    assert filters.compose2(str, len)(12) == filters.compose(str, len)(12) == 2
    assert filters.compose()(5) == filters.identity(5) == 5
    assert list(filters.pipeline([1, 2], filters.map(str), filters.map(len))) == [1, 1]


def test_cached_replays_a_complete_pass():
    """A pass that was left early is not kept; later passes do not read the source."""
    stage = filters.Cached()
    assert next(run(stage, iter([1, 2]))) == 1
    assert stage.cached is None
    assert list(stage.run(iter([1, 2]))) == stage.cached == [1, 2]
    assert list(stage.run(iter([5]))) == [1, 2]
