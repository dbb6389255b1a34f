"""`hf://` urls as https urls: the hub's own addressing, its endpoint and its token; no package of the hub is needed."""

from __future__ import annotations

import os
import re
import urllib.parse
from pathlib import Path

from ..errors import OpenError
from .options import StorageOptions
from .target import Headers, Target

# datasets/OWNER/NAME@REVISION/PATH; a revision has no slash, but for the hub's own refs
_URL = re.compile(
    r"hf://(?P<kind>datasets/|spaces/|models/|)(?P<repo>[^/@]+/[^/@]+)"
    r"(?:@(?P<revision>refs/(?:pr|convert)/[^/]+|[^/]+))?/(?P<path>.+)",
    re.IGNORECASE,
)


def target_of(url: str, options: StorageOptions) -> Target:
    """The file behind an `hf://` url; the user's token goes to the hub alone."""

    def sign(method: str, address: str, sent: Headers) -> tuple[str, Headers]:
        return address, {**headers(), **sent}

    return Target(url, http_url(url), sign)


def http_url(url: str) -> str:
    """Where the hub serves the file (at HF_ENDPOINT, if that is set).

    >>> http_url("hf://datasets/owner/name/train/000.tar")
    'https://huggingface.co/datasets/owner/name/resolve/main/train/000.tar'

    Raises:
        OpenError: the url does not name a repository and a file in it.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise OpenError("write hf://datasets/OWNER/NAME/PATH or hf://datasets/OWNER/NAME@REVISION/PATH", url=url)
    kind = match["kind"].lower()
    revision = urllib.parse.quote(urllib.parse.unquote(match["revision"] or "main"), safe="")
    path = urllib.parse.quote(match["path"])
    endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    return f"{endpoint}/{'' if kind == 'models/' else kind}{match['repo']}/resolve/{revision}/{path}"


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
