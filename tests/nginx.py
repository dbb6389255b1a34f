"""A real nginx on loopback, as this user, with a configuration of its own: a folder with ranges and without.

    nginx.url("a.tar"); nginx.url("a.tar", ranges=False); nginx.asked("/a.tar") -> what the access log says

The fixture `nginx` is one for the whole session; its folder is `nginx.folder`.
"""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from stores import STARTED

CONFIGURATION = """
daemon off;
master_process off;
pid {home}/pid;
error_log {home}/error.log;
events {{ worker_connections 256; }}
http {{
    log_format line '$request_method $uri $status $body_bytes_sent "$http_range"';
    access_log {home}/access.log line;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    default_type application/octet-stream;
    sendfile on;
    root {home}/files;
    server {{ listen 127.0.0.1:{port}; }}
    server {{ listen 127.0.0.1:{without_ranges}; max_ranges 0; }}
}}
"""


class Asked(NamedTuple):
    """A line of the access log: bytes are those of the body that were sent, range is the header, "-" without one."""

    method: str
    path: str
    status: int
    bytes: int
    range: str


class Nginx:
    """A running nginx, as `running_nginx` gives it; files of `folder` are served."""

    def __init__(self, home: Path, port: int, without_ranges: int) -> None:
        self.folder = home / "files"
        self.port, self.without_ranges = port, without_ranges
        self._log = home / "access.log"

    def url(self, name: str, ranges: bool = True) -> str:
        """Where a file of the folder is; with `ranges=False` by the server that gives no ranges."""
        return f"http://127.0.0.1:{self.port if ranges else self.without_ranges}/{name}"

    def asked(self, path: str) -> list[Asked]:
        """Requests for this path ("/a.tar") so far, in the order in which they ended."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request("HEAD", "/-")  # it has one thread: what it sent before it has also written down
            connection.getresponse().read()
        lines = [line.split(" ", 4) for line in self._log.read_text().splitlines()]
        found = [Asked(line[0], line[1], int(line[2]), int(line[3]), line[4].strip('"')) for line in lines]
        return [request for request in found if request.path == path]


@contextlib.contextmanager
def running_nginx(home: Path) -> Iterator[Nginx]:
    """An nginx that keeps all its files below `home`, ended with the block.

    Raises:
        FileNotFoundError: nginx is not installed (Debian: apt-get install nginx-light).
    """
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
    if program is None:
        raise FileNotFoundError("nginx is not installed; on Debian: apt-get install nginx-light")
    (home / "files").mkdir()
    for _ in range(10):
        server = Nginx(home, *_free_ports(2))
        text = CONFIGURATION.format(home=home, port=server.port, without_ranges=server.without_ranges)
        (home / "nginx.conf").write_text(text)
        command = [program, "-p", str(home), "-c", str(home / "nginx.conf"), "-e", str(home / "error.log")]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        if _answers(server.port, process):
            break
    else:
        raise RuntimeError((home / "error.log").read_text())
    STARTED.add(process.pid)
    try:
        yield server
    finally:
        process.terminate()
        process.wait(30)
        STARTED.discard(process.pid)


@pytest.fixture(scope="session")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """A real nginx for the whole session; tests put files into its folder, each under names of its own."""
    with running_nginx(tmp_path_factory.mktemp("nginx")) as server:
        yield server


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listened at just now; somebody else may be faster, so the caller tries again."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _answers(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Whether it takes connections; false where it ended instead."""
    end = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        time.sleep(0.01)
    process.kill()
    process.wait()
    return False
