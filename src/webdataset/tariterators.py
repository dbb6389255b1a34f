"""The stages from shard urls to samples: open, expand, group; `tarfile_samples` is all three.

    {url} -> url_opener -> {url, stream} -> tar_file_expander -> {fname, data, __url__} -> group_by_keys -> sample

Expanding and grouping run fused in `expand_and_group`, which makes no dict per member; the separate
stages are for programs that edit the pipeline or bring their own naming rule. Both give the same.

Who closes what: a stage closes each stream it took when the shard ends, also when the consumer
stops early. A sample in which a fault was seen is never delivered, whatever the handler says.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ._closing import close_source, close_stream, closing_source
from ._stage import RestCurried
from ._types import Handler, Sample
from .errors import DataError, EmptyDatasetError, public_url
from .grouping import Grouper
from .handlers import reraise_exception
from .places import add_place
from .samples import KeyRule, base_plus_ext, decode_name, is_metadata_member, valid_sample
from .tar.header import BLOCK
from .tar.reader import ArchiveReader
from .tar.scan import Run

__all__ = [
    "base_plus_ext",
    "expand_and_group",
    "group_by_keys",
    "meta_prefix",
    "meta_suffix",
    "tar_file_expander",
    "tar_file_iterator",
    "tarfile_samples",
    "tarfile_to_samples",
    "url_opener",
    "valid_sample",
]

meta_prefix = "__"
meta_suffix = "__"

HOPELESS = 1000
"""So many shards without a sample, all of them seen before, end a stream that draws without end."""


def url_opener(data: Iterable[dict[str, Any]], handler: Handler = reraise_exception, **kw: Any) -> Iterator[Any]:
    """Open each `{"url": ...}` with `gopen(url, **kw)` and add the stream as `"stream"`."""
    from .gopen import gopen

    with closing_source(data):
        for source in data:
            url = source["url"]
            try:
                stream = gopen(url, **kw)
            except Exception as exn:
                if handler(locate_shard(exn, url)):
                    continue
                return
            source["stream"] = stream
            yield source


class _Archive:
    """What the grouping stage must know of the archive that its members come from."""

    def __init__(self) -> None:
        self.complete = False
        self.damaged = False
        self.damaged_member: str | None = None


class ArchiveMember(dict[str, Any]):
    """`{"fname", "data", "__url__"}` of one member, which also knows its place and how its archive fared."""

    __slots__ = ("archive", "offset")
    archive: _Archive
    offset: int

    @classmethod
    def of(cls, name: str, data: bytes, offset: int, archive: _Archive) -> ArchiveMember:
        member = cls(fname=name, data=data)
        member.archive, member.offset = archive, offset
        return member


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
        handler: asked when the archive is damaged; true or false, nothing more comes of it.
        select_files: called with the (renamed) name; false leaves the member out, unread.
        rename_files: called with the name in the archive.
        ignore_zeros: read on behind the end mark (archives that were simply concatenated).
    """
    try:
        yield from _members(fileobj, skip_meta, select_files, rename_files, ignore_zeros, _Archive(), None)
    except DataError as exn:
        handler(exn)


def _members(
    fileobj: Any,
    skip_meta: str | None,
    select_files: Callable[[str], bool] | None,
    rename_files: Callable[[str], str] | None,
    ignore_zeros: bool,
    archive: _Archive,
    url: str | None,
) -> Iterator[ArchiveMember]:
    skipped = re.compile(skip_meta).match if skip_meta is not None else None

    def name_of(raw: bytes) -> str | None:
        name = decode_name(raw)
        if "/" not in name and name.startswith(meta_prefix) and name.endswith(meta_suffix):
            return None
        if skipped is not None and skipped(name):
            return None
        try:
            if rename_files is not None:
                name = rename_files(name)
            return name if select_files is None or select_files(name) else None
        except Exception as exn:
            add_place(exn, stage="rename_files or select_files", member=name)
            raise

    name: str | None = None

    def wanted(raw: bytes) -> bool:
        nonlocal name  # select_files and rename_files are called once a member
        name = name_of(raw)
        return name is not None

    reader = ArchiveReader(fileobj, wanted, ignore_zeros=ignore_zeros)
    try:
        for item in reader:
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
        _finish(reader, url)
    except Exception:
        archive.damaged = not archive.complete
        archive.damaged_member = name if reader.member_begun is not None else None
        raise
    finally:
        reader.close()


def _of_run(run: Run, start: int) -> Iterator[tuple[bytes, slice, int]]:
    """Name, place of the data in the window, and offset of each member of a run."""
    for at, begin, size in zip(run.headers.tolist(), run.begins.tolist(), run.sizes.tolist(), strict=True):
        name = bytes(run.window[at : at + 100]).partition(b"\0")[0]
        yield name, slice(at + BLOCK, at + BLOCK + size), start + begin


def _finish(reader: ArchiveReader, url: str | None) -> None:
    """Warn of an archive that does not end as it should."""
    place = "archive" if url is None else public_url(url)
    if reader.ended_without_mark:
        warnings.warn(f"{place}: no end mark; if the archive was cut, its last sample may be incomplete", stacklevel=2)
    reader.finish()
    if reader.followed == "members":
        warnings.warn(
            f"{place}: members follow the end mark and are not read; ignore_zeros=True reads on", stacklevel=2
        )


def tar_file_expander(
    data: Iterable[dict[str, Any]],
    handler: Handler = reraise_exception,
    select_files: Callable[[str], bool] | None = None,
    rename_files: Callable[[str], str] | None = None,
    eof_value: Any = None,
    *,
    ignore_zeros: bool = False,
) -> Iterator[Any]:
    """The files of many archives: each `{"url", "stream"}` becomes its members, with `__url__` added.

    A damaged archive goes to the handler: true goes on with the next one, false ends the stage.
    Streams are closed. `eof_value`, unless None, is given after each archive.
    """
    with closing_source(data):
        for source in data:
            url, stream = _url_and_stream(source)
            local_path = source.get("local_path")
            try:
                for member in _members(
                    stream, r"__[^/]*__($|/)", select_files, rename_files, ignore_zeros, _Archive(), url
                ):
                    member["__url__"] = url
                    if local_path is not None:
                        member["__local_path__"] = local_path
                    yield member
            except Exception as exn:
                if not handler(locate_shard(exn, url, "read")):
                    return
            finally:
                close_stream(stream)
            if eof_value is not None:
                yield eof_value


def group_by_keys(
    data: Iterable[dict[str, Any]],
    keys: KeyRule = base_plus_ext,
    lcase: bool = True,
    suffixes: Iterable[str] | None = None,
    handler: Handler = reraise_exception,
    *,
    torn: str = "warn",
) -> Iterator[Sample]:
    """Neighbouring members with one key become a sample.

    Args:
        keys: the naming rule: a name becomes (key, field), or (None, None) for "belongs to no sample".
        lcase: lower-case the fields.
        suffixes: keep only these fields.
        handler: asked when a sample has a field twice; true leaves that sample out and goes on.
        torn: "warn" or "error" when a key comes back later in its shard with a part of a sample.
    """
    kept = None if suffixes is None else frozenset(suffixes)
    grouper: Grouper | None = None
    shard: Any = None
    archive: _Archive | None = None
    try:
        for member in data:
            here = getattr(member, "archive", None)
            if grouper is None or not member or shard != (here or member.get("__url__")):
                done = _last_sample(grouper, archive)
                if done is not None:
                    yield done
                grouper = None
                if not member:  # the end marker of old expanders
                    continue
                archive, shard = here, here or member.get("__url__")
                grouper = Grouper(
                    member.get("__url__", ""),
                    member.get("__local_path__"),
                    handler,
                    torn=torn,
                    keys=keys,
                    lcase=lcase,
                    suffixes=kept,
                )
            done = grouper.add(member["fname"], member["data"], getattr(member, "offset", None))
            if done is not None:
                yield done
            if grouper.stopped:
                return
    except Exception:
        done = _last_sample(grouper, archive) if archive is not None and (archive.complete or archive.damaged) else None
        if done is not None:
            yield done
        raise
    finally:
        close_source(data)
    done = _last_sample(grouper, archive)
    if done is not None:
        yield done


def _last_sample(grouper: Grouper | None, archive: _Archive | None) -> Sample | None:
    """The last sample of a shard, if it is whole."""
    if grouper is None:
        return None
    if archive is not None and archive.damaged:
        return grouper.flush_before(archive.damaged_member)
    return grouper.flush()


def _begun(reader: ArchiveReader) -> str | None:
    return None if reader.member_begun is None else decode_name(reader.member_begun)


def expand_and_group(
    data: Iterable[dict[str, Any]],
    handler: Handler = reraise_exception,
    group_handler: Handler | None = None,
    *,
    ignore_zeros: bool = False,
    torn: str = "warn",
    keys: KeyRule = base_plus_ext,
    lcase: bool = True,
) -> Iterator[Sample]:
    """`tar_file_expander` and `group_by_keys` in one: the same samples, several times as fast."""
    barren: Counter[str] = Counter()  # shards since the last sample
    wanted = _may_be_field if keys is base_plus_ext else _is_no_metadata
    with closing_source(data):
        for source in data:
            url, stream = _url_and_stream(source)
            grouper = Grouper(
                url, source.get("local_path"), group_handler or handler, torn=torn, keys=keys, lcase=lcase
            )
            reader = ArchiveReader(stream, wanted, ignore_zeros=ignore_zeros)
            try:
                for item in reader:
                    if isinstance(item, Run):
                        yield from grouper.add_run(item, reader.window_start)
                        del item  # and with it the window, before the next one is read
                    else:
                        name, content, offset = item
                        done = None if content is None else grouper.add_raw(name, content, offset)
                        if done is not None:
                            yield done
                    if grouper.stopped:
                        return
                done = grouper.flush()
                if done is not None:
                    yield done
                _finish(reader, url)
            except Exception as exn:
                if exn is grouper.failure:
                    raise
                done = grouper.flush_before(_begun(reader))
                if done is not None:
                    yield done
                if not handler(locate_shard(exn, url, "read")):
                    return
            finally:
                reader.close()
                close_stream(stream)
            barren[url] += 1
            if grouper.found_fields:
                barren.clear()
            elif barren[url] > 10 and (count := barren.total()) >= max(HOPELESS, 10 * len(barren)):
                raise EmptyDatasetError(
                    f"{public_url(url)}: {count} shards in a row held no sample, and they are always the same"
                    f" {len(barren)}: are the members named key.field?"
                )


def _may_be_field(raw: bytes) -> bool:
    return b"." in raw and not (raw.startswith(b"__") and is_metadata_member(decode_name(raw)))


def _is_no_metadata(raw: bytes) -> bool:
    return not (raw.startswith(b"__") and is_metadata_member(decode_name(raw)))


def tarfile_samples(
    src: Iterable[dict[str, Any]],
    handler: Handler = reraise_exception,
    select_files: Callable[[str], bool] | None = None,
    rename_files: Callable[[str], str] | None = None,
) -> Iterator[Sample]:
    """Samples of the shards `{"url": ...}`: open, expand, group, with one handler for all three."""
    streams = url_opener(src, handler=handler)
    if select_files is None and rename_files is None and (tar_file_expander, group_by_keys) == _UNREPLACED:
        return expand_and_group(streams, handler)
    files = tar_file_expander(streams, handler, select_files, rename_files)
    return group_by_keys(files, handler=handler)


_UNREPLACED = (tar_file_expander, group_by_keys)  # programs put functions of their own into this module

tarfile_to_samples = RestCurried(tarfile_samples)


def _url_and_stream(source: Any) -> tuple[str, Any]:
    if isinstance(source, dict) and "url" in source and "stream" in source:
        return source["url"], source["stream"]
    raise TypeError(
        f'expected {{"url": ..., "stream": ...}} from an opener such as url_opener, got {str(source)[:100]!r}'
    )


def locate_shard(exn: Exception, url: str, stage: str = "open") -> Exception:
    """The exception with the shard and the stage said: ours take them, others get a note."""
    add_place(exn, url=url, **({"stage": stage} if isinstance(exn, DataError) else {}))
    return exn
