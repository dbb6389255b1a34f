"""The methods of a binary stream, made of one: `_read(size, some)`, the next bytes."""

from __future__ import annotations

import io
from typing import Any

from ..errors import OpenError, WrongContentError

PIECE = 1 << 18
"""Bytes read at once where the caller does not say how many; larger pieces fall out of the processor's cache."""

SOME = 1 << 18
"""Most bytes of one `read1`."""


def read_small(stream: Any, most: int, url: str) -> bytes:
    """All bytes of a stream that should have few, such as a list or an index.

    Raises:
        WrongContentError: there are more than `most`; no more than that are held.
    """
    parts, left = [], most + 1
    while left and (data := stream.read(min(left, PIECE))):
        parts.append(data)
        left -= len(data)
    if not left:
        raise WrongContentError(f"such a file should have at most {most} bytes, this one has more", url=url)
    return b"".join(parts)


class ByteStream(io.BufferedIOBase):
    """A stream whose subclass gives `_read(size, some)`: at most `size` bytes, b"" only at the end (or for size 0)."""

    def _read(self, size: int, some: bool = False) -> bytes:
        """The next bytes; with `some`, what is there, without waiting for more."""
        raise NotImplementedError

    def readable(self) -> bool:
        """True."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """`size` bytes, fewer only at the end; everything for -1.

        Raises:
            ConnectionLostError: the bytes broke off, and did not come after all attempts.
        """
        if size is None or size < 0:
            return b"".join(iter(lambda: self._read(PIECE), b""))
        data = self._read(size)
        if len(data) == size or not data:
            return data
        buffer = bytearray(data)
        while len(buffer) < size:
            try:
                data = self._read(size - len(buffer))
            except OpenError:
                break  # what has come is given out; the error comes again with the next read
            if not data:
                break
            buffer += data
        return bytes(buffer)

    def read1(self, size: int = -1, /) -> bytes:
        """What is there, at most `size` bytes; b"" at the end."""
        return self._read(SOME if size < 0 else min(size, SOME), some=True)

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer; the number of bytes, less than its size only at the end."""
        view = memoryview(buffer).cast("B")
        done = 0
        while done < view.nbytes:
            try:
                data = self._read(min(view.nbytes - done, PIECE))
            except OpenError:
                if done:
                    break  # it comes again with the next read
                raise
            if not data:
                break
            view[done : done + len(data)] = data
            done += len(data)
        return done

    def readinto1(self, buffer: Any, /) -> int:
        """Put into the buffer what is there; 0 at the end."""
        view = memoryview(buffer).cast("B")
        data = self.read1(view.nbytes)
        view[: len(data)] = data
        return len(data)
