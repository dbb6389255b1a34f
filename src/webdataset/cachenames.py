"""A shard's url -> the name of its local copy. Text only: no file is looked at.

A name says enough for a person to know the shard, and ends in a hash of the whole url, so that two directories with
equal file names never share a copy. Users, passwords, hosts, queries and commands are in no name, only in the hash; of
signed urls, the signature and what belongs to it is not even there, since it is another one each time.
"""

from __future__ import annotations

import hashlib
import re
import urllib.parse

from ._arguments import check_number, check_text
from .errors import printable
from .storage.urls import scheme_of

HASH_DIGITS = 16
STEM_LENGTH = 80
"""Characters of a file name that are kept, its last ones; file systems end at 255 bytes."""

_SIGNATURES: dict[str, str] = {
    "x-amz-signature": r"x-amz-(signature|algorithm|credential|date|expires|signedheaders|security-token)",
    "x-goog-signature": r"x-goog-(signature|algorithm|credential|date|expires|signedheaders)",
    "x-oss-signature": r"x-oss-(signature|signature-version|credential|date|expires|security-token)",
    "sig": r"sig|s[etpvr]|spr|sip|ss|srt|sk(oid|tid|t|e|s|v)|ses",
    "signature": r"signature|expires|policy|key-pair-id|hash-algorithm|awsaccesskeyid|googleaccessid|ossaccesskeyid"
    r"|security-token|x-amz-security-token",
}
"""The parameter that carries the signature of a url, to those that change with it: S3, Google, Alibaba, Azure's shared
access signatures; CloudFront and the older ways of S3, Google and Alibaba. All in small letters."""

_REMOTE_WORD = re.compile(r"(https?|hdfs|gs|ais|s3):")
_SUFFIX = re.compile(r"(\.tar)?\.[A-Za-z0-9]{1,8}$")


def islocal(url: str) -> bool:
    """Whether a url is a path or a `file:` url."""
    check_text("islocal", "url", url)
    return scheme_of(url) in ("", "file")


def pipe_cleaner(spec: str) -> str:
    """The remote url inside a `pipe:` command; the spec itself where there is none, or where there are several.

    >>> pipe_cleaner("pipe:curl -s 'https://host/a.tar' | cat"), pipe_cleaner("pipe:cat a.tar")
    ('https://host/a.tar', 'pipe:cat a.tar')
    """
    check_text("pipe_cleaner", "spec", spec)
    if scheme_of(spec) != "pipe":
        return spec
    words = [word.strip("'\"") for word in spec[len("pipe:") :].split()]
    urls = {word for word in words if _REMOTE_WORD.match(word)}
    return urls.pop() if len(urls) == 1 else spec


def url_to_cache_name(url: str, ndir: int = 0) -> str:
    """The name of a local copy: the file's name, with a hash of the whole url before its suffix.

    Args:
        ndir: so many of the directories above the file come before it, with "/" between.

    >>> url_to_cache_name("https://host/b/train-0.tar.gz?token=1", ndir=1)
    'b/train-0-276eb81767013f7b.tar.gz'

    Raises:
        TypeError: the url is no text, or ndir no whole number.
    """
    check_text("url_to_cache_name", "url", url)
    check_number("url_to_cache_name", "ndir", ndir, "folders", whole=True)
    digest = hashlib.sha256(unsigned(url).encode("utf-8", "surrogatepass")).hexdigest()[:HASH_DIGITS]
    *folders, name = _path_of(url)
    found = _SUFFIX.search(name)
    suffix = found[0] if found else ""
    stem = name[: len(name) - len(suffix)][-STEM_LENGTH:]
    kept = [_plain(folder)[-STEM_LENGTH:] for folder in folders[-ndir:]] if ndir > 0 else []
    return "/".join([*kept, f"{_plain(stem) or 'shard'}-{digest}{suffix}"])


def unsigned(url: str) -> str:
    """A url without its signature and what changes with it; whatever else is in the query stays.

    >>> unsigned("https://h/a.tar?versionId=7&X-Amz-Date=1&X-Amz-Signature=2"), unsigned("https://h/a.tar?Expires=1")
    ('https://h/a.tar?versionId=7', 'https://h/a.tar?Expires=1')
    """
    start, mark, query = url.partition("?")
    if not mark or "://" not in start or scheme_of(url) == "pipe":
        return url
    query, hash_mark, fragment = query.partition("#")
    parts = query.split("&")
    names = [urllib.parse.unquote(part.partition("=")[0]).lower() for part in parts]
    for carrier, belonging in _SIGNATURES.items():
        if carrier in names:
            parts = [part for part, name in zip(parts, names, strict=True) if not re.fullmatch(belonging, name)]
            return start + ("?" + "&".join(parts) if parts else "") + hash_mark + fragment
    return url


def check_cache_name(name: object, url: str) -> str:
    """What a program's `url_to_name` gave, if it is a path inside the cache; a url, as of `pipe_cleaner`, is named.

    Raises:
        ValueError: it leads out of the folder, or names nothing.
    """
    if isinstance(name, str) and (name == url or "://" in name):
        return url_to_cache_name(name)
    if not isinstance(name, str) or {"", ".", ".."} & set(name.split("/")) or re.search(r"[\\\0]", name):
        raise ValueError(
            f"url_to_name gave {printable(repr(name))}, which names no file in the cache; give a file name, such as "
            "webdataset.cache.url_to_cache_name(url)"
        )
    return name


def _path_of(url: str) -> list[str]:
    """The components of a url's path, at least one."""
    url = pipe_cleaner(url)
    scheme = scheme_of(url)
    if scheme == "pipe":
        return ["pipe"]  # a command may say anything
    if "://" in url:
        url = re.split(r"[?#]", url.partition("://")[2])[0].partition("/")[2]
    else:
        url = url[len(scheme) + 1 :] if scheme else url
    return [urllib.parse.unquote(part) for part in url.split("/") if part] or [""]


def _plain(text: str) -> str:
    text = re.sub(r"[^A-Za-z0-9_.+=,@-]", "_", text)
    return f"_{text[1:]}" if text.startswith(".") else text
