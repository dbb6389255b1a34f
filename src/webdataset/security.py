"""The switch of careful programs: with it on, data cannot make the program read local files or run code.

WDS_SECURE=1 turns it on for a process; a program sets `enforce_security` to True or False, which wins over the
environment. It is asked each time something would be allowed, never remembered. Writing local files stays allowed.
Programs of old assign `webdataset.utils.enforce_security`; that counts as well, and True wins where the two differ.
"""

from __future__ import annotations

import sys

from ._environment import switch_of
from .errors import SecurityError

enforce_security: bool | None = None
"""True or False decide; None leaves it to WDS_SECURE."""


def security_enforced() -> bool:
    """Whether the switch is on.

    Raises:
        SecurityError: WDS_SECURE is not a number, so what was meant is unknown.
    """
    old = sys.modules.get(f"{__package__}.utils")
    assigned = {enforce_security, vars(old).get("enforce_security") if old is not None else None} - {None}
    if assigned:
        return any(assigned)
    return switch_of("WDS_SECURE", error=SecurityError)


def refuse_if_secure(message: str) -> None:
    """Raise SecurityError(message) when the switch is on."""
    if security_enforced():
        raise SecurityError(message)
