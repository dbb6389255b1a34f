"""Google Cloud Storage: `gs://BUCKET/OBJECT`, and `htgs://`, the same without credentials."""

from __future__ import annotations

import os
import re
import urllib.parse

from .options import StorageOptions
from .target import Target


def target_of(url: str, options: StorageOptions) -> Target:
    """The object, at STORAGE_EMULATOR_HOST if that is set."""
    host = (os.environ.get("STORAGE_EMULATOR_HOST") or "https://storage.googleapis.com").rstrip("/")
    host = host if "://" in host else f"http://{host}"
    return Target(url, f"{host}/{urllib.parse.quote(re.sub('^(ht)?gs://', '', url, flags=re.IGNORECASE))}")
