"""`hf://` urls as https urls: the hub's own addressing, its endpoint, its token, its listings; no package is needed.

Rules: the user's token goes to the hub alone, never to the store that it sends the reader to.
"""

from __future__ import annotations

import json
import os
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from ..errors import OpenError, printable
from .exchange import request
from .options import StorageOptions
from .pages import all_pages
from .status import status_error
from .target import Entry, Headers, Target

# datasets/OWNER/NAME@REVISION/PATH; a revision has no slash, but for the hub's own refs
_URL = re.compile(
    r"hf://(?P<kind>datasets/|spaces/|models/|)(?P<repo>[^/@]+/[^/@]+)"
    r"(?:@(?P<revision>refs/(?:pr|convert)/[^/]+|[^/]+))?(?:/(?P<path>.*))?",
    re.IGNORECASE,
)

HOW = "write hf://datasets/OWNER/NAME/PATH or hf://datasets/OWNER/NAME@REVISION/PATH"

MEANINGS = {
    "RepoNotFound": "there is no such repository, or it is private; check its name, and set HF_TOKEN",
    "GatedRepo": "the repository asks for consent; accept its conditions on its page, and set HF_TOKEN",
    "RevisionNotFound": "the repository has no such revision; check what stands after @",
    "EntryNotFound": "the repository has no such file; check its path and the range of shard numbers",
    "DisabledRepo": "the repository is disabled",
}
"""The hub's X-Error-Code -> what it means and what to do."""


def target_of(url: str, options: StorageOptions) -> Target:
    """The file behind an `hf://` url."""
    return _target(url, http_url(url), options)


def entries(url: str, options: StorageOptions) -> Iterator[Entry]:
    """The files whose url begins with this one, by the hub's tree of the folder; it tells no ETags.

    Raises:
        NotFoundError: there is no such repository or revision.
    """
    match = _match(url)
    wanted = match["path"] or ""
    folder = wanted.rpartition("/")[0]
    base = url if match["path"] is None else url[: match.start("path") - 1]
    kind = match["kind"].lower() or "models/"
    first = f"{_endpoint()}/api/{kind}{match['repo']}/tree/{_revision(match)}/{urllib.parse.quote(folder)}".rstrip("/")

    def page(mark: str | None) -> tuple[list[Entry], str | None]:
        target = _target(url, mark or f"{first}?recursive=true", options)
        answer = request(target, "GET", options, accept=(200, 404))
        if answer.status == 404:
            if answer.headers.get("X-Error-Code") == "EntryNotFound":
                return [], None  # no such folder: nothing begins so
            raise status_error(url, 404, None, answer.headers, _explain(404, answer.headers, answer.body))
        try:
            files = [item for item in json.loads(answer.body) if item["type"] == "file"]
            found = [Entry(f"{base}/{item['path']}", item["size"]) for item in files if item["path"].startswith(wanted)]
        except (ValueError, TypeError, KeyError):
            raise OpenError("the listing is none of the hub's; check HF_ENDPOINT", url=url) from None
        return found, _next_page(answer.headers.get("Link", ""), url)

    yield from all_pages(url, page)


def _target(url: str, address: str, options: StorageOptions) -> Target:
    def sign(method: str, address: str, sent: Headers) -> tuple[str, Headers]:
        return address, {**({} if options.anonymous else headers()), **sent}

    return Target(url, address, sign, _explain)


def _explain(status: int, answered: Headers, body: bytes) -> str | None:
    """What the hub's refusal means."""
    code = answered.get("X-Error-Code", "")
    if code in MEANINGS:
        return MEANINGS[code]
    if status == 401:
        return "the hub wants a token; set HF_TOKEN, or check the one that is set"
    message = answered.get("X-Error-Message")
    return f"the hub says: {printable(message, 200)}" if message else None


def _next_page(link: str, url: str) -> str | None:
    """The address of the next page in a Link header, None at the end; the token goes there, so it must be the hub's."""
    match = re.search(r'<([^<>]+)>\s*;\s*rel="?next"?', link)
    if match is None:
        return None
    address: str = urllib.parse.urljoin(f"{_endpoint()}/", match[1])
    if not address.startswith(f"{_endpoint()}/"):
        raise OpenError("the listing goes on at another server than the hub", url=url)
    return address


def http_url(url: str) -> str:
    """Where the hub serves the file (at HF_ENDPOINT, if that is set).

    >>> http_url("hf://datasets/owner/name/train/000.tar")
    'https://huggingface.co/datasets/owner/name/resolve/main/train/000.tar'

    Raises:
        OpenError: the url does not name a repository and a file in it.
    """
    match = _match(url)
    if not match["path"]:
        raise OpenError(HOW, url=url)
    kind = match["kind"].lower()
    path = urllib.parse.quote(match["path"])
    return f"{_endpoint()}/{'' if kind == 'models/' else kind}{match['repo']}/resolve/{_revision(match)}/{path}"


def _match(url: str) -> re.Match[str]:
    match = _URL.fullmatch(url)
    if match is None:
        raise OpenError(HOW, url=url)
    return match


def _revision(match: re.Match[str]) -> str:
    return urllib.parse.quote(urllib.parse.unquote(match["revision"] or "main"), safe="")


def _endpoint() -> str:
    """HF_ENDPOINT."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def headers() -> dict[str, str]:
    """The Authorization header for the hub, empty without a token (HF_TOKEN, or what `hf auth login` has stored)."""
    found = token()
    return {"Authorization": f"Bearer {found}"} if found else {}


def token() -> str | None:
    """The user's token for the hub, None where there is none."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if os.environ.get(name, "").strip():
            return os.environ[name].strip()
    try:
        return _token_file().read_text().strip() or None
    except (OSError, RuntimeError):  # RuntimeError: there is no home
        return None


def _token_file() -> Path:
    if os.environ.get("HF_TOKEN_PATH"):
        return Path(os.environ["HF_TOKEN_PATH"]).expanduser()
    home = os.environ.get("HF_HOME")
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return (Path(home) if home else Path(cache) / "huggingface").expanduser() / "token"
