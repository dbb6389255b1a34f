"""GOPEN_VERBOSE: a line on stderr for each open, rewrite and exit."""

from __future__ import annotations

import os
import sys


def verbose() -> int:
    """GOPEN_VERBOSE as a number, 0 where it is not set."""
    text = os.environ.get("GOPEN_VERBOSE") or "0"
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"GOPEN_VERBOSE must be an integer, got {text!r}") from None


def trace(*words: object) -> None:
    """Write the words on stderr as one line, if GOPEN_VERBOSE asks for it."""
    if verbose() and sys.stderr is not None:
        sys.stderr.write(" ".join(str(word) for word in words) + "\n")
        sys.stderr.flush()
