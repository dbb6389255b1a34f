"""http and https: lengths checked, statuses explained, connections kept and let go, PUT all or nothing."""

from __future__ import annotations

import gc
import gzip
import os
import ssl
import subprocess
import sys
import threading
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opener_contract import DATA, descriptors, eventually
from servers import Page, html_page, self_signed, serve
from webdataset.errors import ConnectionLostError, NotFoundError, OpenError
from webdataset.gopen import gopen
from webdataset.storage.places import open_read

STATUSES = [
    (401, "HTTP 401 Unauthorized: credentials are needed"),
    (403, "HTTP 403 Forbidden: access is denied; check the credentials"),
    (404, "HTTP 404 Not Found: there is nothing at this url"),
    (410, "HTTP 410 Gone: it was there"),
    (416, f"HTTP 416 {HTTPStatus(416).phrase}: the object has no such range"),
    (418, "HTTP 418 I'm a Teapot: the server does not accept the request"),
    (429, "HTTP 429 Too Many Requests: too many requests"),
    (500, "HTTP 500 Internal Server Error: the fault is the server's"),
    (503, "HTTP 503 Service Unavailable: the server is busy"),
    (599, "HTTP 599: the fault is the server's"),
    (304, "HTTP 304 Not Modified: the redirection leads nowhere"),
    (206, "HTTP 206 Partial Content: this is no whole object"),
]


@pytest.mark.parametrize(("status", "fact"), STATUSES)
def test_each_status_has_its_line(status, fact):
    """An answer that is not the object is an error of one line: url without credentials, status, what to do."""
    with serve({"/a.tar": Page(b"explanation", status=status)}) as server:
        url = server.url("/a.tar")
        with pytest.raises(OSError) as caught:
            gopen(url.replace("//", "//me:secret@") + "?sig=secret")
        assert len(server.requests) == (3 if status in (429, 500, 503, 599) else 1)
    assert isinstance(caught.value, OpenError)
    assert isinstance(caught.value, NotFoundError) == (status in (404, 410))
    assert str(caught.value).startswith(f"{url}: {fact}")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_retry_after_is_shown():
    """An answer that says when to come back is quoted."""
    busy = Page(status=429, headers={"Retry-After": "7"})
    with serve({"/a": busy}) as server, pytest.raises(OpenError, match=r"\(the server says: after 7 s\)"):
        gopen(server.url("/a"), attempts=1)


def test_html_is_not_judged_here():
    """A web page is bytes like any other: the tar reader says what is wrong with it."""
    with serve({"/a.tar": html_page()}) as server, gopen(server.url("/a.tar")) as stream:
        assert stream.read().startswith(b"<!DOCTYPE html>")


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("cut", [0, 1, 511, 512, 8191, 65536, 100_000, len(DATA) - 1])
@pytest.mark.parametrize("how", ["read", "read1", "readinto"])
def test_a_cut_body_is_an_error(chunked, cut, how):
    """Everything that arrived is given out, then comes an error that says how much was missing, again and again."""

    def ask(stream) -> bytes:
        if how == "readinto":
            buffer = bytearray(10_000)
            return bytes(buffer[: stream.readinto(buffer)])
        return getattr(stream, how)(10_000)

    got: list[bytes] = []
    with serve({"/a.tar": Page(DATA, cut=cut, chunked=chunked, ranges=False)}) as server:
        stream = gopen(server.url("/a.tar") + "?sig=secret")
        with pytest.raises(ConnectionLostError) as caught:
            got.extend(iter(lambda: ask(stream), None))
        with pytest.raises(ConnectionLostError):
            ask(stream)
        stream.close()
        assert b"".join(got) == DATA[:cut]
        expected = "an unknown number of" if chunked else len(DATA)
        assert str(caught.value).startswith(server.url("/a.tar") + ": ")
        assert str(caught.value).endswith(f"got {cut} of {expected} bytes")
        assert (caught.value.got, caught.value.expected) == (cut, None if chunked else len(DATA))


def test_reading_a_cut_body_at_once_is_an_error():
    """read() does not return a part."""
    with serve({"/a.tar": Page(DATA, cut=1000, ranges=False)}) as server:
        stream = gopen(server.url("/a.tar"))
        with pytest.raises(ConnectionLostError, match=f"got 1000 of {len(DATA)} bytes"):
            stream.read()
        stream.close()


def test_length():
    """The length is known where the server says it, and bytes are counted."""
    with serve({"/a": DATA, "/c": Page(DATA, chunked=True)}) as server:
        with open_read(server.url("/a")) as stream:
            assert stream.length == len(DATA)
            stream.read(10)
            assert stream.got == 10
        with open_read(server.url("/c")) as stream:
            assert stream.length is None


def test_slow_bodies_are_given_out_as_they_come():
    """read1 does not wait for more than the first bytes."""
    with serve({"/a": Page(bytes(2000), piece=100, pace=0.05)}) as server, gopen(server.url("/a")) as stream:
        assert 0 < len(stream.read1(2000)) < 2000


@given(sizes=st.lists(st.integers(0, 20_000), max_size=30), piece=st.integers(1000, 50_000), chunked=st.booleans())
def test_any_sizes_read_the_same(shared_server, sizes, piece, chunked):
    """Reads of any size over pieces of any size give the bytes of the object in order."""
    server, pages = shared_server
    pages["/a"] = Page(DATA, piece=piece, chunked=chunked)
    with gopen(server.url("/a")) as stream:
        parts = [stream.read(size) for size in sizes]
        rest = stream.read()
    assert b"".join(parts) + rest == DATA
    assert [len(part) for part in parts] == sizes


@pytest.fixture(scope="module")
def shared_server():
    pages: dict[str, Page] = {}
    with serve(pages) as server:
        yield server, pages


def test_compressed_objects_are_not_unpacked():
    """The bytes are the object's: no compression is asked for, and none undone."""
    packed = gzip.compress(DATA)
    page = Page(packed, headers={"Content-Encoding": "gzip"})
    with serve({"/a.tar.gz": page}) as server, gopen(server.url("/a.tar.gz")) as stream:
        assert stream.read() == packed
        assert server.requests[0].headers["Accept-Encoding"] == "identity"


def test_request_headers():
    """Requests name the library; `headers` are added and win; user and password of the url become Basic."""
    with serve({"/a": b"x"}) as server:
        gopen(server.url("/a")).close()
        gopen(server.url("/a"), headers={"X-Mine": "1", "user-agent": "me"}).close()
        gopen(server.url("/a").replace("//", "//us%40er:p%3Aw@")).close()
        first, second, third = (request.headers for request in server.requests)
    assert first["User-Agent"] == "webdataset/0.2.200"
    assert "Authorization" not in first
    assert (second["X-Mine"], second["User-Agent"]) == ("1", "me")
    assert third["Authorization"] == "Basic dXNAZXI6cDp3"


def test_redirections():
    """Redirections are followed, relative ones too; credentials do not go to another server."""
    with serve({"/real.tar": DATA}) as store:
        pages = {"/a": Page(redirect=store.url("/real.tar")), "/b": Page(redirect="c"), "/c": b"c"}
        with serve(pages) as server:
            with gopen(server.url("/a"), headers={"Authorization": "Bearer secret"}) as stream:
                assert stream.read() == DATA
            assert gopen(server.url("/b")).read() == b"c"
            assert server.requests[0].headers["Authorization"] == "Bearer secret"
        assert "Authorization" not in store.requests[0].headers


@pytest.mark.parametrize(
    ("location", "fact"),
    [
        ("/a", "too many redirections"),
        ("file:///etc/hosts", "the server redirects to what is no http:// or https:// url, which is not followed"),
        ("ftp://h/x", "the server redirects to what is no http:// or https:// url"),
    ],
)
def test_bad_redirections(location, fact):
    """Redirections in a circle, or away from http, are errors."""
    with serve({"/a": Page(redirect=location)}) as server:
        with pytest.raises(OpenError, match=fact) as caught:
            gopen(server.url("/a"))
        assert str(caught.value).startswith(server.url("/a"))


def test_timeouts():
    """A server that says nothing, before or within the body, is given up after `timeout` seconds."""
    slow_start = Page(b"x", delay=1.5)
    slow_body = Page(bytes(200), piece=100, pace=1.5)
    with serve({"/a": slow_start, "/b": slow_body}) as server:
        with pytest.raises(OpenError, match=r"/a: the server sent nothing for 0\.5 s \(given up after 2 "):
            gopen(server.url("/a"), timeout=0.5, attempts=2)
        stream = gopen(server.url("/b"), timeout=(5.0, 0.5), attempts=1)
        assert stream.read1(100) == bytes(100)
        with pytest.raises(ConnectionLostError, match=r"nothing for 0\.5 s: got 100 of 200 bytes"):
            stream.read(100)
        stream.close()


def test_no_server():
    """A connection that is refused is one line."""
    with serve({}) as server:
        url = server.url("/a.tar")
    with pytest.raises(OpenError, match="no connection: Connection refused") as caught:
        gopen(url.replace("//", "//me:secret@") + "?sig=secret")
    assert str(caught.value).startswith(url + ": ")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://", "http:///a.tar", "http://h:port/a.tar", "http://[::1/a.tar"])
def test_broken_urls(url):
    """A url that names no host is an error, not a crash."""
    with pytest.raises(OpenError, match="this is no url that http can open"):
        gopen(url)


def test_names_are_escaped():
    """Spaces and letters outside ASCII need no escape, and what is escaped stays so."""
    with serve({"/a b/é.tar": b"x", "/100%.tar": b"y"}) as server:
        assert gopen(server.url("/a b/é.tar")).read() == b"x"
        assert gopen(server.url("/a%20b/%C3%A9.tar")).read() == b"x"
        assert gopen(server.url("/100%25.tar")).read() == b"y"


def test_connections_are_kept():
    """One connection serves many urls of a server, if their bodies are read to the end."""
    with serve({"/a": DATA}) as server:
        gopen(server.url("/a")).read()
        before = descriptors()
        for _ in range(5):
            with gopen(server.url("/a")) as stream:
                stream.read()
        assert descriptors() == before


def test_idle_connections_may_be_closed_by_the_server():
    """A kept connection that the server has closed meanwhile is replaced without a word."""
    with serve({"/a": DATA}) as server:
        for _ in range(5):
            with gopen(server.url("/a")) as stream:
                assert stream.read() == DATA
            server.hang_up()


def test_server_that_hangs_up_is_asked_again():
    """A connection that ends before any answer is tried at once again, then `attempts` count, then it is an error."""
    with serve({"/a": Page(b"x", delay=1.0)}) as server:
        failed = []

        def ask() -> None:
            try:
                gopen(server.url("/a"), attempts=2)
            except OpenError as exn:
                failed.append(exn)

        thread = threading.Thread(target=ask)
        thread.start()
        for count in (1, 2, 3):
            assert eventually(lambda count=count: len(server.requests) == count)
            server.hang_up()
        thread.join()
    assert len(failed) == 1
    assert "the connection broke: " in str(failed[0])


def test_dropped_streams_close_their_connections():
    """A stream that is forgotten in the middle lets go of its connection."""
    with serve({"/a": bytes(10_000_000)}) as server:
        gopen(server.url("/a")).close()
        before = descriptors()
        for _ in range(10):
            gopen(server.url("/a")).read(10)
        gc.collect()
        assert eventually(lambda: descriptors() <= before)


def test_threads_read_side_by_side():
    """Many threads read from one server at once, each its own object."""
    contents = {f"/{number}": bytes([number]) * 300_000 for number in range(20)}
    read: dict[str, bytes] = {}
    with serve(contents) as server:

        def fetch(path: str) -> None:
            with gopen(server.url(path)) as stream:
                read[path] = stream.read()

        threads = [threading.Thread(target=fetch, args=(path,)) for path in contents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert read == contents


def test_forked_processes_have_their_own_connections():
    """A process forked in the middle of a body reads its own, and the parent's goes on unharmed."""
    program = """
import os, sys
from webdataset.gopen import gopen
url = sys.argv[1]
whole = gopen(url).read()
stream = gopen(url)
start = stream.read(1000)
if os.fork() == 0:
    ok = gopen(url).read() == whole
    del stream
    os._exit(0 if ok else 1)
assert os.wait()[1] == 0
assert start + stream.read() == whole
"""
    with serve({"/a": DATA * 10}) as server:
        subprocess.run([sys.executable, "-W", "error", "-c", program, server.url("/a")], check=True)


@pytest.mark.parametrize("form", ["{}", "http://{}", "http://me:pass@{}"])
def test_proxies(monkeypatch, form):
    """http_proxy sends requests through a proxy, with its password; no_proxy leaves hosts out."""
    with serve({"/a": b"through"}) as proxy, serve({"/a": b"direct"}) as server:
        monkeypatch.setenv("http_proxy", form.format(f"127.0.0.1:{proxy.port}"))
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert gopen("http://elsewhere.invalid/a").read() == b"through"
        assert proxy.requests[0].path == "http://elsewhere.invalid/a"
        assert proxy.requests[0].headers.get("Proxy-Authorization") == ("Basic bWU6cGFzcw==" if "@" in form else None)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert gopen(server.url("/a")).read() == b"direct"


def test_https(tmp_path, monkeypatch):
    """A certificate that nobody vouches for is one clear line; SSL_CERT_FILE makes it trusted."""
    certificate = self_signed(tmp_path)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
    with serve({"/a": DATA}, certificate=certificate) as server:
        url = server.url("/a")
        fact = "the certificate of the server is not accepted: self-signed certificate; .*SSL_CERT_FILE"
        with pytest.raises(OpenError, match=f"^{url}: {fact}") as caught:
            gopen(url)
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value.__cause__.args[0], ssl.SSLCertVerificationError)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        with gopen(url) as stream:
            assert stream.read() == DATA
        monkeypatch.delenv("SSL_CERT_FILE")
        monkeypatch.setenv("CURL_CA_BUNDLE", str(certificate[0]))
        assert gopen(url).read() == DATA


def upload_threads() -> list[threading.Thread]:
    """Sending threads that are still there."""
    return [thread for thread in threading.enumerate() if thread.name == "webdataset upload"]


def test_upload_in_one_request():
    """However much is written, one PUT of a known length carries it, with the headers that were given."""
    with serve({}) as server:
        with gopen(server.url("/up.tar"), "wb", headers={"X-Mine": "1"}) as stream:
            for _ in range(40):
                stream.write(DATA)
        assert server.uploads == {"/up.tar": DATA * 40}
        assert [request.method for request in server.requests] == ["PUT"]
        assert server.requests[0].headers["Content-Length"] == str(len(DATA) * 40)
        assert server.requests[0].headers["X-Mine"] == "1"
    assert upload_threads() == []


@pytest.mark.parametrize("size", [0, 1, 1 << 20, 10_000_000])
def test_upload_that_is_refused(size):
    """The server's refusal comes out of a write or of close, once."""
    with serve({"/up": Page(status=403)}) as server:
        stream = gopen(server.url("/up") + "?sig=secret", "wb")
        with pytest.raises(OpenError, match=r"/up: HTTP 403 Forbidden: access is denied") as caught:
            send_and_close(stream, size)
        assert "secret" not in str(caught.value)
        stream.close()
        assert stream.closed
        assert server.uploads == {}
    assert upload_threads() == []


def send_and_close(stream, size: int) -> None:
    """Write `size` bytes and close."""
    for start in range(0, size, 100_000):
        stream.write(bytes(min(100_000, size - start)))
    stream.close()


@pytest.mark.parametrize(
    ("page", "fact"),
    [
        (Page(status=500), "HTTP 500"),
        (Page(redirect="/other", status=307), "HTTP 307 Temporary Redirect"),
        (Page(delay=1.5), "the server sent nothing for 0.5 s"),
    ],
)
def test_upload_that_fails(page, fact):
    """A server that fails, sends us elsewhere or does not answer makes closing fail."""
    with serve({"/up": page}) as server:
        stream = gopen(server.url("/up"), "wb", timeout=0.5)
        stream.write(b"data")
        with pytest.raises(OpenError, match=fact):
            stream.close()
    assert upload_threads() == []


def test_upload_without_a_server():
    """A connection that is refused is one line, and nobody waits."""
    with serve({}) as server:
        url = server.url("/up")
    with pytest.raises(OpenError, match=f"^{url}: no connection: Connection refused"):
        send_and_close(gopen(url, "wb"), 10_000_000)
    assert eventually(lambda: upload_threads() == [])


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_abandoned_uploads_do_not_count(size):
    """An error in the block, or a stream that is forgotten, leaves no object, not even a part of one."""
    with serve({}) as server:
        with pytest.raises(KeyError):
            fail_in_the_middle(server.url("/up"), size)
        gopen(server.url("/forgotten"), "wb").write(bytes(size))
        gc.collect()
        assert upload_threads() == []
        gopen(server.url("/whole"), "wb").close()
        assert server.uploads == {"/whole": b""}


def fail_in_the_middle(url: str, size: int) -> None:
    """Write a part, then fail inside the block."""
    with gopen(url, "wb") as stream:
        stream.write(bytes(size))
        raise KeyError


def test_upload_with_wrong_headers():
    """A header that cannot be sent is an error before anything is written."""
    with serve({}) as server:
        with pytest.raises(ValueError, match="storage option 'headers': 'X-Mine' and its value must be text of one"):
            gopen(server.url("/up"), "wb", headers={"X-Mine": "two\nlines"})
        assert server.uploads == {}


def test_writing_after_the_end():
    """A closed upload takes nothing more."""
    with serve({}) as server:
        stream = gopen(server.url("/up"), "wb")
        stream.close()
        with pytest.raises(ValueError, match="closed"):
            stream.write(b"x")


def test_import_is_light():
    """Importing gopen imports no http client and no subprocess machinery."""
    program = "import sys, webdataset.gopen; print([m for m in ('urllib3', 'http.client', 'ssl') if m in sys.modules])"
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=environment)
    assert done.stdout.strip() == b"[]"
