"""Patterns with `*`, and folders, local or in a store -> the shards there are, sorted.

    train/*.tar   s3://bucket/train-*.tar   hf://datasets/OWNER/NAME/**/*.tar   gs://bucket/folder/

Of the special characters of a shell only `*` is special (`**`: folders at any depth); `?` and `[` occur in names. A
name that begins with a dot, and a file that is still being written (`.partial`), is matched only by a pattern that
says so. Rules: one listing answers one pattern. Urls that a command or a handler of the program opens are left alone,
since only those know what is there.
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Callable

from .errors import EmptyDatasetError, ShardListError, public_url
from .gopen import NATIVE, gopen_schemes
from .shardfiles import without_query
from .shardgaps import warn_of_gaps
from .storage.local import local_path
from .storage.options import StorageOptions
from .storage.urls import scheme_of

_ARCHIVE = re.compile(r"\.(tgz|tar(\.(gz|bz2|xz|zst|lz4))?)$")


def expand_stars(url: str, options: StorageOptions | None = None) -> list[str]:
    """The files or objects that a pattern with `*` matches, sorted; a url without `*` alone.

    A file whose name looks like a url gets "./" before it.

    Raises:
        EmptyDatasetError: nothing matches (a ValueError).
        ShardListError: the place cannot be listed (a ValueError).
    """
    if "*" not in url:
        return [url]
    scheme = scheme_of(url)
    if scheme in ("", "file"):
        path = local_path(url) or url
        found = [url] if os.path.exists(path) else _files(path)
    elif "*" not in without_query(url) or not _is_ours(scheme):
        return [url]
    else:
        found = _objects(url, options)
    warn_of_gaps(found, url)
    return found


def is_folder(url: str) -> bool:
    """Whether this is a local folder, or `scheme://.../` in a store that can be listed."""
    scheme = scheme_of(url)
    if scheme in ("", "file"):
        return os.path.isdir(local_path(url) or url)
    return url.endswith("/") and scheme not in ("http", "https") and _is_ours(scheme)


def shards_in_folder(folder: str, options: StorageOptions | None = None) -> list[str]:
    """What lies directly in a folder and is named like an archive, `.tar`, `.tgz`, `.tar.gz` and so on, sorted.

    Raises:
        EmptyDatasetError: there is none (a ValueError).
    """
    path = local_path(folder)
    if path is None:
        from .storage import places

        every = [entry.url for entry in places.entries(folder, options)]
        below = [url for url in every if "/" not in url[len(folder) :]]
        found = [url for url in below if _ARCHIVE.search(url)]
        what = "no object here is named" if every else "there is nothing here, and so nothing that is named"
    else:
        below = sorted(os.listdir(path))
        found = [os.path.join(path, name) for name in below if _ARCHIVE.search(name)]
        what = "no file here is named"
    if not found:
        raise EmptyDatasetError(f"{public_url(folder)}: {what} .tar, .tgz, .tar.gz or the like{_others(below)}")
    warn_of_gaps(found, folder)
    return found


def _others(names: list[str]) -> str:
    """What most of these are called, and how to ask for them."""
    endings = Counter(os.path.splitext(name)[1] for name in names)
    (ending, count), *_ = endings.most_common(1) or [("", 0)]
    return f"; {count} are named {ending}: the pattern for those is FOLDER/*{ending}" if ending else ""


def _files(path: str) -> list[str]:
    found = glob.glob(re.sub(r"[?\[]", r"[\g<0>]", path), recursive=True)
    files = sorted(_as_path(name) for name in found if path.endswith(".partial") or not name.endswith(".partial"))
    if not files:
        folder = os.path.dirname(path.partition("*")[0]) or "."
        there = "holds no such file" if os.path.isdir(folder) else "does not exist"
        raise EmptyDatasetError(f"{public_url(path)}: no file matches; the folder {folder!r} {there}")
    return files


def _as_path(name: str) -> str:
    """The name of a file that nobody takes for a url: a file that is called `pipe:...` is data, and runs nothing."""
    return os.path.join(".", name) if scheme_of(name) or name == "-" else name


def _objects(pattern: str, options: StorageOptions | None) -> list[str]:
    from .storage import places

    prefix = pattern.partition("*")[0]
    scheme = scheme_of(pattern)
    if scheme in ("http", "https"):
        raise ShardListError(
            f"{public_url(pattern)}: an http server gives no listing that * could be looked up in; name the shards,"
            " train-{000..999}.tar, or put their names into a file, @list.txt (a * that is part of a name is %2A)"
        )
    if scheme in places.PLACES and not re.match(r"[^:]+://[^/]+/", prefix):
        raise ShardListError(
            f"{public_url(pattern)}: only what lies in one bucket can be listed; name the bucket whole"
        )
    found = [entry.url for entry in places.entries(prefix, options)]
    matches = matcher(pattern)
    urls = sorted(url for url in found if matches(url))
    if not urls:
        there = f"{len(found)} objects begin with" if found else "nothing there begins with"
        raise EmptyDatasetError(f"{public_url(pattern)}: no object matches; {there} {public_url(prefix)}")
    return urls


def matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a url is one that the pattern stands for, by the rules of patterns of local files.

    >>> [matcher("s3://b/**/x-*.tar")(f"s3://b/{key}") for key in ("x-1.tar", "c/d/x-1.tar", "x-1.tar/y", "x-1.tgz")]
    [True, True, False, False]
    """
    *folders, name = pattern.split("/")
    parts = [r"(?:(?!\.)[^/]+/)*" if folder == "**" else f"{_component(folder)}/" for folder in folders]
    last = r"(?:(?!\.)[^/]+/)*(?!\.)[^/]+" if name == "**" else _component(name)
    whole = re.compile("".join(parts) + last, re.DOTALL).fullmatch
    return lambda url: whole(url) is not None and (name.endswith(".partial") or not url.endswith(".partial"))


def _component(text: str) -> str:
    pieces = "[^/]*".join(re.escape(piece) for piece in re.split(r"\*+", text))
    return rf"(?!\.){pieces}" if text.startswith("*") else pieces


def _is_ours(scheme: str) -> bool:
    """Whether the library itself opens such urls, and may so look what there is."""
    handler = gopen_schemes.get(scheme)
    if handler is not None:
        return handler in NATIVE
    from .storage import places

    return places.lists(f"{scheme}://")
