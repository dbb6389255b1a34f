"""Error policies: what a stage does with an exception that comes from the data.

A handler is called with the exception. True: skip this item (or shard) and go on. False: end the
stage quietly. Or it raises. Only `Exception` reaches handlers, never KeyboardInterrupt.
"""

from __future__ import annotations

import warnings
from typing import NoReturn


def reraise_exception(exn: Exception) -> NoReturn:
    """Raise the exception: the default everywhere."""
    raise exn


def ignore_and_continue(exn: Exception) -> bool:
    """Skip the item without a word and go on."""
    return True


def warn_and_continue(exn: Exception) -> bool:
    """Warn, skip the item and go on."""
    warnings.warn(_shown(exn), stacklevel=2)
    return True


def ignore_and_stop(exn: Exception) -> bool:
    """End the stage without a word; everything after the bad item is not read."""
    return False


def warn_and_stop(exn: Exception) -> bool:
    """Warn and end the stage; everything after the bad item is not read."""
    warnings.warn(_shown(exn), stacklevel=2)
    return False


def _shown(exn: Exception) -> str:
    """The exception and what is noted of its place."""
    return "; ".join([repr(exn), *getattr(exn, "__notes__", ())])


__all__ = ["ignore_and_continue", "ignore_and_stop", "reraise_exception", "warn_and_continue", "warn_and_stop"]
