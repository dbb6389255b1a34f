"""Members of one archive as dicts, for programs that look at files before they are samples.

`tar_file_iterator` is the public stage; `Archive` is what the grouping stage behind it must know of
how reading went: a sample in which a fault was seen is never delivered.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from ._arguments import a, a_handler, check_flag, check_function, check_text, checked, shown
from ._types import Handler
from .errors import DataError, public_url
from .handlers import reraise_exception
from .places import add_place
from .samples import decode_name
from .tar.header import BLOCK
from .tar.reader import ArchiveReader, Begun
from .tar.scan import Run

META_PREFIX = "__"
META_SUFFIX = "__"


class Archive:
    """What the grouping stage must know of the archive that its members come from."""

    def __init__(self, handler: Handler = reraise_exception) -> None:
        self.handler = handler
        self.failure: Exception | None = None  # what the handler raised
        self.found_members = False
        self.complete = False
        self.damaged = False
        self.damaged_member: str | None = None
        self.spoiled: list[str] = []  # members that select_files or rename_files failed for


class _Stop(Exception):
    """The handler wants no more of this archive."""


class ArchiveMember(dict[str, Any]):
    """`{"fname", "data", "__url__"}` of one member, which also knows its place and how its archive fared."""

    __slots__ = ("archive", "offset")
    archive: Archive
    offset: int

    @classmethod
    def of(cls, name: str, data: bytes, offset: int, archive: Archive) -> ArchiveMember:
        member = cls(fname=name, data=data)
        member.archive, member.offset = archive, offset
        return member


@checked(
    "tar_file_iterator",
    skip_meta=a(check_text, optional=True),
    handler=a_handler,
    select_files=a(check_function, optional=True),
    rename_files=a(check_function, optional=True),
    ignore_zeros=check_flag,
)
def tar_file_iterator(
    fileobj: Any,
    skip_meta: str | None = r"__[^/]*__($|/)",
    handler: Handler = reraise_exception,
    select_files: Callable[[str], bool] | None = None,
    rename_files: Callable[[str], str] | None = None,
    *,
    ignore_zeros: bool = False,
) -> Iterator[ArchiveMember]:
    """The ordinary files of one archive, as `{"fname": name, "data": bytes}`, in their order.

    Args:
        fileobj: anything with `read(n)`, plain or compressed (found by content). It stays open.
        skip_meta: members whose name this matches from its start are left out.
        handler: asked when the archive is damaged: true or false, nothing more comes of it; and when select_files or
            rename_files fails: true goes on with the next member.
        select_files: called with the (renamed) name; false leaves the member out, unread.
        rename_files: called with the name in the archive.
        ignore_zeros: read on behind the end mark (archives that were simply concatenated).
    """
    if not hasattr(fileobj, "read"):
        raise TypeError(
            f"tar_file_iterator: fileobj must be an open binary file, got {shown(fileobj)}; gopen opens urls"
        )
    archive = Archive(handler)
    try:
        yield from archive_members(fileobj, skip_meta, select_files, rename_files, ignore_zeros, archive, None)
    except DataError as exn:
        if exn is archive.failure:
            raise
        handler(exn)


def archive_members(
    fileobj: Any,
    skip_meta: str | None,
    select_files: Callable[[str], bool] | None,
    rename_files: Callable[[str], str] | None,
    ignore_zeros: bool,
    archive: Archive,
    url: str | None,
) -> Iterator[ArchiveMember]:
    skipped = re.compile(skip_meta).match if skip_meta is not None else None

    def name_of(raw: bytes) -> str | None:
        name = decode_name(raw)
        if "/" not in name and name.startswith(META_PREFIX) and name.endswith(META_SUFFIX):
            return None
        if skipped is not None and skipped(name):
            return None
        try:
            if rename_files is not None:
                name = rename_files(name)
            return name if select_files is None or select_files(name) else None
        except Exception as exn:
            add_place(exn, stage="rename_files or select_files", member=name, url=url)
            try:
                goes_on = archive.handler(exn)
            except Exception as raised:
                archive.failure = raised
                raise
            archive.spoiled.append(decode_name(raw))
            if not goes_on:
                raise _Stop from exn
            return None

    name: str | None = None

    def wanted(raw: bytes) -> bool:
        nonlocal name  # select_files and rename_files are called once a member
        name = name_of(raw)
        return name is not None

    reader = ArchiveReader(fileobj, wanted, ignore_zeros=ignore_zeros)
    try:
        for item in reader:
            if isinstance(item, Begun):
                continue
            if not isinstance(item, Run):
                _, content, offset = item
                if content is not None and name is not None:
                    yield ArchiveMember.of(name, content, offset, archive)
                continue
            for raw, place, offset in _of_run(item, reader.window_start):
                name = name_of(raw)
                if name is not None:
                    yield ArchiveMember.of(name, bytes(item.window[place]), offset, archive)
        archive.complete = True
        finish_archive(reader, url)
    except _Stop:
        archive.damaged = True
        archive.damaged_member = archive.spoiled[-1]
    except Exception:
        archive.damaged, archive.found_members = not archive.complete, reader.found_members
        archive.damaged_member = name if reader.member_begun is not None else None
        raise
    finally:
        reader.close()


def _of_run(run: Run, start: int) -> Iterator[tuple[bytes, slice, int]]:
    """Name, place of the data in the window, and offset of each member of a run."""
    for at, begin, size in zip(run.headers.tolist(), run.begins.tolist(), run.sizes.tolist(), strict=True):
        name = bytes(run.window[at : at + 100]).partition(b"\0")[0]
        yield name, slice(at + BLOCK, at + BLOCK + size), start + begin


def finish_archive(reader: ArchiveReader, url: str | None) -> None:
    """Warn of an archive that does not end as it should."""
    place = "archive" if url is None else public_url(url)
    if reader.ended_without_mark:
        warnings.warn(f"{place}: no end mark; if the archive was cut, its last sample may be incomplete", stacklevel=2)
    reader.finish()
    if reader.followed == "members":
        warnings.warn(
            f"{place}: members follow the end mark and are not read; ignore_zeros=True reads on", stacklevel=2
        )
