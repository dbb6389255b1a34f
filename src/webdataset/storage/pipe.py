"""A command's output or input as a stream whose end is checked: data that comes from a failing command is an error.

The command runs in a process group of its own, so that a pipeline in a shell can be ended as a whole. Whoever asks
for more at the end of the data waits for the command and learns its exit status. Closing earlier ends the command;
that it was cut off by SIGPIPE or by us is no error. A copy of the stream in a forked process only closes its
descriptor: the command belongs to the process that started it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable, Iterable
from threading import get_ident
from typing import IO, TYPE_CHECKING, Any, NoReturn

from .._arguments import a, check_flag, check_items, check_number, checked
from ..errors import NotFoundError, OpenError, public_url
from .owned import OwnedStream
from .process import GRACE, PIPE_SIZE, describe_status, end_process, let_go, widen_pipe
from .verbose import trace

if TYPE_CHECKING:
    import subprocess

SIGPIPE_STATUSES = (141, -13)  # of a shell whose command died of SIGPIPE, and of such a command itself


_waiting: dict[int, Pipe] = {}
"""Which command a thread waits for."""


class Pipe(OwnedStream):
    """The output (mode "r...") or input (mode "w...") of a command.

    Args:
        args: as for `subprocess.Popen`, like all further keywords.
        mode: "rb" reads what the command writes, "wb" writes what it reads.
        timeout: seconds that the command may go on after the end of the data.
        ignore_errors: accept every exit status.
        ignore_status: exit statuses to accept besides 0. With 141, death by SIGPIPE is accepted too.
        url: name of the stream in errors, if the command itself is not to be it.

    Attributes:
        proc: the Popen object.
        stream: the raw end of the pipe; reading there goes past the checks.
        status: exit status of the command (negative: the signal that ended it), None while it is not known.
    """

    proc: subprocess.Popen[bytes]
    stream: IO[bytes]

    @checked(
        "Pipe",
        timeout=a(check_number, "seconds", optional=True),
        ignore_errors=check_flag,
        ignore_status=a(check_items, "a list of exit statuses"),
    )
    def __init__(
        self,
        *args: Any,
        mode: str | None = None,
        timeout: float = 7200.0,
        ignore_errors: bool = False,
        ignore_status: list[int] = [],  # noqa: B006  the published signature; it is copied
        url: str | None = None,
        **kw: Any,
    ) -> None:
        super().__init__()
        if not isinstance(mode, str) or mode[:1] not in ("r", "w"):
            raise ValueError(f'the mode of a pipe must be "rb" or "wb", got {mode!r}')
        self.mode = mode
        self.args = (args, kw)
        self.timeout = timeout
        self.ignore_errors = ignore_errors
        self.ignore_status = [0, *ignore_status]
        self.status: int | None = None
        self.url = url
        self._at_end = False
        self._reported = False
        self._start(*args, **kw)

    def _start(self, *args: Any, **kw: Any) -> None:
        import subprocess

        if os.name == "posix" and not kw.keys() & {"start_new_session", "process_group", "preexec_fn"}:
            kw["start_new_session"] = True
        self._grouped = bool(kw.get("start_new_session")) or kw.get("process_group") == 0
        kw["stdout" if self.readable() else "stdin"] = subprocess.PIPE
        try:
            process: Any = subprocess.Popen(*args, **kw)  # noqa: S603  what to run is the caller's word
        except FileNotFoundError as exn:
            raise NotFoundError(f"cannot run {exn.filename!r}: not found on PATH; install it", url=self._place) from exn
        except (OSError, ValueError) as exn:
            raise OpenError(f"cannot run the command: {exn}", url=self._place) from exn
        self.proc = process
        stream = self.proc.stdout if self.readable() else self.proc.stdin
        assert stream is not None
        self.stream = stream
        widen_pipe(stream)

    @property
    def command(self) -> str:
        """The command as text, without credentials."""
        positional, named = self.args
        words = positional[0] if positional else named.get("args", "")
        if not isinstance(words, str | bytes | os.PathLike):
            words = shlex.join(os.fsdecode(word) for word in words)
        return public_url(f"pipe:{os.fsdecode(words)}")[len("pipe:") :]

    @property
    def _place(self) -> str:
        return self.url or f"pipe:{self.command}"

    def __repr__(self) -> str:
        return f"<Pipe {self.command!r} {self.mode}>"

    def readable(self) -> bool:
        """Whether it reads what the command writes."""
        return self.mode.startswith("r")

    def writable(self) -> bool:
        """Whether it writes what the command reads."""
        return self.mode.startswith("w")

    def fileno(self) -> int:
        """Descriptor of our end of the pipe."""
        return self.stream.fileno()

    def read(self, size: int | None = -1, /) -> bytes:
        """`size` bytes, fewer only at the end; everything for -1.

        Raises:
            OpenError: the data ended, and the command failed.
        """
        size = -1 if size is None else size
        data: bytes = self._asked(self.stream.read, size)
        if size < 0 or (not data and size):
            self._end_of_data()
        return data

    def read1(self, size: int = -1, /) -> bytes:
        """What is there, at most `size` bytes; b"" at the end."""
        read1: Any = getattr(self.stream, "read1", self.stream.read)  # unbuffered streams have only read
        size = PIPE_SIZE if size < 0 else min(size, PIPE_SIZE)  # memory for `size` is taken first
        data: bytes = self._asked(read1, size)
        if not data and size:
            self._end_of_data()
        return data

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer; the number of bytes, less than its size only at the end."""
        readinto: Any = self.stream.readinto  # type: ignore[attr-defined]  # every binary stream has it
        count: int = self._asked(readinto, buffer)
        if not count and len(buffer):
            self._end_of_data()
        return count

    def readinto1(self, buffer: Any, /) -> int:
        """Put into the buffer what is there; 0 at the end."""
        data = self.read1(memoryview(buffer).nbytes)
        memoryview(buffer).cast("B")[: len(data)] = data
        return len(data)

    def readline(self, size: int | None = -1, /) -> bytes:
        """The next line, with its end; b"" at the end."""
        line: bytes = self._asked(self.stream.readline, -1 if size is None else size)
        if not line and size:
            self._end_of_data()
        return line

    def write(self, data: Any, /) -> int:
        """Write all of the data; the number of bytes.

        Raises:
            OpenError: the command does not take any more.
        """
        try:
            rest = memoryview(data).cast("B")
            total = rest.nbytes
            while rest.nbytes:
                rest = rest[self.stream.write(rest) :]
        except OSError as exn:
            self._write_failed(exn)
        return total

    def flush(self) -> None:
        """Hand over to the command what was written."""
        if self.writable() and not self.stream.closed:
            try:
                self.stream.flush()
            except OSError as exn:
                self._write_failed(exn)

    def wait_for_child(self) -> None:
        """Wait for the command, at most `timeout` seconds, and check its status.

        Raises:
            OpenError: it failed, or goes on; then it is ended.
        """
        import subprocess

        if self.status is None:
            try:
                self.status = self.proc.wait(self.timeout)
            except subprocess.TimeoutExpired:
                self.terminate()
                self._reported = True
                raise self._error(f"it was still running {self.timeout:g} s after the end of its data") from None
            trace("PIPE", self.command, "exit", self.status)
        self.check_status()

    def check_status(self) -> None:
        """Raise OpenError if the command has ended, and not well."""
        if self.status is None:
            self.status = self.proc.poll()
        if self.status is None or self.ignore_errors or self.status in self._accepted():
            return
        self._reported = True
        raise self._error(describe_status(self.status))

    def terminate(self) -> None:
        """End the command and all that it started in its process group, and wait until it is gone."""
        status = end_process(self.proc, self._grouped)
        if self.status is None:
            self.status = status
            trace("PIPE", self.command, "ended early")

    def _asked(self, read: Callable[[Any], Any], size: Any) -> Any:
        thread = get_ident()
        _waiting[thread] = self
        try:
            return read(size)
        finally:
            _waiting.pop(thread, None)

    def _accepted(self) -> set[int]:
        accepted = set(self.ignore_status)
        early = self.readable() and not self._at_end
        return accepted | set(SIGPIPE_STATUSES) if early or 141 in accepted else accepted

    def _end_of_data(self) -> None:
        self._at_end = True
        self.wait_for_child()

    def _finish(self) -> None:
        """Close our end. At the end of the data, and after writing, wait for the command and check its status."""
        if self.writable():
            self._close_writing()
        else:
            self._close_reading()

    def _give_up(self) -> None:
        self.terminate()
        self._let_go()

    def _let_go(self) -> None:
        let_go(self.stream, self.writable())

    def _close_reading(self) -> None:
        self.stream.close()
        if self._reported:
            return  # the reader has heard it
        if not self._at_end and self.proc.poll() is None:
            self.terminate()
        else:
            self.wait_for_child()

    def _close_writing(self) -> None:
        try:
            self.stream.close()
        except OSError as exn:
            if not self._reported:
                self._write_failed(exn)
        if not self._reported:
            self.wait_for_child()

    def _write_failed(self, exn: OSError) -> NoReturn:
        import subprocess

        with contextlib.suppress(subprocess.TimeoutExpired):
            self.proc.wait(GRACE)
        ended = self.proc.returncode
        self.terminate()
        self._reported = True
        how = "it does not read any more" if ended is None else describe_status(ended)
        raise self._error(f"not all was written: {how}") from exn

    def _error(self, fact: str) -> OpenError:
        shown = "" if self.url is None or self.url.startswith("pipe:") else f"`{self.command}`: "
        return OpenError(f"{shown}{fact}", url=self._place)


def end_waiting(threads: Iterable[int | None]) -> None:
    """End the commands for whose output these threads wait; their streams are then at an end, with an error."""
    for thread in threads:
        pipe = None if thread is None else _waiting.get(thread)
        if pipe is not None and pipe._is_mine():
            pipe.terminate()


def open_read(command: str | list[str], statuses: list[int], url: str, **kw: Any) -> Pipe:
    """What a command writes: text goes to the shell, a list runs as it is; `statuses` are no error besides 0."""
    return _open(command, "rb", statuses, url, **kw)


def open_write(command: str | list[str], statuses: list[int], url: str, **kw: Any) -> Pipe:
    """What a command reads: text goes to the shell, a list runs as it is; `statuses` are no error besides 0."""
    return _open(command, "wb", statuses, url, **kw)


def _open(command: str | list[str], mode: str, statuses: list[int], url: str, **kw: Any) -> Pipe:
    statuses = [*statuses, *kw.pop("ignore_status", [])]
    return Pipe(command, mode=mode, shell=isinstance(command, str), ignore_status=statuses, url=url, **kw)
