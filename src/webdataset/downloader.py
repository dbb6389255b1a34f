"""Keeping a folder filled with shards drawn at random: `RandomShardDownloader`, and its helpers."""

from __future__ import annotations

import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from .errors import ShardListError, public_url
from .gopen import gopen
from .shardlists import expand_urls
from .utils import fnmatch_with_braces, glob_with_braces

logger = logging.getLogger(__name__)


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
    """The file that was changed first."""
    return min(files, key=os.path.getmtime)


def total_file_size(files: Iterable[str]) -> int:
    """Bytes in all these files."""
    return sum(os.path.getsize(path) for path in files)


def download_with(command: str) -> Callable[[str, str], None]:
    """A function (url, filename) that runs a shell command in which `{url}` and `{output}` are replaced, quoted.

    OSError where the command fails.
    """

    def download(url: str, filename: str) -> None:
        from shlex import quote
        from subprocess import run

        line = command.format(url=quote(url), output=quote(filename))
        status = run(line, shell=True, check=False).returncode  # noqa: S602 the program's own command
        if status != 0:
            raise OSError(f"{public_url('pipe:' + line)[5:]}: exit status {status}")

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
        if errors not in ("ignore", "raise"):
            raise ValueError(f'errors must be "ignore" or "raise", got {errors!r}')
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

    def set_directory(self, directory: str) -> None:
        """Use this folder, which is made if it is not there."""
        os.makedirs(directory, exist_ok=True)
        self.directory = directory

    def list_files(self, inactive: bool = False) -> list[str]:
        """Paths of the shards in the folder, sorted; with `inactive`, without those that somebody reads."""
        if self.directory is None:
            raise ValueError("no folder: pass directory=, or call set_directory")
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
            files = self.list_files()
            there = {re.sub(r"\._\d+_$", "", os.path.basename(path)) for path in files}
            absent = sorted(self.shards.keys() - there)
            if len(files) >= self.nshards or not absent or total_file_size(files) >= self.maxsize:
                return
            name = random.choice(absent)
            target = os.path.join(str(self.directory), name)
            temporary = f"{target}.{os.getpid()}.loading"
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
                if os.path.exists(temporary):
                    os.unlink(temporary)

    def maybe_remove(self, strategy: str = "oldest") -> None:
        """If the folder has `nshards`, remove one that nobody reads: the "oldest", or a "random" one."""
        if strategy not in ("oldest", "random"):
            raise ValueError(f'strategy must be "oldest" or "random", got {strategy!r}')
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
        if mode not in ("update", "replace"):
            raise ValueError(f'mode must be "update" or "replace", got {mode!r}')
        if mode == "update":
            self.update_every(poll)
        self.replace_every(poll, strategy)


__all__ = [
    "RandomShardDownloader",
    "download_file",
    "download_with",
    "file_of_tempfile",
    "fnmatch_with_braces",
    "get_oldest_file",
    "glob_with_braces",
    "gopen",
    "total_file_size",
]
