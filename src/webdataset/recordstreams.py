"""Streams of records, one behind the other in a shard -> the records, or samples.

    {url, stream} -> windows of bytes -> records, plain ones at once, others by a package -> samples with `__url__`

A window holds whole records and the beginning of one, which is moved to its front before more is read; a record that
is longer than the window doubles it, up to `max_bytes`. So memory follows the bytes that have come, not those that a
length in the data claims. Compressed streams are known by their first bytes, as archives are. An error says the
record, counted from 0, and the byte of the (decompressed) stream at which it begins.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import repeat
from typing import Any
from zlib import crc32

from ._arguments import check_number
from ._closing import close_stream, closing_source
from ._types import Handler
from .countedshards import check_count
from .errors import DecodingError, printable
from .plainrecords import Found, PlainReader
from .recordformats import FORMATS, MSGPACK, OLD_MSGPACK, RecordFormat
from .tar.header import BLOCK, is_header
from .tar.source import Source
from .tariterators import ShardReader, locate_shard, note_fault, url_and_stream

WINDOW = 1 << 18
"""Bytes of a window, which fit into the processor's cache."""

LARGE_WINDOW = 1 << 20
"""Bytes of a window for large records, of which it then holds several."""

SELF_DESCRIBED = 55799
"""The tag that says of what follows that it is CBOR."""

MAX_BYTES = 1 << 30
"""Bytes of a record, beyond which its length is taken for damaged."""


def records_of(
    data: Iterable[dict[str, Any]],
    handler: Handler,
    form: RecordFormat,
    samples: bool = False,
    max_bytes: float = MAX_BYTES,
) -> Iterator[Any]:
    """The records of all streams `{"url", "stream"}`, which are closed at their ends; with `samples`, as samples.

    The handler is asked when a stream is damaged or cut, and when a record makes no sample: true goes on with the next
    stream, or the next record; false ends the stage.
    """
    check_number(form.name, "max_bytes", max_bytes, "bytes", more_than=0)
    with closing_source(data):
        for origin in data:
            url, stream = url_and_stream(origin)
            reader = None
            try:
                reader = _RecordReader(url, stream, form, max_bytes, handler)
                for part in reader.parts(samples, origin.get("local_path")):
                    yield from part
                if reader.stopped:
                    return
                if origin.get("counted") is not None and not reader.skipped:
                    check_count(origin["counted"], reader.number)
            except Exception as exn:
                note_fault(origin)
                if reader is not None and exn is reader.raised:
                    raise
                if not handler(locate_shard(exn, url, "read")):
                    return
            finally:
                if reader is not None:
                    reader.close()
                close_stream(stream)


READERS: dict[str, ShardReader] = {
    kind: functools.partial(records_of, form=form, samples=True) for kind, form in FORMATS.items()
}
"""What reads shards that are streams of records, for `expand_and_group`."""


class _RecordReader:
    """The records of one stream, once.

    Attributes:
        number: of the next record, and in the end how many there were.
        skipped: records that made no sample.
        stopped: the handler wants no more.
        raised: what the handler has raised.
    """

    def __init__(self, url: str, stream: Any, form: RecordFormat, max_bytes: float, handler: Handler) -> None:
        self._url, self._stream, self._form = url, stream, form
        self._max_bytes, self._handler = max_bytes, handler
        self._package = form.load()
        self._source = Source(stream)
        self._window, self._open = form.window(self._package, WINDOW)
        self._plain = None if form.heads is None else PlainReader(form.heads)
        self._there = self._begin = 0  # so many bytes of it are of the stream, from this offset on
        self._at = self.number = 0  # what is next
        self._in_record = False  # the window ends there before it does
        self.skipped = 0
        self.stopped = False
        self.raised: BaseException | None = None

    def close(self) -> None:
        """Give up what was made for reading; the stream belongs to who opened it."""
        self._source.close()

    def parts(self, samples: bool, local_path: str | None) -> Iterator[Iterable[Any]]:
        """The records, or samples, some at a time; each part is to be used up before the next one is asked for."""
        while self._fill():
            self._in_record = False
            while not self._in_record:
                rest = sys.maxsize
                if self._plain is not None:
                    records, size, rest = self._read_plain(samples, local_path)
                    self._at += size
                    self.number += len(records)
                    yield records
                    self._in_record = not records and not rest
                if rest and not self._in_record:
                    yield self._read_by_package(rest, samples, local_path)
                if self.stopped:
                    return
            self._begin += self._at
            self._there -= self._at
            self._window[: self._there] = self._window[self._at : self._at + self._there]
            self._at = 0

    def _read_plain(self, samples: bool, local_path: str | None) -> Found:
        """The plain records, or samples, that come next in the window."""
        assert self._plain is not None
        found = self._plain.read(self._window[: self._there], self._at)
        if found.size >= LARGE_WINDOW // 16 and len(self._window) < LARGE_WINDOW:
            self._enlarge(LARGE_WINDOW)
        if samples and found.records:
            first = found.records[0]
            if "__key__" not in first:
                for number, record in enumerate(found.records, self.number):
                    record["__key__"] = numbered_key(self._url, number)
            elif type(first["__key__"]) is not str:
                self._plain = None
                return Found([], 0, sys.maxsize)
            for record in found.records:
                record["__url__"] = self._url
            if local_path is not None:
                for record in found.records:
                    record["__local_path__"] = local_path
        return found

    def _read_by_package(self, count: int, samples: bool, local_path: str | None) -> Iterator[Any]:
        """The next records, or samples, in the window; `count`, if there are so many."""
        decode, tell, origin = self._open(self._at, self._there)
        url, used, number, odd = self._url, self._at, self.number, False
        record: Any = None
        try:
            for _ in repeat(None, count):  # this runs once a record: what is rare is done elsewhere
                record = decode()
                if samples:
                    if type(record) is not dict or type(record.get("__key__")) is not str:
                        odd = True
                        break
                    record["__url__"] = url
                    if local_path is not None:
                        record["__local_path__"] = local_path
                used = origin + tell()
                number += 1
                yield record
        except self._form.ends(self._package):
            self._in_record = True
        except Exception as exn:
            self._at, self.number = used, number
            if self._is_of_old(exn):
                self._form, self._plain = OLD_MSGPACK, None
                self._enlarge(len(self._window))
            else:
                self._in_record = True
        self._at, self.number = used, number
        if odd:
            sample = self._sample(record, local_path)
            self._at = origin + tell()
            self.number += 1
            if sample is not None:
                yield sample

    def _is_of_old(self, exn: Exception) -> bool:
        """Whether what a decoder has raised tells an older kind of records; False where more bytes may help.

        Raises:
            DecodingError: this is no record.
        """
        if isinstance(exn, UnicodeDecodeError) and self._form.name == MSGPACK.name:
            return True
        if "exceeds max_" in str(exn):
            return False
        text = printable(" ".join(str(exn).split()), 200)
        text = {"StackError": "it is nested too deeply"}.get(type(exn).__name__, text or type(exn).__name__)
        raise self._failure(f"not {self._form.name}: {text}") from exn

    def _fill(self) -> bool:
        """Have more of the stream in the window, a quarter more of a record that it begins with; False at the end."""
        before = self._there
        if before >= self._max_bytes:
            raise self._failure(
                f"it has more than {self._max_bytes:g} bytes; if its length is not damaged, raise max_bytes"
            )
        if before == len(self._window):
            self._enlarge(2 * before)
        wanted = min(before + before // 4 + 1, len(self._window))
        while self._there < wanted:
            count = self._source.read_into(self._window[self._there :])
            if not count:
                break
            self._there += count
        if before and self._there == before:
            raise self._failure(f"the stream ends inside it, after {before} of its bytes")
        return self._there > 0

    def _enlarge(self, size: int) -> None:
        """Have another window with the same bytes."""
        old = self._window[: self._there]
        self._window, self._open = self._form.window(self._package, size)
        self._window[: self._there] = old

    def _failure(self, fact: str) -> DecodingError:
        return DecodingError(message=fact, member=f"record {self.number}", offset=self._begin + self._at)

    def _sample(self, record: Any, local_path: str | None) -> Any:
        """The sample that the next record makes; None, after a word with the handler, where it makes none."""
        try:
            sample = sample_of(record, self._url, self.number)
        except DecodingError as exn:
            exn.locate(member=f"record {self.number}", offset=self._begin + self._at)
            if self.number == 0:  # it is something else than records
                if is_header(bytes(self._window[:BLOCK])):
                    raise self._failure("not records, but a tar archive: give it a name that ends in .tar") from exn
                raise
            self.skipped += 1
            try:
                self.stopped = not self._handler(locate_shard(exn, self._url, "read"))
            except BaseException as raised:
                self.raised = raised
                raise
            return None
        if local_path is not None and type(sample) is dict:
            sample["__local_path__"] = local_path
        return sample


def sample_of(record: Any, url: str, number: int) -> Any:
    """A record as a sample, with key and url; an array as the list that it is.

    Raises:
        DecodingError: it makes no sample.
    """
    if type(record) is list:
        return record
    if getattr(record, "tag", None) == SELF_DESCRIBED:
        record = record.value
    if isinstance(record, Mapping):
        record = _plain(record)
    if type(record) is not dict:
        raise DecodingError(message=f"a sample is a map of fields, or an array, got {type(record).__name__}")
    odd = next((name for name in record if type(name) is not str), None)
    if odd is not None:
        raise DecodingError(message=f"the names of fields are texts, got {odd!r:.60}")
    key = record.get("__key__", numbered_key(url, number))
    if isinstance(key, bytes):
        key = key.decode("utf-8", "surrogateescape")
    elif not isinstance(key, (str, int)):
        raise DecodingError(message=f"__key__ is a text, got {type(key).__name__}")
    return {**record, "__key__": str(key), "__url__": url}


def _plain(value: Any, done: dict[int, Any] | None = None) -> Any:
    """A value with dicts and lists in place of those that cannot be changed; cbor2 gives them below a tag.

    What comes several times, which CBOR can say in few bytes, is made once; `done` has it by the identity of the value.
    """
    done = {} if done is None else done
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, Mapping):
        fields = done[id(value)] = {}
        fields.update((key, _plain(item, done)) for key, item in value.items())
        return fields
    if isinstance(value, (list, tuple)):
        items = done[id(value)] = []
        items.extend(_plain(item, done) for item in value)
        return items
    return value


def numbered_key(url: str, number: int) -> str:
    """The key of a record that has none: the name of its shard, and its number in it."""
    if url.startswith("pipe:"):
        return f"pipe-{crc32(url.encode('utf-8', 'surrogateescape')):08x}/{number:09d}"
    if "://" in url:
        url = re.sub(r"[?#].*", "", url)
    stem = re.split(r"[/\\]", url)[-1].partition(".")[0]
    return f"{stem or 'records'}/{number:09d}"
