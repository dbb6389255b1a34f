"""Index and stream give the same, for golden archives and those of hypothesis, in every way that a shard is read."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import lz4.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import webdataset as wds
from helpers import foreign_data
from nginx import Nginx
from test_indexed import ALL, as_pairs, streamed
from test_reader_property import Spec, build, several, specs
from webdataset.errors import DataError
from webdataset.handlers import ignore_and_continue
from webdataset.shardindex import write_sidecar
from webdataset.tar import frames
from webdataset.tar.compression import compression_of, zstd_module

zstd = zstd_module("tests")
PIECE = 3000


def in_pieces(compress: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda data: b"".join(compress(data[at : at + PIECE]) for at in range(0, len(data) or 1, PIECE))


def seekable(name: str, size: str) -> Callable[[bytes], bytes]:
    """What writers compress with, in frames so small that members lie in several."""

    def compress(data: bytes) -> bytes:
        with pytest.MonkeyPatch.context() as monkeypatch:
            monkeypatch.setattr(frames, size, PIECE)
            compressor = frames.SEEKABLE[name]()
            return compressor.compress(data) + compressor.flush()

    return compress


class Way(NamedTuple):
    """How a shard lies there (compressed, on a server, with which sidecar), and how it is read."""

    compress: Callable[[bytes], bytes] = bytes
    suffix: str = ".tar"
    remote: bool = False
    sidecar: str | None = None
    cached: bool = False
    through_cache: bool = False


SEEKABLE = Way(seekable("zst", "FRAME_SIZE"), ".tar.zst")
BGZF = Way(seekable("gz", "_BGZF_PLAIN"), ".tar.gz")
WAYS = {
    "local": Way(),
    "cached index": Way(cached=True),
    "energon": Way(sidecar="energon"),
    "dali": Way(sidecar="dali"),
    "remote": Way(remote=True),
    "remote, cached index": Way(remote=True, cached=True),
    "remote, energon": Way(remote=True, sidecar="energon"),
    "remote, dali": Way(remote=True, sidecar="dali"),
    "through the cache": Way(remote=True, cached=True, through_cache=True),
    "gzip": Way(gzip.compress, ".tar.gz"),
    "gzip members": Way(in_pieces(gzip.compress), ".tar.gz"),
    "BGZF": BGZF,
    "BGZF, energon": BGZF._replace(sidecar="energon"),
    "remote BGZF": BGZF._replace(remote=True, sidecar="gzi"),
    "zstd": Way(zstd.compress, ".tar.zst"),
    "zstd frames": Way(in_pieces(zstd.compress), ".tar.zst"),
    "seekable zstd": SEEKABLE,
    "seekable zstd, cached": SEEKABLE._replace(cached=True),
    "seekable zstd, energon": SEEKABLE._replace(sidecar="energon"),
    "remote seekable zstd": SEEKABLE._replace(remote=True),
    "remote zstd": Way(zstd.compress, ".tar.zst", remote=True),
    "bzip2": Way(bz2.compress, ".tar.bz2"),
    "xz": Way(lzma.compress, ".tar.xz"),
    "lz4": Way(lz4.frame.compress, ".tar.lz4"),
}


def laid(way: Way, name: str, data: bytes, folder: Path, nginx: Nginx) -> tuple[Path, str]:
    """The shard as this way has it: its file and its url."""
    path = (nginx.folder if way.remote else folder) / f"{name}{way.suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(way.compress(data))
    if way.sidecar:
        try:
            write_sidecar(path, way.sidecar)
        except DataError:
            pass  # it is damaged, or this kind cannot say what is in it
    return path, nginx.url(path.relative_to(nginx.folder).as_posix()) if way.remote else str(path)


def opened(way: Way, urls: list[str], folder: Path, fields: Any = None) -> wds.IndexedDataset:
    cache = str(folder / "cache") if way.cached else ""
    return wds.IndexedDataset(
        urls,
        fields,
        cache_dir=cache,
        handler=ignore_and_continue,
        sidecars=way.sidecar is not None,
        cache_shards=way.through_cache,
    )


def check(way: Way, urls: list[str], expected: Any, folder: Path, chosen: int) -> None:
    """All ways of asking give what is expected, of a data set whose index is made, and of one where it is there."""
    count = len(expected)
    some = sorted({chosen % (count or 1), chosen % 7 % (count or 1), count // 2}) if count else []
    fields = sorted({field for _, sample in expected for field in sample})[chosen % 2 :: 2]
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of streams that end oddly, as when they are read
            ds = opened(way, urls, folder)
        assert len(ds) == count
        assert as_pairs(ds) == expected
        assert as_pairs(ds[i] for i in some) == [expected[i] for i in some]
        assert as_pairs(ds.fetch(some[::-1])) == [expected[i] for i in some[::-1]]
        assert as_pairs(ds[count // 2 :]) == expected[count // 2 :]
        ds.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        less = opened(way, urls, folder, fields)
    assert as_pairs(less) == [(key, {f: data[f] for f in data if f in fields}) for key, data in expected]
    less.close()


@pytest.mark.parametrize("way", WAYS)
@settings(several, max_examples=30)
@given(spec=specs(), chosen=st.integers(0, 1 << 30))
def test_generated_archives(
    way: str, spec: Spec, chosen: int, tmp_path_factory: pytest.TempPathFactory, nginx: Nginx
) -> None:
    """Archives that hypothesis thinks of give the streamed samples, by number, together, in part, and by fields."""
    folder, data = tmp_path_factory.mktemp("ways"), build(spec)
    name = f"generated-{hashlib.sha256(data + way.encode()).hexdigest()}"
    path, url = laid(WAYS[way], name, data, folder, nginx)
    check(WAYS[way], [url], streamed(path), folder, chosen)
    if WAYS[way].remote:
        for beside in nginx.folder.glob(f"{name}*"):
            beside.unlink()


@pytest.mark.parametrize("way", WAYS)
def test_golden_archives(way: str, tmp_path: Path, nginx: Nginx) -> None:
    """All golden archives as one data set give the samples of a stream over them, damaged ones too."""
    urls, expected = [], []
    for number, name in enumerate(ALL):
        data = (foreign_data() / name).read_bytes()
        if compression_of(data[:6]) and WAYS[way].compress is not bytes:
            continue
        path, url = laid(WAYS[way], f"golden-{way.replace(' ', '-')}/{number:03d}/a", data, tmp_path, nginx)
        urls.append(url)
        expected += streamed(path)
    assert len(expected) > 400
    check(WAYS[way], urls, expected, tmp_path, 12345)
