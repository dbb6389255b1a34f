"""Schemes that a command-line tool serves: url -> the command that reads or writes it, run without a shell."""

from __future__ import annotations

import functools
import logging
import shutil
from typing import Any, NamedTuple

from ..errors import OpenError
from . import pipe
from .options import StorageOptions

logger = logging.getLogger(__name__)


class Tool(NamedTuple):
    """How a tool reads and writes a url, which stands where `{}` is; it never goes through a shell.

    The statuses are no error besides 0: of a reader that was cut off, of a writer likewise. `anonymous` and `endpoint`
    are the words for these options, "" where the tool has none.
    """

    read: str
    read_statuses: list[int]
    write: str
    write_statuses: list[int]
    anonymous: str = ""
    endpoint: str = ""


TOOLS = {
    "curl": Tool(  # it would take [] and {} in a url for patterns: --globoff
        "curl --connect-timeout 30 --retry 30 --retry-delay 2 -f -s -L --globoff {}",
        [141, 23],
        "curl -f -s -X PUT -L --globoff -T - {}",
        [141, 26],
    ),
    "gsutil": Tool("gsutil cat {}", [141, 23], "gsutil cp - {}", [141, 26]),
    "ais": Tool("ais get {} -", [141, 23], "ais put - {}", [141, 26]),
    "az": Tool(
        "az storage blob download --only-show-errors --no-progress --container-name {container} --name {blob}",
        [141],
        "",  # it takes no stream
        [],
    ),
    "aws": Tool(
        "aws s3 cp --only-show-errors {} -",
        [141],
        "aws s3 cp --only-show-errors - {}",
        [141],
        "--no-sign-request",
        "--endpoint-url {}",
    ),
}

TOOL_FOR = {"http": "curl", "https": "curl", "s3": "aws", "gs": "gsutil", "az": "az", "abfs": "az", "abfss": "az"}
"""Scheme that the library serves itself -> the tool that can do it instead."""


def open_read(url: str, tool: str, **kw: Any) -> pipe.Pipe:
    """What the tool writes for this url."""
    return pipe.open_read(_command(TOOLS[tool].read, url), TOOLS[tool].read_statuses, url, **kw)


def open_write(url: str, tool: str, **kw: Any) -> pipe.Pipe:
    """What the tool stores at this url."""
    return pipe.open_write(_command(TOOLS[tool].write, url), TOOLS[tool].write_statuses, url, **kw)


def open_instead(url: str, mode: str, tool: str, options: StorageOptions) -> pipe.Pipe:
    """The tool in place of the library, with what it can be told of the options.

    Raises:
        OpenError: there are headers; a command line shows everybody what they hold.
    """
    if options.headers:
        raise OpenError(f"the option headers does not reach the {tool} command; write a pipe: url", url=url)
    how = TOOLS[tool]
    words = _command(how.read if mode == "rb" else how.write, url)
    if not words:
        raise OpenError(f"the {tool} command does not write what is still being made", url=url)
    if options.anonymous:
        words += how.anonymous.split()
    if options.endpoint:
        words += _command(how.endpoint, options.endpoint)
    if mode == "rb":
        return pipe.open_read(words, how.read_statuses, url)
    return pipe.open_write(words, how.write_statuses, url)


def installed(tool: str) -> bool:
    """Whether the tool is there."""
    return shutil.which(tool) is not None


@functools.cache
def say_once(line: str) -> None:
    """Log a line, once in a process."""
    logger.warning("%s", line)


def _command(template: str, url: str) -> list[str]:
    named = {"{}": url}
    if "{blob}" in template:
        from . import azure

        _, host, named["{container}"], named["{blob}"] = azure.parts(url)
        template += f" --blob-endpoint https://{host}" if host else ""
    return [named.get(word, word) for word in template.split()]
