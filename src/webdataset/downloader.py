"""Keeping a folder filled with shards drawn at random: `RandomShardDownloader`; `python -m webdataset.downloader`."""

from __future__ import annotations

import logging
import math
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from threading import Lock, get_native_id
from typing import Any, NoReturn

from ._arguments import check_choice, check_number
from ._commandline import in_one_line
from .errors import ShardListError, public_url
from .gopen import gopen
from .shardlists import expand_urls
from .utils import fnmatch_with_braces, glob_with_braces

logger = logging.getLogger(__name__)

MODES = ("update", "replace")
ERRORS = ("ignore", "raise")
_choosing = Lock()  # not in the object, which may be pickled


def download_file(url: str, filename: str) -> None:
    """Copy what is at a url to a local file, which appears complete or not at all."""
    from shutil import copyfileobj

    temporary = f"{filename}.{os.getpid()}.partial"
    try:
        with gopen(url) as source, open(temporary, "wb") as target:
            copyfileobj(source, target, 1 << 20)
        os.replace(temporary, filename)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def get_oldest_file(files: Iterable[str]) -> str:
    """The file that was changed first; files that are gone come last."""

    def changed(path: str) -> float:
        try:
            return os.path.getmtime(path)
        except FileNotFoundError:
            return math.inf

    return min(files, key=changed)


def total_file_size(files: Iterable[str]) -> int:
    """Bytes in all these files, as far as they are still there."""
    total = 0
    for path in files:
        with suppress(FileNotFoundError):
            total += os.path.getsize(path)
    return total


def download_with(command: str) -> Callable[[str, str], None]:
    """A function (url, filename) that runs a shell command in which `{url}` and `{output}` are replaced, quoted.

    OSError where the command fails, or leaves no file; ValueError for a command with other names in braces.
    """
    try:
        command.format(url="", output="")
    except (KeyError, IndexError, ValueError) as exn:
        raise ValueError(
            f"command may have {{url}} and {{output}} in braces, and others doubled, got {command!r:.80}"
        ) from exn

    def download(url: str, filename: str) -> None:
        from shlex import quote
        from subprocess import run

        line = command.format(url=quote(url), output=quote(filename))
        status = run(line, shell=True, check=False).returncode  # noqa: S602 the program's own command
        if status != 0:
            raise OSError(f"{public_url('pipe:' + line)[5:]}: exit status {status}")
        if not os.path.exists(filename):
            raise OSError(f"{public_url('pipe:' + line)[5:]}: the command left no file {filename}")

    return download


def file_of_tempfile(tempfile: str) -> str:
    """The name that a file has once it is complete: `a.tar` of `a.tar.123.loading`."""
    return re.sub(r"\.\d+\.loading$", "", tempfile)


class RandomShardDownloader:
    """Keeps up to `nshards` of the shards, drawn at random, in a folder that a `DirectoryShardList` reads.

    Shards appear complete or not at all. A shard that is read, renamed to `<file>._<pid>_`, counts and
    is never removed.

    Raises:
        ShardListError: two shards have one file name, or a file name that `pattern` does not match.
    """

    def __init__(
        self,
        shards: Any,
        nshards: int,
        *,
        directory: str | None = None,
        pattern: str = "*.{tar,tgz,tar.gz}",
        increment: int = 999999,
        maxsize: int = 999999999999,
        verbose: bool = False,
        download: Callable[[str, str], Any] | None = None,
        errors: str = "ignore",
    ) -> None:
        """`shards` is a pattern or a list of urls.

        Args:
            shards: where the shards come from.
            nshards: how many the folder is to have.
            directory: the folder; `set_directory` sets it too.
            pattern: which files of the folder are shards.
            increment: how many an update adds at most.
            maxsize: bytes in the folder from which on nothing is added.
            verbose: log what is added and removed as information.
            download: called with a url and a file name; by default `download_file`.
            errors: "ignore" logs a shard that cannot be had and goes on; "raise" raises.
        """
        check_choice("RandomShardDownloader", "errors", errors, ERRORS)
        for name, value in (("nshards", nshards), ("increment", increment), ("maxsize", maxsize)):
            check_number("RandomShardDownloader", name, value, "bytes" if name == "maxsize" else "shards", least=0)
        self.shards: dict[str, str] = {}
        for url in expand_urls(shards):
            name = os.path.basename(url.partition("?")[0])
            if name in self.shards or not fnmatch_with_braces(name, pattern):
                fact = (
                    "another shard has this file name" if name in self.shards else f"the name does not match {pattern}"
                )
                raise ShardListError(f"{public_url(url)}: {fact}")
            self.shards[name] = url
        self.nshards = nshards
        self.directory = directory
        self.pattern = pattern
        self.increment = increment
        self.maxsize = maxsize
        self.level = logging.INFO if verbose else logging.DEBUG
        self.download = download or download_file
        self.errors = errors
        self._coming: list[str] = []  # what threads are downloading

    def set_directory(self, directory: str) -> None:
        """Use this folder, which is made if it is not there."""
        os.makedirs(directory, exist_ok=True)
        self.directory = directory

    def list_files(self, inactive: bool = False) -> list[str]:
        """Paths of the shards in the folder, sorted; with `inactive`, without those that somebody reads."""
        if self.directory is None:
            raise ValueError("RandomShardDownloader: no folder: pass directory=, or call set_directory")
        names = os.listdir(self.directory)
        chosen = [
            name
            for name in names
            if fnmatch_with_braces(name if inactive else re.sub(r"\._\d+_$", "", name), self.pattern)
        ]
        return sorted(os.path.join(self.directory, name) for name in chosen)

    def update(self) -> None:
        """Add shards until there are `nshards`, or `maxsize` bytes, or `increment` were added."""
        for _ in range(self.increment):
            name = self._choose()
            if name is None:
                return
            target = os.path.join(str(self.directory), name)
            temporary = f"{target}.{get_native_id()}.loading"
            try:
                self.download(self.shards[name], temporary)
                os.replace(temporary, target)
                logger.log(self.level, "added %s", target)
            except Exception as exn:
                if self.errors != "ignore":
                    raise
                logger.warning("%s: not added: %s", public_url(self.shards[name]), exn)
                return
            finally:
                self._coming.remove(name)
                if os.path.exists(temporary):
                    os.unlink(temporary)

    def _choose(self) -> str | None:
        """A shard that is to come, and that no other thread of this process takes; None if there are enough."""
        with _choosing:
            there = set(self._coming)  # asked first: what arrives in between is counted once, in the folder or here
            files = self.list_files()
            there.update(re.sub(r"\._\d+_$", "", os.path.basename(path)) for path in files)
            absent = sorted(self.shards.keys() - there)
            if len(there) >= self.nshards or not absent or total_file_size(files) >= self.maxsize:
                return None
            name = random.choice(absent)
            self._coming.append(name)
            return name

    def maybe_remove(self, strategy: str = "oldest") -> None:
        """If the folder has `nshards`, remove one that nobody reads: the "oldest", or a "random" one."""
        if strategy not in ("oldest", "random"):
            raise ValueError(f'RandomShardDownloader: strategy must be "oldest" or "random", got {strategy!r}')
        with _choosing, suppress(FileNotFoundError):  # somebody began to read it, or was faster
            idle = self.list_files(inactive=True)
            if idle and len(self.list_files()) >= self.nshards:
                path = get_oldest_file(idle) if strategy == "oldest" else random.choice(idle)
                os.unlink(path)
                logger.log(self.level, "removed %s", path)

    def sleep(self, poll: float = 10) -> None:
        """Wait about `poll` seconds, a little more or less, so that several do not come at once."""
        time.sleep(poll * random.uniform(0.8, 1.2))

    def update_every(self, poll: float = 10) -> NoReturn:
        """Update the folder every `poll` seconds, without end."""
        while True:
            self.update()
            self.sleep(poll)

    def replace_every(self, poll: float = 60, strategy: str = "oldest") -> NoReturn:
        """Replace one shard of the full folder every `poll` seconds, without end."""
        while True:
            self.maybe_remove(strategy)
            self.update()
            self.sleep(poll)

    def run_job(self, poll: float = 10, mode: str = "update", strategy: str = "oldest") -> NoReturn:
        """`update_every`, or with mode "replace" `replace_every`."""
        check_choice("run_job", "mode", mode, MODES)
        if mode == "update":
            self.update_every(poll)
        self.replace_every(poll, strategy)


def random_downloader(
    shards: str | Iterable[str],
    *,
    directory: str | None = None,
    nshards: int = 10,
    command: str | None = None,
    pattern: str = "*.{tar,tgz,tar.gz}",
    increment: int = 999999,
    maxsize: int = 999999999999,
    njobs: int = 1,
    poll: float = 10,
    mode: str = "update",
    errors: str = "ignore",
    verbose: bool = False,
) -> NoReturn:
    """Keep a folder filled with shards of these patterns, without end, with `njobs` downloads at a time.

    `command` is for `download_with`; the other arguments are those of `RandomShardDownloader` and its `run_job`.
    """
    from concurrent.futures import ThreadPoolExecutor

    check_number("random_downloader", "njobs", njobs, "downloads", whole=True, least=1)
    check_number("random_downloader", "poll", poll, "seconds", least=0)
    check_choice("random_downloader", "mode", mode, MODES)
    downloader = RandomShardDownloader(
        [url for one in ([shards] if isinstance(shards, str) else shards) for url in expand_urls(one)],
        nshards,
        pattern=pattern,
        increment=increment,
        maxsize=maxsize,
        verbose=verbose,
        download=None if command is None else download_with(command),
        errors=errors,
    )
    if directory is not None:
        downloader.set_directory(directory)

    def job(_: int) -> None:
        if mode == "replace":
            downloader.maybe_remove()
        downloader.update()

    with ThreadPoolExecutor(njobs) as pool:
        while True:
            list(pool.map(job, range(njobs)))  # an error of a job is raised here
            downloader.sleep(poll)


def main(args: Sequence[str]) -> None:
    """The command: `random_downloader` with the arguments of a command line; `--help` explains them."""
    from argparse import SUPPRESS, ArgumentDefaultsHelpFormatter, ArgumentParser, BooleanOptionalAction

    parser = ArgumentParser(
        prog="python -m webdataset.downloader",
        description="Keep a folder filled with shards drawn at random, until this is interrupted.",
        epilog='example: python -m webdataset.downloader "https://host/train-{000..999}.tar" --directory /tmp/shards'
        " --nshards 50 --mode replace",
        formatter_class=ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("shards", nargs="+", help="where they come from: urls or paths, with {000..999}")
    parser.add_argument("--directory", required=True, default=SUPPRESS, help="the folder; made if it is not there")
    parser.add_argument("--nshards", type=int, default=10, help="how many shards the folder is to have")
    parser.add_argument(
        "--command", default=SUPPRESS, help="shell command that downloads {url} to {output}, instead of our own way"
    )
    parser.add_argument("--pattern", default="*.{tar,tgz,tar.gz}", help="which files of the folder are shards")
    parser.add_argument("--increment", type=int, default=999999, help="how many are added at once, at most")
    parser.add_argument("--maxsize", type=int, default=999999999999, help="bytes from which on nothing is added")
    parser.add_argument("--njobs", type=int, default=1, help="downloads at a time")
    parser.add_argument("--poll", type=float, default=10, help="seconds between two looks at the folder")
    parser.add_argument("--mode", choices=MODES, default="update", help="fill the folder; or also remove the oldest")
    parser.add_argument("--errors", choices=ERRORS, default="ignore", help="what becomes of a failed download")
    parser.add_argument("--verbose", action=BooleanOptionalAction, default=False, help="log what comes and goes")
    options = vars(parser.parse_args(list(args)))
    logging.basicConfig(level=logging.INFO if options["verbose"] else logging.WARNING, format="%(message)s")
    with in_one_line(parser.prog):
        random_downloader(**options)


if __name__ == "__main__":
    main(sys.argv[1:])

__all__ = [
    "RandomShardDownloader",
    "download_file",
    "download_with",
    "file_of_tempfile",
    "fnmatch_with_braces",
    "get_oldest_file",
    "glob_with_braces",
    "gopen",
    "main",
    "random_downloader",
    "total_file_size",
]
