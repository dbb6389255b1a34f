"""The command `widsindex`, as a process and as functions: files of published wids are the oracle."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import foreign_data, tar_bytes, write_shards
from servers import serve
from wids.wids_index import AtomicJsonUpdate, format_with_suffix, maybe_decode, shorten_name, urldirbase, urlfile

WIDS = foreign_data() / "wids"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WIDS_CACHE", str(tmp_path / "cache"))


def widsindex(folder: Path, *args: object, status: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "wids.wids_index", *map(str, args)],
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stderr
    return done


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(WIDS, tmp_path / "wids")
    return tmp_path / "wids"


def test_create_gives_what_published_wids_gave(folder):
    """The file is the same, byte for byte; the name is told, and each shard."""
    done = widsindex(folder, "create", "-o", "new.json", "shards/amber-00{0..2}.tar")
    assert (folder / "new.json").read_bytes() == (folder / "amber.json").read_bytes()
    assert done.stdout.splitlines() == ["setting name to shards-amber", *(f"shards/amber-00{n}.tar" for n in range(3))]


def test_create_expands_stars_that_no_shell_has_expanded(folder):
    """A star in quotes stands for the shards that match; where none does, one line says so."""
    widsindex(folder, "create", "-o", "new.json", "-n", "amber-train", "shards/amber-00*.tar")
    assert [shard["url"] for shard in read(folder / "new.json")["shardlist"]] == [
        f"shards/amber-00{n}.tar" for n in range(len(list((folder / "shards").glob("amber-00*.tar"))))
    ]
    done = widsindex(folder, "create", "-o", "none.json", "-n", "none", "nothing-*.tar", status=1)
    assert "nothing-*.tar" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_create_with_everything(folder):
    """Name, base and description; names from standard input."""
    (folder / "info.txt").write_text("hällo\n", encoding="utf-8")
    given = ["create", "-", "-o", "new.json", "-n", "mine", "-b", "http://h/d", "-i", "info.txt"]
    widsindex(folder, *given, stdin="shards/amber-001.tar\nshards/amber-000.tar\n")
    spec = read(folder / "new.json")
    assert (spec["name"], spec["base"], spec["info"]) == ("mine", "http://h/d", "hällo\n")
    assert [shard["nsamples"] for shard in spec["shardlist"]] == [3, 5]


def test_create_of_remote_and_compressed_shards(tmp_path):
    """Shards on a server are read once; size and MD5 are those of the file, also of a compressed one."""
    import gzip

    data = gzip.compress(tar_bytes({f"{n:03d}.txt": b"x" * n for n in range(50)})) + bytes(100)
    with serve({"/a.tar.gz": data}) as server:
        widsindex(tmp_path, "create", server.url("/a.tar.gz"))
        assert sum(request.sent for request in server.requests) == len(data)
        assert read(tmp_path / "shardindex.json")["shardlist"] == [
            {
                "url": server.url("/a.tar.gz"),
                "md5sum": hashlib.md5(data).hexdigest(),
                "nsamples": 50,
                "filesize": len(data),
            }
        ]


def test_create_of_damaged_shards_writes_nothing(tmp_path):
    """One line says which shard is damaged; there is no index then."""
    (tmp_path / "bad.tar").write_bytes(tar_bytes({"a.txt": b"x" * 5000})[:2000])
    done = widsindex(tmp_path, "create", "bad.tar", status=1)
    assert done.stderr.startswith("widsindex create: bad.tar!a.txt: ")
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bad.tar"]


def test_update(folder):
    """Each option changes its key; what was before is beside it; others stay as they are."""
    before = (folder / "amber.json").read_bytes()
    widsindex(folder, "update", "-i", "text", "-b", "http://h", "amber.json")
    assert (folder / "amber.json.bak").read_bytes() == before
    spec = read(folder / "amber.json")
    assert (spec["name"], spec["info"], spec["base"]) == ("shards-amber", "text", "http://h")
    assert "keep" not in spec
    for option, keep in (("-k", True), ("-K", False)):
        widsindex(folder, "update", option, "-n", "new", "amber.json")
        assert (read(folder / "amber.json")["keep"], read(folder / "amber.json")["name"]) == (keep, "new")
    widsindex(folder, "update", "-d", "http://h/z/", "amber.json")
    assert read(folder / "amber.json")["shardlist"][1]["url"] == "http://h/z/amber-001.tar"
    widsindex(folder, "update", "-D", "amber.json")
    assert read(folder / "amber.json")["shardlist"][1]["url"] == "amber-001.tar"
    widsindex(folder, "update", "amber-minimal.json")
    assert read(folder / "amber-minimal.json")["name"] == "amber-minimal"


def test_rebase(folder, tmp_path):
    """The folder that all shards share becomes the base, from whatever folder the command is called."""
    widsindex(tmp_path, "update", "-B", "wids/amber.json")
    spec = read(folder / "amber.json")
    assert spec["base"] == f"file://{folder}/shards"
    assert [shard["url"] for shard in spec["shardlist"]] == [f"amber-00{n}.tar" for n in range(3)]
    assert "stone" in widsindex(tmp_path, "sample", "wids/amber.json", 0, "-c", ".txt").stdout
    spec["shardlist"][0]["url"] = "other/x.tar"
    (folder / "amber.json").write_text(json.dumps(spec))
    done = widsindex(tmp_path, "update", "-B", "wids/amber.json", status=1)
    assert "in 2 folders" in done.stderr


def test_info(folder):
    """Long and as a table, as published; entries without sizes count as nothing."""
    lines = widsindex(folder, "info", "amber.json").stdout.splitlines()
    assert lines == [
        "filename: amber.json",
        "            name: shards-amber",
        "            info: None",
        "            base: None (assumed: )",
        "      total size: 41.0k",
        "   total samples: 11.0",
        " avg sample size: 3.7k",
        "  avg shard size: 13.7k",
        "     first shard: shards/amber-000.tar",
        "      last shard: shards/amber-002.tar",
        "",
    ]
    lines = widsindex(folder, "info", "-t", "amber.json", "amber-minimal.json").stdout.splitlines()
    assert lines == [
        "file\tname\tnbytes\tnsamples\tbase\tlast\tdatasets",
        "amber.json\tshards-amber\t40960\t11\tNone\tshards/amber-002.tar\t0",
        "amber-minimal.json\tNone\t0\t11\tNone\tshards/amber-002.tar\t0",
    ]


def test_sample(folder):
    """Decoded, raw, cut to a width, or the bytes of one field alone."""
    shown = widsindex(folder, "sample", "amber.json", 3)
    assert shown.stdout.splitlines()[:3] == [
        ".cls           0",
        ".json          {'id': 820, 'tag': 'lantern', 'list': [7, 3, 5]}",
        ".txt           'signal cloud signal harbor maple copper harbor\\n'",
    ]
    assert shown.stderr.splitlines()[-1] == "dataset size: 11"
    assert widsindex(folder, "sample", "-r", "amber.json", 0).stdout.startswith(".cls           b'8'\n")
    assert widsindex(folder, "sample", "-w", 20, "amber.json", 0).stdout.splitlines()[1] == ".json          {'id'"
    text = widsindex(folder, "sample", "-c", ".txt", "amber.json", 0).stdout
    assert text == "maple meadow lantern stone violet river copper\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("sample", "amber.json", 11), "11 samples, there is no [11]"),
        (("sample", "-c", ".jpg", "amber.json", 0), "no field '.jpg'; it has .cls, .json, .txt"),
        (("info", "none.json"), "none.json: no such file"),
        (("create", "none.tar"), "none.tar: no such file"),
    ],
)
def test_what_fails_is_one_line(folder, args, message):
    """Status 1 and a line that says what is wrong, no traceback."""
    done = widsindex(folder, *args, status=1)
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_without_a_command(folder):
    """Status 2 and the usage."""
    assert "usage" in widsindex(folder, status=2).stderr


def test_an_update_that_fails_changes_nothing(folder):
    """A block that raises leaves the file as it was, and no other."""
    names = sorted(path.name for path in folder.iterdir())
    before = (folder / "amber.json").read_bytes()
    with pytest.raises(TypeError), AtomicJsonUpdate(folder / "amber.json") as data:
        data["name"] = object()
    assert (folder / "amber.json").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == names


def test_helpers(tmp_path, monkeypatch):
    """Numbers, names and folders as the command shows them."""
    numbers = (0, 999, 1000, 1234567, 1e9, 1e12, 1e15, 1e18)
    assert [format_with_suffix(n) for n in numbers] == ["0.0", "999.0", "1.0k", "1.2M", "1.0G", "1.0T", "1.0P", "1.0E"]
    names = ("data/imagenet-train-000000", "a-a-b_c-00", "x{000..001}", "http://h/a/b")
    assert [shorten_name(name) for name in names] == ["data-imagenet-train", "a-b_c", "x", "http-h-a-b"]
    monkeypatch.chdir(tmp_path)
    assert [urldirbase(url) for url in ("a/b", "/b", "http://h/a/b")] == [
        f"file://{tmp_path}/a",
        "file:///",
        "http://h/a",
    ]
    assert urlfile("http://h/a/b.tar") == "b.tar"
    import io

    assert maybe_decode({".txt": io.BytesIO(b"abc"), "__key__": "a"}) == {".txt": b"abc", "__key__": "a"}


@pytest.mark.parametrize("way", ["wids", "wds"])
def test_the_benchmark(tmp_path, way):
    """`wids_bench` counts the samples of both ways."""
    urls = write_shards(tmp_path, 2, 5)
    spec = {"wids_version": 1, "shardlist": [{"url": url, "nsamples": 5} for url in urls]}
    (tmp_path / "x.json").write_text(json.dumps(spec))
    done = subprocess.run(
        [sys.executable, "-m", "wids.wids_bench", way, str(tmp_path / "x.json")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("10 samples in ")
