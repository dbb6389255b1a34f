"""How Azure takes blobs: one Put Blob, or Put Block for each part and a Put Block List.

https://learn.microsoft.com/rest/api/storageservices/put-block-list

Rules: each body has its MD5. Blocks that no list names are not visible; Azure drops them after a week, nobody can do it
before. Their names are those of this upload alone, so that the list of a blob tells whether it is ours.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from .options import StorageOptions
from .status import status_error
from .target import Target
from .upload import PART, Steps, md5_header

PARALLEL = 8


class AzureSteps(Steps):
    """Put Blob; Put Block and Put Block List."""

    part_size = PART
    parallel = PARALLEL

    def __init__(self, target: Target, options: StorageOptions) -> None:
        super().__init__(target, options)
        self._upload = uuid.uuid4().hex

    def put(self, body: Any) -> None:
        """Send the blob."""
        checked = md5_header(body)
        self.made_by(
            lambda: self._make("", {"x-ms-blob-type": "BlockBlob", **checked}, body, counts=True),
            lambda: self.ask("HEAD").headers.get("Content-MD5") == checked["Content-MD5"],
        )

    def begin(self) -> None:
        """Nothing: the first block begins it."""

    def part(self, number: int, offset: int, data: Any, last: bool) -> str:
        """Send a block; its name."""
        name = base64.b64encode(f"{self._upload}-{number:06d}".encode()).decode()
        query = f"comp=block&blockid={quote(name, safe='')}"
        self.ask("PUT", query, md5_header(data), data, accept=(201,), counts=True)
        return name

    def complete(self, parts: list[str]) -> None:
        """Make the blob of the blocks."""
        listed = "".join(f"<Latest>{name}</Latest>" for name in parts)
        body = f"<?xml version='1.0' encoding='utf-8'?><BlockList>{listed}</BlockList>".encode()
        last = f"<Name>{parts[-1]}</Name>".encode()
        self.made_by(
            lambda: self._make("comp=blocklist", md5_header(body), body),
            lambda: last in self.ask("GET", "comp=blocklist&blocklisttype=committed").body,
        )

    def _make(self, query: str, headers: Mapping[str, str], body: Any, counts: bool = False) -> None:
        if self.options.overwrite:
            self.ask("PUT", query, headers, body, accept=(201,), counts=counts)
            return
        condition = {**headers, "If-None-Match": "*"}
        answer = self.ask("PUT", query, condition, body, accept=(201, 409, 412), counts=counts)
        if answer.status == 201:
            return
        if answer.status == 412 or answer.headers.get("x-ms-error-code") == "BlobAlreadyExists":
            raise self.exists()
        told = self.target.explain(answer.status, answer.headers, answer.body)
        raise status_error(self.target.url, answer.status, None, answer.headers, told)
