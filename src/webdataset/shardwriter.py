"""Samples -> numbered shards, each of which appears under its name when it is complete, and not before.

Shards that are uploaded arrive in the background, while the next ones are written. What is to happen when a shard is
there happens in the thread of the program, in the order of the shards, at the next write or at close.
"""

from __future__ import annotations

import inspect
import io
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ._arguments import a, check_count, check_flag, check_function, check_known, check_number, check_path, checked
from .backlog import Backlog
from .errors import public_url
from .gopen import is_native, path_of, rewrite_url
from .headway import Course, Headway, Item
from .indexwriter import Written, check_index, index_writer
from .recordwriter import writer_of
from .storage.atomic import AtomicFile, refuse_existing
from .storage.upload import Upload
from .tarwriter import TarWriter

logger = logging.getLogger(__name__)


class ShardWriter:
    """Writes samples to one shard after the other; a context manager.

    A shard is closed, and the next one begun, before a sample is written to a shard that is full. A
    local shard is written as `<name>.partial` and renamed when it is complete. A shard on a server appears when it is
    complete there; its upload goes on in the background. The first shard is opened with the first sample. When an
    exception (or Ctrl-C) leaves the `with` block, shards that are not there yet are given up, and neither renamed nor
    posted; others stay. Files are handed to the operating system, which writes them to disk in its own time.

    Args:
        pattern: name of the shards with a place for their number, `train-%06d.tar`; a path, or a url
            that `gopen` can write to, such as `s3://bucket/train-%06d.tar` or `pipe:gzip > train-%06d.tar.gz`.
        maxcount: samples in a shard at most.
        maxsize: bytes of data in a shard, headers not counted, after which it is full.
        post: called with the name of each shard when it is there, in order, by the next write or by close.
        start_shard: number of the first shard.
        verbose: log each shard at level INFO when it is begun, and when it has been uploaded.
        opener: called with a shard's name, gives the binary object to write to, which is closed with the shard.
        kw: arguments of `TarWriter`; of `RecordWriter` for a pattern such as `train-%06d.mp` or `train-%06d.cbors.gz`.
        overwrite: replace shards that exist; otherwise they are an error, where that can be seen.
        rank: number of this writer among those that write to one pattern.
        world_size: how many there are. Writer r of n writes the shards start_shard + r, start_shard + r + n, ...
        uploads: shards that may be on their way to a server besides the one that is being written.
        progress: called with the name of a shard and the bytes of it that were sent so far, in the threads that send.
        resume: go on where a writer with the same arguments was stopped, see `remaining`. How far it had come is
            stored beside its first shard, as `<name of that shard>.progress`.
        index: leave an index `<shard>.tar.idx` beside each shard and, when all are there, a wids JSON of them: its path
            or url, or True for one beside the shards that is named by what stands before their number.
        md5: that JSON has the MD5 of each shard, too, which takes about a second for each GB.

    Attributes:
        total: samples written, to all shards, those of a writer that was resumed included.
        done: items of `remaining`, or samples, that need not be written again; 0 without `resume`.
        count: samples in this shard.
        size: bytes of data in this shard.
        shard: number of the next shard.
        fname: name of this shard, None before the first sample.
        tarstream: the TarWriter (or RecordWriter) of this shard, None between shards.
        index: path or url of the JSON, None where there will be none.

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
        rank=check_count,
        world_size=a(check_count, least=1),
        uploads=a(check_count, least=1),
        progress=a(check_function, optional=True),
        resume=check_flag,
        index=check_index,
        md5=check_flag,
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
        rank: int = 0,
        world_size: int = 1,
        uploads: int = 2,
        progress: Callable[[str, int], Any] | None = None,
        resume: bool = False,
        index: bool | str | os.PathLike[str] = False,
        md5: bool = False,
        **kw: Any,
    ) -> None:
        self._closed = True
        self._owner = os.getpid()
        self.pattern = os.fspath(pattern)
        self.maxcount = maxcount
        self.maxsize = maxsize
        self.post = post
        self.verbose = verbose
        self.opener = opener
        self.overwrite = overwrite
        self.uploads = uploads
        self.progress = progress
        self.kw = kw
        self.count = self.size = 0
        self.fname: str | None = None
        self.tarstream: Any = None
        self._file: Any = None
        self._backlog = Backlog()
        self._failure: BaseException | None = None
        if rank >= world_size:
            raise ValueError(f"ShardWriter: rank must be less than world_size, which is {world_size}, got {rank}")
        self._writer = writer_of(self.pattern, index)
        parameters = {**inspect.signature(ShardWriter).parameters, **inspect.signature(self._writer).parameters}
        check_known("ShardWriter", kw, [name for name in parameters if name not in ("kw", "fileobj")], {})
        self._writer(io.BytesIO(), **kw).abandon()  # wrong arguments are found now, not with the first sample
        first = start_shard + rank
        record = _record_of(self._name(first)) if resume and opener is None else None
        if resume and record is None:
            raise ValueError("ShardWriter: resume=True needs a path, or a url that the library serves itself")
        self._step = world_size
        self._course = Course(Headway(first, first - world_size, world_size=world_size), record)
        self.shard, self.total, self.done = (
            getattr(self._course.place, name) for name in ("shard", "samples", "items")
        )
        named_here = opener is None and type(self).next_stream is ShardWriter.next_stream  # or a subclass names shards
        path = path_of(self._name(self.shard)) if named_here else None
        if path is not None and not self._may_replace():
            refuse_existing(path)
        before = [self._name(number) for number in range(first, self.shard, world_size)]
        may_replace = overwrite or self._course.place.begun >= first
        writer = f"{rank}-of-{world_size}" if world_size > 1 else ""
        self._indexer = index_writer(
            index,
            self.pattern,
            self._name(first) if index else "",  # a subclass may name shards itself
            writer,
            opener,
            before=before,
            overwrite=may_replace,
            md5=md5,
        )
        self.index = None if self._indexer is None else self._indexer.path
        self._closed = False

    def remaining(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items that are still to be written, while the writer keeps count of them; all of them without `resume`.

            with wds.ShardWriter("train-%06d.tar", resume=True) as sink:
                for path in sink.remaining(paths):
                    sink.write(sample_of(path))

        The items must come in the same order each time, and each must give the same samples: none, one or several,
        written before the next item is asked for. Items whose samples are all in shards that are there are skipped.
        """
        return self._course.remaining(items)

    def write(self, obj: Mapping[str, Any]) -> None:
        """Append a sample, to a new shard if this one is full.

        Raises:
            EncodingError: the sample cannot be written; the writer goes on with the next one.
            OpenError: the shard cannot be opened or written.
            ValueError: the writer is closed.
        """
        if self._course.repeats():
            return
        if self._backlog:
            self._settle()
        if self._failure is not None:
            raise self._failure
        if self.tarstream is None or self.count >= self.maxcount or self.size >= self.maxsize:
            self.next_stream()
            assert self.tarstream is not None
        self._course.count()
        self.size += self.tarstream.write(obj)
        self.count += 1
        self.total += 1

    def next_stream(self) -> None:
        """Complete this shard and begin the next one."""
        if self._closed:
            raise ValueError("write to a closed ShardWriter: open another for more shards")
        self.finish()
        self.fname = self._name(self.shard)
        if self.verbose:
            logger.info("writing %s after %d samples", public_url(self.fname), self.total)
        self._open(self.fname)
        self.shard += self._step
        self.count = self.size = 0

    def finish(self) -> None:
        """Complete this shard: close it, give it its name, call `post`. A shard without samples is removed.

        A shard that is uploaded goes on its way, and `post` is called when it is there.
        """
        if self.tarstream is None:
            return
        if self.count == 0:
            self._abandon_shard()
            return
        assert self.fname is not None
        if isinstance(self._file, Upload):
            self._settle(self.uploads - 1)  # an interrupt of the waiting leaves this shard as it is
        place = self._course.at(self.shard, self.total)
        try:
            self.tarstream.close()
            if self._file is not None and not isinstance(self._file, Upload):
                self._file.close()
        except BaseException:
            self._abandon_shard()
            raise
        name, file = self.fname, self._file
        written = None if self._indexer is None else self._indexer.written(name, self.tarstream)
        self.tarstream = self._file = None
        if isinstance(file, Upload):
            self._backlog.add(name, file, (name, place, written), None if written is None else written.leave)
        else:
            if written is not None:
                written.leave()
            self._arrived(name, place, written)

    def close(self) -> None:
        """Complete the last shard and wait until all are there; closing again does nothing.

        Raises:
            OpenError: a shard could not be written, and no write has said so before.
        """
        if self._closed:
            return
        self._closed = True
        if self._failure is not None:
            self._abandon()
            return
        try:
            self.finish()
            self._settle(0)
            if self._indexer is not None:
                self._indexer.finish()
        except BaseException:
            self._abandon()
            raise

    def __del__(self) -> None:
        if not getattr(self, "_closed", True) and self._owner == os.getpid() and (self.tarstream or self._backlog):
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
        if self.opener is not None:
            target = self.opener(name)
        else:
            target = _open_target(name, self._may_replace())
        self._file = target
        try:
            if isinstance(target, Upload) and self.progress is not None:
                target.progress = _Sent(name, self.progress)
            self._course.begin(self.shard)
            if self._indexer is not None:
                target, kw["index"] = self._indexer.begun(target), True
            self.tarstream = self._writer(target, **kw)
        except BaseException:
            self._abandon_shard()
            raise

    def _settle(self, most: int | None = None) -> None:
        """Do what is to be done for shards that were uploaded; wait until no more than so many are on their way."""
        arrived = self._backlog.arrived(most)
        while True:
            try:
                name, place, written = next(arrived)
            except StopIteration:
                return
            except Exception as exn:
                self._failure = exn
                raise
            if self.verbose:
                logger.info("uploaded %s", public_url(name))
            self._arrived(name, place, written)

    def _arrived(self, name: str, place: Headway, written: Written | None) -> None:
        if written is not None and self._indexer is not None:
            self._indexer.add(written)
        if callable(self.post):
            self.post(name)
        self._course.reached(place)

    def _may_replace(self) -> bool:
        """Whether the next shard may be there: the writer that is resumed had begun it, or all may be replaced."""
        return self.overwrite or self.shard <= self._course.place.begun

    def _abandon(self) -> None:
        """Give up all shards that are not there."""
        self._backlog.abandon()  # before the other one, whose end takes time in which these might arrive
        self._abandon_shard()

    def _abandon_shard(self) -> None:
        """Close this shard and remove it where that can be done."""
        writer, file = self.tarstream, self._file
        self.tarstream = self._file = None
        if writer is not None:
            writer.abandon()
        if file is not None:
            getattr(file, "abort", file.close)()


class _Sent:
    """Counts the bytes of one shard that were sent, for the function that wants to know."""

    def __init__(self, name: str, progress: Callable[[str, int], Any]) -> None:
        self._name, self._progress = name, progress
        self._sent = 0
        self._lock = threading.Lock()

    def __call__(self, count: int) -> None:
        with self._lock:
            self._sent += count
            self._progress(self._name, self._sent)


def _open_target(name: str, overwrite: bool) -> Any:
    from .gopen import gopen

    path = path_of(name)
    if path is not None:
        return AtomicFile(path, overwrite)
    return gopen(name, "wb", overwrite=overwrite) if is_native(name) else gopen(name, "wb")


def _record_of(first: str) -> str | None:
    """Where to store how far a conversion has come, None where that cannot be done."""
    record = rewrite_url(first) + ".progress"
    return record if path_of(first) is not None or (is_native(first) and "?" not in first) else None
