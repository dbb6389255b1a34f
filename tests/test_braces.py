"""Brace patterns and the names they stand for; the package braceexpand is the oracle."""

from __future__ import annotations

import re
import tracemalloc

import braceexpand as oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from webdataset import braces
from webdataset.braces import braceexpand
from webdataset.errors import ShardListError

CASES = {
    "": [""],
    "train.tar": ["train.tar"],
    "{000..003}": ["000", "001", "002", "003"],
    "x-{8..10}.tar": ["x-8.tar", "x-9.tar", "x-10.tar"],
    "{5..3}": ["5", "4", "3"],
    "{1..10..4}": ["1", "5", "9"],
    "{3..1..-2}": ["3", "1"],
    "{1..3..0}": ["1", "2", "3"],
    "{-01..1}": ["-01", "000", "001"],
    "{1..010}": ["001", "002", "003", "004", "005", "006", "007", "008", "009", "010"],
    "{a..e..2}": ["a", "c", "e"],
    "{Y..b}": ["Y", "Z", "a", "b"],
    "{a,b}": ["a", "b"],
    "{a,}": ["a", ""],
    "{{a,b},c}": ["a", "b", "c"],
    "{a,b}{1..2}": ["a1", "a2", "b1", "b2"],
    "{a{b,c}}": ["{ab}", "{ac}"],
    "{{1..2}..5}": ["{1..5}", "{2..5}"],
    "{}": ["{}"],
    "{a}": ["{a}"],
    "${NAME}": ["${NAME}"],
    "a,b": ["a,b"],
    "a,b{1,2}": ["a,b1", "a,b2"],
    "100%-{08..10}-%d": ["100%-08-%d", "100%-09-%d", "100%-10-%d"],
    r"\{a,b\}": ["{a,b}"],
    r"{a\,b,c}": ["a,b", "c"],
    r"\\{a,b}": [r"\a", r"\b"],
    "a\\": ["a\\"],
}


@pytest.mark.parametrize("pattern", CASES)
def test_a_pattern_stands_for_these_names_here_and_in_the_oracle(pattern):
    """The table holds, and the oracle agrees with each of its rows."""
    assert braceexpand(pattern) == CASES[pattern]
    assert list(oracle.braceexpand(pattern)) == CASES[pattern]


def test_a_backslash_before_an_ordinary_character_stays():
    """Windows paths and shell commands come through whole."""
    assert braceexpand(r"C:\data\train-{0..1}.tar") == [r"C:\data\train-0.tar", r"C:\data\train-1.tar"]
    assert braceexpand(r"pipe:cat my\ file.tar") == [r"pipe:cat my\ file.tar"]


@pytest.mark.parametrize(
    ("pattern", "position"),
    [("{", 0), ("}", 0), ("a{b,c", 1), ("ab}", 2), ("{a,b}}", 5), ("{{a,b}", 0), ("}{", 0), (r"{a,b\}", 0)],
)
def test_unbalanced_braces_are_an_error_that_shows_pattern_and_position(pattern, position):
    """The error is a ValueError, with the pattern and the place of the first brace at fault."""
    text = f"{pattern}: unbalanced braces: {pattern[position]!r} at position {position} "
    with pytest.raises(ValueError, match=re.escape(text)) as info:
        braceexpand(pattern)
    assert isinstance(info.value, ShardListError)


def test_a_pattern_of_too_many_names_is_refused_before_they_are_made():
    """A slip of a few digits gives an error, not a machine out of memory."""
    for pattern in ("{0..99999999999}", "a{0..99999999999}{a,b}", "{0..9999}{0..9999}{0..9999}"):
        with pytest.raises(ShardListError, match="names, more than"):
            braceexpand(pattern)


def test_deep_nesting_does_not_overflow():
    """Twenty thousand nested groups are a silly name, not a RecursionError."""
    pattern = "{" * 20_000 + "}" * 20_000
    assert braceexpand(pattern) == [pattern]


def test_a_million_names_fit_in_memory():
    """A million shards cost what their names cost."""
    tracemalloc.start()
    try:
        names = braceexpand("train-{000000..999999}.tar")
        assert tracemalloc.get_traced_memory()[1] < 120e6
    finally:
        tracemalloc.stop()
    assert (len(names), names[0], names[-1]) == (1_000_000, "train-000000.tar", "train-999999.tar")


# no doubled backslash: inside a literal group the oracle drops both, bash and we drop one
atoms = st.sampled_from(
    ["a", "b7", "-", "%d", "/", ",", "..", *"{}", "{}", "{1..3}", "{01..-3..2}", "{c..a}", *(r"\{", r"\}", r"\,")]
)


@given(st.lists(atoms, max_size=9).map("".join))
def test_names_equal_those_of_the_oracle(pattern):
    """Whatever the pattern: the names of the oracle, or an error in both.

    The oracle counts braces only, so it takes "}{" for balanced; for us the first one closes nothing.
    """
    try:
        names = braceexpand(pattern)
    except ShardListError as exn:
        if "closes nothing" in str(exn):
            return
        names = None
    try:
        expected = list(oracle.braceexpand(pattern))
    except oracle.UnbalancedBracesError:
        expected = None
    assert names == expected


numbers = st.integers(-120, 120)


@given(numbers, numbers, st.none() | numbers, st.sampled_from(["{}", "{:02d}", "{:04d}"]))
def test_ranges_equal_those_of_the_oracle(first, last, step, form):
    """Any two ends, any step, any padding."""
    tail = "" if step is None else f"..{step}"
    for pattern in (f"x{{{form.format(first)}..{last}{tail}}}y", f"{{{first}..{form.format(last)}{tail}}}{{a,b}}"):
        assert braceexpand(pattern) == list(oracle.braceexpand(pattern))


def test_the_fast_path_equals_the_general_one():
    """A single range of numbers takes a short cut to the same names."""
    for pattern in ("a,{7..12}b", "{003..1}", "%{-3..3..2}%s"):
        assert braceexpand(pattern) == braces._expand(pattern)
