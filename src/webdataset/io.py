"""A url becomes a binary stream, under its classic 0.1 path: `webdataset.gopen`, and commands that read urls.

A command is the program's own word and goes to a shell; the url that it reads may come from data, so it is quoted, and
where quotes of the command would take that apart, only a url of harmless characters is put there. With the security
switch on, no command runs.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from typing import Any, BinaryIO, cast

from ._arguments import check_text
from .errors import SecurityError, printable
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

_PLACES = ("{}", "%s")

_WORD = re.compile(
    r"""(?P<place> '(?:\{\}|%s)' | "(?:\{\}|%s)" | \{\} | %s)   # in quotes of its own, or in none
    | \\. | (?:(?<=[\s;&|()])|^)\#[^\n]*                       # one character; a comment
    | (?P<quoted> \$?'[^']*(?:'|$) | "(?:\\.|[^"\\])*(?:"|$) | `(?:\\.|[^`\\])*(?:`|$) | <<.*)
    | .""",
    re.DOTALL | re.VERBOSE,
)
"""The pieces of a shell command: where the url goes, and what has quotes, or is a document, in which it may go."""


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
        ValueError: there is no command.
        SecurityError: from the function, when the security switch is on, or when the place is among other text within
            quotes (as in `sh -c 'cat {}'`) and the url has a character that a shell may take for its own.
    """
    check_text("command_pipe", "command", command, "a command")
    if not re.sub(r"\{\}|%s|\s", "", command):
        raise ValueError(f"command_pipe: {command!r} would run the shards themselves; give a command that reads one")
    return CommandOpener(command, bufsize)


class CommandOpener:
    """See `command_pipe`; pickles, so that it reaches the workers of a DataLoader."""

    def __init__(self, command: str, bufsize: int) -> None:
        self.command = command
        self.bufsize = bufsize

    def __call__(self, url: str) -> BinaryIO:
        refuse_if_secure("gopen_pipe: unsafe_gopen is False, cannot open urls with a command")
        text = filled(self.command, f"./{url}" if url.startswith("-") and url != "-" else url)  # a name is no option
        stream: Any = open_read(text, [141], url, bufsize=self.bufsize)
        return cast(BinaryIO, stream)


def filled(command: str, url: str) -> str:
    """The command with a url in its place.

    >>> filled("gzip -dc {} | head", "a b.gz")
    "gzip -dc 'a b.gz' | head"

    Raises:
        SecurityError: the place is within quotes, and the url is not harmless there.
    """
    word = shlex.quote(url)
    there = any(place in command for place in _PLACES)

    def piece(found: re.Match[str]) -> str:
        text = found[0]
        if found["place"] is not None:
            return word
        if found["quoted"] is None or not any(place in text for place in _PLACES):
            return text
        if word != url:
            raise SecurityError(
                f"{printable(url)!r} has characters that a shell may take for its own, and {printable(command)!r} has"
                " it within quotes; put {} outside of them"
            )
        return text.replace("{}", url).replace("%s", url)

    return _WORD.sub(piece, command) if there else f"{command} {word}"


__all__ = ["CommandOpener", "Pipe", "command_pipe", "gopen", "reader", "scheme_to_command"]
