"""Bytes of plain records -> the records, without a package: runs of small ones at once, large ones one by one.

Plain is what training samples are made of: maps from texts to texts, bytes, integers, floats, None, booleans, and to
lists and maps of these. `CBOR_HEADS` and `MSGPACK_HEADS` say what the first byte of a value means. What they do not
know, and whatever else is odd, is left to the package of the format, which is the truth: the tests hold both equal.

A run is a row of small, flat records that have the same fields at the same places. What is between the values is then
equal in all of them, which numpy sees at once, and the values are cut out column by column.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LARGE = 1 << 12
"""Bytes of a record from which on it is read alone: most of the work is copying its values."""
RUN_BYTES = 1 << 17
"""Bytes of a run, at most: what is consumed soon stays in the processor's cache."""
SHORT_RUN = 32
"""A run of fewer records was not worth looking for."""
LONGEST_REST = 1 << 12
"""Records that the package reads, at most, before a run is looked for again."""
_MANY_ITEMS = 64  # the package is quicker
_DEEP = 16

TEXT, BYTES, INTEGER, SIGNED, LIST, MAP, FLOAT, CONSTANT, ODD = range(9)
_FLAT = {TEXT: "", BYTES: "", INTEGER: "u", SIGNED: "i", FLOAT: "f", CONSTANT: ""}
_FLOATS = {2: struct.Struct(">e"), 4: struct.Struct(">f"), 8: struct.Struct(">d")}
_CONSTANTS = (None, False, True)


class Heads(NamedTuple):
    """What the first byte of a value says, by its 256 values.

    Attributes:
        kinds: one of the kinds above; ODD for what is not plain.
        widths: the bytes of a number behind it, the argument: a value or a length.
        bases: what is added to the argument.
        flips: what the sum is xored with: -1 for the negative integers of CBOR.
        rows: all four, for each byte.
    """

    kinds: NDArray[np.int64]
    widths: NDArray[np.int64]
    bases: NDArray[np.int64]
    flips: NDArray[np.int64]
    rows: list[list[int]]


def _heads(*ranges: tuple[int, int, int, int, int], flipped: range = range(0)) -> Heads:
    """The table from ranges: first byte, how many bytes, kind, width, base of the first one."""
    table = np.zeros((4, 256), np.int64)
    table[0], table[3, flipped] = ODD, -1
    for first, count, kind, width, base in ranges:
        part = slice(first, first + count)
        table[:3, part] = [[kind], [width], [base]]
        table[2, part] += np.arange(count) * (width == 0)
    kinds, widths, bases, flips = table
    return Heads(kinds, widths, bases, flips, table.T.tolist())


def _arguments(first: int, kind: int, last: int = 8) -> list[tuple[int, int, int, int, int]]:
    """Bytes one behind the other for arguments of 1, 2, 4 ... bytes."""
    widths = [width for width in (1, 2, 4, 8) if width <= last]
    return [(first + number, 1, kind, width, 0) for number, width in enumerate(widths)]


_CBOR_MAJORS = ((0x00, INTEGER), (0x20, INTEGER), (0x40, BYTES), (0x60, TEXT), (0x80, LIST), (0xA0, MAP))
CBOR_HEADS = _heads(
    *((first, 24, kind, 0, 0) for first, kind in _CBOR_MAJORS),
    *(row for first, kind in _CBOR_MAJORS for row in _arguments(first + 24, kind)),
    (0xF4, 2, CONSTANT, 0, 1),
    (0xF6, 1, CONSTANT, 0, 0),
    *((first, 1, FLOAT, width, 0) for first, width in ((0xF9, 2), (0xFA, 4), (0xFB, 8))),
    flipped=range(0x20, 0x40),
)
MSGPACK_HEADS = _heads(
    (0x00, 128, INTEGER, 0, 0),
    (0xE0, 32, INTEGER, 0, -32),
    (0x80, 16, MAP, 0, 0),
    (0x90, 16, LIST, 0, 0),
    (0xA0, 32, TEXT, 0, 0),
    (0xC0, 1, CONSTANT, 0, 0),
    (0xC2, 2, CONSTANT, 0, 1),
    (0xCA, 1, FLOAT, 4, 0),
    (0xCB, 1, FLOAT, 8, 0),
    *_arguments(0xC4, BYTES, 4),
    *_arguments(0xCC, INTEGER),
    *_arguments(0xD0, SIGNED),
    *_arguments(0xD9, TEXT, 4),
    *((first, 1, kind, width, 0) for first, kind in ((0xDC, LIST), (0xDE, MAP)) for width in (2,)),
)


class OddError(Exception):
    """Something is not plain."""


def read_plain(view: memoryview, at: int, rows: list[list[int]], depth: int = 0) -> tuple[Any, int]:
    """The value that begins there, and where it ends.

    Raises:
        OddError: it is not plain.
        IndexError: the view ends before it does.
    """
    kind, width, argument, flip = rows[view[at]]
    at += 1
    if width:
        end = at + width
        argument = int.from_bytes(view[at:end], "big")
        if end > len(view):
            raise IndexError
        at = end
    if kind <= BYTES:
        end = at + argument
        if end > len(view):
            raise IndexError
        return (str(view[at:end], "utf-8") if kind == TEXT else bytes(view[at:end])), end
    if kind == INTEGER:
        return argument ^ flip, at
    if kind == MAP and argument <= _MANY_ITEMS and depth < _DEEP:
        fields = {}
        for _ in range(argument):
            kind, width, length, _ = rows[view[at]]
            if kind != TEXT:
                raise OddError
            if width:
                name, end = read_plain(view, at, rows)
            else:  # in short: this is most of the work
                end = at + 1 + length
                name = str(view[at + 1 : end], "utf-8")
            fields[name], at = read_plain(view, end, rows, depth + 1)
        if len(fields) < argument:
            raise OddError
        return fields, at
    if kind == LIST and argument <= _MANY_ITEMS and depth < _DEEP:
        items = []
        for _ in range(argument):
            item, at = read_plain(view, at, rows, depth + 1)
            items.append(item)
        return items, at
    if kind == CONSTANT:
        return _CONSTANTS[argument], at
    if kind == FLOAT:
        return _FLOATS[width].unpack_from(view, at - width)[0], at
    if kind == SIGNED:
        return argument - (argument >> (8 * width - 1) << 8 * width), at
    raise OddError


class Found(NamedTuple):
    """What `PlainReader.read` has found.

    Attributes:
        records: the records; they are the caller's.
        size: their bytes.
        rest: so many records are for the package to read now; 0 without records: the view ends inside the first one.
    """

    records: list[dict[str, Any]]
    size: int
    rest: int


class PlainReader:
    """Reads the plain records of one stream, and knows how well that goes."""

    def __init__(self, heads: Heads) -> None:
        self._heads = heads
        self._layout: Layout | None = None
        self._rest = 1

    def read(self, view: memoryview, at: int) -> Found:
        """The next plain records, of those that begin there."""
        layout = self._layout
        try:
            records = layout.read(view, at) if layout is not None else []
            if not records:
                record, end = read_plain(view, at, self._heads.rows)
                if type(record) is not dict or not record:
                    raise OddError
                if end - at >= LARGE:
                    return Found([record], end - at, 0)
                if len(view) - at < SHORT_RUN * (end - at):
                    return Found([], 0, SHORT_RUN)
                layout = self._layout = Layout(bytes(view[at:end]), record, self._heads)
                records = layout.read(view, at)
        except IndexError:
            return Found([], 0, 0 if len(view) - at >= LARGE else 1)
        except (OddError, UnicodeDecodeError):
            records = []
        if records and layout is not None:
            self._rest = 1
            whole = min(len(view) - at, RUN_BYTES) // layout.size
            return Found(records, len(records) * layout.size, int(len(records) < whole))
        self._rest = min(2 * self._rest, LONGEST_REST)
        return Found([], 0, self._rest)


class _Field(NamedTuple):
    """A field of the records of a layout.

    Attributes:
        name: its name.
        begin, behind, end: where in a record the bytes lie that are the same in all, and behind them the value.
        kind: the kind of its values.
        form: numpy's name for those that are numbers; "" where they are the first byte itself.
    """

    name: str
    begin: int
    behind: int
    end: int
    kind: int
    form: str


class Layout:
    """Flat records that have the same fields at the same places as the first one.

    Attributes:
        size: their bytes, each.

    Raises:
        OddError: the first one is not flat.
    """

    def __init__(self, first: bytes, record: dict[str, Any], heads: Heads) -> None:
        self.size = len(first)
        self._first, self._heads = first, heads
        self._fields: list[_Field] = []
        self._cutters: dict[str, tuple[int, Callable[[Any], Any]]] = {}
        view = memoryview(first)
        begin, at = 0, 1 + heads.rows[first[0]][1]
        for name in record:
            _, at = read_plain(view, at, heads.rows)
            _, end = read_plain(view, at, heads.rows)
            kind, width, _, flip = heads.rows[first[at]]
            if kind not in _FLAT or (width and flip):
                raise OddError
            behind = at + 1 + width if kind in (TEXT, BYTES) else at + (width > 0)
            self._fields.append(_Field(name, begin, behind, end, kind, f">{_FLAT[kind]}{width}" if width else ""))
            begin = at = end

    def read(self, view: memoryview, at: int) -> list[dict[str, Any]]:
        """The records that begin there, up to the first one of another layout; none where they are few.

        Raises:
            UnicodeDecodeError: a text is none.
        """
        count = min(len(view) - at, RUN_BYTES) // self.size
        data = bytes(view[at : at + count * self.size])
        for field in self._fields:
            count = self._alike(data, field, count) if count >= SHORT_RUN else 0
        if count < SHORT_RUN:
            return []
        text = str(data, "latin-1")
        records: list[dict[str, Any]] = [{} for _ in range(count)]
        for field in self._fields:
            name = field.name
            for record, value in zip(records, self._values(data, text, field, count), strict=True):
                record[name] = value
        return records

    def _column(self, data: bytes, form: str, begin: int, count: int) -> NDArray[Any]:
        return np.ndarray((count,), form, data, begin, (self.size,))

    def _alike(self, data: bytes, field: _Field, count: int) -> int:
        """How many records, of the first `count`, have the field as the first one has it, up to one that has not."""
        wanted = self._first[field.begin : field.behind]
        parts = self._column(data, f"V{len(wanted)}", field.begin, count)
        if parts.tobytes() != wanted * count:
            count = [part == wanted for part in parts.tolist()].index(False)
        if field.kind not in (TEXT, BYTES) and not field.form:
            first = self._column(data, "u1", field.behind, count)
            alike = (self._heads.kinds[first] == field.kind) & (self._heads.widths[first] == 0)
            if not alike.all():
                count = int(alike.argmin())
        return count

    def _values(self, data: bytes, text: str, field: _Field, count: int) -> Sequence[Any]:
        """The values of the field in the first `count` records."""
        if field.kind in (TEXT, BYTES):
            values: Sequence[Any] = self._cutter(field, count)(text if field.kind == TEXT else data)
            if field.kind == TEXT and not all(map(str.isascii, values)):
                values = [str(value.encode("latin-1"), "utf-8") for value in values]
            return values
        numbers = self._column(data, field.form or "u1", field.behind, count)
        if not field.form:
            numbers = self._heads.bases[numbers] ^ self._heads.flips[numbers]
        found: list[Any] = numbers.tolist()
        return [_CONSTANTS[number] for number in found] if field.kind == CONSTANT else found

    def _cutter(self, field: _Field, count: int) -> Callable[[Any], Any]:
        """What cuts the values of so many records out at once; the last one is kept, most runs are as long."""
        before, cutter = self._cutters.get(field.name, (0, itemgetter(0)))
        if before != count:
            places = range(0, count * self.size, self.size)
            cutter = itemgetter(*(slice(place + field.behind, place + field.end) for place in places))
            self._cutters[field.name] = count, cutter
        return cutter
