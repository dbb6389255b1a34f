"""GOPEN_VERBOSE: a line on stderr for each open, rewrite and exit."""

from __future__ import annotations

import sys

from .._environment import number_of


def verbose() -> int:
    """GOPEN_VERBOSE as a number, 0 where it is not set."""
    return number_of("GOPEN_VERBOSE", 0)


def trace(*words: object) -> None:
    """Write the words on stderr as one line, if GOPEN_VERBOSE asks for it."""
    if verbose() and sys.stderr is not None:
        sys.stderr.write(" ".join(str(word) for word in words) + "\n")
        sys.stderr.flush()
