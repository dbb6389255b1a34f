"""Shards of CBOR items."""

from __future__ import annotations

import io

import cbor
import cbor2
import pytest

import webdataset as wds
from webdataset.errors import DecodingError

SAMPLES = [{"__key__": f"{n}", "data": bytes([n]) * n * 5000} for n in range(6)]
PACKAGES = pytest.mark.parametrize(("package", "stage"), [(cbor, "cbors_to_samples"), (cbor2, "cbors2_to_samples")])


def write_cbors(folder, package) -> list[str]:
    urls = []
    for shard in range(2):
        path = folder / f"{shard}.cbors"
        path.write_bytes(b"".join(package.dumps(sample) for sample in SAMPLES[3 * shard : 3 * shard + 3]))
        urls.append(str(path))
    return urls


@PACKAGES
def test_cbor_streams_are_read_whole(package, stage, tmp_path):
    """All items of all shards come, also through pipes, which cannot go back."""
    urls = write_cbors(tmp_path, package)
    for shards in (urls, [f"pipe:cat {url}" for url in urls]):
        assert list(wds.DataPipeline(wds.SimpleShardList(shards), getattr(wds, stage)())) == SAMPLES


@PACKAGES
def test_cbor_streams_that_are_cut(package, stage, tmp_path):
    """A cut inside an item is an error with shard and offset; a handler goes on with the next shard."""
    urls = write_cbors(tmp_path, package)
    first = len(package.dumps(SAMPLES[0])) + len(package.dumps(SAMPLES[1]))
    (tmp_path / "0.cbors").write_bytes((tmp_path / "0.cbors").read_bytes()[: first + 4000])
    source = wds.SimpleShardList(urls)
    with pytest.raises(DecodingError, match=rf"0\.cbors: the stream ends inside a CBOR item \(byte {first}\)"):
        list(wds.DataPipeline(source, getattr(wds, stage)()))
    skipping = getattr(wds, stage)(handler=wds.ignore_and_continue)
    assert list(wds.DataPipeline(wds.SimpleShardList(urls), skipping)) == SAMPLES[:2] + SAMPLES[3:]
    stopping = getattr(wds, stage)(handler=wds.ignore_and_stop)
    assert list(wds.DataPipeline(wds.SimpleShardList(urls), stopping)) == SAMPLES[:2]


def test_cbor_iterators_close_their_streams():
    """Each stream is closed at its end, and when the iterator is left."""
    from webdataset.cborsiterators import cbor2_iterator, cbor_iterator

    streams = [io.BytesIO(cbor.dumps(1) + cbor.dumps(2)) for _ in range(2)]
    assert list(cbor_iterator([{"url": "u", "stream": streams[0]}])) == [1, 2]
    items = cbor2_iterator([{"url": "u", "stream": streams[1]}])
    assert next(items) == 1
    items.close()
    assert [stream.closed for stream in streams] == [True, True]
