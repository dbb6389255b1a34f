"""A file that names shards, a list, a spec or an index -> its bytes, and the urls that it may name.

Rules: such a file is data and not trusted. A command in it does not run, unless the program or WDS_ALLOW_PIPE=1
allows it. One from elsewhere, a server or a command, names no file of this machine, under whatever name: only urls of
schemes that the library or the program serves, and of its own scheme; names without a scheme lie beside it.
"""

from __future__ import annotations

import os
import posixpath
import re
from typing import Any

from ._environment import switch_of
from .errors import SecurityError, ShardListError, public_url
from .gopen import gopen, gopen_schemes, is_native
from .storage.bytestream import read_small
from .storage.local import local_path
from .storage.options import StorageOptions
from .storage.urls import scheme_of

LARGEST = 1 << 28
"""Bytes of a list, a spec or an index; one of a million shards has less."""


def read_shard_file(url: str, options: StorageOptions | None = None) -> bytes:
    """What the file holds, wherever it is.

    Raises:
        OpenError: it cannot be had, or is larger than any list is.
    """
    given: dict[str, Any] = {"options": options} if options is not None and is_native(url) else {}
    with gopen(url, **given) as stream:
        return read_small(stream, LARGEST, url)


def is_elsewhere(url: str) -> bool:
    """Whether this is no local file, not even one whose name looks like a url."""
    return local_path(url) is None and (scheme_of(url) in gopen_schemes or not os.path.exists(url))


def refuse_pipes(urls: list[str], where: str, allow: bool | None) -> None:
    """SecurityError if a url that came from a file is a command, unless that is allowed."""
    if allow is None:
        allow = switch_of("WDS_ALLOW_PIPE", error=SecurityError)
    for url in urls:
        if not allow and url.lower().startswith("pipe:"):
            raise SecurityError(
                f"{where}: {public_url(url)}: a command that comes from a file does not run;"
                " if you trust the file, pass allow_pipe=True or set WDS_ALLOW_PIPE=1"
            )


def url_beside(file: str, name: str) -> str:
    """The url that a file from elsewhere means by a name: beside it, or the name itself where that is a url.

    Raises:
        ShardListError: it may be a file of this machine (a ValueError).
    """
    scheme = scheme_of(name)
    if scheme in ("", "file"):
        if scheme or posixpath.isabs(name) or name == "-" or scheme_of(file) == "pipe" or file == "-":
            raise _not_from_here(file, name, "it must have whole urls, or names relative to its own")
        return _folder_of(file) + name
    if scheme not in gopen_schemes and (scheme != scheme_of(file) or "::" in name):
        raise _not_from_here(file, name, f"and {scheme}: urls, which fsspec opens, may be some")
    return name


def _folder_of(url: str) -> str:
    place = without_query(url)
    if re.fullmatch(r"[^:/]+://[^/]*", place):
        return f"{place}/"
    folder, slash, _ = place.rpartition("/")
    return folder + slash or f"{scheme_of(url)}:"


def _not_from_here(file: str, name: str, advice: str) -> ShardListError:
    kind = "spec" if is_spec(file) else "list"
    return ShardListError(
        f"{public_url(file)}: {public_url(name)}: a {kind} from elsewhere names no local files; {advice}"
    )


def is_spec(url: str) -> bool:
    """Whether this is named like a spec or an index, and not like a shard."""
    return without_query(url).endswith((".yaml", ".yml", ".json"))


def without_query(url: str) -> str:
    """An http url without query and fragment, any other one as it is."""
    return re.sub(r"[?#].*", "", url, flags=re.DOTALL) if scheme_of(url) in ("http", "https") else url
