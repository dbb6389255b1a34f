"""Samples -> a tar archive.

All fields of a sample are encoded and checked before its first byte is written, so a sample is in
the archive whole or not at all. A key or field that would not read back is refused. The bytes
depend on the samples and the arguments only. `write` runs once per sample and decides the speed:
what depends on the field names only is worked out once, in a plan.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Mapping
from typing import Any
from zlib import adler32

from ._arguments import a, check_flag, check_number, check_text, checked, shown
from ._types import WritableStream
from .encoders import EncoderSpec, make_encoder
from .errors import EncodingError, printable
from .indexwriter import check_indexable, write_beside
from .samplenames import check_fields, check_key, encode_name
from .samples import METADATA
from .samplesink import SampleSink
from .tar.format import (
    END_OF_ARCHIVE,
    NAME_SIZE,
    OCTAL_LIMIT,
    RECORD,
    checked_align,
    format_member,
    format_time,
    member_style,
)
from .tar.frames import SEEKABLE
from .tar.header import BLOCK, padding
from .tar.sink import WRITE_SIZE, compression_for
from .tar.template import HeaderTemplate, Memo

_PADDING = tuple(bytes(size) for size in range(BLOCK))

READERS_OWN = frozenset((*METADATA, "__bad__"))
"""Fields that readers do not take from an archive as they take others."""

Plan = list[tuple[str, bytes, Any, int]]


def _check_name(where: str, name: str, value: Any) -> None:
    """TypeError unless the value is something that a table of names may be asked for."""
    if not isinstance(value, (str, int, type(None))):
        raise TypeError(f"{where}: {name} must be a name or None, got {shown(value)}")


def _header_option(name: str) -> Any:
    """An option of headers as an attribute that can be set."""

    def get(self: TarWriter) -> Any:
        return self._headers[name]

    def put(self: TarWriter, value: Any) -> None:
        self._set_headers(**{name: value})

    return property(get, put)


class TarWriter(SampleSink):
    """Writes samples to a tar archive; a context manager.

    A sample is a dict with a string `__key__` and one entry a field. Fields are encoded by their
    names' last extension, and written as members `key.field`, in sorted order. Names that begin
    with "_" are metadata, left out unless `keep_meta`.

    The bytes are plain ustar; a member gets a PAX record only when its name, its size (8 GiB and
    more) or its time needs one. The same samples give the same bytes, compressed ones too.

    An archive under a local path appears complete or not at all: it is written as `<path>.partial` and
    then takes the place of what was there. An exception in the `with` block gives it up.

    Args:
        fileobj: a path, a url that `gopen` can write to, or a writable binary object (left open).
        user: owner's name in the headers.
        group: group's name in the headers.
        mode: permission bits.
        compress: "gz" (or True), "bz2", "xz", "zst", "lz4", False for none, None for what the name ends with.
        encoder: True for the default table, False for fields that are bytes already, a dict from
            extension to callable, or a callable from sample to sample.
        keep_meta: write metadata as well; it must be text or bytes then.
        mtime: time of all members in seconds since 1970, 0 by default; a fraction costs a PAX record each.
        format: `tarfile.USTAR_FORMAT`, `GNU_FORMAT`, `PAX_FORMAT` or "USTAR", "GNU", "PAX": how to write what
            does not fit into ustar headers. "USTAR" refuses it. None is "PAX".
        align: payloads start at multiples of this many bytes, a power of two from 512 to 524288, so that
            storage with larger blocks finds equal ones. A PAX comment fills the gaps; all readers skip it.
        index: note where samples begin, and write that beside the archive, as `<name>.tar.idx`, when it is there.
        seekable: compress, "zst" or "gz", in parts that can be decompressed alone, for random access: zstd's seekable
            format, or BGZF. Programs that decompress read either; tarfile's streams ("r|gz") do not.

    Attributes:
        user, group, mode, mtime: as the arguments; what is set counts for the samples that follow.
        stream: what is written to.
        own_fileobj: the same when it was opened here, else None.
        tarstream: the archive being written; `tarstream.position` is its length so far, uncompressed.
        offsets: with `index`, where each sample begins in the uncompressed archive and, once it is closed, where the
            last one ends; None where that is not what readers will find, as with metadata that is kept.

    Raises:
        OpenError: the target cannot be opened or written; small archives are written at `close`.
    """

    makes = "archive"

    @checked(
        "TarWriter",
        user=check_text,
        group=check_text,
        mode=a(check_number, whole=True),
        compress=_check_name,
        keep_meta=check_flag,
        mtime=a(check_number, "seconds", optional=True),
        format=_check_name,
        index=check_flag,
        seekable=check_flag,
    )
    def __init__(
        self,
        fileobj: str | os.PathLike[str] | WritableStream,
        user: str = "bigdata",
        group: str = "bigdata",
        mode: int = 0o0444,
        compress: bool | str | None = None,
        encoder: EncoderSpec = True,
        keep_meta: bool = False,
        mtime: float | None = None,
        format: Any = None,
        *,
        align: int = BLOCK,
        index: bool = False,
        seekable: bool = False,
    ) -> None:
        self.encoder = make_encoder(encoder)
        self.keep_meta = keep_meta
        self.compress = compress
        self._headers: dict[str, Any] = {}
        self._set_headers(user=user, group=group, mode=mode, mtime=mtime, format=format)
        self._align = checked_align(align, self._style)
        self._plans: Memo[tuple[Any, ...], Plan] = Memo(self._plan)
        self._last_key: str | None = None
        self._last_plan: Plan = []
        self.offsets: array[int] | None = array("q") if index else None
        self._indexed = None
        if index and isinstance(fileobj, (str, os.PathLike)):
            self._indexed = check_indexable("TarWriter", os.fspath(fileobj))
        compression = compression_for(fileobj, compress)
        if seekable and compression and compression not in SEEKABLE:
            raise ValueError(f'TarWriter: seekable=True needs compress="zst" or "gz", or none, got {compression!r}')
        self._open(fileobj, compression, bool(seekable))
        self.tarstream = self._sink

    user = _header_option("user")
    group = _header_option("group")
    mode = _header_option("mode")
    mtime = _header_option("mtime")

    def _set_headers(self, **options: Any) -> None:
        """Make headers with these options from now on, the others as they were."""
        self._style = member_style(**{**self._headers, **options})
        self._headers.update(options)
        template = HeaderTemplate(self._style)
        self._fronts, self._rests = template.fronts, template.rests
        self._before = format_time(self._style)

    @staticmethod
    def tarmode(fileobj: Any, compress: bool | str | None = None) -> str:
        """The mode that tarfile would open such an archive with: `w|`, `w|gz`, ..."""
        return f"w|{compression_for(fileobj, compress)}"

    def write(self, obj: Mapping[str, Any]) -> int:
        """Append one sample; the result is the bytes of its fields, headers and padding not counted.

        Raises:
            EncodingError: a field cannot be encoded, or would not read back; nothing of the sample is written.
            OpenError: the target does not take more.
            ValueError: the writer is closed.
        """
        if self._closed:
            raise ValueError("write to a closed TarWriter: open another for another archive")
        try:
            fields = self.encoder(obj)
            key: Any = fields.get("__key__")
            if not (type(key) is str and key.isalnum()):  # what is alphanumeric needs no closer look
                check_key(key, fields)
            try:
                stem = key.encode()
            except UnicodeEncodeError:
                stem = encode_name(key)
            plan = self._plans[(len(stem), *fields)]
            if not plan:
                raise EncodingError("it has no field to write: nothing of it would be in the archive")
            written = plan if key != self._last_key else self._continued(plan)
            chunks, total, size = self._chunks(stem, plan, fields)
        except EncodingError as exn:
            key = obj.get("__key__") if isinstance(obj, Mapping) else None
            raise EncodingError(f"sample {printable(str(key))!r}: {exn}" if key else str(exn)) from exn.__cause__
        if self.offsets is not None and key != self._last_key:
            self.offsets.append(self.tarstream.position)
        self.tarstream.add(chunks, size)
        self._last_key, self._last_plan = key, written
        return total

    def dwrite(self, key: str, **kw: Any) -> int:
        """Append one sample with the fields that are named here, "_" in a name standing for "."; as `write`."""
        return self.write({"__key__": key, **{name.replace("_", "."): value for name, value in kw.items()}})

    def close(self) -> None:
        """Finish the archive, and close the target if it was opened here. Closing again does nothing.

        Raises:
            OpenError: the target does not take the rest; or an earlier write failed, so that there is no archive.
        """
        if self._closed:
            return
        self._closed = True
        sink = self.tarstream
        if self.offsets is not None:
            self.offsets.append(sink.position)
        try:
            size = len(END_OF_ARCHIVE)
            size += -(sink.position + size) % RECORD
            sink.add([bytes(size)], size)
            sink.finish()
        finally:
            self._close_own(failed=sink.broken)
        if self._indexed is not None:
            write_beside(self._indexed, self.offsets)

    def _chunks(self, stem: bytes, plan: Plan, fields: Mapping[str, Any]) -> tuple[list[Any], int, int]:
        """The members of a sample: chunks to write, bytes of data, bytes in the archive."""
        if plan and plan[0][2] is None:
            return self._chunks_with_records(stem, plan, fields)
        chunks: list[Any] = []
        total = size = 0
        start = self._before + stem
        stem_sum = (adler32(stem) & 0xFFFF) - 1  # the low half of adler32 is 1 + the sum of the bytes
        fronts, rests = self._fronts, self._rests
        for field, _, name_rest, name_sum in plan:
            data = fields[field]
            if type(data) is not bytes:
                data = _as_bytes(field, data)
            count = len(data)
            front, checksum = fronts[count]
            chunks += start, name_rest, front, rests[checksum + name_sum + stem_sum], data, _PADDING[-count & 511]
            total += count
            size += (count + 1023) & -512
        if size >= OCTAL_LIMIT:
            return self._chunks_with_records(stem, plan, fields)
        return chunks, total, size + len(plan) * len(self._before)

    def _chunks_with_records(self, stem: bytes, plan: Plan, fields: Mapping[str, Any]) -> tuple[list[Any], int, int]:
        """The same for samples with long names, huge fields, or aligned ones."""
        chunks: list[Any] = []
        total = 0
        position = self.tarstream.position
        for field, extension, _, _ in plan:
            data = _as_bytes(field, fields[field])
            headers = format_member(stem + extension, len(data), self._style, position, self._align)
            chunks += headers, data, bytes(padding(len(data)))
            total += len(data)
            position += len(headers) + len(data) + padding(len(data))
        return chunks, total, position - self.tarstream.position

    def _continued(self, plan: Plan) -> Plan:
        """What the last sample and this one, which has the same key and so continues it, write together."""
        before = {name.lower() for name, _, _, _ in self._last_plan}
        twice = [name for name, _, _, _ in plan if name.lower() in before]
        if twice:
            raise EncodingError(
                f"the sample before has the same key, and {', '.join(twice)} too: "
                "readers would take both for one; give each sample its own key"
            )
        return self._last_plan + plan

    def _plan(self, layout: tuple[Any, ...]) -> Plan:
        """What to write for samples with these fields, in order, whose encoded keys have this length.

        An entry is the field, what stands behind the key in the member's name, that filled up to the end of
        the name field (None when the names of the sample do not fit into it), and the sum of its bytes.
        """
        key_size, *names = layout
        written = sorted(name for name in names if name != "__key__" and (self.keep_meta or name[:1] != "_"))
        check_fields(written)
        if not READERS_OWN.isdisjoint(name.lower() for name in written):
            self.offsets = None
        plan: Plan = []
        for name in written:
            extension = b"." + encode_name(name)
            plan.append((name, extension, extension.ljust(NAME_SIZE - key_size, b"\0"), sum(extension)))
        if self._align > BLOCK or any(key_size + len(extension) > NAME_SIZE for _, extension, _, _ in plan):
            return [(name, extension, None, 0) for name, extension, _, _ in plan]
        return plan


def _as_bytes(field: str, data: Any) -> Any:
    """The data with its bytes as its length; what the caller may still change is copied, unless it is large."""
    if isinstance(data, bytes):
        return data
    if isinstance(data, (bytearray, memoryview)):
        view = memoryview(data)
        if view.nbytes < WRITE_SIZE or not view.c_contiguous:
            return view.tobytes()
        return view.cast("B")  # so large a chunk is written before `write` returns
    if field.startswith("_") and isinstance(data, str):
        return data.encode()
    raise EncodingError(
        f"field {field!r}: {field} doesn't map to a bytes after encoding, got {type(data).__name__}; "
        "encode it, or give the writer an encoder for it"
    )
