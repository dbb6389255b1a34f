"""The stages from shard urls to samples: open, expand, group; `tarfile_samples` is all three.

    {url} -> url_opener -> {url, stream} -> tar_file_expander -> {fname, data, __url__} -> group_by_keys -> sample

Expanding and grouping run fused in `expand_and_group`, which makes no dict per member; the separate
stages are for programs that edit the pipeline or bring their own naming rule. Both give the same.

Who closes what: a stage closes each stream it took when the shard ends, also when the consumer
stops early. A sample in which a fault was seen is never delivered, whatever the handler says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ._arguments import a, a_handler, check_choice, check_flag, check_function, check_items, checked
from ._closing import close_source, close_stream, closing_source
from ._stage import RestCurried
from ._types import Handler, Sample
from .archivemembers import (
    META_PREFIX,
    META_SUFFIX,
    Archive,
    archive_members,
    finish_archive,
    tar_file_iterator,
)
from .countedshards import check_count
from .errors import DataError, NotFoundError, TarError, public_url
from .filetypes import record_kind
from .grouping import Grouper
from .handlers import reraise_exception
from .places import add_place
from .samples import KeyRule, base_plus_ext, decode_name, may_be_field, valid_sample
from .shardlists import Shard, SimpleShardList
from .shardpatterns import Urls
from .tar.reader import ArchiveReader, Begun
from .tar.scan import Run
from .workers import resolve_seed

__all__ = [
    "base_plus_ext",
    "expand_and_group",
    "group_by_keys",
    "meta_prefix",
    "meta_suffix",
    "shardlist",
    "tar_file_expander",
    "tar_file_iterator",
    "tarfile_samples",
    "tarfile_to_samples",
    "url_opener",
    "valid_sample",
]

meta_prefix = META_PREFIX
meta_suffix = META_SUFFIX

_GROUPING = {
    "handler": a_handler,
    "keys": check_function,
    "lcase": check_flag,
    "torn": a(check_choice, choices=("warn", "error")),
}


def shardlist(urls: Urls, *, shuffle: bool = False) -> Iterator[Shard]:
    """The shards as `{"url": str}`: an older name of `SimpleShardList`; `shuffle` takes the order of WDS_SEED or 0."""
    return iter(SimpleShardList(urls, resolve_seed(None) if shuffle else None))


@checked("url_opener", handler=a_handler)
def url_opener(data: Iterable[Any], handler: Handler = reraise_exception, **kw: Any) -> Iterator[Any]:
    """Open each `{"url": ...}` (or url) with `gopen(url, **kw)` and add the stream as `"stream"`."""
    from .gopen import gopen

    with closing_source(data):
        for item in data:
            source = item if isinstance(item, dict) else {"url": item}
            url = source["url"]
            try:
                stream = gopen(url, **kw)
            except Exception as exn:
                note_fault(source)
                if handler(locate_shard(exn, url)):
                    continue
                return
            source["stream"] = stream
            yield source


@checked(
    "tar_file_expander",
    handler=a_handler,
    select_files=a(check_function, optional=True),
    rename_files=a(check_function, optional=True),
    ignore_zeros=check_flag,
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

    A damaged archive goes to the handler, which ends this one only: what comes next is read, whether it says true or
    false. Only what is no archive at all ends the stage where it says false. Streams are closed. `eof_value`, unless
    None, is given after each archive.
    """
    with closing_source(data):
        for source in data:
            url, stream = url_and_stream(source)
            local_path = source.get("local_path")
            archive = Archive(handler)
            try:
                for member in archive_members(
                    stream, r"__[^/]*__($|/)", select_files, rename_files, ignore_zeros, archive, url
                ):
                    member["__url__"] = url
                    if local_path is not None:
                        member["__local_path__"] = local_path
                    yield member
            except Exception as exn:
                note_fault(source)
                if exn is archive.failure:
                    raise
                if not handler(locate_shard(exn, url, "read")) and not archive.found_members:
                    return
            finally:
                close_stream(stream)
            if eof_value is not None:
                yield eof_value


@checked("group_by_keys", suffixes=a(check_items, "a list of fields", optional=True), **_GROUPING)
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
    archive: Archive | None = None
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
            if here is not None and here.spoiled:
                grouper.spoil(here.spoiled)
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


def _last_sample(grouper: Grouper | None, archive: Archive | None) -> Sample | None:
    """The last sample of a shard, if it is whole."""
    if grouper is None:
        return None
    if archive is not None and archive.spoiled:
        grouper.spoil(archive.spoiled)
    if archive is not None and archive.damaged:
        return grouper.flush_before(archive.damaged_member)
    return grouper.flush()


def _begun(reader: ArchiveReader) -> str | None:
    return None if reader.member_begun is None else decode_name(reader.member_begun)


ShardReader = Callable[[Iterable[dict[str, Any]], Handler], Iterator[Sample]]
"""Samples of open shards, with a handler for what is wrong with them."""


class _Asked:
    """A handler that remembers whether it said stop."""

    def __init__(self, handler: Handler) -> None:
        self.handler, self.stopped = handler, False

    def __call__(self, exn: Exception) -> bool:
        self.stopped = not self.handler(exn)
        return not self.stopped


@checked("expand_and_group", group_handler=a(check_function, optional=True), ignore_zeros=check_flag, **_GROUPING)
def expand_and_group(
    data: Iterable[dict[str, Any]],
    handler: Handler = reraise_exception,
    group_handler: Handler | None = None,
    *,
    ignore_zeros: bool = False,
    torn: str = "warn",
    keys: KeyRule = base_plus_ext,
    lcase: bool = True,
    readers: Mapping[str, ShardReader] | None = None,
) -> Iterator[Sample]:
    """`tar_file_expander` and `group_by_keys` in one: the same samples, several times as fast.

    A shard of which a list says how many samples it has (see `CountedShardList`) must have so many. `readers` read
    shards that are streams of records, by what `record_kind` says of their names.
    """
    wanted = may_be_field(keys)
    with closing_source(data):
        for source in data:
            url, stream = url_and_stream(source)
            read_records = readers.get(record_kind(url) or "") if readers else None
            if read_records is not None:
                asked = _Asked(handler)
                yield from read_records([source], asked)
                if asked.stopped:
                    return
                continue
            grouper = Grouper(
                url, source.get("local_path"), group_handler or handler, torn=torn, keys=keys, lcase=lcase
            )
            reader = ArchiveReader(stream, wanted, ignore_zeros=ignore_zeros, announce=keys is base_plus_ext)
            try:
                for item in reader:
                    if isinstance(item, Begun):
                        done = grouper.flush_before(decode_name(item.name))
                        if done is not None:
                            yield done
                    elif isinstance(item, Run):
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
                finish_archive(reader, url)
                if source.get("counted") is not None and keys is base_plus_ext and not grouper.faults:
                    check_count(source["counted"], grouper.count)
            except Exception as exn:
                note_fault(source)
                if exn is grouper.failure:
                    raise
                done = grouper.flush_before(_begun(reader))
                if done is not None:
                    yield done
                if not handler(locate_shard(exn, url, "read")) and not reader.found_members:
                    return
            finally:
                reader.close()
                close_stream(stream)


@checked(
    "tarfile_samples",
    handler=a_handler,
    select_files=a(check_function, optional=True),
    rename_files=a(check_function, optional=True),
)
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


def note_fault(source: dict[str, Any]) -> None:
    """Tell whoever gave the shard, if it asked to be told, that it was not read to its end."""
    faults = source.get("faults")
    if faults is not None:
        faults.append(source["url"])


def url_and_stream(source: Any) -> tuple[str, Any]:
    """What an opener gives, checked."""
    if isinstance(source, dict) and "url" in source and "stream" in source:
        return source["url"], source["stream"]
    raise TypeError(
        f'expected {{"url": ..., "stream": ...}} from an opener such as url_opener, got {str(source)[:100]!r}'
    )


_NAMES = "the items of a list are names, not patterns: expand_urls(pattern) gives the names"
_SLIPS = {
    r"^~": '"~" stands for nothing here: os.path.expanduser(path) replaces it',
    r"\$\w": '"${NAME}" stands for the environment variable WDS_NAME, "$NAME" for nothing',
    r"\{.*(\.\.|,).*\}": _NAMES,
    r"\{": "braces hold a range, {000..999}, or a list, {a,b}",
    r"\*": _NAMES,
    r"[?\[]": 'of the special characters of patterns only braces and "*" are special',
}
"""What is seen in a name that was not found, and what was meant; the first one counts."""


def locate_shard(exn: Exception, url: str, stage: str = "open") -> Exception:
    """The exception with the shard and the stage said: ours take them, others get a note.

    A pattern that nobody expanded is told so.
    """
    if isinstance(exn, NotFoundError) and "; " not in exn.message:
        exn.message += next((f"; {hint}" for sign, hint in _SLIPS.items() if re.search(sign, url)), "")
    if isinstance(exn, TarError) and exn.message.startswith("not a tar"):
        if record_kind(url) is not None:
            exn.message += (
                "; WebDataset reads streams of records, without select_files and rename_files, and in a pipeline"
                " msgpack_to_samples and cbors_to_samples do"
            )
        elif url.endswith((".txt", ".list", ".lst")):
            exn.message += f"; {'@' + public_url(url)!r} stands for the shards that this file lists"
    add_place(exn, url=url, **({"stage": stage} if isinstance(exn, DataError) else {}))
    return exn
