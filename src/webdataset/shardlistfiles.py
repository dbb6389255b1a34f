"""`@list.txt` -> the shards that the file names, one a line.

    # comments and empty lines do not count
    train-000.tar                       beside the list
    https://example.com/train-001.tar

A list is data and not trusted: nothing in a line is expanded, and a `pipe:` url is refused unless the program or
WDS_ALLOW_PIPE=1 allows it. A list from a server names no files of this machine (`shardfiles`).
"""

from __future__ import annotations

import os

from .errors import EmptyDatasetError, ShardListError, public_url
from .shardfiles import read_shard_file, refuse_pipes, url_beside
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
    try:
        text = read_shard_file(url, options).decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ShardListError(f"{public_url(url)}: this is no text; a list has the name of one shard a line")
    names = [name for line in text.splitlines() if (name := line.strip()) and not name.startswith("#")]
    if not names:
        raise EmptyDatasetError(f"{public_url(url)}: the list names no shard")
    refuse_pipes(names, public_url(url), allow_pipe)
    path = local_path(url)
    if path is not None:
        folder = os.path.dirname(path)
        return [name if scheme_of(name) else os.path.join(folder, name) for name in names]
    return [url_beside(url, name) for name in names]
