"""Google Cloud Storage: `gs://BUCKET/OBJECT`, and `htgs://`, the same without credentials.

Objects travel by the XML API, whose ETags are strong; listings by the JSON API, which emulators have too. google-auth
looks for credentials, and renews its tokens.

Rules: an object's name is taken as it is written. Objects that were stored compressed come as they are stored:
otherwise Google unpacks them, and then neither size nor ranges are those of the object.
"""

from __future__ import annotations

import base64
import json
import os
import re
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from .._optional import require
from ..errors import OpenError, printable
from . import pages
from .exchange import request
from .gcs_upload import GcsSteps
from .options import StorageOptions
from .pages import all_pages, xml_of
from .pool import pool_for
from .target import Entry, Headers, Target
from .upload import Upload

_URL = re.compile(
    r"(?P<scheme>(?:ht)?gs)://(?P<bucket>[a-z0-9][a-z0-9._-]+)(?:/(?P<name>.*))?", re.IGNORECASE | re.DOTALL
)
HOST = "https://storage.googleapis.com"
SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
NEEDS = "finding Google's credentials (public buckets need none: write htgs://, or set the storage option anonymous)"

_UNSIGNED = (
    "no credentials were found (GOOGLE_APPLICATION_CREDENTIALS, gcloud auth application-default login, a service "
    "account of the machine), so none were sent; the bucket is not public, or there is no such object"
)
_ANONYMOUS = "no credentials were sent, as was asked; the bucket is not public, or there is no such object"
MEANINGS = {
    "NoSuchBucket": "there is no bucket of this name; check it",
    "NoSuchKey": "the bucket has no such object; check its name and the range of shard numbers",
    "AccessDenied": "these credentials may not read it, or may not learn that it is not there; check the roles",
    "UserProjectMissing": "who reads has to pay; set the storage option headers to {'x-goog-user-project': 'PROJECT'}",
    "UserProjectAccountProblem": "the project that is to pay cannot; check its account",
}
"""Code of an error of the XML API -> what it means and what to do."""


def target_of(url: str, options: StorageOptions) -> Target:
    """The object, at STORAGE_EMULATOR_HOST if that is set.

    Raises:
        OpenError: the url names no bucket, or no object.
    """
    _, bucket, name = _parts(url)
    if not name:
        raise OpenError("this is a bucket; write gs://BUCKET/OBJECT", url=url)
    return _target(url, f"/{bucket}/{quote(name, safe='/~')}", options)


def open_write(url: str, options: StorageOptions) -> Upload:
    """A stream that becomes the object when it is closed, in parts if it is large."""
    return Upload(GcsSteps(target_of(url, options), options))


def entries(url: str, options: StorageOptions) -> Iterator[Entry]:
    """The objects whose url begins with this one; ETags are None where they cannot be told from the listing."""
    scheme, bucket, prefix = _parts(url)

    def page(mark: str | None) -> tuple[list[Entry], str | None]:
        query = {"prefix": prefix, "maxResults": str(pages.PAGE), "fields": "nextPageToken,items(name,size,md5Hash)"}
        if mark is not None:
            query["pageToken"] = mark
        target = _target(url, f"/storage/v1/b/{bucket}/o?{urlencode(query)}", options)
        try:
            listed = json.loads(request(target, "GET", options).body)
        except ValueError:
            raise OpenError("the server's listing is no JSON; is it that of Google Cloud Storage?", url=url) from None
        items = listed.get("items", ())
        found = [Entry(f"{scheme}://{bucket}/{i['name']}", int(i["size"]), _etag(i.get("md5Hash"))) for i in items]
        return found, listed.get("nextPageToken")

    yield from all_pages(url, page)


def _etag(md5: str | None) -> str | None:
    """The ETag that the XML API gives, from the md5 of the listing; composed objects have none."""
    return f'"{base64.b64decode(md5).hex()}"' if md5 else None


def _target(url: str, path: str, options: StorageOptions) -> Target:
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    host = (options.endpoint or emulator or HOST).rstrip("/")
    host = host if "://" in host else f"http://{host}"
    anonymous = options.anonymous or url[:2].lower() == "ht" or (bool(emulator) and not options.endpoint)
    access = None if anonymous else _access(url)

    def sign(method: str, address: str, headers: Headers) -> tuple[str, Headers]:
        sent = dict(headers)
        if method in ("GET", "HEAD"):
            sent["Accept-Encoding"] = "gzip"
        if access is not None:
            access.sign(url, method, address, sent)
        return address, sent

    def explain(status: int, headers: Headers, body: bytes) -> str | None:
        told = xml_of(body)
        code = "" if told is None else told.findtext("Code") or ""
        if status in (401, 403) and access is None:
            return _ANONYMOUS if anonymous else _UNSIGNED
        if status == 401:
            return "the token is not accepted; log in again (gcloud auth application-default login)"
        if code in MEANINGS:
            return MEANINGS[code]
        return _words_of_json(body)

    def learn(status: int, headers: Headers, body: bytes) -> bool:
        return status == 401 and access is not None and access.renew(url)

    return Target(url, f"{host}{path}", sign, explain, learn)


def _words_of_json(body: bytes) -> str | None:
    """The message of an error of the JSON API."""
    try:
        return f"Google says: {printable(json.loads(body)['error']['message'], 200)}"
    except (ValueError, TypeError, KeyError):
        return None


class _Access:
    """Credentials of google-auth, for the threads of one process."""

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials
        self._lock = threading.Lock()

    def sign(self, url: str, method: str, address: str, headers: dict[str, str]) -> None:
        """Add to the headers what proves who asks; a token that runs out is renewed first."""
        with self._lock:
            self._try(url, lambda ask: self._credentials.before_request(ask, method, address, headers))

    def renew(self, url: str) -> bool:
        """Get another token although this one has not run out; whether that worked."""
        with self._lock:
            old = self._credentials.token
            self._try(url, self._credentials.refresh)
            return bool(self._credentials.token != old)

    def _try(self, url: str, task: Any) -> None:
        transport = require("google.auth.transport.urllib3", "google-auth", NEEDS)
        exceptions = require("google.auth.exceptions", "google-auth", NEEDS)
        try:
            task(transport.Request(pool_for("https://oauth2.googleapis.com")))
        except exceptions.GoogleAuthError as exn:
            text = " ".join(str(exn.args[0] if exn.args else exn).split())
            raise OpenError(f"Google's credentials cannot be renewed: {printable(text, 200)}", url=url) from None


_accesses: dict[tuple[Any, ...], _Access | None] = {}


def _access(url: str) -> _Access | None:
    """What google-auth finds, looked up once for each process and state of the environment; None: nothing."""
    names = ("GOOGLE_", "GCE_", "CLOUDSDK_", "NO_GCE_CHECK", "HOME")
    key = (os.getpid(), *sorted(item for item in os.environ.items() if item[0].startswith(names)))
    if key in _accesses:
        return _accesses[key]
    auth = require("google.auth", "google-auth", NEEDS)
    exceptions = require("google.auth.exceptions", "google-auth", NEEDS)
    for other in [other for other in _accesses if other[0] != key[0]]:
        _accesses.pop(other, None)  # inherited through a fork
    try:
        found = _Access(auth.default(scopes=[SCOPE])[0])
    except exceptions.DefaultCredentialsError as exn:
        if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
            text = " ".join(str(exn.args[0] if exn.args else exn).split())
            raise OpenError(f"GOOGLE_APPLICATION_CREDENTIALS cannot be used: {printable(text, 200)}", url=url) from None
        return _accesses.setdefault(key, None)
    return _accesses.setdefault(key, found)


def _parts(url: str) -> tuple[str, str, str]:
    """Scheme, bucket and name; the name may be empty."""
    match = _URL.fullmatch(url)
    if match is None:
        raise OpenError("write gs://BUCKET/OBJECT", url=url)
    return match["scheme"], match["bucket"], match["name"] or ""
