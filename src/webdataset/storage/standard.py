"""Standard input and output as streams that may be closed without harm: the process keeps its own."""

from __future__ import annotations

import io
import sys
from typing import IO, Any

from ..errors import OpenError


class StandardStream(io.BufferedIOBase):
    """The buffer of sys.stdin or sys.stdout; `close` flushes and lets go of it, and leaves it open."""

    def __init__(self, stream: IO[bytes], mode: str) -> None:
        self.stream = stream
        self.mode = mode

    def readable(self) -> bool:
        """Whether it is standard input."""
        return self.mode == "rb"

    def writable(self) -> bool:
        """Whether it is standard output."""
        return self.mode == "wb"

    def fileno(self) -> int:
        """Descriptor of the stream."""
        return self.stream.fileno()

    def read(self, size: int | None = -1, /) -> bytes:
        """At most `size` bytes, fewer only at the end; all of them for -1."""
        return self.stream.read(-1 if size is None else size)

    def read1(self, size: int = -1, /) -> bytes:
        """What is there, at most `size` bytes; b"" at the end."""
        read1: Any = getattr(self.stream, "read1", self.stream.read)
        data: bytes = read1(size)
        return data

    def readinto(self, buffer: Any, /) -> int:
        """Fill the buffer; the number of bytes, less than its size only at the end."""
        data = self.read(memoryview(buffer).nbytes)
        memoryview(buffer).cast("B")[: len(data)] = data
        return len(data)

    def readline(self, size: int | None = -1, /) -> bytes:
        """The next line, with its end."""
        return self.stream.readline(-1 if size is None else size)

    def write(self, data: Any, /) -> int:
        """Write all of the data; the number of bytes."""
        return self.stream.write(data)

    def flush(self) -> None:
        """Flush standard output."""
        if self.mode == "wb" and not self.stream.closed:
            self.stream.flush()


def open_standard(mode: str) -> StandardStream:
    """Standard input for "rb", standard output for "wb".

    Raises:
        OpenError: the process has none, or it was replaced by something without bytes.
    """
    name = "stdin" if mode == "rb" else "stdout"
    stream = getattr(getattr(sys, name), "buffer", None)
    if stream is None:
        raise OpenError(f"sys.{name} has no byte stream (`buffer`) here", url="-")
    return StandardStream(stream, mode)
