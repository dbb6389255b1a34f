"""How S3 and the servers that speak its language take objects: one PUT, or a multipart upload.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html

Rules: each body has its MD5, so that a fault on the way is refused. That an upload was completed is known from the
body of the answer alone, which may say an error under status 200. A lost answer is asked for again, and the second one
may say that the object is there: what counts then is whether it is ours, which its ETag tells.
"""

from __future__ import annotations

import html
import re
from typing import Any
from urllib.parse import quote

from ..errors import OpenError, printable
from . import http
from .exchange import Answer
from .options import StorageOptions
from .retry import Patience
from .target import Target
from .upload import PART, Steps, md5, md5_header

PARALLEL = 8
_PASSING = ("InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout")
"""Errors after which the same request may succeed."""


class S3Steps(Steps):
    """PutObject; CreateMultipartUpload, UploadPart, CompleteMultipartUpload, AbortMultipartUpload."""

    part_size = PART
    parallel = PARALLEL

    def __init__(self, target: Target, options: StorageOptions) -> None:
        super().__init__(target, options)
        self._upload = ""

    def put(self, body: Any) -> None:
        """Send the object."""
        headers = md5_header(body)
        self.made_by(lambda: self._unless_there("PUT", "", headers, body), lambda: self._etag() == md5(body).hex())

    def begin(self) -> None:
        """Have an upload with an id."""
        answer = self.ask("POST", "uploads=")
        self._upload = _text_of(answer, "UploadId")
        if not self._upload:
            raise OpenError("the server began no upload in parts; is the endpoint that of S3?", url=self.target.url)

    def part(self, number: int, offset: int, data: Any, last: bool) -> tuple[str, bytes]:
        """Send a part; its ETag and its MD5."""
        query = f"partNumber={number + 1}&{self._id()}"
        answer = self.ask("PUT", query, md5_header(data), data, counts=True)
        digest = md5(data)
        return answer.headers.get("ETag", f'"{digest.hex()}"'), digest

    def complete(self, parts: list[tuple[str, bytes]]) -> None:
        """Have the parts put together."""
        listed = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{html.escape(etag)}</ETag></Part>"
            for number, (etag, _) in enumerate(parts, 1)
        )
        body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        etag = f"{md5(b''.join(digest for _, digest in parts)).hex()}-{len(parts)}"
        self.made_by(lambda: self._put_together(body), lambda: self._etag() == etag)

    def _put_together(self, body: bytes) -> None:
        patience = Patience(self.options, self.stopped)
        while True:
            answer = self._unless_there("POST", self._id(), {"Content-Type": "application/xml"}, body)
            code = _text_of(answer, "Code") if b"<Error" in answer.body else ""
            if not code:
                return
            fault = OpenError(
                f"the parts could not be put together, S3 says {printable(code, 60)}: "
                f"{printable(_text_of(answer, 'Message'), 200)}; write it again",
                url=self.target.url,
            )
            if code not in _PASSING:
                raise fault
            patience.failed(fault)

    def abort(self) -> None:
        """Have the parts forgotten."""
        if self._upload:
            self.ask("DELETE", self._id(), accept=(200, 204, 404))

    def _id(self) -> str:
        return f"uploadId={quote(self._upload, safe='')}"

    def _unless_there(self, method: str, query: str, headers: dict[str, str], body: Any) -> Answer:
        """The answer to the request that makes the object, which is to replace none if the options say so."""
        counts = method == "PUT"
        if self.options.overwrite:
            return self.ask(method, query, headers, body, counts=counts)
        condition = {**headers, "If-None-Match": "*"}
        answer = self.ask(method, query, condition, body, accept=(200, 412, 501), counts=counts)
        if answer.status == 412:
            raise self.exists()
        if answer.status == 501:  # it knows no conditions
            return self.ask(method, query, headers, body, counts=counts)
        return answer

    def _etag(self) -> str:
        """The ETag of the object that is there."""
        return (http.stat(self.target, self.options).etag or "").strip('"')


def _text_of(answer: Answer, name: str) -> str:
    """The text of the first element of this name, in the body of an answer."""
    match = re.search(rf"<{name}>([^<]*)</{name}>", answer.body.decode(errors="replace"))
    return html.unescape(match[1]) if match else ""
