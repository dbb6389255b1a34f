"""Names that were found -> the ones that are missing between them: 000, 001, 003 lack 002. Text only.

Numbers that are no sequence (every tenth, dates, hashes) have more gaps than members; nothing is said of those.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable
from itertools import pairwise

from .errors import public_url

SHOWN = 5
"""Gaps that a warning names; it counts the others."""

# the last number before the extension: .tar.bz2 has none
_NUMBERED = re.compile(
    r"(?P<head>.*?)(?P<number>[0-9]{1,18})(?P<tail>[^0-9/]*(?:\.(?:tar|tgz)(?:\.[a-z0-9]+)?)?)", re.S
)


def warn_of_gaps(urls: Iterable[str], where: str) -> None:
    """One warning that names what is missing in numbered sequences of these urls, which `where` stood for."""
    found = gaps(urls)
    if found:
        count = sum(count for _, count in found)
        names = ", ".join(public_url(name) for name, _ in found[:SHOWN])
        more = f" and {len(found) - SHOWN} more gaps" if len(found) > SHOWN else ""
        verb = "shard of a numbered sequence is" if count == 1 else "shards of a numbered sequence are"
        warnings.warn(f"{public_url(where)}: {count} {verb} missing: {names}{more}", stacklevel=2)


def gaps(urls: Iterable[str]) -> list[tuple[str, int]]:
    """Each gap as (the names that are missing, as a brace pattern; how many), in order.

    >>> gaps(["a-000.tar", "a-001.tar", "a-003.tar", "a-006.tar"])
    [('a-002.tar', 1), ('a-{004..005}.tar', 2)]
    >>> gaps(["a-0.tar", "a-10.tar", "a-20.tar"])
    []
    """
    sequences: dict[tuple[str, str], dict[int, str]] = {}
    for url in urls:
        match = _NUMBERED.fullmatch(url)
        if match:
            sequences.setdefault((match["head"], match["tail"]), {})[int(match["number"])] = match["number"]
    found = []
    for (head, tail), numbers in sorted(sequences.items()):
        there = sorted(numbers)
        missing = there[-1] - there[0] + 1 - len(there)
        if 0 < missing <= max(1, len(there) // 2) and len(there) > 1:
            width = min(map(len, numbers.values())) if _padded(numbers) else 0
            found += [_gap(head, tail, a + 1, b - 1, width) for a, b in pairwise(there) if b > a + 1]
    return found


def _padded(numbers: dict[int, str]) -> bool:
    return any(len(text) > 1 and text.startswith("0") for text in numbers.values())


def _gap(head: str, tail: str, first: int, last: int, width: int) -> tuple[str, int]:
    begin, end = f"{first:0{width}d}", f"{last:0{width}d}"
    return f"{head}{begin}{tail}" if first == last else f"{head}{{{begin}..{end}}}{tail}", last - first + 1
