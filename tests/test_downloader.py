"""RandomShardDownloader: a folder that stays filled, with real files."""

from __future__ import annotations

import inspect
import logging
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers import write_shards
from webdataset.downloader import (
    RandomShardDownloader,
    download_with,
    file_of_tempfile,
    get_oldest_file,
    random_downloader,
    total_file_size,
)
from webdataset.errors import NotFoundError, ShardListError


@pytest.fixture
def urls(tmp_path):
    (tmp_path / "source").mkdir()
    return write_shards(tmp_path / "source", 5, 2)


def test_the_folder_is_filled(tmp_path, urls):
    """Updates add `increment` shards up to `nshards`; one that is read counts; the bytes are those of the source."""
    loader = RandomShardDownloader(urls, 3, increment=2)
    loader.set_directory(str(tmp_path / "new" / "folder"))
    loader.update()
    first, second = loader.list_files()
    os.rename(first, f"{first}._123_")
    loader.update()
    assert len(loader.list_files()) == 3
    assert len(loader.list_files(inactive=True)) == 2
    loader.update()
    assert len(os.listdir(loader.directory)) == 3
    with open(second, "rb") as copy, open(tmp_path / "source" / os.path.basename(second), "rb") as original:
        assert copy.read() == original.read()


def test_one_is_removed(tmp_path, urls):
    """From a full folder, the oldest that nobody reads goes; from one that is not full, none."""
    loader = RandomShardDownloader(urls, 2, directory=str(tmp_path))
    loader.update()
    old, other = loader.list_files()
    os.utime(old, (1, 1))
    loader.maybe_remove()
    assert loader.list_files() == [other]
    loader.maybe_remove("random")
    assert loader.list_files() == [other]


def test_files_that_readers_take_meanwhile(tmp_path):
    """A file that is gone when it is looked at has no size and is not the oldest."""
    there = tmp_path / "a.tar"
    there.write_bytes(b"123")
    files = [str(tmp_path / "gone.tar"), str(there)]
    assert get_oldest_file(files) == str(there)
    assert total_file_size(files) == 3


def test_what_cannot_be_had(tmp_path, caplog):
    """It is logged, or raised; nothing stays of it."""
    loader = RandomShardDownloader([str(tmp_path / "absent.tar")], 1, directory=str(tmp_path))
    loader.update()
    assert "absent.tar: not added" in caplog.text
    loader.errors = "raise"
    with pytest.raises(NotFoundError):
        loader.update()
    assert os.listdir(tmp_path) == []


def test_commands(tmp_path, urls):
    """A command downloads too; its failure is an error."""
    download_with("cp {url} {output}")(urls[0], str(tmp_path / "a b"))
    assert (tmp_path / "a b").stat().st_size == os.path.getsize(urls[0])
    with pytest.raises(OSError, match="exit status 3"):
        download_with("exit 3")("x", "y")
    assert file_of_tempfile("/d/a.tar.123.loading") == "/d/a.tar"


def test_names_that_cannot_be(urls):
    """Two shards of one name, or a name that is no shard's, are errors at once."""
    for wrong, text in ((["/a/x.tar", "/b/x.tar"], "another shard"), (["/a/x.zip"], "does not match")):
        with pytest.raises(ShardListError, match=text):
            RandomShardDownloader(wrong, 1)
    with pytest.raises(ValueError, match="mode"):
        RandomShardDownloader(urls, 1).run_job(mode="x")


def test_folders_that_are_kept_filled_without_end(tmp_path, urls):
    """update_every adds, replace_every removes one and adds one, again and again, until an error that is raised."""
    for method, nshards in (("update_every", 99), ("replace_every", 1)):
        added = []

        def download(url, target, added=added):
            if len(added) == 2:
                raise EOFError("enough")
            added.append(Path(target).write_bytes(Path(url).read_bytes()))

        folder = tmp_path / method
        folder.mkdir()
        shards = RandomShardDownloader(urls, nshards, directory=str(folder), download=download, errors="raise")
        with pytest.raises(EOFError, match="enough"):
            getattr(shards, method)(0)
        assert len(added) == 2
        assert len(list(folder.iterdir())) == (2 if method == "update_every" else 0)


def test_several_downloads_at_a_time(tmp_path, urls):
    """No shard comes twice, none too many, and an error of any of them ends all."""
    taken: list[str] = []
    both = threading.Barrier(2, timeout=60)

    def download(url, target):
        taken.append(url)
        both.wait()
        Path(target).write_bytes(Path(url).read_bytes())

    shards = RandomShardDownloader(urls, 2, directory=str(tmp_path), download=download)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: shards.update(), range(3)))
    assert len(set(taken)) == len(taken) == 2 == len(shards.list_files())
    with pytest.raises(OSError, match="exit status 3"):
        random_downloader(urls, directory=str(tmp_path), command="exit 3", njobs=2, errors="raise")
    with pytest.raises(ValueError, match='mode must be "update" or "replace"'):
        random_downloader(urls[0], mode="x")


def test_what_counts_as_a_shard_and_how_much_there_may_be(tmp_path, urls, caplog):
    """Only names that the pattern takes count; nothing is added from `maxsize` bytes on; `verbose` tells what comes."""
    (tmp_path / "notes.tar").write_bytes(b"x")
    size = os.path.getsize(urls[0])
    options = {"directory": str(tmp_path), "pattern": "shard-*.tar", "maxsize": size + 1, "verbose": True}
    with caplog.at_level(logging.INFO, "webdataset.downloader"):
        RandomShardDownloader(urls, 4, **options).update()
    assert len(list(tmp_path.glob("shard-*.tar"))) == 2
    assert [record.levelname for record in caplog.records] == ["INFO"] * 2
    assert "added" in caplog.text


def test_jobs_with_all_their_arguments(tmp_path, urls):
    """run_job fills, or replaces in the way that is named, until an error; random_downloader does with its options."""
    for mode, strategy in (("update", "oldest"), ("replace", "random"), ("replace", "oldest")):
        folder = tmp_path / f"{mode}-{strategy}"
        folder.mkdir()
        left = iter(urls[:3])

        def download(url, target, left=left):
            Path(target).write_bytes(Path(next(left)).read_bytes())

        shards = RandomShardDownloader(urls, 2, directory=str(folder), download=download, errors="raise", increment=1)
        if mode == "replace":
            with pytest.raises(StopIteration):
                shards.run_job(poll=0, mode=mode, strategy=strategy)
            assert len(shards.list_files()) == 1
        else:
            shards.nshards = 9
            with pytest.raises(StopIteration):
                shards.run_job(poll=0, mode=mode, strategy=strategy)
            assert len(shards.list_files()) == 3
        with pytest.raises(ValueError, match='strategy must be "oldest" or "random"'):
            shards.replace_every(0, strategy="newest")
    folder = tmp_path / "function"
    enough = f"test $(ls {folder} | wc -l) -lt 3 && cp {{url}} {{output}}"
    with pytest.raises(OSError, match="exit status 1"):
        random_downloader(
            urls,
            directory=str(folder),
            nshards=4,
            command=enough,
            pattern="shard*",
            increment=1,
            maxsize=10**9,
            poll=0,
            errors="raise",
            verbose=True,
        )
    assert len(os.listdir(folder)) == 3


COMMAND = [sys.executable, "-W", "error", "-m", "webdataset.downloader"]


def test_the_command_fills_a_folder_until_it_is_interrupted(tmp_path, urls):
    """Patterns, a command that downloads, several jobs; Ctrl-C ends it, and leaves whole shards only."""
    pattern = str(Path(urls[0]).parent / "shard-{0000..0004}.tar")
    options = ["--directory", str(tmp_path / "new"), "--nshards", "3", "--njobs", "2", "--poll", "0.01", "--verbose"]
    with subprocess.Popen(
        [*COMMAND, pattern, *options, "--command", "cp {url} {output}", "--mode", "replace"],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        lines = [process.stderr.readline() for _ in range(8)]
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
    assert process.returncode == 130, rest
    assert {"added", "removed"} == {line.split()[0] for line in lines}
    assert all(path.suffix == ".tar" for path in (tmp_path / "new").iterdir())


def test_the_command_teaches():
    """--help names every option with its default; what is missing is said."""
    shown = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True).stdout
    for name in inspect.signature(random_downloader).parameters:
        assert f"--{name} " in shown or f"--{name}," in shown or name == "shards"
    assert "default: None" not in shown
    wrong = subprocess.run([*COMMAND, "a.tar"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, "--directory" in wrong.stderr) == (2, True)
    command = [*COMMAND, "a.tar", "--directory", __file__]
    wrong = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (wrong.returncode, len(wrong.stderr.splitlines()), __file__ in wrong.stderr) == (1, 1, True)
