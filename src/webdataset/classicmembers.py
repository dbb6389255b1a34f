"""Members of archives as the classic 0.1 API has them: pairs of name and bytes; and such pairs to samples.

A pair is a plain tuple for programs. One that comes from an archive also knows its member, so that grouping can tell
shards apart and leave out a sample in which a fault was seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ._closing import close_source
from ._stage import FilterFunction
from ._types import Handler
from .archivemembers import ArchiveMember, tar_file_iterator
from .classic import bare
from .handlers import reraise_exception
from .samples import KeyRule, base_plus_ext
from .tariterators import group_by_keys as _group_by_keys


class Pair(tuple[str, bytes]):
    """Name and bytes of a member; `group_by_keys` finds in it how its archive fared."""

    member: ArchiveMember

    @classmethod
    def of(cls, member: ArchiveMember) -> Pair:
        pair = cls((member["fname"], member["data"]))
        pair.member = member
        return pair


def pairs_of(members: Iterable[ArchiveMember]) -> Iterator[Pair]:
    """Members of archives as pairs of name and bytes."""
    try:
        for member in members:
            yield Pair.of(member)
    finally:
        close_source(members)


def _members_of(pairs: Iterable[tuple[str, bytes]]) -> Iterator[dict[str, Any]]:
    try:
        for pair in pairs:
            yield pair.member if isinstance(pair, Pair) else {"fname": pair[0], "data": pair[1]}
    finally:
        close_source(pairs)


def tardata(
    fileobj: Any, skip_meta: str | None = r"__[^/]*__($|/)", handler: Handler = reraise_exception
) -> Iterator[tuple[str, bytes]]:
    """The files of one archive as pairs of name and bytes: `tariterators.tar_file_iterator`."""
    return pairs_of(tar_file_iterator(fileobj, skip_meta, handler))


def group_by_keys(
    keys: KeyRule = base_plus_ext,
    lcase: bool = True,
    suffixes: Iterable[str] | None = None,
    *,
    handler: Handler = reraise_exception,
) -> FilterFunction:
    """The stage from pairs of name and bytes to samples; the arguments are those of `tariterators.group_by_keys`."""
    return FilterFunction(_grouped, keys=keys, lcase=lcase, suffixes=suffixes, handler=handler)


def _grouped(pairs: Iterable[tuple[str, bytes]], **kw: Any) -> Iterator[Any]:
    samples = _group_by_keys(_members_of(pairs), **kw)
    try:
        for sample in samples:
            yield bare(sample)
    finally:
        close_source(samples)
