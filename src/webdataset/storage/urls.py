"""A url's scheme, and the path that a `file:` url means. Text only: no file is looked at."""

from __future__ import annotations

import ntpath
import os
import re
import sys
import urllib.parse

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):")  # two characters at least: C: is a drive


def scheme_of(url: str) -> str:
    """The scheme in lower case, "" for what is a path: no scheme, or a Windows drive.

    >>> scheme_of("HTTP://host/a.tar"), scheme_of("pipe:cat a.tar"), scheme_of("C:\\\\a.tar"), scheme_of("a#b?c.tar")
    ('http', 'pipe', '', '')
    """
    match = _SCHEME.match(url)
    return match[1].lower() if match else ""


def file_url_to_path(url: str, windows: bool = os.name == "nt") -> str:
    """The path of a `file:` url, percent-decoded; `#` and `?` need no escape, since a file has no query.

    A relative path is written without slashes: `file:data/a.tar`. A host is a network share on Windows
    and ignored elsewhere.

    >>> file_url_to_path("file:///data/a%20b.tar", windows=False), file_url_to_path("file:///C:/a.tar", windows=True)
    ('/data/a b.tar', 'C:\\\\a.tar')
    """
    host, path = _split_host(url)
    path = _percent_decoded(path)
    if not windows:
        return path
    if host and host.lower() != "localhost":
        path = f"//{host}{path}"
    elif re.match(r"/+[a-zA-Z][:|]", path):
        path = path.lstrip("/")
    path = re.sub(r"^([a-zA-Z])\|", r"\1:", path)
    return ntpath.normpath(path)


def file_url_without_decoding(url: str) -> str:
    """The path of a `file:` url as it stands: what releases before 1.0 opened."""
    return _split_host(url)[1]


def _split_host(url: str) -> tuple[str, str]:
    rest = url[len("file:") :]
    if not rest.startswith("//"):
        return "", rest
    host, slash, path = rest[2:].partition("/")
    return host, slash + path


def _percent_decoded(path: str) -> str:
    return urllib.parse.unquote(path, encoding=sys.getfilesystemencoding(), errors="surrogateescape")
