"""A byte stream -> its members, in order: the one reader that everything stands on.

`ArchiveReader` iterates over Members (one at a time, any kind, the plain truth) and Runs (many
plain members at once, see `scan`), in archive order. It believes no size before it has looked at
what is left, delivers no member that is not whole, and ends in one of four ways: an end mark, the
clean end of a stream that lacks one (`ended_without_mark`), a TarError with the byte offset, or
because the caller stopped. After the end mark `finish` reads what is behind it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ..errors import DataError, HeaderError, TarError, TruncatedError, printable
from .header import (
    BLOCK,
    OLD_GNU_SPARSE,
    REGULAR_TYPES,
    TYPES_WITHOUT_DATA,
    ZERO_BLOCK,
    Header,
    is_header,
    is_summed,
    padding,
    parse_header,
)
from .pax import PAX_LIMIT, Records, parse_pax_records, parse_pax_size
from .scan import Run, scan
from .source import LARGE_MEMBER, Source
from .sparse import expand_sparse, parse_old_sparse, parse_pax_sparse, parse_sparse_extension, split_sparse_data
from .strangers import not_tar

WORTH_SCANNING = 1 << 16
"""Bytes in the window from which on looking at all blocks together pays."""
DENSE = 4096
"""Bytes from header to header, on average, below which members count as small for `scan`."""
SHORT_RUN = 16
PATIENCE = 256
"""After a run shorter than SHORT_RUN, this many members are read one by one before the next scan."""


_OCTAL = re.compile(rb"[0-7]+")

Member = tuple[bytes, bytes | None, int]
"""An ordinary file in an archive: name, as the archive has it (usually UTF-8); data, holes of sparse
members filled, None when the caller did not want it; offset of its first header block in the
(decompressed) archive. A plain tuple: one is made for each member."""


class Begun(NamedTuple):
    """The header of a member has come, the member itself follows when its data has: it may take a while."""

    name: bytes


class ArchiveReader:
    """Iterate once over a stream; see the module.

    Args:
        stream: anything with `read(n)`; short reads are fine. It stays open.
        wanted: called with a name; false: the data is passed over, and Member.data is None.
            None: everything is wanted, and runs are given where there are any.
        ignore_zeros: read on behind end marks, as `tar -i` does (concatenated archives).
        runs: also with `wanted`, give runs; the caller then looks at the names itself.
        announce: where the stream is slow, give a `Begun` before a member that has not come whole yet.

    Attributes:
        ended_without_mark: the stream ended where a header or an end mark should be.
        followed: after `finish`: "members" or "bytes" when there is something behind the end mark.
        member_begun: name of the member whose data was being read, or passed over, when an error came.
        passed: offset and bytes of the data that was passed over last; None where they are pieces of a sparse member.
    """

    def __init__(
        self,
        stream: Any,
        wanted: Callable[[bytes], bool] | None = None,
        *,
        ignore_zeros: bool = False,
        runs: bool = True,
        announce: bool = False,
    ) -> None:
        self.announce = announce
        self.wanted = wanted
        self.ignore_zeros = ignore_zeros
        self.runs = runs
        self.ended_without_mark = False
        self.followed: str | None = None
        self.member_begun: bytes | None = None
        self.passed: tuple[int, int] | None = None
        self._stream = stream
        self._globals: dict[bytes, bytes] = {}
        self._source: Source | None = None
        self._overridden = False
        self._count = 0
        self._run_start = 0
        self._patience = 0

    def __iter__(self) -> Iterator[Member | Run | Begun]:
        try:
            source = self._source = Source(self._stream)
            if not source.fill(1):
                raise TruncatedError("the file is empty: not a tar archive")
        except DataError as exn:
            raise exn.locate(offset=0)
        while True:
            start = source.offset
            try:
                if self._patience:
                    self._patience -= 1
                elif self.runs and not self._overridden:
                    run = self._next_run(source)
                    if run is not None:
                        self._count += len(run.sizes)
                        yield run
                        run = None  # and with it the window, before the next one is read
                        continue
                if self.announce and source.slow:
                    coming = self._coming(source)
                    if coming is not None:
                        yield coming
                member = self._plain_member(source) or self._next_member(source)
            except DataError as exn:
                if self.member_begun is not None:
                    exn.locate(member=_shown(self.member_begun))
                raise exn.locate(offset=start)
            if member is None:
                return
            self._count += 1
            yield member

    @property
    def found_members(self) -> bool:
        """Whether the header of a member was found: after an error, whether this is an archive at all."""
        return self._count > 0 or self.member_begun is not None

    @property
    def offset(self) -> int:
        """Offset in the (decompressed) archive behind what was read: of the end mark, once all members have come."""
        return self._source.offset if self._source is not None else 0

    @property
    def window_start(self) -> int:
        """Offset in the (decompressed) archive of the first byte of the last run's window."""
        return self._run_start

    def close(self) -> None:
        """Free what was opened on top of the stream; the stream stays open."""
        if self._source is not None:
            self._source.close()

    def finish(self) -> None:
        """After the last member: look behind the end mark, and read to the end where an end can be checked.

        Sets `followed` to what is there ("members" or "bytes"), None for zeros or nothing.

        Raises:
            TarError: the compressed stream is damaged behind the last member.
        """
        source = self._source
        if source is None or self.ended_without_mark:
            return
        try:
            if source.skip_zeros():
                source.fill(BLOCK)
                self.followed = "members" if is_header(source.window[source.pos : source.pos + BLOCK]) else "bytes"
            source.drain()
        except DataError as exn:
            raise exn.locate(offset=source.offset)

    def _next_run(self, source: Source) -> Run | None:
        """The plain members ahead, with the source moved behind them; None when there are none, or it is too early."""
        dense = source.offset < DENSE * self._count
        if not dense and source.has_bulk and WORTH_SCANNING <= source.offset < LARGE_MEMBER * self._count:
            buffer, begin, end = source.read_bulk()
            self._run_start = source.offset - begin
            run = scan(buffer, begin, dense, end)
            if run is not None:
                source.jump(run.end - begin)
        elif source.available >= WORTH_SCANNING:
            self._run_start = source.start
            run = scan(source.window, source.pos, dense)
            if run is not None:
                source.pos = run.end
        else:
            if self._count > PATIENCE and source.offset >= LARGE_MEMBER * self._count:
                self._patience = PATIENCE  # members are too large for runs
            return None
        if run is None or len(run.sizes) < SHORT_RUN:
            self._patience = PATIENCE
        return run

    def _plain_member(self, source: Source) -> Member | None:
        """The next member when its header is in the window and an ordinary one; else None, and nothing is used up.

        The same as `_next_member`, written for speed: most members that no run holds come this way.
        """
        window, at = source.window, source.pos
        block = window[at : at + BLOCK]
        digits = block[124:135]
        if (
            len(block) < BLOCK
            or not digits.isdigit()
            or block[135] not in b"\0 "
            or block[156] != 48
            or (block[345] and block[262] == 0)
            or not block.startswith(b"ustar", 257)
            or self._overridden
            or not is_summed(block)
        ):
            return None
        try:
            size = int(digits, 8)
        except ValueError:
            return None
        name = block[:100].partition(b"\0")[0]
        offset = source.start + at
        at += BLOCK
        pad = -size % BLOCK
        if self.wanted is not None and not self.wanted(name):
            source.pos = at
            self._pass_over(source, name, size)
            return name, None, offset
        if at + size + pad <= len(window):
            source.pos = at + size + pad
            return name, window[at : at + size], offset
        source.pos = at
        return name, self._data(source, name, size), offset

    def _coming(self, source: Source) -> Begun | None:
        """The next member, when its header is there and an ordinary one, but not all of its data."""
        if not source.fill(BLOCK):
            return None
        block = source.window[source.pos : source.pos + BLOCK]
        digits, name = block[124:135], block[:100].partition(b"\0")[0]
        plain = (
            _OCTAL.fullmatch(digits)
            and block[156] == 48
            and not block[345]
            and not self._overridden
            and is_summed(block)
        )
        if not plain or (self.wanted is not None and not self.wanted(name)):
            return None
        return Begun(name) if BLOCK + int(digits, 8) > source.available else None

    def _pass_over(self, source: Source, name: bytes, size: int) -> None:
        self.member_begun = name
        self.passed = source.offset, size
        source.skip(size + padding(size))
        self.member_begun = None

    def _data(self, source: Source, name: bytes, size: int) -> bytes:
        self.member_begun = name
        data = source.take(size)
        pad = padding(size)
        if size >= LARGE_MEMBER:
            source.fill(pad)
        source.skip(pad)
        self.member_begun = None
        return data

    def _next_member(self, source: Source) -> Member | None:
        """The next ordinary file, None at the end of the archive."""
        start = source.offset
        records: Records = []
        long_name: bytes | None = None
        while True:
            block = self._next_block(source, pending=bool(records) or long_name is not None)
            if block is None:
                return None
            at = source.offset - BLOCK
            try:
                header = parse_header(block)
            except HeaderError as exn:
                if at == 0:
                    raise not_tar(block) from exn
                raise exn.locate(offset=at)
            try:
                kind = header.type
                if kind == b"x" or kind == b"X":
                    records = parse_pax_records(self._extension(source, header, "PAX header"))
                elif kind == b"g":
                    self._globals.update(parse_pax_records(self._extension(source, header, "PAX header")))
                    self._overridden = not self._globals.keys().isdisjoint((b"path", b"size"))
                    if not records and long_name is None:
                        start = source.offset
                elif kind == b"L":
                    long_name = self._extension(source, header, "long name").partition(b"\0")[0]
                elif kind == b"K":
                    self._extension(source, header, "long link")
                else:
                    member = self._file(source, header, block, records, long_name, start)
                    if member is not None:
                        return member
                    start, records, long_name = source.offset, [], None
            except DataError as exn:
                raise exn.locate(member=_shown(long_name or header.name), offset=at)

    def _next_block(self, source: Source, pending: bool) -> bytes | None:
        """The next header block, None at the end."""
        while True:
            if not source.fill(BLOCK):
                if source.available:
                    if source.offset == 0:
                        raise not_tar(source.window)
                    raise TruncatedError(
                        f"the archive ends inside a header: {source.available} of {BLOCK} bytes", offset=source.offset
                    )
                if pending:
                    raise TruncatedError("the archive ends behind an extended header, the member is missing")
                self.ended_without_mark = not self.ignore_zeros
                return None
            block = source.window[source.pos : source.pos + BLOCK]
            if block == ZERO_BLOCK:
                if pending:
                    raise TarError("an extended header is followed by the end mark instead of a member")
                if not self.ignore_zeros:
                    return None
                if not source.skip_zeros():
                    return None
                continue
            source.pos += BLOCK
            return block

    def _extension(self, source: Source, header: Header, what: str) -> bytes:
        if header.size > PAX_LIMIT:
            raise HeaderError(f"a {what} of {header.size} bytes (at most {PAX_LIMIT} are read)")
        data = source.take(header.size)
        source.skip(padding(header.size))
        return data

    def _file(
        self, source: Source, header: Header, block: bytes, records: Records, long_name: bytes | None, start: int
    ) -> Member | None:
        """The member that a header begins, None when it is not an ordinary file."""
        name = header.name if long_name is None else long_name
        size = header.size
        sparse = None
        if records or self._globals:
            attributes = {**self._globals, **dict(records)}
            name = attributes.get(b"path") or name
            if attributes.get(b"size"):
                size = parse_pax_size(attributes[b"size"], "size")
            sparse = parse_pax_sparse(records)
            if sparse is not None:
                name = attributes.get(b"GNU.sparse.name") or name
        kind = header.type
        if kind in TYPES_WITHOUT_DATA:
            return None
        if kind == OLD_GNU_SPARSE:
            pieces, real_size, more = parse_old_sparse(block)
            while more:
                extension, more = parse_sparse_extension(source.take(BLOCK))
                pieces += extension
            sparse = pieces, real_size
        regular = kind in REGULAR_TYPES or kind == OLD_GNU_SPARSE
        if not regular or (kind == b"\0" and name.endswith(b"/")):  # v7 writes folders so
            source.skip(size + padding(size))
            return None
        if self.wanted is not None and not self.wanted(name):
            self._pass_over(source, name, size)
            if sparse is not None:
                self.passed = None
            return name, None, start
        data = self._data(source, name, size)
        if sparse is not None:
            self.member_begun = name
            data = _fill_holes(data, *sparse)
            self.member_begun = None
        return name, data, start


def _shown(name: bytes) -> str:
    return printable(name.decode("utf-8", "surrogateescape"))


def _fill_holes(data: bytes, pieces: list[tuple[int, int]] | None, real_size: int) -> bytes:
    if pieces is None:
        pieces, data = split_sparse_data(data)
    return expand_sparse(data, pieces, real_size)
