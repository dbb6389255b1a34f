"""A loader with processes of its own: each iterates over its share of a data set, samples come through a ZeroMQ socket.

Rules: what comes through the socket is unpickled, so the socket lies in a folder that only this user
can enter. Workers are started before this process has a ZeroMQ thread, because they may be forks.
Whatever ends a pass, its end, an error, a `break`, the garbage collector, the end of the program,
ends its processes and removes its folder, in the process that made them only; workers whose parent
is gone do that themselves. A worker that says nothing at its end has died, and that is an error.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import signal
import time
import weakref
from collections.abc import Iterator
from typing import Any

from . import _epochs
from ._arguments import check_items, check_number, explained
from ._closing import closing_source
from ._optional import require
from .places import add_place, reader_name

logger = logging.getLogger(__name__)

all_pids: set[int] = set()
"""Workers of this process that have not been waited for."""

the_protocol = pickle.HIGHEST_PROTOCOL

_QUEUE = 16  # samples a worker may be ahead, at each end of its connection
_SILENCE = 2000  # milliseconds without a sample, after which a worker that is gone has nothing under way
_LONGEST = 88  # bytes of a prefix: 103 is what macOS allows for an address, and 15 follow
_GRACE = 3.0  # seconds that workers have to close what they read


class EOF:
    """What a worker sends after its last sample; keyword arguments become attributes."""

    def __init__(self, **kw: Any) -> None:
        self.__dict__.update(kw)


def reader(dataset: Any, sockname: str, index: int, num_workers: int, *, stay: bool = False) -> None:
    """What a worker does: send each sample of the data set, pickled, to a socket, and an `EOF` at the end.

    Sets WORKER and NUM_WORKERS in the environment, by which shards are split. An error is sent with the
    `EOF`. With `stay`, the connection is kept until the process is ended: what waits in a full
    connection is lost when the sender closes it.
    """
    zmq = require("zmq", "pyzmq", "MultiLoader")
    os.environ["WORKER"], os.environ["NUM_WORKERS"] = str(index), str(num_workers)
    context, linger = zmq.Context(), 0
    socket = context.socket(zmq.PUSH)
    try:
        socket.set_hwm(_QUEUE)
        socket.reconnect_ivl = 10  # milliseconds; the consumer may not listen yet
        socket.connect(sockname)
        end = EOF(index=index)
        try:
            samples = iter(dataset)
            with closing_source(samples):
                for sample in samples:
                    socket.send(pickle.dumps(sample, the_protocol))
        except Exception as exn:
            add_place(exn, worker=reader_name())
            end = EOF(index=index, error=_portable(exn, f"worker {index} of {num_workers} of a MultiLoader"))
        socket.send(pickle.dumps(end, the_protocol))
        while stay:
            time.sleep(60)
        linger = -1
    finally:
        socket.close(linger=linger)
        context.term()


def _portable(exn: Exception, where: str) -> Exception:
    """The error, or one of its class with its text, as far as it can be pickled; its traceback is a note."""
    from traceback import format_exception

    note = f"in {where}:\n{''.join(format_exception(exn))}"
    for arguments in (None, (str(exn),)):
        try:
            error = exn if arguments is None else type(exn)(*arguments)
            error.add_note(note)
            if type(pickle.loads(pickle.dumps(error, the_protocol))) is type(exn):  # noqa: S301 our own bytes
                return error
        except Exception:
            logger.debug("%s does not survive pickling", type(exn).__name__, exc_info=True)
    error = RuntimeError(f"{type(exn).__name__}: {exn}")
    error.add_note(note)
    return error


def _work(dataset: Any, sockname: str, index: int, num_workers: int, run: int) -> None:
    """A worker process: Ctrl-C is the parent's to handle, and its end is the end of this one."""
    from threading import Thread

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave)
    Thread(target=_end_with_parent, args=(os.path.dirname(sockname.removeprefix("ipc://")),), daemon=True).start()
    _epochs.run = run
    reader(dataset, sockname, index, num_workers, stay=True)


def _leave(signum: int, frame: Any) -> None:
    signal.signal(signum, signal.SIG_IGN)
    raise SystemExit(128 + signum)  # so that files and commands behind the data set are closed


def _end_with_parent(folder: str) -> None:
    from multiprocessing.connection import wait
    from shutil import rmtree

    parent, starter = multiprocessing.parent_process(), os.getppid()
    while parent is not None and os.getppid() == starter and not wait([parent.sentinel], 1):
        pass
    rmtree(folder, ignore_errors=True)
    os._exit(1)


class MultiLoader:
    """Samples of a data set that several processes iterate over, as they come; for Linux and macOS.

    The processes have WORKER and NUM_WORKERS in their environment: a `WebDataset` splits its shards by
    them, so that each sample comes once; other data sets may come once a worker. Iterating again
    starts again, with the next epoch. Leaving an iteration early, `close` and the end of the program end
    the processes.

    Raises:
        MissingDependencyError: pyzmq is not installed.
        RuntimeError: a worker died; a message is no sample; an iteration is continued that `close` or a later one has
            ended.
        ValueError: the prefix is too long.
        Exception: what a worker raised, of the same class; its traceback there is a note.
    """

    @explained("MultiLoader", {"num_workers": "write workers="})
    def __init__(
        self,
        dataset: Any,
        workers: int = 4,
        verbose: bool = False,
        nokill: bool = False,
        prefix: str | None = None,
    ) -> None:
        """`prefix` begins the path of a private folder for the socket, by default `_multi-` in the temporary folder.

        Args:
            dataset: any iterable. It is pickled where the system's way of starting processes asks for that.
            workers: how many processes, at least 1.
            verbose: log the processes that start and end.
            nokill: let an earlier iteration that was not finished go on when another one begins.
            prefix: at most 88 bytes, because addresses of sockets are short.
        """
        check_items("MultiLoader", "dataset", dataset, "a data set, or anything else that can be iterated over")
        check_number("MultiLoader", "workers", workers, "processes", whole=True, least=1)
        self.dataset = dataset
        self.workers = workers
        self.verbose = verbose
        self.nokill = nokill
        self.prefix = prefix
        self._passes: weakref.WeakSet[_Pass] = weakref.WeakSet()

    def kill(self) -> None:
        """End the workers of all iterations."""
        for running in list(self._passes):
            running.close()

    close = kill

    def __iter__(self) -> Iterator[Any]:
        require("zmq", "pyzmq", "MultiLoader")
        if multiprocessing.current_process().daemon:
            raise RuntimeError(
                "MultiLoader: this process is a worker itself, and workers may not start processes:"
                " use ThreadedLoader in it, or more workers"
            )
        if not self.nokill:
            self.kill()
        _epochs.share_all()  # the data set, or what is somewhere in it, goes on counting in the next workers
        started = _Pass(self.dataset, self.workers, self.prefix, logging.INFO if self.verbose else logging.DEBUG)
        self._passes.add(started)
        return _received(started)


class _Pass:
    """The processes of one pass over a data set, and the folder of the socket that they send to."""

    def __init__(self, dataset: Any, workers: int, prefix: str | None, level: int) -> None:
        from tempfile import gettempdir, mkdtemp

        folder, name = os.path.split(os.path.join(gettempdir(), "_multi-") if prefix is None else prefix)
        length = len(os.fsencode(os.path.join(os.path.abspath(folder), name)))
        if length > _LONGEST:
            raise ValueError(
                f"MultiLoader: prefix must have at most {_LONGEST} bytes, because addresses of sockets are short;"
                f" {os.path.join(folder, name)} has {length}"
            )
        self.owner = os.getpid()
        self.folder = mkdtemp(prefix=name, dir=os.path.abspath(folder))
        self.address = f"ipc://{self.folder}/socket"
        self.processes: list[Any] = []
        self._end = weakref.finalize(self, _end, self.owner, self.folder, self.processes, level)
        run = int.from_bytes(os.urandom(5), "little") or 1
        try:
            for index in range(workers):
                process = _started((dataset, self.address, index, workers, run))
                self.processes.append(process)
                all_pids.add(process.pid)
                logger.log(level, "worker %d of %d is process %d", index, workers, process.pid)
        except BaseException:
            self.close()
            raise

    @property
    def closed(self) -> bool:
        return not self._end.alive

    def check_process(self) -> None:
        if os.getpid() != self.owner:
            raise RuntimeError("this iteration over a MultiLoader began in another process: begin one here")

    def close(self) -> None:
        self._end()


def _started(args: tuple[Any, ...]) -> Any:
    """A running worker; a fork where the system's usual way needs a pickle of what cannot be pickled."""
    try:
        process = multiprocessing.Process(target=_work, args=args, daemon=True)
        process.start()
        return process
    except (pickle.PicklingError, TypeError, AttributeError):
        if "fork" not in multiprocessing.get_all_start_methods() or multiprocessing.get_start_method() == "fork":
            raise
    fork = multiprocessing.get_context("fork").Process(target=_work, args=args, daemon=True)
    fork.start()
    return fork


def _end(owner: int, folder: str, processes: list[Any], level: int) -> None:
    from shutil import rmtree

    if os.getpid() != owner:  # a fork that has inherited the loader
        return
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + _GRACE
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
        logger.log(level, "process %d has ended", process.pid)
        all_pids.discard(process.pid)
    rmtree(folder, ignore_errors=True)


def _received(source: _Pass) -> Iterator[Any]:
    """All samples; the first error of a worker, or its death, ends them."""
    zmq = require("zmq", "pyzmq", "MultiLoader")
    source.check_process()
    context = zmq.Context()
    socket = context.socket(zmq.PULL)
    try:
        socket.set_hwm(_QUEUE)
        if not source.closed:
            socket.bind(source.address)
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        for process in source.processes:
            poller.register(process.sentinel, zmq.POLLIN)
        waiting = dict(enumerate(source.processes))
        while waiting:
            if source.closed:
                raise RuntimeError(
                    "this iteration over a MultiLoader was ended by close(), kill() or a later iteration"
                )
            ready = dict(poller.poll(_SILENCE))
            for process in source.processes:
                if process.sentinel in ready:
                    poller.unregister(process.sentinel)
                    process.join(1)
            _tell_deaths(waiting, len(source.processes), silent=not ready)
            for _ in range(_QUEUE if socket in ready else 0):
                try:
                    frames = socket.recv_multipart(zmq.NOBLOCK)
                except zmq.Again:
                    break
                item = _item(frames, waiting)
                del frames
                if not isinstance(item, EOF):
                    yield item
                    source.check_process()
                    continue
                error = vars(item).get("error")
                if error is not None:
                    raise error
                waiting.pop(vars(item)["index"]).terminate()
    finally:
        if os.getpid() == source.owner:
            socket.close(linger=0)  # by hand: in the hands of the garbage collector, the context has forgotten it
            context.term()
            source.close()


def _item(frames: list[bytes], waiting: dict[int, Any]) -> Any:
    """The sample in a message, or the `EOF` of a worker that has not sent one; RuntimeError for anything else."""
    cause: Exception | None = None
    fact = f"it has {len(frames)} parts, expected 1"
    if len(frames) == 1:
        try:
            item = pickle.loads(frames[0])  # noqa: S301 from our folder, which is private
            if not isinstance(item, EOF) or "error" in vars(item) or vars(item).get("index") in waiting:
                return item
            fact = f"it is the end of worker {vars(item).get('index')}, which was not expected"
        except Exception as exn:
            cause, fact = exn, f"{type(exn).__name__}: {exn}"
    raise RuntimeError(
        f"a MultiLoader got a message of {sum(map(len, frames))} bytes that is no sample: {fact};"
        " samples must be picklable both ways, and nobody else may send to the socket"
    ) from cause


def _tell_deaths(waiting: dict[int, Any], num_workers: int, silent: bool) -> None:
    """Raise RuntimeError if a worker has gone without a word; one that left in peace may have samples under way."""
    for index, process in waiting.items():
        code = process.exitcode
        if code is None or (code == 0 and not silent):
            continue
        how, hint = f"with exit status {code}", "what it wrote to its standard error may say why"
        if code < 0:
            how = f"of signal {-code} ({signal.strsignal(-code)})"
        if code == -signal.SIGKILL:
            hint = "where memory is short, the system kills: try fewer workers"
        raise RuntimeError(
            f"worker {index} of {num_workers} of a MultiLoader (process {process.pid}) died {how} before it had sent"
            f" all its samples; {hint}"
        )


__all__ = ["EOF", "MultiLoader", "all_pids", "reader", "the_protocol"]
