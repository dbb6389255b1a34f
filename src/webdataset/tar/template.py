"""Header blocks by the hundred thousand: the pieces of a ustar header that repeat, made once.

Between two small members of an archive only name, size and checksum differ. A header is put
together from three pieces: the name field, the front (mode to mtime, made once per size) and the
rest (checksum to the end, made once per checksum). The checksum is a sum of byte values, so it is
the sum over the pieces. `format_header` says what the result must be; the tests hold both equal.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from .format import NAME_SIZE, MemberStyle, format_checksum, format_header, format_number

K = TypeVar("K")
V = TypeVar("V")


class Memo(dict[K, V], Generic[K, V]):
    """A dict that makes the values it lacks with `make(key)`, and starts anew when it holds `limit` of them."""

    def __init__(self, make: Callable[[K], V], limit: int = 4096) -> None:
        super().__init__()
        self.make = make
        self.limit = limit

    def __missing__(self, key: K) -> V:
        value = self.make(key)
        if len(self) >= self.limit:
            self.clear()
        self[key] = value
        return value


class HeaderTemplate:
    """Headers of one style: `name.ljust(100, NUL) + fronts[size][0] + rests[fronts[size][1] + sum(name)]`.

    Attributes:
        fronts: size in bytes (below 8 GiB) -> (the 48 bytes behind the name, the checksum but for the name).
        rests: checksum -> the 364 bytes from the checksum field to the end of the header.
    """

    def __init__(self, style: MemberStyle) -> None:
        block = format_header(b"", 0, style)
        before, after = block[NAME_SIZE:124], block[136:148]
        tail = block[156:]
        others = sum(before) + sum(after) + sum(tail) + 8 * ord(" ")

        def front(size: int) -> tuple[bytes, int]:
            field = format_number(size, 12)
            return before + field + after, others + sum(field)

        def rest(checksum: int) -> bytes:
            return format_checksum(checksum) + tail

        self.fronts = Memo(front)
        self.rests = Memo(rest)
