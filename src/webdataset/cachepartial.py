"""A copy in the making: `<name>.<host>.partial` holds its bytes, `<name>.<host>.state` what is known of them.

Rules: who writes holds the lock of the `.partial`; the lock is free when its owner is done, or dead. Bytes are only
ever appended, so whatever the file holds may be read while it grows. The state's `end` is written under the lock: who
finds the lock free and no end may go on where the file stops. The names carry the running system: on another machine
that shares the folder, or after a crash of this one, a file may be longer than what was really written, so it is not
followed. Where there are no locks, a partial has a name that nobody else uses.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from ._forks import tell_of_forks
from .cachelocks import Lock, ask, give_back
from .errors import OpenError
from .storage.atomic import cannot_write

_LEFT_OVER = re.compile(r"\.[0-9a-f]{8}(-[0-9a-f]{16})?\.(partial|state)$")
_STATE_LIMIT = 4096

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


@dataclasses.dataclass(frozen=True)
class State:
    """What is known of a partial.

    Attributes:
        size: bytes of the whole, None where nobody says.
        etag: the version that its bytes belong to, None where nobody says.
        trusted: whether they are known to belong to what there is now.
        end: why nobody writes any more: "failed", with `error`; "gone": what was written is no longer continued.
        whole: whether all bytes are there; only the name is missing.
        error: class and message of the failure.
        at: when it failed, in seconds since 1970.
    """

    size: int | None = None
    etag: str | None = None
    trusted: bool = False
    end: str | None = None
    whole: bool = False
    error: tuple[str, str] | None = None
    at: float = 0.0


class Partial:
    """A partial that this process writes; it holds the lock until `leave` or `discard`.

    Attributes:
        dest: the name of the copy when it is whole.
        name: the name of the file until then.
        committed: whether it has got that name.
        state: what is known of it.
    """

    def __init__(self, dest: str, name: str, fd: int, private: bool) -> None:
        self.dest, self.name, self.private = dest, name, private
        self.committed = False
        self._fd = fd
        self._state_fd = -1
        tell_of_forks(self)
        try:
            self._state_fd = os.open(state_of(name), _FLAGS & ~os.O_APPEND, 0o666)
            self.state = read_state(self._state_fd) if self.have else State()
            whole = self.state.whole or self.have == self.state.size
            self.note(whole=whole, trusted=whole or not self.have, end=None, error=None)
        except OSError as exn:
            self.leave()
            raise cannot_write(exn, state_of(name)) from exn

    @property
    def have(self) -> int:
        """Bytes that are there."""
        return os.fstat(self._fd).st_size

    @property
    def held(self) -> bool:
        """Whether it is still ours."""
        return self._fd >= 0

    def read(self, size: int, position: int) -> bytes:
        """Bytes that are there already."""
        return read_at(self._fd, size, position)

    def write(self, data: memoryview) -> int:
        """Append bytes, as many as the system takes at once; how many it were."""
        return os.write(self._fd, data)

    def note(self, **changes: Any) -> None:
        """Write down what is known now."""
        self.state = dataclasses.replace(self.state, **changes)
        text = json.dumps(dataclasses.asdict(self.state)).encode()
        os.ftruncate(self._state_fd, 0)
        os.lseek(self._state_fd, 0, os.SEEK_SET)
        os.write(self._state_fd, text[:_STATE_LIMIT])

    def commit(self, keep_etag: bool = False) -> None:
        """Give the copy its name, when its bytes are on the disk; the lock becomes that of a reader.

        Args:
            keep_etag: keep its ETag beside it.
        """
        etag = self.state.etag if keep_etag else None
        try:
            self.note(whole=True)
            os.fsync(self._fd)
            for beside in (etag_of(self.dest), state_of(self.name)):
                with suppress(FileNotFoundError):
                    os.unlink(beside)
            if os.name == "nt":  # there, a file that is open cannot be renamed
                self._close()
            os.replace(self.name, self.dest)
            self.committed = True
            if etag is not None:
                Path(etag_of(self.dest)).write_text(etag, encoding="utf-8")
            if self.held:
                ask(self._fd, exclusive=False)
        except OSError as exn:
            raise cannot_write(exn, self.dest) from exn

    def leave(self) -> None:
        """Let go of the file as it is; somebody may go on with what is not whole."""
        self._close()

    def discard(self) -> None:
        """Remove it; who reads it keeps what it holds."""
        if os.name == "nt":
            self._close()
        for name in (state_of(self.name), self.name):
            with suppress(OSError):
                os.unlink(name)
        self._close()

    def _close(self) -> None:
        if self.held:
            give_back(self._fd)
        self.drop()

    def drop(self) -> None:
        """Close the files; the lock stays with another process that has them."""
        for fd in (self._fd, self._state_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._state_fd = -1

    def after_fork(self) -> None:
        """Let go of what the parent writes: a lock would outlive the parent with it."""
        self.drop()


def claim(dest: str) -> Partial | None:
    """The partial of a copy, to write it, with whatever somebody left in it; None: somebody else is writing it.

    Raises:
        OpenError: it cannot be written.
    """
    name = shared_name(dest)
    try:
        while True:
            fd = os.open(name, _FLAGS, 0o666)
            lock = ask(fd, exclusive=True)
            if lock is Lock.GOT and _is_at(fd, name):
                return Partial(dest, name, fd, private=False)
            os.close(fd)
            if lock is Lock.BUSY:
                return None
            if lock is Lock.NONE:
                with suppress(OSError):
                    os.unlink(name)
                return claim_private(dest)
    except OpenError:
        raise
    except (OSError, ValueError) as exn:
        raise cannot_write(exn, name) from exn


def claim_private(dest: str) -> Partial:
    """A partial that no other process knows of."""
    name = f"{dest}.{_this_system()}-{os.urandom(8).hex()}.partial"
    try:
        return Partial(dest, name, os.open(name, _FLAGS | os.O_EXCL, 0o666), private=True)
    except OpenError:
        raise
    except (OSError, ValueError) as exn:
        raise cannot_write(exn, name) from exn


def shared_name(dest: str) -> str:
    """The partial of a copy that all processes of this host share."""
    return f"{dest}.{_this_system()}.partial"


def state_of(name: str) -> str:
    """The file with the state of a partial."""
    return name.removesuffix(".partial") + ".state"


def etag_of(dest: str) -> str:
    """The file with the ETag of a copy."""
    return f"{dest}.etag"


def read_etag(dest: str) -> str | None:
    """The ETag of a copy, None where it is not kept."""
    try:
        return Path(etag_of(dest)).read_text(encoding="utf-8")
    except OSError:
        return None


def is_left_over(path: str) -> bool:
    """Whether a name is that of a partial or of its state."""
    return _LEFT_OVER.search(path) is not None


def read_state(fd: int) -> State:
    """What an open state file says; nothing is known from one that is just being written."""
    try:
        return State(**json.loads(read_at(fd, _STATE_LIMIT, 0)))
    except (ValueError, TypeError):
        return State()


def read_at(fd: int, size: int, position: int) -> bytes:
    """Bytes of an open file, wherever else it is being read; fewer at its end."""
    if hasattr(os, "pread"):
        return os.pread(fd, size, position)
    os.lseek(fd, position, os.SEEK_SET)
    return os.read(fd, size)


def _is_at(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


@functools.cache
def _this_system() -> str:
    """Eight digits that all processes of a running system have in common, and no other system has."""
    try:
        identity = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        import platform

        identity = platform.node().encode()
    return hashlib.sha256(identity).hexdigest()[:8]
