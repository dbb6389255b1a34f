"""How Google Cloud Storage takes objects: one request, or a resumable upload, by the JSON API.

https://cloud.google.com/storage/docs/performing-resumable-uploads

Rules: the parts of a resumable upload come one after the other, and the last one makes the object; what the server
has not kept of a part is sent again. The url of a session is all that is needed to write to it: it is secret, gets no
other credentials, and is shown nowhere. A session that is forgotten costs nothing.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from ..errors import OpenError
from . import http
from .options import StorageOptions
from .retry import Patience
from .target import Target
from .upload import PART, Steps, md5

_KEPT = re.compile(r"bytes=0-(\d+)")


class GcsSteps(Steps):
    """objects.insert, at once or by a session.

    Args:
        target: the object in the XML API; its host has the JSON API too.
    """

    part_size = PART

    def __init__(self, target: Target, options: StorageOptions) -> None:
        super().__init__(target, options)
        parts = urlsplit(target.address)
        _, bucket, name = parts.path.split("/", 2)
        condition = "" if options.overwrite else "&ifGenerationMatch=0"
        self._name = f"name={quote(unquote(name), safe='')}{condition}"
        address = f"{parts.scheme}://{parts.netloc}/upload/storage/v1/b/{bucket}/o"
        self._api = Target(target.url, address, target.sign, target.explain)
        self._session: Target | None = None

    def put(self, body: Any) -> None:
        """Send the object."""
        self.made_by(lambda: self._insert(body), lambda: self._etag() == md5(body).hex())

    def begin(self) -> None:
        """Have a session."""
        answer = self.ask("POST", f"uploadType=resumable&{self._name}", target=self._api, accept=(200, 201, 412))
        if answer.status == 412:
            raise self.exists()
        session = answer.headers.get("Location")
        if not session:
            raise OpenError("the server began no upload; is it that of Google Cloud Storage?", url=self.target.url)
        self._session = Target(self.target.url, session, explain=self.target.explain)

    def part(self, number: int, offset: int, data: Any, last: bool) -> None:
        """Send a part, all that the server does not keep at first again."""
        view, end = memoryview(data), offset + len(data)
        total = str(end) if last else "*"
        patience = Patience(self.options, self.stopped)
        start = offset
        while True:
            headers = {"Content-Range": f"bytes {f'{start}-{end - 1}' if start < end else '*'}/{total}"}
            sent = view[start - offset :]
            answer = self.ask("PUT", "", headers, sent, (200, 201, 308, 412), self._session, counts=True)
            if answer.status == 412:
                raise self.exists()
            kept = _KEPT.fullmatch(answer.headers.get("Range", ""))
            reached = int(kept[1]) + 1 if kept else 0
            if answer.status != 308 or (reached == end and not last):
                return
            if not offset <= reached <= end:
                raise OpenError("the server lost what it had of the upload; write it again", url=self.target.url)
            if reached <= start:
                patience.failed(OpenError("the server keeps nothing of what is sent", url=self.target.url))
            if self.progress is not None:
                self.progress(reached - end)
            start = reached

    def complete(self, parts: list[Any]) -> None:
        """Nothing: the last part has made the object."""

    def abort(self) -> None:
        """End the session."""
        if self._session is not None:
            self.ask("DELETE", accept=(200, 204, 404, 410, 499), target=self._session)

    def _insert(self, body: Any) -> None:
        query = f"uploadType=media&{self._name}"
        answer = self.ask("POST", query, {}, body, (200, 201, 412), self._api, counts=True)
        if answer.status == 412:
            raise self.exists()

    def _etag(self) -> str:
        return (http.stat(self.target, self.options).etag or "").strip('"')
