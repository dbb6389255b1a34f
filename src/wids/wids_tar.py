"""The members of a tar archive by number, and the name of the index file beside it that published wids wrote.

Our index of an archive is made anew in memory; files that published wids left, which are pickles, are never read.
"""

from __future__ import annotations

import os
import re
from typing import Any

from .wids_mmtar import MMIndexedTar


def find_index_file(file: str | os.PathLike[str]) -> str:
    """The index file of an archive: `<file>.index`, without what `._<pid>_` adds to a copy in the making."""
    name = os.fspath(file)
    found = re.match(r"(.*?)\._\d+_$", name, re.DOTALL)
    return (found[1] if found else name) + ".index"


class TarFileReader(MMIndexedTar):
    """The members of an archive, by number; `names()`, `get_file(i)`, `len`, `close()`.

    Args:
        file: path of the archive, or the open file.
        index_file: Ignored, there is no such file; kept for callers of 0.2.
        verbose: Ignored as well.
    """

    def __init__(self, file: Any, index_file: Any = find_index_file, verbose: bool = True) -> None:
        super().__init__(file, None, verbose)


__all__ = ["TarFileReader", "find_index_file"]
