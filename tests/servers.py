"""A real HTTP server on loopback: serves a folder or a dict of pages, and misbehaves as told.

    with serve({"/a.tar": data, "/cut.tar": Page(data, cut=100)}) as server:
        open_read(server.url("/a.tar"))

    first(2, Page(status=503), Page(data))      two requests are refused, then it is well

`server.requests` lists what was asked, `server.uploads` holds what was PUT. The end of the block closes every
connection and joins every thread.
"""

from __future__ import annotations

import contextlib
import http.server
import os
import socket
import ssl
import struct
import subprocess
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Page:
    """One answer: the body and how it is given.

    Attributes:
        status: HTTP status of the answer (for GET, HEAD and PUT alike).
        cut: the connection is closed after this many bytes of the body, though the whole length was announced.
        reset: the cut is no orderly end, but a reset.
        stall: seconds that the connection stays open at the cut, without a word.
        announced: Content-Length, where it is not the true one.
        chunked: the body is sent in chunks, without Content-Length.
        redirect: Location header; the status becomes 302 unless given.
        delay: seconds before the answer begins.
        pace: seconds between the pieces of the body.
        gate: held while such a piece is sent and waited for, so that several answers share one pace.
        piece: bytes in one piece of the body.
        ranges: the Range header is obeyed (one range); otherwise it is ignored.
        headers: further ones. Where there is an ETag or a Last-Modified, If-Match and If-Range are obeyed.
    """

    body: bytes = b""
    status: int = 200
    cut: int | None = None
    reset: bool = False
    stall: float = 0.0
    announced: int | None = None
    chunked: bool = False
    redirect: str | None = None
    content_type: str = "application/octet-stream"
    delay: float = 0.0
    pace: float = 0.0
    gate: contextlib.AbstractContextManager[Any] = field(default_factory=contextlib.nullcontext)
    piece: int = 1 << 20
    ranges: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)


def html_page(text: str = "please log in") -> Page:
    """What a login wall answers where a shard was expected: status 200 and a web page."""
    return Page(f"<!DOCTYPE html><html><body>{text}</body></html>".encode(), content_type="text/html; charset=utf-8")


@dataclass
class Request:
    """One request as the server saw it; the path includes the query, names of headers have no case.

    Attributes:
        sent: bytes of the body that were given to the connection so far.
        done: whether the answer has ended, well or not.
    """

    method: str
    path: str
    headers: Message
    sent: int = 0
    done: bool = False


Content = bytes | Page | Callable[[Request], Page]
"""What there is at a path: a body, an answer, or what answers each request anew."""


def first(times: int, wrong: Page, then: Page) -> Callable[[Request], Page]:
    """Answer so many requests wrongly, and all that follow well."""
    left = [wrong] * times

    def answer(request: Request) -> Page:
        try:
            return left.pop()
        except IndexError:
            return then

    return answer


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError, TimeoutError, ssl.SSLError):
            super().handle()  # clients leave early; that is not the server's trouble

    def do_GET(self) -> None:
        page = self.find()
        try:
            self.answer(page, with_body=True)
        finally:
            self.request_seen.done = True

    def do_HEAD(self) -> None:
        self.answer(self.find(), with_body=False)

    def do_POST(self) -> None:
        page = self.find()
        self.received()
        self.answer(page, with_body=True)

    def do_PUT(self) -> None:
        page = self.find()
        if page.status == 404:
            page = Page(status=201)
        elif page.status == 200:
            page = Page(status=200, delay=page.delay)
        body = self.received()
        if body is None:
            self.close_connection = True
            return
        if page.status < 300:
            self.server.uploads[urllib.parse.urlsplit(self.path).path] = body
        self.answer(page, with_body=True)

    def find(self) -> Page:
        self.request_seen = Request(self.command, self.path, self.headers)
        self.server.requests.append(self.request_seen)
        return self.server.page(self.request_seen)

    def received(self) -> bytes | None:
        """Body of the request, None when the client left before its end."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            return body if len(body) == length else None
        chunks = []
        while True:
            line = self.rfile.readline()
            if not line:
                return None
            size = int(line, 16)
            chunk = self.rfile.read(size)
            if len(chunk) < size or not self.rfile.readline():
                return None
            if size == 0:
                return b"".join(chunks)
            chunks.append(chunk)

    def answer(self, page: Page, with_body: bool) -> None:
        if page.delay:
            self.server.over.wait(page.delay)
        status, body, headers = page.status, page.body, dict(page.headers)
        if page.redirect is not None:
            status, headers["Location"] = (302 if status == 200 else status), page.redirect
        wanted = self.headers.get("Range", "")
        version = [headers[name] for name in ("ETag", "Last-Modified") if name in headers]
        if status == 200 and version and self.headers.get("If-Match", version[0]) != version[0]:
            status, body = 412, b"there is another version now"
        elif (
            page.ranges and status == 200 and wanted and self.headers.get("If-Range", *version[:1]) in (None, *version)
        ):
            status, body, headers["Content-Range"] = _part(body, wanted)
        self.send_response(status)
        self.send_header("Content-Type", page.content_type)
        if page.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(body) if page.announced is None else page.announced))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.send_body(page, body)

    def send_body(self, page: Page, body: bytes) -> None:
        sent = body if page.cut is None else body[: page.cut]
        for start in range(0, len(sent), page.piece):
            piece = sent[start : start + page.piece]
            with page.gate:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if page.chunked else piece)
                self.request_seen.sent += len(piece)
                if page.pace:
                    self.server.over.wait(page.pace)
        if page.cut is not None or page.announced is not None:
            self.server.over.wait(page.stall)
            self.close_connection = True
            if page.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                os.close(self.connection.detach())
        elif page.chunked:
            self.wfile.write(b"0\r\n\r\n")


def _part(body: bytes, wanted: str) -> tuple[int, bytes, str]:
    """Status, body and Content-Range of the answer to a Range header."""
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    start, end = int(first), min(int(last) + 1 if last else len(body), len(body))
    if start >= end:
        return 416, b"there is no such range", f"bytes */{len(body)}"
    return 206, body[start:end], f"bytes {start}-{end - 1}/{len(body)}"


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

    def __init__(self, content: Any, certificate: tuple[Path, Path] | None) -> None:
        self.content = content
        self.requests: list[Request] = []
        self.uploads: dict[str, bytes] = {}
        self.connections: list[socket.socket] = []
        self.over = threading.Event()
        self.tls: ssl.SSLContext | None = None
        super().__init__(("127.0.0.1", 0), _Handler)
        if certificate is not None:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(*certificate)

    def page(self, request: Request) -> Page:
        if callable(self.content):
            page: Page = self.content(request)
            return page
        path = urllib.parse.unquote(urllib.parse.urlsplit(request.path).path)
        if isinstance(self.content, Mapping):
            page = self.content.get(path, Page(b"nothing here", status=404))
            page = page(request) if callable(page) else page
            return page if isinstance(page, Page) else Page(page)
        file = Path(self.content) / path.lstrip("/")
        return Page(file.read_bytes()) if file.is_file() else Page(b"nothing here", status=404)

    def get_request(self) -> tuple[socket.socket, Any]:
        # runs in the accepting thread: `hang_up`, which follows its end, misses no connection
        connection, address = super().get_request()
        if self.tls is not None:
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self.connections.append(connection)
        return connection, address

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave early are part of the tests."""

    def hang_up(self) -> None:
        """Close every connection, kept alive or in the middle of an answer."""
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Loopback:
    """A running server, as `serve` gives it."""

    def __init__(self, server: _Server, scheme: str) -> None:
        self._server = server
        self.port = server.server_address[1]
        self.base = f"{scheme}://{'localhost' if scheme == 'https' else '127.0.0.1'}:{self.port}"

    def url(self, path: str) -> str:
        """The whole url of a path that begins with "/"."""
        return self.base + path

    @property
    def requests(self) -> list[Request]:
        """Requests so far, in the order of their arrival."""
        return self._server.requests

    @property
    def served(self) -> int:
        """Bytes of bodies that went out so far."""
        return sum(request.sent for request in self._server.requests)

    @property
    def uploads(self) -> dict[str, bytes]:
        """Path to body of everything that was PUT completely."""
        return self._server.uploads

    def hang_up(self) -> None:
        """Close all connections, as a server does with idle ones."""
        self._server.hang_up()


@contextlib.contextmanager
def serve(
    content: Mapping[str, Any] | str | os.PathLike[str] | Callable[[Request], Page],
    *,
    certificate: tuple[Path, Path] | None = None,
) -> Iterator[Loopback]:
    """A server on a free port of 127.0.0.1 for the time of the block.

    Args:
        content: path ("/a.tar") to Content, asked anew for each request; a folder; or a function of the request.
        certificate: (certificate, key) files: serve https as `localhost`.
    """
    server = _Server(content, certificate)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="test server")
    thread.start()
    try:
        yield Loopback(server, "http" if certificate is None else "https")
    finally:
        server.shutdown()
        thread.join()
        server.over.set()
        server.hang_up()
        server.server_close()


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A new certificate for `localhost` that nobody signed, and its key, made by the openssl command."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", "req", "-x509", *options, *names, *files], check=True, capture_output=True)
    return certificate, key
