"""A process that forks -> objects in the child that get new locks, since whoever held the old ones is not there.

An object says what that means by its method `after_fork`, which only makes things anew, or lets go of them.
"""

from __future__ import annotations

import functools
import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """What is told of forks."""

    def after_fork(self) -> None:
        """Called in the new process, before anything else happens there."""


_told: weakref.WeakSet[Forked] = weakref.WeakSet()


def tell_of_forks(thing: Forked) -> None:
    """From now on, as long as it is there, call its `after_fork` in each process that is forked from this one."""
    _watch()
    _told.add(thing)


@functools.cache
def _watch() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_tell)


def _tell() -> None:
    for thing in list(_told):
        thing.after_fork()
