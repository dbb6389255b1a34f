"""Environment variables -> numbers and switches, read when they are asked for; an empty one counts as not set."""

from __future__ import annotations

import os


def number_of(name: str, default: int, meaning: str = "an integer", error: type[ValueError] = ValueError) -> int:
    """The variable as an integer; an error of this class, which names it, if it is something else."""
    text = os.environ.get(name) or str(default)
    try:
        return int(text)
    except ValueError:
        raise error(f"the environment variable {name} must be {meaning}, got {text!r}") from None


def switch_of(name: str, default: bool = False, error: type[ValueError] = ValueError) -> bool:
    """Whether the variable is on (1) or off (0); an error of this class, which names it, if it is no number."""
    return number_of(name, int(default), "0 or 1", error) != 0
