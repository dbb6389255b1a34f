"""Records that are read without their package, against the package: the same values, the same errors."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable
from typing import Any

import cbor
import cbor2
import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import TrickleReader
from webdataset.errors import DataError
from webdataset.handlers import reraise_exception
from webdataset.plainrecords import LARGE, RUN_BYTES, SHORT_RUN, OddError, PlainReader, read_plain
from webdataset.recordformats import CBOR, CBOR2, MSGPACK, RecordFormat
from webdataset.recordstreams import LARGE_WINDOW, WINDOW, records_of

OLD_CBOR = CBOR2._replace(load=lambda: cbor)  # as where cbor2 is not installed
FORMS: dict[str, tuple[RecordFormat, Callable[[Any], bytes]]] = {
    "msgpack": (MSGPACK, msgpack.packb),
    "cbor": (CBOR, cbor2.dumps),
}
EACH = pytest.mark.parametrize("name", FORMS)


def outcome(form: RecordFormat, data: bytes, samples: bool = True, stream: Any = None) -> tuple[list[Any], str]:
    """All that a stream gives, and its error as text."""
    found: list[Any] = []
    source = [{"url": "a.bin", "stream": stream or io.BytesIO(data), "local_path": "a.bin"}]
    try:
        found.extend(records_of(source, reraise_exception, form, samples))
        return found, ""
    except DataError as exn:
        return found, str(exn)


def agree(form: RecordFormat, data: bytes, samples: bool = True, stream: Any = None) -> list[Any]:
    """What both ways give, which is the same."""
    plain, package = outcome(form, data, samples, stream), outcome(form._replace(heads=None), data, samples)
    assert repr(plain) == repr(package)  # so that NaN equals itself, 1 is not True, and the order of fields counts
    return plain[0]


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=30), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@EACH
@given(value=values, behind=st.binary(max_size=3), cut=st.floats(0, 1, exclude_max=True))
def test_plain_values(name, value, behind, cut):
    """A value is what the package says, and ends where it ends; a cut one is told."""
    form, dumps = FORMS[name]
    data = dumps(value)
    heads = form.heads
    found = read_plain(memoryview(data + behind), 0, heads.rows)
    assert repr(found) == repr((value, len(data)))
    with pytest.raises((IndexError, UnicodeDecodeError)):
        read_plain(memoryview(data[: int(cut * len(data))]), 0, heads.rows)


NUMBERS = (
    lambda chance: chance.randrange(24),
    lambda chance: -1 - chance.randrange(24),
    lambda chance: chance.randrange(128, 256),
    lambda chance: chance.randrange(1 << 15, 1 << 16),
    lambda chance: -chance.randrange(1 << 14, 1 << 15),
    lambda chance: chance.randrange(1 << 63, 1 << 64),
    lambda chance: -chance.randrange(1 << 62, 1 << 63),
    lambda chance: chance.random() - 0.5,
    lambda chance: chance.choice((True, False, None)),
    lambda chance: chance.randbytes(3),
    lambda chance: "".join(chance.choices("abcdef", k=30)),
    lambda chance: chance.choice(("ü", "é", "ab", "\x00\x7f")),
    lambda chance: "",
    lambda chance: chance.randrange(1 << 20),
    lambda chance: [1] * chance.randrange(3),
)
"""Values that mostly take as many bytes each time."""


@EACH
@settings(deadline=None)
@given(
    kinds=st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=5),
    names=st.lists(st.text(max_size=30), min_size=5, max_size=5, unique=True),
    odd=st.integers(0, 120),
    keyed=st.sampled_from(["text", "number", None]),
    seed=st.integers(0, 99),
)
def test_runs(name, kinds, names, odd, keyed, seed):
    """Runs of records alike, with others between them, are what the package makes of them, whatever a read gives."""
    form, dumps = FORMS[name]
    chance = random.Random(seed)
    items = []
    for number in range(120):
        item = {field: make(chance) for field, make in zip(names, kinds, strict=False)}
        if keyed is not None:
            item["__key__"] = f"{number:06d}" if keyed == "text" else number
        if number % (odd + 1) == odd:
            item = chance.choice(({}, {"a": 1}, {**item, "more": 1}, dict(reversed(item.items())), {"a": {1: 2}}))
        items.append(item)
    data = b"".join(map(dumps, items))
    assert outcome(form, data, samples=False) == (items, "") or any(v != v for i in items for v in i.values())
    agree(form, data)
    agree(form, data, stream=TrickleReader(data, seed))


@EACH
@pytest.mark.parametrize("samples", [True, False])
def test_damage_at_every_byte_of_a_run(name, samples):
    """A run that is cut or changed at any byte gives the records and the error that the package gives."""
    form, dumps = FORMS[name]
    items = [{"__key__": f"k{n:02d}", "n": n % 10, "f": n / 8, "b": b"xyz"} for n in range(SHORT_RUN + 8)]
    data = b"".join(map(dumps, items))
    assert len(agree(form, data, samples)) == len(items)
    chance = random.Random(0)
    for at in range(len(data)):
        agree(form, data[:at], samples)
        new = chance.choice((data[at] ^ 1 << chance.randrange(8), chance.randrange(256)))
        agree(form, data[:at] + bytes([new]) + data[at + 1 :], samples)


@EACH
def test_damage_at_every_byte_of_large_records(name):
    """So do records that are read alone."""
    form, dumps = FORMS[name]
    items = [
        {"__key__": f"{n}", "jpg": b"\xff" * LARGE, "json": {"a": [n, -n, 1.5, None], "t": "ü" * 20}, "é" * 20: n}
        for n in range(3)
    ]
    pieces = list(map(dumps, items))
    data = b"".join(pieces)
    assert len(agree(form, data)) == 3
    chance = random.Random(0)
    second = len(pieces[0])
    for at in [*range(second, second + 40), *range(second + LARGE - 40, second + len(pieces[1]) + 20)]:
        agree(form, data[:at])
        for new in (data[at] ^ 1 << chance.randrange(8), chance.randrange(256)):
            agree(form, data[:at] + bytes([new]) + data[at + 1 :])


def test_values_that_are_not_plain():
    """Tags, open lengths, fields twice or without names are left to the package, and come as it gives them."""
    head = b"".join(cbor2.dumps({"__key__": f"{n}", "jpg": bytes(LARGE)}) for n in range(3))
    for value in ("c11a514b67b0", "5f4101ff", "7f6161ff", "9f01ff", "bf616101ff", "a2616101616102", "a10102", "f93c00",
                  "f7", "c249010000000000000000", "d81c81d81d00", "a1c16161f6", "1bffffffffffffffff", "fa3f800000",
                  "3bffffffffffffffff", "80", "60", "40", "a0", "f0", "f8ff", "98" + "20" + "00" * 32,
                  "9841" + "00" * 65, "81" * 20 + "00"):  # fmt: skip
        raw = bytes.fromhex(value)
        record = b"\xa2\x63jpg\x59" + struct.pack(">H", LARGE) + bytes(LARGE) + b"\x61v" + raw
        agree(CBOR, head + record + head)
        agree(CBOR, head + record + head, samples=False)
        agree(CBOR, b"\xa1\x61v" * 1 + raw + head)
        small = cbor2.dumps({"__key__": "1", "v": 1}) * 2 * SHORT_RUN
        agree(CBOR, small + b"\xa1\x61v" + raw + small)
    for text in ("d6ff00000001", "a3fffefd", "c1", "dd0000000101", "d90161", "df00000001a16101", "d080", "d18000",
                 "d38000000000000000", "da000161", "de0000"):  # fmt: skip
        packed = bytes.fromhex(text)
        record = b"\x82\xa3jpg\xc5" + struct.pack(">H", LARGE) + bytes(LARGE) + b"\xa1v" + packed
        agree(MSGPACK, record * 3)
        agree(MSGPACK, (b"\x81\xa1v" + packed) * 3 * SHORT_RUN)


def test_the_older_package_agrees():
    """Where only the package cbor is installed, plain records are the same."""
    items = [{"__key__": f"{n:03d}", "n": n % 7, "t": "ü", "x": 0.5, "y": float("inf"), "on": True} for n in range(300)]
    large = [{"__key__": "a", "jpg": bytes(LARGE), "json": {"a": [1, None, -1 << 40]}}] * 3
    data = b"".join(map(cbor2.dumps, items + large + items))
    assert len(agree(OLD_CBOR, data)) == 603
    agree(OLD_CBOR, data[:-5])


@EACH
def test_runs_are_read_as_runs(name):
    """Small records alike come in few pieces, large ones one by one, others not at all."""
    form, dumps = FORMS[name]
    alike = b"".join(dumps({"__key__": f"{n:05d}", "cls": n % 10, "txt": "x" * 50}) for n in range(5000))
    reader = PlainReader(form.heads)
    found = reader.read(memoryview(alike), 0)
    assert len(found.records) == RUN_BYTES // (len(alike) // 5000)
    assert found.size == len(found.records) * (len(alike) // 5000)
    assert found.records[-1]["__key__"] == f"{len(found.records) - 1:05d}"
    large = dumps({"__key__": "a", "jpg": bytes(LARGE), "json": {"a": 1}})
    assert PlainReader(form.heads).read(memoryview(large * 2), 0)[1:] == (len(large), 0)
    assert PlainReader(form.heads).read(memoryview(large[:-1]), 0) == ([], 0, 0)
    unlike = b"".join(dumps({"__key__": "x" * n}) for n in range(200))
    reader = PlainReader(form.heads)
    assert [reader.read(memoryview(unlike), 0)[1:] for _ in range(3)] == [(0, 2), (0, 4), (0, 8)]
    with pytest.raises(OddError):
        read_plain(memoryview(dumps([[]] * 100)), 0, form.heads.rows)


@EACH
def test_large_records_have_a_large_window(name):
    """Records of some 100 KB come back over the seams of larger windows, also when each read gives little."""
    form, dumps = FORMS[name]
    chance = random.Random(0)
    items = [{"__key__": f"{n}", "jpg": chance.randbytes(chance.randrange(WINDOW))} for n in range(30)]
    data = b"".join(map(dumps, items))
    assert len(data) > 3 * LARGE_WINDOW
    found = agree(form, data)
    assert [(item["__key__"], item["jpg"]) for item in items] == [(s["__key__"], s["jpg"]) for s in found]
    agree(form, data, stream=TrickleReader(data[: 2 * LARGE_WINDOW] + data[2 * LARGE_WINDOW :], 1))
