"""Samples -> numbered shards, each of which appears under its name when it is complete, and not before."""

from __future__ import annotations

import inspect
import io
import logging
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from ._arguments import a, check_flag, check_function, check_known, check_number, check_path, checked
from .errors import public_url
from .storage.atomic import AtomicFile, refuse_existing
from .storage.local import local_path
from .tarwriter import TarWriter

logger = logging.getLogger(__name__)


class ShardWriter:
    """Writes samples to one shard after the other; a context manager.

    A shard is closed, and the next one begun, before a sample is written to a shard that is full. A
    local shard is written as `<name>.partial` and renamed when it is complete. The first is opened
    with the first sample. When an exception (or Ctrl-C) leaves the `with` block, the shard that is
    not complete is removed, and neither renamed nor posted; complete ones stay. Files are handed to
    the operating system, which writes them to disk in its own time.

    Args:
        pattern: name of the shards with a place for their number, `train-%06d.tar`; a path, or a url
            that `gopen` can write to, such as `pipe:gzip > train-%06d.tar.gz`.
        maxcount: samples in a shard at most.
        maxsize: bytes of data in a shard, headers not counted, after which it is full.
        post: called with the name of each shard when it is complete.
        start_shard: number of the first shard.
        verbose: log each shard at level INFO when it is begun.
        opener: called with a shard's name, gives the binary object to write to, which is closed with the shard.
        kw: arguments of `TarWriter`.
        overwrite: replace shards that exist; otherwise local ones are an error, others cannot be seen.

    Attributes:
        total: samples written, to all shards.
        count: samples in this shard.
        size: bytes of data in this shard.
        shard: number of the next shard.
        fname: name of this shard, None before the first sample.
        tarstream: the TarWriter of this shard, None between shards.

    Raises:
        OpenError: a shard exists, or cannot be written.
        ValueError: the pattern has no place for a number, a limit is not positive.
    """

    @checked(
        "ShardWriter",
        pattern=check_path,
        maxcount=a(check_number, "samples", more_than=0),
        maxsize=a(check_number, "bytes", more_than=0),
        post=a(check_function, optional=True),
        start_shard=check_number,
        verbose=check_flag,
        opener=a(check_function, optional=True),
        overwrite=check_flag,
    )
    def __init__(
        self,
        pattern: str,
        maxcount: int = 100000,
        maxsize: float = 3e9,
        post: Callable[[str], Any] | None = None,
        start_shard: int = 0,
        verbose: int = 1,
        opener: Callable[[str], Any] | None = None,
        *,
        overwrite: bool = False,
        **kw: Any,
    ) -> None:
        self._closed = True
        self.pattern = os.fspath(pattern)
        self.maxcount = maxcount
        self.maxsize = maxsize
        self.post = post
        self.shard = start_shard
        self.verbose = verbose
        self.opener = opener
        self.overwrite = overwrite
        self.kw = kw
        self.total = self.count = self.size = 0
        self.fname: str | None = None
        self.tarstream: TarWriter | None = None
        self._file: Any = None
        parameters = {**inspect.signature(ShardWriter).parameters, **inspect.signature(TarWriter).parameters}
        check_known("ShardWriter", kw, [name for name in parameters if name not in ("kw", "fileobj")], {})
        TarWriter(io.BytesIO(), **kw).abandon()  # wrong arguments are found now, not with the first sample
        named_here = opener is None and type(self).next_stream is ShardWriter.next_stream  # or a subclass names shards
        path = _local_path(self._name(start_shard)) if named_here else None
        if path is not None and not overwrite:
            refuse_existing(path)
        self._closed = False

    def write(self, obj: Mapping[str, Any]) -> None:
        """Append a sample, to a new shard if this one is full.

        Raises:
            EncodingError: the sample cannot be written; the writer goes on with the next one.
            OpenError: the shard cannot be opened or written.
            ValueError: the writer is closed.
        """
        if self.tarstream is None or self.count >= self.maxcount or self.size >= self.maxsize:
            self.next_stream()
            assert self.tarstream is not None
        self.size += self.tarstream.write(obj)
        self.count += 1
        self.total += 1

    def next_stream(self) -> None:
        """Complete this shard and begin the next one."""
        if self._closed:
            raise ValueError("write to a closed ShardWriter")
        self.finish()
        self.fname = self._name(self.shard)
        if self.verbose:
            logger.info("writing %s after %d samples", public_url(self.fname), self.total)
        self._open(self.fname)
        self.shard += 1
        self.count = self.size = 0

    def finish(self) -> None:
        """Complete this shard: close it, give it its name, call `post`. A shard without samples is removed."""
        if self.tarstream is None:
            return
        if self.count == 0:
            self._abandon()
            return
        try:
            self.tarstream.close()
            if isinstance(self._file, AtomicFile):
                self._file.commit()
            elif self._file is not None:
                self._file.close()
        except BaseException:
            self._abandon()
            raise
        self.tarstream = self._file = None
        if callable(self.post):
            assert self.fname is not None
            self.post(self.fname)

    def close(self) -> None:
        """Complete the last shard; closing again does nothing."""
        if self._closed:
            return
        self._closed = True
        self.finish()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True) and self.tarstream is not None:
            shown = public_url(self.fname or self.pattern)
            warnings.warn(
                f"{shown}: the writer was not closed, so this shard with its {self.count} samples is not there; use "
                "`with`, or call close()",
                stacklevel=2,
            )
            self._closed = True
            self._abandon()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, exc_type: Any = None, exc_val: Any = None, exc_tb: Any = None) -> None:
        if exc_type is None:
            self.close()
        else:
            self._closed = True
            self._abandon()

    def _name(self, shard: int) -> str:
        try:
            name = self.pattern % shard
        except (TypeError, ValueError):
            name = ""
        if not name:
            raise ValueError(
                f"the pattern {self.pattern!r} must have one place for the shard's number, "
                "as in shard-%06d.tar; a plain percent sign is %%"
            )
        return name

    def _open(self, name: str) -> None:
        kw = {**self.kw, "compress": TarWriter.tarmode(name, self.kw.get("compress")).partition("|")[2] or False}
        path = _local_path(name)
        if self.opener is not None:
            target = self._file = self.opener(name)
        elif path is not None:
            target = self._file = AtomicFile(path, self.overwrite)
        else:
            self._file, target = None, name
        try:
            self.tarstream = TarWriter(target, **kw)
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        """Close this shard and remove it where that can be done."""
        writer, file = self.tarstream, self._file
        self.tarstream = self._file = None
        if writer is not None:
            writer.abandon()
        if isinstance(file, AtomicFile):
            file.discard()
        elif file is not None:
            getattr(file, "abort", file.close)()


def _local_path(name: str) -> str | None:
    """The path of a shard on this machine, None for what gopen opens some other way."""
    from .gopen import rewrite_url

    return local_path(rewrite_url(name))
