"""Schemes that a command-line tool serves: url -> the command that reads or writes it, run without a shell."""

from __future__ import annotations

from typing import Any, NamedTuple

from . import pipe


class Tool(NamedTuple):
    """How a tool reads and writes a url, which stands where `{}` is; it never goes through a shell.

    The statuses are no error besides 0: of a reader that was cut off, of a writer likewise.
    """

    read: str
    read_statuses: list[int]
    write: str
    write_statuses: list[int]


TOOLS = {
    "curl": Tool(  # it would take [] and {} in a url for patterns: --globoff
        "curl --connect-timeout 30 --retry 30 --retry-delay 2 -f -s -L --globoff {}",
        [141, 23],
        "curl -f -s -X PUT -L --globoff -T - {}",
        [141, 26],
    ),
    "gsutil": Tool("gsutil cat {}", [141, 23], "gsutil cp - {}", [141, 26]),
    "ais": Tool("ais get {} -", [141, 23], "ais put - {}", [141, 26]),
}


def open_read(url: str, tool: str, **kw: Any) -> pipe.Pipe:
    """What the tool writes for this url."""
    return pipe.open_read(_command(TOOLS[tool].read, url), TOOLS[tool].read_statuses, url, **kw)


def open_write(url: str, tool: str, **kw: Any) -> pipe.Pipe:
    """What the tool stores at this url."""
    return pipe.open_write(_command(TOOLS[tool].write, url), TOOLS[tool].write_statuses, url, **kw)


def _command(template: str, url: str) -> list[str]:
    return [url if word == "{}" else word for word in template.split()]
