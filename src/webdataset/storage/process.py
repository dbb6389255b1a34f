"""Ending commands, and what their exit statuses mean: the part of pipes that deals with processes."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

GRACE = 2.0
"""Seconds between asking a command to end and ending it."""
PIPE_SIZE = 1 << 18
"""Bytes that the system keeps between a command and us, where it lets us choose; its 64 KiB halve the speed."""


def end_process(proc: subprocess.Popen[bytes], grouped: bool) -> int:
    """End a process, with its whole process group if it leads one; its exit status. Nothing is left behind."""
    import subprocess

    if proc.poll() is None:
        _send(proc, "SIGTERM", grouped)
        with contextlib.suppress(subprocess.TimeoutExpired):
            proc.wait(GRACE)
        _send(proc, "SIGKILL", grouped)  # whoever of the group does not end by itself
        proc.wait()
    return proc.returncode


def _send(proc: subprocess.Popen[bytes], name: str, grouped: bool) -> None:
    with contextlib.suppress(OSError):
        if grouped:
            os.killpg(proc.pid, getattr(signal, name))
        elif name == "SIGTERM":
            proc.terminate()
        else:
            proc.kill()


def describe_status(status: int) -> str:
    """What an exit status means, and what to do.

    >>> describe_status(127)
    'exit status 127: the command was not found; is it installed and on PATH?'
    """
    if status < 0 or 128 < status < 128 + 65:
        number = -status if status < 0 else status - 128
        with contextlib.suppress(ValueError):
            return f"exit status {status}: ended by {signal.Signals(number).name}"
    advice = {
        0: "it ended well",
        126: "the command is not executable",
        127: "the command was not found; is it installed and on PATH?",
    }
    return f"exit status {status}: {advice.get(status, 'what the command wrote to stderr says why')}"


def let_go(stream: IO[bytes], writing: bool) -> None:
    """Close a descriptor without handing over what is still in our buffer."""
    with contextlib.suppress(OSError, ValueError):
        if writing:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        stream.close()


def widen_pipe(stream: IO[bytes]) -> None:
    """Let the system keep more between the command and us; it may refuse, and then all is as before."""
    try:
        import fcntl

        fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    except (ImportError, AttributeError, OSError):
        pass
