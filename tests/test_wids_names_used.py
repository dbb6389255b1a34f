"""Names of published wids that no other test calls, on real files."""

from __future__ import annotations

import argparse
import json

import pytest

from helpers import tar_bytes
from wids import wids as old
from wids import wids_dl, wids_index, wids_mmtar

DATA = tar_bytes({f"{number}.{field}": b"%d" % number for number in range(3) for field in ("txt", "cls")})


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(DATA)
    return path


def test_downloads_by_kind(shard, tmp_path):
    """A path is copied, a command runs with `{local}` or its output is kept; one file onto itself is left alone."""
    wids_dl.copy_file(str(shard), str(tmp_path / "b.tar"))
    wids_dl.copy_file(str(shard), str(shard))
    wids_dl.pipe_download(f"pipe:cat {shard}", str(tmp_path / "c.tar"))
    wids_dl.pipe_download(f"pipe:cp {shard} {{local}}", str(tmp_path / "d.tar"))
    assert wids_dl.download_file_no_log(str(shard), str(tmp_path / "new" / "e.tar")) == str(tmp_path / "new" / "e.tar")
    for name in ("a.tar", "b.tar", "c.tar", "d.tar", "new/e.tar"):
        assert (tmp_path / name).read_bytes() == DATA


def test_open_objects_are_counted(shard, tmp_path, monkeypatch):
    """What was downloaded and opened is known while it is open, and no more than `max_open_objects` are."""
    with wids_dl.download_and_open(str(shard), str(tmp_path / "b.tar")) as stream:
        assert stream in wids_dl.open_objects.values()
        monkeypatch.setattr(wids_dl, "max_open_objects", 1)
        with pytest.raises(RuntimeError, match="Too many open objects"):
            wids_dl.download_and_open(str(shard), str(tmp_path / "c.tar"))


def test_flags_of_commands(monkeypatch):
    """`vcmd` gives the flag of a quiet command, or that of a verbose one."""
    assert wids_dl.vcmd("-q", "-v") == "-q"
    monkeypatch.setattr(wids_dl, "verbose_cmd", 1)
    assert wids_dl.vcmd("-q", "-v") == "-v"


def test_archives_by_number(shard):
    """`get_at_index` gives name and bytes; headers are named fields of bytes."""
    with shard.open("rb") as stream:
        archive = wids_mmtar.MMIndexedTar(stream)
        assert archive.get_at_index(2) == ("1.txt", b"1")
        archive.close()
    assert wids_mmtar.TarHeader._fields[:5] == ("name", "mode", "uid", "gid", "size")


def test_shards_that_are_let_go_are_closed(shard):
    """`release_handler` is called with each shard that leaves the cache, and closes it."""
    shards = old.LRUShards(1)
    samples = old.IndexedTarSamples(path=str(shard))
    assert samples[0][".txt"].read() == b"0"
    shards.release_handler("a", samples)
    assert old.open_itfs == {}
    assert old.T_co.__covariant__


def test_commands_as_functions(shard, tmp_path, monkeypatch, capsys):
    """What `widsindex` does can be called with parsed arguments."""
    monkeypatch.chdir(tmp_path)
    given = argparse.Namespace(files=["a.tar"], output="i.json", name="mine", info=None, base=None)
    wids_index.main_create(given)
    changes = {"info": "three", "keep": True, "nokeep": False, "nodir": False, "dir": None, "rebase": False}
    wids_index.main_update(argparse.Namespace(filename="i.json", name="ours", base=None, **changes))
    spec = json.loads((tmp_path / "i.json").read_text())
    assert (spec["name"], spec["info"], spec["keep"], spec["shardlist"][0]["nsamples"]) == ("ours", "three", True, 3)
    capsys.readouterr()
    wids_index.main_info(argparse.Namespace(filenames=["i.json"], table=False))
    told = capsys.readouterr().out
    wids_index.print_long_info(spec, "i.json")
    assert told == capsys.readouterr().out
    assert "total samples: 3" in told
    wids_index.main_sample(argparse.Namespace(filename="i.json", index=1, raw=True, cat=".txt", width=80))
    assert capsys.readouterr().out.endswith("1")


def test_values_may_be_streams(tmp_path):
    """`maybe_read` reads what can be read, and gives everything else back."""
    path = tmp_path / "x"
    path.write_bytes(b"bytes")
    with path.open("rb") as stream:
        assert wids_index.maybe_read(stream) == b"bytes"
    assert wids_index.maybe_read(5) == 5
