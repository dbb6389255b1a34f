"""A local folder that other programs fill -> its shards, as they come."""

from __future__ import annotations

import glob
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ._arguments import a, check_number, check_path, check_text, checked
from ._torchdata import TorchIterable
from .braces import braceexpand
from .errors import NotFoundError, ShardListError, public_url
from .order.seeds import epoch_random
from .storage.urls import scheme_of
from .workers import reader_info, resolve_seed


class DirectoryShardList(TorchIterable):
    """Shards of a local folder that other programs fill, as `{"url": str}`, each taken by one process at a time.

    A shard is renamed to `<file>._<pid>_` while it is read. When the next one is asked for it goes
    back to its name (mode "resample"), is deleted ("unlink") or becomes `<file>._done_` ("keep"); None
    leaves it. With "unlink" and "keep", a shard in which a fault was seen becomes `<file>._bad_`, whatever the
    handler says. A shard that is left in the middle, also by a process that is gone, goes back to its
    name in any mode.

    Raises:
        NotFoundError: there is no such folder.
    """

    splits_readers = True
    random_stages = 1

    @checked(
        "DirectoryShardList",
        path=check_path,
        pattern=check_text,
        poll=a(check_number, "seconds", least=0, optional=True),
        timeout=a(check_number, "seconds"),
    )
    def __init__(
        self,
        path: str | os.PathLike[str],
        pattern: str = "*.{tar,tgz,tar.gz}",
        poll: float | None = 1,
        timeout: float = 1e12,
        mode: str | None = "resample",
        select: str = "random",
        fate: Any = None,
    ) -> None:
        """`pattern` is a file name with braces and `*`, `?`, `[...]`.

        Args:
            path: the folder.
            pattern: which of its files are shards.
            poll: seconds to wait before looking again when there is none; None ends the stream then.
            timeout: seconds after which the stream ends, counted from its beginning.
            mode: what becomes of a shard that was read.
            select: "random" or "oldest" (by time of change).
            fate: ignored; kept for 0.2 callers.
        """
        folder = os.fspath(path)
        if scheme_of(folder):
            raise ShardListError(f"{public_url(folder)}: DirectoryShardList reads local folders only")
        if not os.path.isdir(folder):
            raise NotFoundError("no such folder", url=folder)
        for name, value, known in (
            ("mode", mode, ("resample", "unlink", "keep", None)),
            ("select", select, ("random", "oldest")),
        ):
            if value not in known:
                raise ShardListError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")
        self.path = os.path.join(folder, "")
        self.pattern = pattern
        self.poll = poll
        self.timeout = timeout
        self.mode = mode
        self.select = select
        self.fate = fate
        self._passes = 0

    @property
    def endless(self) -> bool:
        """Whether shards come again."""
        return self.mode == "resample"

    def start(self, epoch: int, reader: int) -> None:
        """The next pass is this epoch, counted from 0."""
        self._passes = epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        epoch, self._passes = self._passes, self._passes + 1
        return self._shards(epoch_random(resolve_seed(None), epoch, reader_info().reader))

    def _shards(self, rng: Any) -> Iterator[dict[str, Any]]:
        begin = time.monotonic()
        while time.monotonic() - begin < self.timeout:
            files = self._files()
            if not files:
                if self.poll is None:
                    return
                time.sleep(self.poll)
                continue
            chosen = rng.choice(files) if self.select == "random" else min(files, key=_changed)
            active = f"{chosen}._{os.getpid()}_"
            try:
                os.rename(chosen, active)
            except FileNotFoundError:  # another process was faster
                continue
            resumed = False
            faults: list[str] = []
            try:
                yield {"url": active, "faults": faults}
                resumed = True
            finally:
                if not resumed and os.path.exists(active):
                    os.rename(active, chosen)
            if faults and self.mode in ("unlink", "keep"):
                with suppress(FileNotFoundError):
                    os.rename(active, f"{chosen}._bad_")
            else:
                self.recycle(active)
            self.cleanup_files_without_processes()

    def _files(self, ending: str = "") -> list[str]:
        folder = glob.escape(self.path)
        return sorted({path for piece in braceexpand(self.pattern) for path in glob.glob(folder + piece + ending)})

    def recycle(self, activename: str) -> None:
        """Do with a shard that was read what the mode says; nothing when it is gone already."""
        original = without_last_extension(activename)
        try:
            if self.mode == "unlink":
                os.unlink(activename)
            elif self.mode == "keep":
                os.rename(activename, original + "._done_")
            elif self.mode == "resample":
                os.rename(activename, original)
        except FileNotFoundError:
            return

    def cleanup_files_without_processes(self) -> None:
        """Give the shards of processes that are no more back: nobody knows how far they were read."""
        for path in self._files("._*_"):
            pid = get_pid_from_filename(path)
            if pid is not None and not check_pid_is_running(pid):
                with suppress(FileNotFoundError):  # another process was faster
                    os.rename(path, without_last_extension(path))


def _changed(path: str) -> float:
    try:
        return os.path.getmtime(path)
    except FileNotFoundError:
        return float("inf")


def get_pid_from_filename(fname: str) -> int | None:
    """The process that reads a shard: 12 for `a.tar._12_`; None for other names."""
    match = re.search(r"\._(\d+)_$", fname)
    return int(match[1]) if match else None


def without_last_extension(fname: str) -> str:
    """The path up to the last dot of its last part: `a.tar` for `a.tar._12_`."""
    return os.path.splitext(fname)[0]


def check_pid_is_running(pid: int) -> bool:
    """Whether there is a process of this number on this machine."""
    if sys.platform == "win32":
        import ctypes

        process = ctypes.windll.kernel32.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
        if process:
            ctypes.windll.kernel32.CloseHandle(process)
        return bool(process)
    try:
        os.kill(pid, 0)  # signal 0 only asks
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
