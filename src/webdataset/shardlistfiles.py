"""`@list.txt` -> the shards that the file names, one a line.

    # comments and empty lines do not count
    train-000.tar                       beside the list
    https://example.com/train-001.tar

A list is data and not trusted: nothing in a line is expanded, and a `pipe:` url is refused unless the program or
WDS_ALLOW_PIPE=1 allows it. A list from a server names no files of this machine.
"""

from __future__ import annotations

import os
import posixpath
import re
from typing import Any

from .errors import EmptyDatasetError, ShardListError, public_url
from .gopen import gopen, is_native
from .shardspecs import refuse_pipes
from .storage.local import local_path
from .storage.options import StorageOptions
from .storage.urls import scheme_of


def read_list(url: str, allow_pipe: bool | None = None, options: StorageOptions | None = None) -> list[str]:
    """The shards of a list, in its order; names that are no urls are relative to the list's folder.

    Args:
        url: of the list, whatever `gopen` opens.
        allow_pipe: whether it may name commands; None asks WDS_ALLOW_PIPE.

    Raises:
        EmptyDatasetError: it names none (a ValueError).
        ShardListError: it is no text, or a list from elsewhere names a local file (a ValueError).
        SecurityError: it names a command.
    """
    given: dict[str, Any] = {"options": options} if options is not None and is_native(url) else {}
    with gopen(url, **given) as stream:
        data = stream.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ShardListError(f"{public_url(url)}: this is no text; a list has the name of one shard a line")
    names = [name for line in text.splitlines() if (name := line.strip()) and not name.startswith("#")]
    if not names:
        raise EmptyDatasetError(f"{public_url(url)}: the list names no shard")
    refuse_pipes(names, url, allow_pipe)
    path = local_path(url)
    if path is not None:
        folder = os.path.dirname(path)
        return [name if scheme_of(name) else os.path.join(folder, name) for name in names]
    return [_beside(url, name) for name in names]


def _beside(url: str, name: str) -> str:
    """The url of what a list from elsewhere names."""
    if scheme_of(name) not in ("", "file"):
        return name
    if scheme_of(name) or posixpath.isabs(name) or scheme_of(url) == "pipe" or url == "-":
        raise ShardListError(
            f"{public_url(url)}: {public_url(name)}: a list from elsewhere names no local files; it must have whole"
            " urls, or names relative to its own"
        )
    folder = re.sub(r"[?#].*", "", url, flags=re.DOTALL) if scheme_of(url) in ("http", "https") else url
    return f"{folder.rpartition('/')[0]}/{name}"
