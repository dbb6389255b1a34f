"""Reads that survive: whatever a server does, the bytes are the object's, or a clear error comes, and soon enough."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opener_contract import DATA, descriptors, eventually
from relay import cutting_relay
from servers import Loopback, Page, first, serve
from webdataset.errors import OpenError
from webdataset.storage import places
from webdataset.storage.options import StorageOptions

LENGTH = len(DATA)
POSITIONS = [0, 1, 2, 511, 512, 65535, 65536, 100_000, LENGTH // 2, LENGTH - 1]
OTHER = bytes(reversed(DATA))
"""Another version of the object, of the same size."""

QUICK = StorageOptions(attempts=4, backoff=0.01, read_timeout=0.3, deadline=30, connections=1)

VERSIONS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "ETag": ({"ETag": '"1"'}, {"ETag": '"2"'}),
    "weak ETag": ({"ETag": 'W/"1"'}, {"ETag": 'W/"2"'}),
    "date": (
        {"Last-Modified": "Thu, 01 Jan 1970 00:00:01 GMT"},
        {"Last-Modified": "Thu, 01 Jan 1970 00:00:02 GMT"},
    ),
    "ETag and date": (
        {"ETag": '"1"', "Last-Modified": "Thu, 01 Jan 1970 00:00:01 GMT"},
        {"ETag": '"2"', "Last-Modified": "Thu, 01 Jan 1970 00:00:01 GMT"},
    ),
    "nothing": ({}, {}),
}
"""What a server tells of the version of an object, and of the next one."""


def by_read(stream: Any) -> bytes:
    return stream.read()


def by_pieces(stream: Any) -> bytes:
    return b"".join(iter(lambda: stream.read(10_007), b""))


def by_read1(stream: Any) -> bytes:
    return b"".join(iter(stream.read1, b""))


def by_readinto(stream: Any) -> bytes:
    buffer = bytearray(50_000)
    return b"".join(iter(lambda: bytes(buffer[: stream.readinto(buffer)]), b""))


WAYS: dict[str, Callable[[Any], bytes]] = {
    "read": by_read,
    "pieces": by_pieces,
    "read1": by_read1,
    "readinto": by_readinto,
}


def whole(url: str, options: StorageOptions = QUICK, way: Callable[[Any], bytes] = by_read) -> bytes:
    with places.open_read(url, options) as stream:
        return way(stream)


def ranges_of(server: Loopback) -> list[str | None]:
    return [request.headers["Range"] for request in server.requests]


def in_time(function: Callable[[], Any], seconds: float = 60.0) -> Any:
    """What the function gives or raises; an error if it does not end at all."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append((function(), None))
        except Exception as exn:
            results.append((None, exn))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert results, f"nothing came within {seconds} s"
    result, error = results[0]
    if error is not None:
        raise error
    return result


# the body breaks


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cut", POSITIONS)
def test_a_cut_body_goes_on_where_it_broke(cut, way):
    """Two cuts, three requests: each asks only for what is missing, and no byte travels twice."""
    page = Page(DATA, cut=cut, headers={"ETag": '"1"'})
    with serve({"/a": first(2, page, Page(DATA, headers=page.headers))}) as server:
        assert whole(server.url("/a"), way=WAYS[way]) == DATA
        seconds = [cut, min(2 * cut, LENGTH)]
        assert ranges_of(server)[0] is None
        if 2 * cut < LENGTH:
            assert ranges_of(server)[1:] == [f"bytes={at}-" if at else None for at in seconds]
        assert eventually(lambda: sum(request.sent for request in server.requests) == LENGTH)
        assert {request.headers["If-Match"] for request in server.requests[1:]} == {'"1"'}


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_kind_of_server(version, ranges, chunked, reset):
    """With ranges or without, with any validator or none: the bytes are the object's after two breaks."""
    page = Page(DATA, cut=100_000, reset=reset, chunked=chunked, ranges=ranges, headers=VERSIONS[version][0])
    well = Page(DATA, chunked=chunked, ranges=ranges, headers=page.headers)
    for way in WAYS.values():
        with serve({"/a": first(2, page, well)}) as server:
            assert whole(server.url("/a"), way=way) == DATA
            assert len(server.requests) == 3


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_server_that_breaks_every_answer(reset):
    """As long as each answer brings something new, reading goes on, however many it takes."""
    with serve({"/a": Page(DATA, cut=30_000, reset=reset, piece=1000, headers={"ETag": '"1"'})}) as server:
        for way in WAYS.values():
            assert whole(server.url("/a"), way=way) == DATA


def test_cut_within_the_headers(nginx):
    """An answer that breaks off within its headers is no empty object: wherever it is cut, the next one counts."""
    name = put(nginx, "headers.bin")
    for cut in range(1, 260, 7):
        with cutting_relay(nginx.port, [cut, cut]) as port:
            assert whole(f"http://127.0.0.1:{port}/{name}") == DATA


@pytest.mark.parametrize("obeys", [True, False], ids=["obeys If-Match", "ignores If-Match"])
@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
@pytest.mark.parametrize("version", VERSIONS)
def test_two_versions_never_mix(version, ranges, obeys):
    """An object that is replaced by another of the same size in the middle is an error, and nothing of it is given."""
    old, new = VERSIONS[version]

    def answer(request: Any) -> Page:
        page = Page(DATA, cut=1000, ranges=ranges, headers=old)
        if len(server.requests) > 1:
            page = Page(OTHER, ranges=ranges, headers=new)
        if not obeys:
            del request.headers["If-Match"], request.headers["If-Range"]
        return page

    with serve({"/a": answer}) as server, places.open_read(server.url("/a"), QUICK) as stream:
        assert stream.read(1000) == DATA[:1000]
        with pytest.raises(OpenError, match="replaced while it was read"):
            stream.read()
        with pytest.raises(OpenError, match="replaced while it was read"):
            stream.read(1)


def test_another_size_is_another_version():
    """Where nothing else tells versions apart, the length does."""
    pages = {"/a": first(1, Page(DATA, cut=1000, ranges=False), Page(DATA + b"x", ranges=False))}
    with serve(pages) as server, pytest.raises(OpenError, match="replaced while it was read"):
        whole(server.url("/a"))


@st.composite
def servers(draw: Any) -> tuple[list[Page], dict[str, Any]]:
    """Answers to the first requests, each wrong in some way, and what all answers have in common."""
    common = {
        "ranges": draw(st.booleans()),
        "chunked": draw(st.booleans()),
        "headers": draw(st.sampled_from(list(VERSIONS.values())))[0],
        "piece": draw(st.sampled_from([1000, 4096, 1 << 20])),
    }
    body = DATA[:20_000]
    fault = st.one_of(
        st.builds(lambda cut, reset: Page(body, cut=cut, reset=reset, **common), st.integers(0, 20_000), st.booleans()),
        st.builds(lambda status: Page(b"trouble", status=status), st.sampled_from([408, 429, 500, 502, 503, 504])),
        st.just(Page(status=503, headers={"Retry-After": "0"})),
    )
    return draw(st.lists(fault, max_size=8)), common


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=50)
@given(
    plan=servers(), way=st.sampled_from(list(WAYS.values())), start=st.integers(0, 20_000), size=st.integers(0, 20_000)
)
def test_any_faults_in_any_order(plan, way, start, size):
    """After any faults the bytes are the object's; or an error comes, and what was given before are its first bytes."""
    faults, common = plan
    body = DATA[:20_000]
    pages = iter(faults)
    lenient = StorageOptions(attempts=10, backoff=0.001, read_timeout=5, deadline=30, connections=1)
    with serve({"/a": lambda request: next(pages, Page(body, **common))}) as server:
        assert whole(server.url("/a"), lenient, way) == body
        assert len(server.requests) <= len(faults) + 2  # one more where an idle connection had ended
        pages = iter(faults)
        assert places.read_part(server.url("/a"), start, start + size, lenient)[0] == body[start : start + size]


# the length is wrong


def test_an_announced_length_that_never_comes():
    """A server that promises more than it has is an error that says how much came."""
    page = Page(DATA, announced=LENGTH + 10, headers={"ETag": '"1"'})
    with serve({"/a": page}) as server, pytest.raises(OpenError, match=f"got {LENGTH} of {LENGTH + 10} bytes"):
        whole(server.url("/a"))


# the server is busy, or silent


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_refusals_that_pass(status):
    """A server that refuses three times and then answers costs four requests; a fourth refusal is the end."""
    with serve({"/a": first(3, Page(status=status), Page(DATA))}) as server:
        assert whole(server.url("/a")) == DATA
        assert len(server.requests) == 4
    with serve({"/a": first(4, Page(status=status), Page(DATA))}) as server:
        with pytest.raises(OpenError, match=rf"HTTP {status} .*\(given up after 4 attempts in "):
            whole(server.url("/a"))
        assert len(server.requests) == 4


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 501, 505])
def test_refusals_that_stay(status):
    """Where asking again cannot help, one request is made."""
    with serve({"/a": first(1, Page(status=status), Page(DATA))}) as server:
        with pytest.raises(OpenError, match=f"HTTP {status}"):
            whole(server.url("/a"))
        assert len(server.requests) == 1


def test_retry_after_beyond_the_deadline():
    """A server that asks for more time than there is is not waited for; the error says what it asked for."""
    busy = Page(status=429, headers={"Retry-After": "3600"})
    with serve({"/a": first(1, busy, Page(DATA))}) as server:
        with pytest.raises(OpenError, match=r"HTTP 429 .*\(the server says: after 3600 s\)"):
            in_time(lambda: whole(server.url("/a")))
        assert len(server.requests) == 1


def test_refused_in_the_middle():
    """A server that refuses to go on, for a while, is asked again from the same byte."""
    pages = iter([Page(DATA, cut=1000), Page(status=503), Page(status=429, headers={"Retry-After": "0"})])
    with serve({"/a": lambda request: next(pages, Page(DATA, headers={}))}) as server:
        assert whole(server.url("/a")) == DATA
        assert len(server.requests) == 4


@pytest.mark.parametrize("cut", [0, 1, 1000, 100_000])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_stalled_body_is_asked_for_again(version, cut):
    """A body that stops coming without an end is given up after read_timeout, and read on."""
    page = Page(DATA, cut=cut, stall=60, headers=VERSIONS[version][0])
    with serve({"/a": first(1, page, Page(DATA, headers=page.headers))}) as server:
        assert in_time(lambda: whole(server.url("/a"), way=by_read1)) == DATA
        assert len(server.requests) == 2


SILENT: dict[str, Page] = {
    "no answer": Page(DATA, delay=600),
    "no body": Page(DATA, cut=0, stall=600),
    "stalls": Page(DATA, cut=70_000, stall=600),
    "busy": Page(status=503),
    "busy, come back": Page(status=503, headers={"Retry-After": "1"}),
}


@pytest.mark.parametrize("kind", SILENT)
@pytest.mark.parametrize("read_timeout", [0.2, 60.0])
def test_nobody_waits_longer_than_the_deadline(kind, read_timeout):
    """However a server keeps its clients waiting, a read ends with an error by the deadline (here: at all)."""
    options = StorageOptions(attempts=1000, backoff=0.01, read_timeout=read_timeout, deadline=1.0, connections=1)
    with serve({"/a": SILENT[kind]}) as server, pytest.raises(OpenError):
        in_time(lambda: whole(server.url("/a"), options), 20)


def test_a_server_that_never_accepts():
    """A host that takes connections and says nothing ends by the deadline."""
    options = StorageOptions(attempts=1000, backoff=0.01, deadline=1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a"
        with pytest.raises(OpenError, match="the server sent nothing"):
            in_time(lambda: whole(url, options), 20)


def test_slow_servers_are_no_fault():
    """200 KB/s a connection, with latency: everything comes, in one request."""
    page = Page(DATA[:60_000], delay=0.02, piece=4000, pace=0.02)
    with serve({"/a": page}) as server:
        assert whole(server.url("/a")) == page.body
        assert len(server.requests) == 1


DRIP = Page(DATA, piece=1, pace=0.02)
IMPATIENT = StorageOptions(attempts=1000, backoff=0.01, read_timeout=0.3, deadline=2.0, connections=1)


@pytest.mark.parametrize("way", WAYS.values())
@pytest.mark.parametrize("version", ["ETag", "nothing"])
@pytest.mark.parametrize("connections", [1, 8])
def test_a_server_that_drips_is_no_progress(version, way, connections):
    """A byte now and then is no progress, over any number of connections: the read ends by its deadline."""
    options = replace(IMPATIENT, connections=connections)
    page = replace(DRIP, headers=VERSIONS[version][0])
    with (
        serve({"/a": page}) as server,
        pytest.raises(OpenError, match=r"sends too little, .* lowest_speed asks for|sent nothing for"),
    ):
        in_time(lambda: whole(server.url("/a"), options, way), 30)


def test_a_connection_that_drips_is_left():
    """What drips over one connection is read on over another; what came counts."""
    page = replace(DRIP, headers=VERSIONS["ETag"][0])
    with serve({"/a": first(1, page, Page(DATA, headers=page.headers))}) as server:
        assert in_time(lambda: whole(server.url("/a"), way=by_read1)) == DATA
        assert len(server.requests) == 2
        assert int(server.requests[1].headers["Range"][6:-1]) > 0


def test_headers_that_drip():
    """An answer whose headers never end is given up, too."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        over = threading.Event()

        def drip() -> None:
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                while not over.wait(0.02):
                    connection.sendall(b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            with pytest.raises(OpenError, match="sends too little"):
                in_time(lambda: whole(f"http://127.0.0.1:{listening.getsockname()[1]}/a", replace(QUICK, attempts=1)))
        finally:
            over.set()
            thread.join()


def test_listings_that_drip():
    """A listing is a read like any other."""
    with serve(lambda request: replace(DRIP, body=bytes(9000))) as server:
        options = replace(IMPATIENT, endpoint=server.base, anonymous=True)
        with pytest.raises(OpenError, match="sends too little"):
            in_time(lambda: list(places.entries("s3://bucket/a", options)), 30)


def test_any_speed_will_do():
    """With lowest_speed=0 a body may come as slowly as it likes, as long as something comes."""
    with serve({"/a": replace(DRIP, body=DATA[:50])}) as server:
        assert whole(server.url("/a"), replace(QUICK, lowest_speed=0)) == DATA[:50]
        assert len(server.requests) == 1


def test_a_reader_that_takes_its_time():
    """Only waiting for the server counts, not what the program does between two reads."""
    page = replace(DRIP, piece=1000, headers=VERSIONS["ETag"][0])
    with serve({"/a": page}) as server, places.open_read(server.url("/a"), QUICK) as stream:
        for start in range(0, 5000, 1000):
            assert stream.read(1000) == DATA[start : start + 1000]
            time.sleep(0.2)
        assert len(server.requests) == 1


def test_failed_reads_leave_nothing():
    """Reads that fail, again and again, leave no descriptor and no thread."""
    busy = Page(status=503)
    pages = {"/cut": Page(DATA, cut=0), "/reset": Page(DATA, cut=0, reset=True), "/busy": busy}
    with serve(pages) as server:

        def fail() -> None:
            for path in pages:
                with pytest.raises(OpenError):
                    whole(server.url(path))

        fail()
        before, threads = descriptors(), threading.active_count()
        for _ in range(5):
            fail()
        assert eventually(lambda: descriptors() <= before and threading.active_count() <= threads)


# a real server


def put(nginx: Any, name: str, data: bytes = DATA) -> str:
    (nginx.folder / name).write_bytes(data)
    return name


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "max_ranges 0"])
def test_nginx(nginx, ranges):
    """nginx, with ranges and without: the whole object in one request, and any range of it."""
    name = put(nginx, f"whole-{ranges}.bin")
    url = nginx.url(name, ranges)
    assert whole(url) == DATA
    assert eventually(lambda: [a.bytes for a in nginx.asked(f"/{name}")] == [LENGTH])
    for start, stop in (
        (0, 10),
        (1000, 2000),
        (LENGTH - 5, LENGTH + 5),
        (5, 5),
        (LENGTH, LENGTH + 1),
        (LENGTH + 9, 1 << 30),
    ):
        assert places.read_part(url, start, stop, QUICK)[0] == DATA[start:stop]
    stat = places.stat(url, QUICK)
    assert stat.size == LENGTH
    assert stat.etag.startswith('"')


def test_an_empty_object(nginx):
    """Nothing is read of an empty object, whole or in part, and it is no error."""
    url = nginx.url(put(nginx, "empty.bin", b""))
    assert whole(url) == b""
    assert places.read_part(url, 0, 10, QUICK)[0] == b""


def test_an_object_of_unknown_length_that_breaks_at_its_very_end():
    """A chunked body that loses only its last mark is whole: the server says that nothing comes behind it."""
    page = Page(DATA, cut=LENGTH, chunked=True, headers={"ETag": '"1"'})
    with serve({"/a": first(1, page, Page(DATA, headers=page.headers))}) as server:
        assert whole(server.url("/a")) == DATA
        assert len(server.requests) == 2


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cuts", [[1000], [50_000, 50_000, 1], [300, 100, 100_000, 400]])
def test_nginx_behind_a_bad_network(nginx, cuts, way):
    """Connections to nginx that break are continued: it is asked for the rest only."""
    name = put(nginx, f"cut-{way}-{'-'.join(map(str, cuts))}.bin")
    with cutting_relay(nginx.port, cuts) as port:
        assert whole(f"http://127.0.0.1:{port}/{name}", way=WAYS[way]) == DATA
    starts = [int(a.range.strip("bytes=-")) for a in nginx.asked(f"/{name}") if a.range != "-"]
    assert starts == sorted(starts)
    assert len(nginx.asked(f"/{name}")) <= len(cuts) + 2


@pytest.mark.parametrize("cut", [1000, 70_000, 200_000])
def test_nginx_without_ranges_behind_a_bad_network(nginx, cut):
    """Without ranges the object is read again from its beginning, and what was there already is passed over."""
    name = put(nginx, f"again-{cut}.bin")
    with cutting_relay(nginx.without_ranges, [cut, cut]) as port:
        assert whole(f"http://127.0.0.1:{port}/{name}") == DATA


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "max_ranges 0"])
def test_nginx_notices_that_a_file_was_replaced(nginx, ranges):
    """A file that is replaced while it is read is an error, and no byte of the new one is given."""
    name = put(nginx, f"replaced-{ranges}.bin")
    rest: list[bytes] = []
    port = nginx.port if ranges else nginx.without_ranges
    with cutting_relay(port, [10_000]) as cut, places.open_read(f"http://127.0.0.1:{cut}/{name}", QUICK) as stream:
        assert stream.read(5000) == DATA[:5000]
        put(nginx, name, OTHER + b"!")
        pieces = iter(stream.read1, b"")
        with pytest.raises(OpenError, match="replaced while it was read"):
            rest.extend(pieces)
    assert DATA[5000:].startswith(b"".join(rest))
