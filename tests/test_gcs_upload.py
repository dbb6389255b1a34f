"""Writing to Google Cloud Storage: against a fake of the tests' own, of its JSON uploads as its documentation says.

No emulator was found that serves them and what is read besides; a real bucket has not seen this code.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import random
import re
import threading
from collections.abc import Callable, Iterator
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from webdataset import ShardWriter
from webdataset.errors import OpenError
from webdataset.storage.gcs_upload import GcsSteps
from webdataset.storage.options import storage_options
from webdataset.storage.target import Target
from webdataset.storage.upload import Upload

MiB = 1 << 20
DATA = random.Random(9).randbytes(19 * MiB)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeUploads

    def log_message(self, format, *args):
        pass

    def handle(self):
        with contextlib.suppress(OSError):
            super().handle()

    def do_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.server.seen.append((self.command, self.path, dict(self.headers), len(body)))
        fault = self.server.fault(len(self.server.seen) - 1)
        if fault is not None and fault != "lost":
            return self.answer(int(fault))
        status, headers = self.act(parts.path, query, body)
        if fault == "lost":
            self.close_connection = True
            return None
        return self.answer(status, headers)

    def act(self, path, query, body):
        objects, sessions = self.server.objects, self.server.sessions
        if path.startswith("/upload/storage/v1/b/bucket/o"):
            if self.headers.get("Authorization") != self.server.credentials:
                return 401, {}
            if "upload_id" in query:
                return 400, {}
            name = query["name"]
            if query.get("ifGenerationMatch") == "0" and name in objects:
                return 412, {}
            if query["uploadType"] == "media":
                objects[name] = body
                return 200, {}
            sessions[f"id{len(sessions)}"] = (name, bytearray(), query)
            return 200, {"Location": f"{self.server.base}/session?upload_id=id{len(sessions) - 1}"}
        if path == "/session":
            assert "Authorization" not in self.headers
            if self.command == "DELETE":
                sessions.pop(query["upload_id"])
                return 499, {}
            return self.session(query["upload_id"], body)
        name = unquote(path).removeprefix("/bucket/")
        if name not in objects:
            return 404, {}
        return 200, {"ETag": f'"{hashlib.md5(objects[name]).hexdigest()}"'}

    def session(self, upload, body):
        objects, sessions = self.server.objects, self.server.sessions
        if upload not in sessions:
            return 200, {}
        name, kept, query = sessions[upload]
        match = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", self.headers["Content-Range"])
        if match[1] is not None:
            start = int(match[1])
            assert start <= len(kept)
            assert match[3] != "*" or len(body) % (256 << 10) == 0 or start % (256 << 10)
            most = self.server.keeps
            kept[start:] = body if most is None else body[:most]
        if match[3] != "*" and len(kept) == int(match[3]):
            if query.get("ifGenerationMatch") == "0" and name in objects:
                return 412, {}
            objects[name] = bytes(kept)
            del sessions[upload]
            return 200, {}
        return 308, {"Range": f"bytes=0-{len(kept) - 1}"} if kept else {}

    def answer(self, status, headers=None):
        self.send_response_only(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_any  # noqa: N815  http.server asks for these names


class FakeUploads(http.server.ThreadingHTTPServer):
    """The fake.

    Attributes:
        objects: name to bytes of what is complete in the bucket `bucket`.
        sessions: id to (name, bytes so far, query) of uploads that are not.
        credentials: the header Authorization that is asked for.
        keeps: bytes of a part that are kept at most; None: all.
        fault: number of a request to a status, to "lost" for an answer that does not arrive, or to None.
        seen: (method, path, headers, bytes of the body) of each request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.base = f"http://127.0.0.1:{self.server_address[1]}"
        self.objects: dict[str, bytes] = {}
        self.sessions: dict[str, tuple[str, bytearray, dict[str, str]]] = {}
        self.credentials: str | None = "Bearer S3CR3T"
        self.keeps: int | None = None
        self.fault: Callable[[int], str | None] = lambda number: None
        self.seen: list[tuple[str, str, dict[str, str], int]] = []


@pytest.fixture
def gcs() -> Iterator[FakeUploads]:
    server = FakeUploads()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="test server")
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def opened(gcs: FakeUploads, name: str = "a%20b/%C3%BC.tar", **options) -> Upload:
    def sign(method, address, headers):
        return address, {**headers, "Authorization": "Bearer S3CR3T"}

    target = Target("gs://bucket/a b/ü.tar", f"{gcs.base}/bucket/{name}", sign)
    return Upload(GcsSteps(target, storage_options(backoff=0.01, attempts=5, **options)))


def write(stream: Upload, size: int) -> None:
    with stream:
        for start in range(0, size, 700_000):
            stream.write(DATA[start : min(start + 700_000, size)])


@pytest.mark.parametrize("size", [0, 1, 8 * MiB, 8 * MiB + 1, 16 * MiB, 19 * MiB])
def test_what_is_written_is_there(gcs, size):
    """In one request up to 8 MiB, in a session beyond, whose parts come one after the other."""
    write(opened(gcs), size)
    assert gcs.objects == {"a b/ü.tar": DATA[:size]}
    assert gcs.sessions == {}
    assert len(gcs.seen) == (1 if size <= 8 * MiB else 1 + -(-size // (8 * MiB)))


@pytest.mark.parametrize("keeps", [1, 256 << 10, 5 * MiB])
def test_what_the_server_does_not_keep_is_sent_again(gcs, keeps):
    """The server may keep a part of a part; progress ends with the bytes of the object."""
    gcs.keeps = keeps if keeps > 1 else 7 * MiB - 1
    stream, told = opened(gcs), []
    stream.progress = told.append
    write(stream, len(DATA))
    assert gcs.objects == {"a b/ü.tar": DATA}
    assert sum(told) == len(DATA)


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("fault", ["503", "lost"])
@pytest.mark.parametrize("size", [1000, 19 * MiB])
def test_each_request_may_fail(gcs, size, fault, overwrite):
    """With 503, or with an answer that is lost: the object is whole."""
    gcs.fault = lambda number: fault if number % 2 == 0 else None
    write(opened(gcs, overwrite=overwrite), size)
    assert gcs.objects == {"a b/ü.tar": DATA[:size]}


@pytest.mark.parametrize("size", [1000, 19 * MiB])
def test_an_object_that_is_there_stays(gcs, size):
    """With overwrite=False, also one that came in between; by default it is replaced."""
    gcs.objects["a b/ü.tar"] = b"precious"
    with pytest.raises(OpenError, match="it exists"):
        opened(gcs, overwrite=False)
    del gcs.objects["a b/ü.tar"]
    stream = opened(gcs, overwrite=False)
    stream.write(DATA[:size])
    gcs.objects["a b/ü.tar"] = b"precious"
    with pytest.raises(OpenError, match="it exists"):
        stream.close()
    assert gcs.objects == {"a b/ü.tar": b"precious"}
    write(opened(gcs), size)
    assert gcs.objects == {"a b/ü.tar": DATA[:size]}


def test_an_exception_ends_the_session(gcs):
    """Nothing is there, and the server has forgotten the upload."""

    def fail_in_the_middle():
        with opened(gcs) as stream:
            stream.write(DATA)
            raise KeyError

    with pytest.raises(KeyError):
        fail_in_the_middle()
    assert (gcs.objects, gcs.sessions) == ({}, {})


def test_a_server_that_keeps_nothing_is_given_up(gcs, caplog):
    """After all attempts; the secret url of the session is in no error and no line of our log."""
    caplog.set_level("DEBUG", "webdataset")
    gcs.keeps = 0
    with pytest.raises(OpenError, match=r"keeps nothing of what is sent \(given up after 5") as caught:
        write(opened(gcs), len(DATA))
    assert "upload_id" not in caplog.text + repr(caught.value)
    assert "S3CR3T" not in caplog.text + repr(caught.value)


def test_shards_go_to_gs_urls(gcs, clean_clouds, monkeypatch, tmp_path):
    """The same bytes as in a folder; here without credentials, which the fake does not ask for."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.base)
    monkeypatch.setenv("WDS_STORAGE_OPTIONS", '{"anonymous": true}')
    gcs.credentials = None
    for pattern in ("gs://bucket/d/a-%d.tar", f"{tmp_path}/a-%d.tar"):
        with ShardWriter(pattern, maxcount=2) as sink:
            for number in range(4):
                sink.write({"__key__": str(number), "bin": bytes([number]) * 5_000_000})
    assert gcs.objects == {f"d/{path.name}": path.read_bytes() for path in tmp_path.iterdir()}
