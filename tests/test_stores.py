"""What all stores do: reading, ranges, sizes, listings, from threads and other processes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import threading

import pytest

from opener_contract import DATA, ReaderContract
from webdataset.errors import NotFoundError, OpenError
from webdataset.gopen import gopen
from webdataset.storage import pages, places
from webdataset.storage.target import Entry

NAMES = ["a.tar", "a b/ü+&=%41?x#y.tar", "deep/er/a'(1)*!~$,;:@.tar"]


class TestReading(ReaderContract):
    """Every store serves what openers must."""

    @pytest.fixture
    def url_of(self, store):
        return lambda data: store.put("some/object.tar", data)

    @pytest.fixture
    def missing(self, store):
        store.put("there.tar", b"x")
        return store.url("nothing.tar")


@pytest.mark.parametrize("name", NAMES)
def test_any_name(store, name):
    """A name is taken as it is written: opened, read in parts, measured and listed under one url."""
    url = store.put(name, DATA)
    assert gopen(url).read() == DATA
    size, etag = places.stat(url)
    assert size == len(DATA)
    assert etag.startswith('"')
    assert places.read_part(url, 5, 5000, etag=etag)[0] == DATA[5:5000]
    assert places.read_part(url, len(DATA) - 3, len(DATA) + 100)[0] == DATA[-3:]
    (entry,) = places.entries(store.url(""))
    assert entry[:2] == (url, size)
    assert entry.etag in (None, etag)


def test_another_version_is_refused(store):
    """A range of an object that is not the wanted version any more is an error."""
    url = store.put("a.tar", DATA)
    etag = places.stat(url).etag
    store.put("a.tar", DATA[::-1])
    with pytest.raises(OpenError, match="the object was replaced"):
        places.read_part(url, 0, 10, etag=etag)[0]


def test_listing_by_prefix(store):
    """Entries are those whose url begins with the one that was asked for, sorted by url, over all pages."""
    names = ["a.tar", *(f"b/{number}.tar" for number in range(12)), "b/c/3.tar", "c.tar"]
    if "S3RVER" not in os.environ.values():  # whose pages lose names that are neighbours of a folder's
        names += ["b.tar", "ba.tar"]
    for name in reversed(names):
        store.put(name, name.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "PAGE", 3)
        for prefix in ("", "b", "b/", "b/1", "b/c/3.tar", "nothing", "no/thing", "b/c/no"):
            found = list(places.entries(store.url(prefix)))
            wanted = sorted(name for name in names if name.startswith(prefix))
            assert [entry[:2] for entry in found] == [(store.url(name), len(name)) for name in wanted]


def test_etags_of_listings(store):
    """Where a listing tells ETags, they are those of the objects."""
    if store.url("").startswith("hf:"):
        store.put("a.tar", DATA)
        assert [Entry(store.url("a.tar"), len(DATA), None)] == list(places.entries(store.url("")))
        return
    for name in ("a.tar", "b.tar"):
        store.put(name, name.encode())
    listed = {entry.url: entry.etag for entry in places.entries(store.url(""))}
    assert listed == {store.url(name): places.stat(store.url(name)).etag for name in ("a.tar", "b.tar")}
    assert len(set(listed.values())) == 2


def test_missing_containers(store):
    """A bucket, container or repository that is not there is an error that names the url, for all that can be asked."""
    store.put("a.tar", b"x")
    url = store.url("a.tar").replace("//datasets/owner/name", "//datasets/owner/other")
    url = url.replace(getattr(store, "bucket", getattr(store, "container", "?")), "no-such-place")
    with pytest.raises(OpenError, match=r"there is no (bucket|container|such repository)") as caught:
        gopen(url)
    assert str(caught.value).startswith(f"{url}: HTTP 40")
    with pytest.raises(OpenError):
        places.stat(url)
    with pytest.raises(OpenError):
        list(places.entries(url))


def test_nothing_there(store):
    """Size and ranges of what is not there are the same error as opening it."""
    store.put("a.tar", b"x")
    for ask in (gopen, places.stat, lambda url: places.read_part(url, 0, 5)[0]):
        with pytest.raises(NotFoundError):
            ask(store.url("b.tar"))


def read_into(queue, url):
    data = gopen(url).read()
    queue.put((hashlib.sha256(data).hexdigest(), [entry.size for entry in places.entries(url)]))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes(store, method):
    """After it was read here, an object reads in forked and in spawned processes, and here again."""
    url = store.put("a.tar", DATA)
    assert gopen(url).read() == DATA
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    workers = [context.Process(target=read_into, args=(queue, url)) for _ in range(2)]
    for worker in workers:
        worker.start()
    found = [queue.get() for _ in workers]
    for worker in workers:
        worker.join()
    assert found == [(hashlib.sha256(DATA).hexdigest(), [len(DATA)])] * 2
    assert gopen(url).read() == DATA


def test_threads(store):
    """Threads that begin at the same time all read."""
    url = store.put("a.tar", DATA)
    found = []
    threads = [threading.Thread(target=lambda: found.append(gopen(url).read() == DATA)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 8
