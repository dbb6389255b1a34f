"""A url becomes a binary stream, under its classic 0.1 path: `webdataset.gopen`, and commands that read urls.

A command is the program's own word and goes to a shell; the url that it reads may come from data, so it is always
quoted. With the security switch on, no command runs.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from ._arguments import check_text
from .gopen import Pipe, gopen_pipe, reader
from .gopen import gopen as _gopen
from .security import refuse_if_secure
from .storage.commands import TOOLS
from .storage.pipe import open_read
from .storage.urls import scheme_of

_SERVED = {"ais": "ais", "ftps": "curl", "scp": "curl", "sftp": "curl"}

scheme_to_command: dict[str, str] = {scheme: TOOLS[tool].read for scheme, tool in _SERVED.items()}
"""Scheme to the command that writes such a url to its standard output, `{}` in the place of the url.

These are the schemes that the library leaves to commands. What a program puts here, `gopen` of this module runs.
"""

_SHIPPED = dict(scheme_to_command)

_PLACE = re.compile(r"'(?:\{\}|%s)'|\"(?:\{\}|%s)\"|\{\}|%s")


def gopen(url: str | os.PathLike[str], mode: str = "rb", bufsize: int = 8192, **kw: Any) -> BinaryIO:
    """Open a url for reading ("rb") or writing ("wb"): `webdataset.gopen`.

    Besides what that opens: `pipenoerr:COMMAND`, a command whose exit status is ignored, and the schemes that the
    program has put into `scheme_to_command`, for reading. Errors are those of `webdataset.gopen`.
    """
    scheme = scheme_of(url) if isinstance(url, str) else ""
    if isinstance(url, str) and scheme == "pipenoerr":
        noisy: Any = gopen_pipe("pipe:" + url.partition(":")[2], mode, bufsize, ignore_errors=True, **kw)
        return cast(BinaryIO, noisy)
    command = scheme_to_command.get(scheme)
    if isinstance(url, str) and mode == "rb" and command is not None and command != _SHIPPED.get(scheme):
        return command_pipe(command, bufsize)(url)
    return _gopen(url, mode, bufsize, **kw)


def command_pipe(command: str, bufsize: int = 8192) -> Callable[[str], BinaryIO]:
    """A function that opens a url as what the shell command writes.

    The url, quoted, takes the place of `{}` or `%s` in the command; without such a place it is the last word.

    Raises:
        OpenError: from the stream, when the command fails.
        SecurityError: from the function, when the security switch is on.
    """
    check_text("command_pipe", "command", command, "a command")
    return CommandOpener(command, bufsize)


class CommandOpener:
    """See `command_pipe`; pickles, so that it reaches the workers of a DataLoader."""

    def __init__(self, command: str, bufsize: int) -> None:
        self.command = command
        self.bufsize = bufsize

    def __call__(self, url: str) -> BinaryIO:
        refuse_if_secure("gopen_pipe: unsafe_gopen is False, cannot open urls with a command")
        word = shlex.quote(f"./{url}" if url.startswith("-") and url != "-" else url)  # a name is no option
        text, places = _PLACE.subn(lambda _: word, self.command)
        stream: Any = open_read(text if places else f"{self.command} {word}", [141], url, bufsize=self.bufsize)
        return cast(BinaryIO, stream)


__all__ = ["CommandOpener", "Pipe", "command_pipe", "gopen", "reader", "scheme_to_command"]
