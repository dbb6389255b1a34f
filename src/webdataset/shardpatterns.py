"""Patterns -> names of shards: pieces between `::`, variables, braces, stars and lists, in this order.

What a pattern stands for is looked up once, where an object is made, so that all its readers see one list.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, TypeVar, overload

from ._arguments import check_number, check_text
from .braces import braceexpand
from .errors import ShardListError, public_url
from .shardglobs import expand_stars
from .shardlistfiles import read_list
from .storage.options import StorageOptions
from .storage.options import storage_options as options_of

Urls = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
Options = StorageOptions | Mapping[str, Any] | None
T = TypeVar("T")

ROUNDS = 10
"""Variables in the values of variables are replaced at most this many times."""


def expand_urls(urls: Urls, *, allow_pipe: bool | None = None, storage_options: Options = None) -> list[str]:
    """The shards that a pattern names: pieces between `::`, variables `${NAME}`, braces, in this order.

    `${NAME}` is the value of the environment variable WDS_NAME and may itself hold variables and
    braces. In what comes out, a path or url with `*` stands for the files or objects that match, sorted,
    and `@LIST` for the shards that the file of this name lists, one a line. A path object is a pattern of
    braces and `*` only. Anything else is taken as a list of shards, whose items are not expanded.

    `allow_pipe`: whether `pipe:` urls in a `@LIST` are allowed; None asks WDS_ALLOW_PIPE. `storage_options`:
    how remote places are listed and read.

    Raises ShardListError (a ValueError) for unbalanced braces or a missing variable, EmptyDatasetError
    (a ValueError) for a `*` that matches nothing, TypeError for items that are neither str nor path, OpenError
    for a place that cannot be listed or read.
    """
    options = None if storage_options is None else options_of(storage_options)
    if isinstance(urls, str):
        pieces = [_expanded(envsubst(piece), allow_pipe, options) for piece in urls.split("::")]
        return pieces[0] if len(pieces) == 1 else [url for piece in pieces for url in piece]
    if isinstance(urls, os.PathLike):
        path = _as_url(urls, 0)
        return _expanded(path.replace(os.sep, "/") if "{" in path else path, allow_pipe, options)
    given: Any = urls
    if isinstance(given, (io.RawIOBase, io.BufferedIOBase)):
        raise TypeError(f"cannot handle {type(urls)}, an open file: pass its name, or a list of names")
    if isinstance(given, (bytes, bytearray)) or not isinstance(given, Iterable):
        raise TypeError(f"cannot handle {type(urls)}: shards are a pattern (str), a path, or a list of them")
    return [url if type(url) is str else _as_url(url, i) for i, url in enumerate(urls)]


def _expanded(pattern: str, allow_pipe: bool | None, options: StorageOptions | None) -> list[str]:
    names = braceexpand(pattern)
    if "*" not in pattern and "@" not in pattern:
        return names
    urls: list[str] = []
    for name in names:
        if name.startswith("@") and not os.path.exists(name):
            urls += [url for file in expand_stars(name[1:], options) for url in read_list(file, allow_pipe, options)]
        else:
            urls += expand_stars(name, options)
    return urls


def _as_url(url: Any, position: int) -> str:
    path = os.fspath(url) if isinstance(url, (str, os.PathLike)) else None
    if not isinstance(path, str):
        raise TypeError(f"a shard must be a str or a path, got {type(url).__name__} at position {position}")
    return path


def envlookup(m: re.Match[str]) -> str:
    """The value of the environment variable WDS_NAME for a match whose first group is NAME.

    Raises ShardListError (a ValueError) where it is not set.
    """
    name = "WDS_" + m[1]
    if name not in os.environ:
        raise ShardListError(
            f"{public_url(m.string)}: {m[0]} stands for the environment variable {name}, which is not set"
        )
    return os.environ[name]


def envsubst(s: str) -> str:
    """The text with each `${NAME}` replaced by the environment variable WDS_NAME, again in what that holds."""
    check_text("envsubst", "s", s)
    text = s
    for _ in range(ROUNDS):
        text, before = re.sub(r"\$\{(\w+)\}", envlookup, text), text
        if text == before:
            return text
    raise ShardListError(f"{public_url(s)}: variables still refer to variables after {ROUNDS} rounds")


@overload
def expand_source(source: str | os.PathLike[str], max_urls: int = int(1e9)) -> list[str]: ...
@overload
def expand_source(source: Iterable[T], max_urls: int = int(1e9)) -> list[T]: ...
def expand_source(source: Any, max_urls: int = int(1e9)) -> list[Any]:
    """The shards of a pattern; a list as it is, the same object; the first `max_urls` of any other iterable.

    Raises ShardListError (a ValueError) for anything else.
    """
    if isinstance(source, (str, os.PathLike)):
        return expand_urls(source)
    if isinstance(source, list):
        return source
    check_number("expand_source", "max_urls", max_urls, "urls", whole=True, least=0)
    if isinstance(source, Iterable) and not isinstance(source, (bytes, bytearray)):
        return list(islice(source, max_urls))
    raise ShardListError(f"cannot handle {type(source)}: shards are a pattern (str), a path, or a list of them")
