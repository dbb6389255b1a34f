"""What stops a command of ours -> how its process ends: one line for an error, status 130 and no word for Ctrl-C.

Rule: only errors that a user can mend become a line; a fault of the program keeps its traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import WebDatasetError, printable


@contextmanager
def in_one_line(name: str) -> Iterator[None]:
    """Ends the process with status 1 and `name: what went wrong`, or with 130 after Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except (WebDatasetError, OSError, IndexError, ValueError) as exn:
        sys.exit(f"{name}: {printable(str(exn), 1000)}")


__all__ = ["in_one_line"]
