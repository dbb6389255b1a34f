"""The first bytes of a file that is no archive -> what it is, and what to do about it, for errors. Pure.

The marks are those of the formats' own specifications, as the database of file(1) lists them.
"""

from __future__ import annotations

from ..errors import TarError

_MARKS = {
    b"\x89PNG\r\n\x1a\n": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"RIFF": "a RIFF file (WebP, WAV, AVI)",
    b"\x93NUMPY": "an array of numpy (.npy)",
    b"PK\x03\x04": "a zip archive (.zip, .npz, .pt): unpack it, and write shards with TarWriter",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive: unpack it, and write shards with TarWriter",
    b"Rar!\x1a\x07": "a RAR archive: unpack it, and write shards with TarWriter",
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"SQLite format 3\0": "an SQLite database",
    b"%PDF": "a PDF document",
    b"version https://git-lfs": "a pointer of Git LFS in place of the file: `git lfs pull` fetches it",
    b"<": "an HTML or XML page: did the server send an error page?",
    b"{": "JSON: did the server send an error message?",
    b"[": "JSON: did the server send an error message?",
}


def stranger_of(start: bytes) -> str | None:
    """What a file is that begins so, as "a PNG image"; None for what is not known."""
    text = start.lstrip()[:60]
    for mark, kind in _MARKS.items():
        if start.startswith(mark) or (len(mark) == 1 and text.startswith(mark)):
            return kind
    if text and all(32 <= byte < 127 or byte in b"\r\n\t" for byte in text):
        return "text"
    return None


def not_tar(start: bytes) -> TarError:
    """The error for a file whose first block, which this is, is no header."""
    kind = stranger_of(start)
    hint = "" if kind is None else f"; it looks like {kind}"
    return TarError(f"not a tar archive: it begins with {start[:24]!r}{hint}", offset=0)
