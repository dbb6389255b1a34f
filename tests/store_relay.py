"""A relay in front of a real server, which loses requests and answers as told.

    with relay(endpoint, lambda request: "500" if ... else None) as between:
        ...     # talk to between.base instead of endpoint

A fault is "lost" (the request goes on, the answer does not come back), "cut" (neither), or a status that the relay
answers itself, with a body if one follows it: "503", "200 <Error>...</Error>".
"""

from __future__ import annotations

import contextlib
import http.client
import http.server
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Relayed(NamedTuple):
    """A request as the relay saw it: `count` is how many of this method and path, query included, came before."""

    method: str
    path: str
    query: dict[str, str]
    count: int
    headers: dict[str, str]
    size: int


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Relay

    def log_message(self, format, *args):
        pass

    def handle(self):
        with contextlib.suppress(OSError):
            super().handle()

    def relay(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if len(body) < int(self.headers.get("Content-Length") or 0):
            self.close_connection = True
            return  # the client left
        fault = self.server.fault_of(self.command, self.path, self.headers, len(body))
        if fault == "cut":
            self.close_connection = True
            return
        if fault is not None and fault != "lost":
            status, _, told = fault.partition(" ")
            self.answer(int(status), {}, told.encode())
            return
        connection = http.client.HTTPConnection(self.server.host, timeout=30)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        if fault == "lost":
            self.close_connection = True
            return
        headers = {name: value for name, value in response.getheaders() if name.lower() not in _OWN}
        length = response.getheader("Content-Length") if self.command == "HEAD" else None
        self.answer(response.status, headers, content, length)

    def answer(self, status, headers, content, length=None):
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = relay  # noqa: N815  http.server asks for these names


_OWN = {"content-length", "transfer-encoding", "connection", "keep-alive"}


class _Relay(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, endpoint: str, fault: Callable[[Relayed], str | None]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.host = urllib.parse.urlsplit(endpoint).netloc
        self.base = f"http://127.0.0.1:{self.server_address[1]}"
        self.fault = fault
        self.seen: list[Relayed] = []
        self.lock = threading.Lock()

    def handle_error(self, request, client_address):
        """Clients that leave early are part of the tests."""

    def fault_of(self, method, target, headers, size):
        parts = urllib.parse.urlsplit(target)
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        with self.lock:
            count = sum((one.method, one.path, one.query) == (method, parts.path, query) for one in self.seen)
            request = Relayed(method, parts.path, query, count, dict(headers), size)
            self.seen.append(request)
            return self.fault(request)


@contextlib.contextmanager
def relay(endpoint: str, fault: Callable[[Relayed], str | None] = lambda request: None) -> Iterator[_Relay]:
    """A relay for the time of the block; `base` is its url, `seen` the requests that came, in order."""
    server = _Relay(endpoint, fault)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="relay")
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
