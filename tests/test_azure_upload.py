"""Writing to Azure: azurite takes what is written whole, or not at all."""

from __future__ import annotations

import random

import pytest

from store_relay import relay
from webdataset import ShardWriter, TarWriter
from webdataset.errors import OpenError
from webdataset.storage.options import storage_options
from webdataset.storage.places import open_read, open_write, stat
from webdataset.storage.target import Stat

MiB = 1 << 20
DATA = random.Random(8).randbytes(21 * MiB)


def write(url: str, data: bytes, **options) -> None:
    with open_write(url, storage_options(**{"backoff": 0.01, "attempts": 4, **options})) as stream:
        for start in range(0, len(data), 500_000):
            stream.write(data[start : start + 500_000])


def read(url: str) -> bytes | None:
    try:
        with open_read(url) as stream:
            return stream.read()
    except FileNotFoundError:
        return None


@pytest.mark.parametrize("size", [0, 1, 8 * MiB, 8 * MiB + 1, 21 * MiB])
def test_what_is_written_is_there(azure, size):
    """Blobs of any size, in one request up to 8 MiB and in blocks beyond, under names that must be quoted."""
    write(azure.url("a b/ü+%41.tar"), DATA[:size])
    assert read(azure.url("a b/ü+%41.tar")) == DATA[:size]


@pytest.mark.parametrize("size", [1000, 21 * MiB])
def test_each_request_may_fail(azure, size):
    """With 500, 503 or a broken connection: the blob is whole."""
    faults = {0: "500", 1: "cut", 2: "503"}
    url = azure.url("a")
    with relay(azure.endpoint, lambda request: faults.get(request.count)) as between:
        write(url, DATA[:size], endpoint=f"{between.base}/{azure.account}")
    assert read(url) == DATA[:size]


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("size", [1000, 9 * MiB])
def test_a_lost_answer_is_no_failure(azure, size, overwrite):
    """Where the server made the blob and its answer was lost, the second attempt finds out that it is ours."""

    def lose_the_end(request):
        ends = request.method == "PUT" and request.query.get("comp") != "block"
        return "lost" if ends and request.count == 0 else None

    with relay(azure.endpoint, lose_the_end) as between:
        write(azure.url("a"), DATA[:size], endpoint=f"{between.base}/{azure.account}", overwrite=overwrite)
    assert read(azure.url("a")) == DATA[:size]


@pytest.mark.parametrize("size", [1000, 9 * MiB])
def test_a_blob_that_is_there_stays(azure, size):
    """With overwrite=False, also one that came in between; by default it is replaced."""
    url = azure.url("a")
    stream = open_write(url, storage_options(overwrite=False))
    stream.write(DATA[:size])
    write(url, b"precious")
    with pytest.raises(OpenError, match=r"/a: it exists; .* overwrite=True"):
        stream.close()
    with pytest.raises(OpenError, match=r"/a: it exists; .* overwrite=True"):
        open_write(url, storage_options(overwrite=False))
    assert read(url) == b"precious"
    write(url, DATA[:size])
    assert stat(url).size == size


def test_an_exception_leaves_no_blob(azure):
    """Blocks that were sent are not visible."""

    def fail_in_the_middle():
        with open_write(azure.url("a")) as stream:
            stream.write(DATA)
            raise KeyError

    with pytest.raises(KeyError):
        fail_in_the_middle()
    assert read(azure.url("a")) is None


def test_shards_and_archives(azure, tmp_path):
    """ShardWriter and TarWriter write the same bytes as to files, and a conversion goes on there."""
    samples = [{"__key__": f"{number:03d}", "bin": bytes([number]) * 3_000_000} for number in range(8)]
    for pattern in (f"{tmp_path}/a-%d.tar", azure.url("a-%d.tar")):
        with ShardWriter(pattern, maxcount=4, resume=True) as sink:
            for sample in sink.remaining(samples):
                sink.write(sample)
    with TarWriter(azure.url("one.tar")) as sink:
        for sample in samples[:4]:
            sink.write(sample)
    assert [read(azure.url(f"a-{number}.tar")) for number in range(2)] == [
        (tmp_path / f"a-{number}.tar").read_bytes() for number in range(2)
    ]
    assert read(azure.url("one.tar")) == (tmp_path / "a-0.tar").read_bytes()
    with ShardWriter(azure.url("a-%d.tar"), maxcount=4, resume=True) as sink:
        assert (sink.done, list(sink.remaining(samples))) == (8, [])
    assert isinstance(stat(azure.url("a-0.tar")), Stat)
