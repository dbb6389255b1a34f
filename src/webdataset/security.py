"""The switch of careful programs: with it on, data cannot make the program read local files or run code.

WDS_SECURE=1 turns it on for a process; a program sets `enforce_security` to True or False, which wins over the
environment. It is asked each time something would be allowed, never remembered. Writing local files stays allowed.
"""

from __future__ import annotations

import os

from .errors import SecurityError

enforce_security: bool | None = None
"""True or False decide; None leaves it to WDS_SECURE."""


def security_enforced() -> bool:
    """Whether the switch is on.

    Raises:
        SecurityError: WDS_SECURE is not a number, so what was meant is unknown.
    """
    if enforce_security is not None:
        return bool(enforce_security)
    text = os.environ.get("WDS_SECURE") or "0"
    try:
        return bool(int(text))
    except ValueError:
        raise SecurityError(f"WDS_SECURE must be 0 or 1, got {text!r}") from None


def refuse_if_secure(message: str) -> None:
    """Raise SecurityError(message) when the switch is on."""
    if security_enforced():
        raise SecurityError(message)
