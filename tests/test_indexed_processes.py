"""Random access by several processes: forked, spawned, killed, at once, without a place to write; what they hold."""

from __future__ import annotations

import hashlib
import inspect
import json
import lzma
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import webdataset as wds
from helpers import names_in, tar_bytes
from nginx import Nginx
from test_indexed import as_pairs, streamed, write_shards
from webdataset.errors import OpenError
from webdataset.indexed import OPEN_SHARDS
from webdataset.indexfiles import parse_ours


def digest(samples: Any) -> str:
    """One text for what is in samples, wherever they come from."""
    whole = hashlib.sha256()
    for sample in samples:
        whole.update(repr(sorted((name, data) for name, data in sample.items() if name != "__url__")).encode())
    return whole.hexdigest()


def peak() -> int:
    """Bytes that this program held in memory at most; ru_maxrss counts what its parent held too."""
    return int(re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[0]) * 1024


HELPERS = "import hashlib, re\nfrom pathlib import Path\nfrom typing import Any\n"
HELPERS += inspect.getsource(digest) + inspect.getsource(peak)


def started(code: str, *arguments: Any, **environment: str) -> subprocess.Popen[str]:
    """A new Python that runs this code."""
    command = [sys.executable, "-c", HELPERS + code, *map(str, arguments)]
    environment = {**os.environ, **environment}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def outcome(process: subprocess.Popen[str]) -> str:
    """What it printed; it must have ended well."""
    text, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    return text


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Indexes are cached in a folder of the test."""
    monkeypatch.setenv("WDS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


READ_FOR_EVER = """
import random, sys
import webdataset as wds, wids
kind, path, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
if kind == "wids":
    ds = wids.ShardListDataset([{"url": path, "nsamples": count}], transformations=[])
else:
    ds = wds.IndexedDataset(path, cache_dir="")
ds[count - 1]
print("ready", flush=True)
try:
    while True:
        ds[random.randrange(count)]
except Exception as exn:
    print(type(exn).__name__, "|", exn)
"""


@pytest.mark.parametrize("kind", ["wids", "indexed"])
@pytest.mark.parametrize("left", [0, 3, 0.5])
def test_a_file_that_another_process_cuts_is_an_error(kind: str, left: float, tmp_path: Path) -> None:
    """While samples are read, the file is cut: the reader gets an error that names it, and no signal kills it."""
    (path,) = write_shards(tmp_path, 40, size=200_000)
    reader = started(READ_FOR_EVER, kind, path, 40)
    assert reader.stdout is not None
    assert reader.stdout.readline() == "ready\n"
    os.truncate(path, int(os.path.getsize(path) * left) if left < 1 else int(left))
    text = outcome(reader)
    assert re.match("StaleIndexError|TruncatedError", text), text
    assert path in text


INDEX_AT_ONCE = """
import sys
import webdataset as wds
print("ready", flush=True)
sys.stdin.readline()
print(digest(wds.IndexedDataset(sys.argv[1:])))
"""


def test_processes_that_index_at_once_leave_whole_files(cache: Path, tmp_path: Path) -> None:
    """Eight processes that begin together give the samples; whoever looks meanwhile sees no index or a whole one."""
    paths = write_shards(tmp_path / "data", 3000, 2000, 1000)
    expected = digest(wds.IndexedDataset(paths, cache_dir=""))
    processes = [started(INDEX_AT_ONCE, *paths) for _ in range(8)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    seen = 0
    while any(process.poll() is None for process in processes):
        for file in (cache / "index").glob("*.index"):
            assert len(parse_ours(file.read_bytes())[0]) in (1000, 2000, 3000)
            seen += 1
        time.sleep(0.001)
    assert {outcome(process) for process in processes} == {expected + "\n"}
    assert seen
    assert [Path(name).suffix for name in names_in(cache)] == [".index"] * 3


COPY_AT_ONCE = """
import logging, sys
import webdataset as wds
logging.basicConfig(stream=sys.stdout, format="%(message)s")
print("ready", flush=True)
sys.stdin.readline()
print("digest", digest(wds.IndexedDataset(sys.argv[1])))
"""


def test_processes_that_decompress_at_once_make_one_copy(cache: Path, tmp_path: Path) -> None:
    """Of six processes that begin together one decompresses, and says so; the others wait for its copy."""
    (path,) = write_shards(tmp_path / "data", 100, size=200_000)
    expected = digest(wds.IndexedDataset(path, cache_dir=""))
    packed = tmp_path / "data" / "a.tar.xz"
    packed.write_bytes(lzma.compress(Path(path).read_bytes(), preset=0))
    processes = [started(COPY_AT_ONCE, packed, TMPDIR="/proc/none") for _ in range(6)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    texts = [outcome(process) for process in processes]
    assert [text.splitlines()[-1] for text in texts] == [f"digest {expected}"] * 6
    assert "".join(texts).count("decompressed once") == 1
    assert sorted(Path(name).suffix for name in names_in(cache)) == [".copy", ".index", ".plain"]


def test_a_copy_without_a_place_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither the cache nor a temporary file can be written, the error says what to do."""
    path = tmp_path / "a.tar.xz"
    path.write_bytes(lzma.compress(b"x" * 1000))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    with pytest.raises(OpenError, match=r"no place for a plain copy: .*; pass cache_dir or set TMPDIR"):
        wds.IndexedDataset(str(path), cache_dir=str(path / "below"))


STOP_WHILE_WRITING = """
import os, signal, sys, time
import webdataset as wds
where = sys.argv[1]
def stopping(function, before=lambda *args: None):
    def stopped(*args, **kw):
        if where != "replace" and b"webdataset-index" not in bytes(args[1][:200]):
            return function(*args, **kw)
        if where == "write":
            function(args[0], args[1][: len(args[1]) // 2])
        print("ready", flush=True)
        time.sleep(100)
    return stopped
name = "write" if where == "write" else "replace"
setattr(os, name, stopping(getattr(os, name)))
wds.IndexedDataset(sys.argv[2])
"""


@pytest.mark.parametrize("where", ["write", "replace"])
def test_a_killed_builder_leaves_nothing_that_is_trusted(where: str, cache: Path, tmp_path: Path) -> None:
    """A process that is killed while it writes an index, or before that has its name, is no hindrance to the next."""
    (path,) = write_shards(tmp_path / "data", 500)
    builder = started(STOP_WHILE_WRITING, where, path)
    assert builder.stdout is not None
    assert builder.stdout.readline() == "ready\n"
    assert not list((cache / "index").glob("*.index"))
    assert len(list(wds.IndexedDataset(path))) == 500  # beside the one that is stopped
    builder.kill()
    assert builder.wait() == -signal.SIGKILL
    builder.communicate()
    assert as_pairs(wds.IndexedDataset(path)) == streamed(Path(path))
    (file,) = (cache / "index").iterdir()
    assert file.suffix == ".index"
    assert len(parse_ours(file.read_bytes())[0]) == 500


SHARED = """
import multiprocessing, pickle, sys
import webdataset as wds

def child(ds, numbers, results):
    results.put(digest(ds[i] for i in numbers))

if __name__ == "__main__":
    urls, options = pickle.loads(bytes.fromhex(sys.argv[2]))
    ds = wds.IndexedDataset(urls, **options)
    ds[0], ds[len(ds) - 1], ds["0-000003"]  # open, with what reading leaves behind
    context = multiprocessing.get_context(sys.argv[1])
    results = context.Queue()
    parts = [range(k, len(ds), 4) for k in range(4)]
    children = [context.Process(target=child, args=(ds, part, results)) for part in parts]
    for each in children:
        each.start()
    mine = digest(ds)
    told = sorted(results.get() for _ in children)
    for each in children:
        each.join()
    assert [each.exitcode for each in children] == [0] * 4
    assert told == sorted(digest(ds[i] for i in part) for part in parts)
    print(mine)
"""


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("way", ["local", "remote", "copied", "zst", "gz", "one gz", "remote zst", "no cache"])
def test_processes_share_a_data_set(start: str, way: str, cache: Path, tmp_path: Path, nginx: Nginx) -> None:
    """Four processes and their parent read one data set at once that the parent has read before, however it is read."""
    remote = way in ("remote", "copied", "remote zst")
    folder = (nginx.folder if remote else tmp_path) / f"shared-{start}-{way.replace(' ', '-')}"
    paths = write_shards(folder, 30, 40, size=3000)
    expected = digest(wds.IndexedDataset(paths, cache_dir=""))
    if way.endswith(("zst", "gz")):
        kind = way.split()[-1]
        for path in paths:
            with wds.TarWriter(f"{path}.{kind}", encoder=False, seekable=way != "one gz") as sink:
                for sample in wds.WebDataset(path, cache_dir="", cache_size=0):
                    sink.write({name: value for name, value in sample.items() if name != "__url__"})
        paths = [f"{path}.{kind}" for path in paths]
    urls = [nginx.url(str(Path(path).relative_to(nginx.folder))) for path in paths] if remote else paths
    options = {"copied": {"cache_shards": True}, "no cache": {"cache_dir": ""}}.get(way, {})
    program = tmp_path / "shared.py"  # spawned processes import it
    program.write_text(HELPERS + SHARED)
    argument = pickle.dumps((urls, options)).hex()
    done = subprocess.run([sys.executable, str(program), start, argument], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, expected + "\n"), done.stderr


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users may read: pytest's own are for one user only."""
    folder = Path(tempfile.mkdtemp(prefix="wds-test-"))
    folder.chmod(0o755)
    yield folder
    for item in [folder, *folder.rglob("*")]:
        if item.is_dir():
            item.chmod(0o755)
    shutil.rmtree(folder)


NOWHERE_TO_WRITE = """
import os, sys, tempfile
import webdataset as wds
for url in sys.argv[2:]:
    list(wds.IndexedDataset(url, cache_dir=""))  # all that is needed is imported
if os.getuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
os.chdir(sys.argv[1])
for name in ("HOME", "XDG_CACHE_HOME", "WDS_CACHE", "TMPDIR"):
    os.environ.pop(name, None)
try:
    open("x", "w")
except OSError:
    pass
else:
    sys.exit("this folder should be read-only")
for cache in (None, sys.argv[1]):
    for url in sys.argv[2:]:
        ds = wds.IndexedDataset(url, cache_dir=cache)
        assert ds[len(ds) - 1] == list(ds)[-1]
        print(digest(ds))
"""


def test_another_user_without_a_place_to_write(open_folder: Path, nginx: Nginx) -> None:
    """A user without a home reads shards in a folder that is read-only, and remote ones; nothing is left anywhere."""
    paths = write_shards(open_folder / "data", 30, 40)
    seekable = open_folder / "data" / "b.tar.zst"
    with wds.TarWriter(str(seekable), encoder=False, seekable=True) as sink:
        for sample in wds.IndexedDataset(paths, cache_dir=""):
            sink.write({name: value for name, value in sample.items() if name != "__url__"})
    shutil.copytree(open_folder / "data", nginx.folder / "elsewhere")
    for item in [open_folder / "data", *(open_folder / "data").iterdir()]:
        item.chmod(0o555 if item.is_dir() else 0o444)
    urls = [paths[0], str(seekable), nginx.url("elsewhere/a-0.tar"), nginx.url("elsewhere/b.tar.zst")]
    before = names_in(open_folder)
    text = outcome(started(NOWHERE_TO_WRITE, open_folder / "data", *urls))
    both = [digest(wds.IndexedDataset(url, cache_dir="")) for url in (paths[0], paths)]
    assert text.split() == both * 4
    assert names_in(open_folder) == before


HELD = """
import json, os, sys
import webdataset as wds
def fds():
    return len(os.listdir("/proc/self/fd"))
urls = json.loads(sys.argv[1])
ds = wds.IndexedDataset(urls)
before, most = fds(), 0
for number, sample in enumerate(ds):
    most = max(most, fds())
    if number == len(ds) // 3:
        held = peak()
ds.fetch(range(len(ds)))
more = peak() - held
ds.close()
print(json.dumps({"most": most, "more": more, "after": fds() - before}))
"""


@pytest.mark.parametrize("place", ["local", "remote"])
def test_open_files_have_an_end(place: str, cache: Path, tmp_path: Path, nginx: Nginx) -> None:
    """Of 200 shards no more are open than OPEN_SHARDS, connections are few, and closing closes all."""
    folder = (tmp_path if place == "local" else nginx.folder) / "many-shards"
    paths = write_shards(folder, *[2] * 200)
    urls = [nginx.url(f"many-shards/{Path(path).name}") for path in paths] if place == "remote" else paths
    found = json.loads(outcome(started(HELD, json.dumps(urls))))
    assert found["most"] <= (OPEN_SHARDS if place == "local" else 0) + 40
    assert found["after"] <= 0


def test_iterating_takes_no_more_memory_the_longer_it_goes(cache: Path, tmp_path: Path) -> None:
    """Two thirds of 200 MB, after the first third, need no memory that the first third did not."""
    path = tmp_path / "large.tar"
    path.write_bytes(tar_bytes({f"{i:04d}.bin": bytes([i % 256]) * 500_000 for i in range(400)}))
    code = HELD.replace("ds.fetch(range(len(ds)))", "")
    found = json.loads(outcome(started(code, json.dumps([str(path)]))))
    assert found["more"] < 20e6


MANY = """
import json, sys
import webdataset as wds
ds = wds.IndexedDataset(sys.argv[1])
sample = ds[500_000_000]
held = peak()
print(json.dumps({"length": len(ds), "key": sample["__key__"], "bytes": held}))
"""


def test_a_json_of_a_hundred_thousand_shards(cache: Path, tmp_path: Path) -> None:
    """A list of 100,000 shards with 10^9 samples takes less than 300 MB, and one shard is opened for one sample."""
    (path,) = write_shards(tmp_path, 10_000, size=1)
    shards = [{"url": f"shard-{i:06d}.tar", "nsamples": 10_000} for i in range(100_000)]
    os.rename(path, tmp_path / shards[50_000]["url"])
    (tmp_path / "all.json").write_text(json.dumps({"wids_version": 1, "shardlist": shards}))
    found = json.loads(outcome(started(MANY, tmp_path / "all.json")))
    assert (found["length"], found["key"]) == (10**9, "0-000000")
    assert found["bytes"] < 300e6


def test_closing_while_a_thread_reads_gives_no_bytes_of_another_file(tmp_path: Path) -> None:
    """A shard that is being read when the data set is closed stays open until then, and files do not pile up."""
    paths = write_shards(tmp_path, 20)
    before = len(os.listdir("/proc/self/fd"))
    ds = wds.IndexedDataset(paths[:1])
    expected = ds[3]
    reading = ds._open[0]  # as a thread has it that is about to read
    ds.close()
    other = wds.IndexedDataset(write_shards(tmp_path / "other", 20)[:1])
    other[0]
    assert reading.read(3) == expected
    assert ds[3] == expected
    del reading
    ds.close()
    other.close()
    assert len(os.listdir("/proc/self/fd")) == before
