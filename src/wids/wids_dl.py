"""A url -> a local file that is there whole or not at all, downloaded once a host, and opened.

The bytes come as everywhere in webdataset (`gopen`, `cachedownload`): no shell but for `pipe:`, no file that is half
there, errors that say what to do. A program's own handlers are a table from scheme to a function (url, path), or to a
command such as `mytool get {url} {local}`, which is run without a shell.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from typing import IO, Any

from webdataset.cachedownload import Job, fetch
from webdataset.cachelocks import Lock, ask
from webdataset.errors import OpenError, UnknownSchemeError, public_url
from webdataset.storage.atomic import AtomicFile
from webdataset.storage.local import local_path
from webdataset.storage.urls import scheme_of

Handler = Callable[[str, str], object] | str

recent_downloads: deque[tuple[str, str]] = deque(maxlen=1000)
"""(url, path) of what was downloaded last, the newest at the end."""
open_objects: weakref.WeakValueDictionary[int, IO[bytes]] = weakref.WeakValueDictionary()
"""What `download_and_open` opened and nobody has let go of yet."""
max_open_objects = 100
"""So many may be open at a time."""


class ULockFile:
    """A lock that processes of a host share: `with ULockFile(path):`; the file is there while somebody holds it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.lockfile_path = os.fspath(path)
        self.lockfile: IO[str] | None = None

    def __enter__(self) -> ULockFile:
        import fcntl

        while True:
            file = open(self.lockfile_path, "w", encoding="ascii")
            fcntl.flock(file.fileno(), fcntl.LOCK_EX)
            try:
                if os.path.samestat(os.fstat(file.fileno()), os.stat(self.lockfile_path)):
                    self.lockfile = file
                    return self
            except FileNotFoundError:
                pass  # whoever had it has just removed it
            file.close()

    def __exit__(self, *exc: object) -> None:
        if self.lockfile is not None:
            os.unlink(self.lockfile_path)
            self.lockfile.close()
            self.lockfile = None


def fetch_url(remote: str, local: str) -> None:
    """Have the object of any url that webdataset reads under a local name."""
    fetch(Job(remote, local))


def copy_file(remote: str, local: str) -> None:
    """Copy a local file, unless both names mean the same one."""
    path = local_path(remote)
    if path is None or not (os.path.exists(local) and os.path.samefile(path, local)):
        fetch_url(remote, local)


def pipe_download(remote: str, local: str) -> None:
    """Run a `pipe:` command; it writes to the path that stands for `{local}` in it, or else to its standard output."""
    if "{local}" not in remote:
        fetch_url(remote, local)
        return
    from webdataset.gopen import gopen

    target = AtomicFile(local, overwrite=True)
    try:
        with gopen(remote.replace("{local}", shlex.quote(target.name))) as output:
            while output.read(1 << 16):
                pass
        if not os.path.getsize(target.name):
            raise OpenError("the command ended well but wrote nothing to {local}", url=remote)
        target.close()
    finally:
        if not target.closed:
            target.abort()


default_cmds: dict[str, Handler] = {
    "posixpath": copy_file,
    "file": copy_file,
    "pipe": pipe_download,
    **dict.fromkeys(
        ("http", "https", "ftp", "ftps", "gs", "s3", "az", "abfs", "abfss", "hf", "htgs", "ais"), fetch_url
    ),
}
"""Scheme to what downloads such a url; "posixpath" is that of paths."""


def download_file_no_log(remote: str, local: str, handlers: Mapping[str, Handler] = default_cmds) -> str:
    """Have the object of a url under a local name, which is given back; its folder is made.

    Raises:
        UnknownSchemeError: no handler is registered for the scheme (a ValueError).
        OpenError: it cannot be downloaded; there is no local file then.
    """
    scheme = scheme_of(remote) or "posixpath"
    handler = handlers.get(scheme)
    if handler is None:
        raise UnknownSchemeError(f"Unknown schema: {scheme}; known are {', '.join(sorted(handlers))}", url=remote)
    os.makedirs(os.path.dirname(local) or ".", exist_ok=True)
    if isinstance(handler, str):
        _run(handler, remote, local)
    else:
        handler(remote, local)
    return local


def download_file(
    remote: str, local: str, handlers: Mapping[str, Handler] = default_cmds, verbose: bool = False
) -> str:
    """As `download_file_no_log`, and noted in `recent_downloads`; `verbose` logs it."""
    import logging

    if verbose:
        logging.getLogger(__name__).info("downloading %s to %s", public_url(remote), local)
    recent_downloads.append((remote, local))
    return download_file_no_log(remote, local, handlers)


def download_and_open(
    remote: str,
    local: str,
    mode: str = "rb",
    handlers: Mapping[str, Handler] = default_cmds,
    verbose: bool = False,
) -> Any:
    """The object of a url as an open local file, downloaded if it is not there; any number of processes may ask.

    Raises:
        RuntimeError: `max_open_objects` are open already.
        OpenError: it cannot be downloaded.
    """
    if sum(not file.closed for file in open_objects.values()) >= max_open_objects:
        raise RuntimeError(f"Too many open objects: {max_open_objects} files are open; close some")
    os.makedirs(os.path.dirname(local) or ".", exist_ok=True)
    while True:
        if not os.path.exists(local):
            with ULockFile(local + ".lock"):
                if not os.path.exists(local):
                    download_file(remote, local, handlers, verbose)
        try:
            stream = open(local, mode)  # noqa: SIM115 whoever asked closes it
        except FileNotFoundError:
            continue  # a cleanup was faster
        if mode == "rb" and ask(stream.fileno(), exclusive=False) is Lock.BUSY:
            stream.close()
            continue
        open_objects[id(stream)] = stream
        return stream


def _run(command: str, remote: str, local: str) -> None:
    """Run a program's own command, word by word, without a shell; the file gets its name when it ended well."""
    target = AtomicFile(local, overwrite=True)
    words = [word.format(url=remote, local=target.name) for word in shlex.split(command)]
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, check=False)  # noqa: S603 the program's own command
        if done.returncode:
            raise OpenError(f"{words[0]} failed with exit status {done.returncode}", url=remote)
        target.close()
    finally:
        if not target.closed:
            target.abort()


verbose_cmd = 0
"""Ignored; kept for callers of 0.2."""


def vcmd(flag: str, verbose_flag: str = "") -> str:
    """The flag for a command: `flag`, or `verbose_flag` when `verbose_cmd` is set."""
    return verbose_flag if verbose_cmd else flag


__all__ = [
    "ULockFile",
    "copy_file",
    "default_cmds",
    "download_and_open",
    "download_file",
    "download_file_no_log",
    "max_open_objects",
    "open_objects",
    "pipe_download",
    "recent_downloads",
    "vcmd",
    "verbose_cmd",
]
