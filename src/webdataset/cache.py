"""Shard urls -> local copies of the shards, each downloaded once a host; `FileCache` is the stage.

    url -> name in the folder (cachenames) -> there already? -> open, locked for reading
                                             no -> download it (cachedownload, cachepartial) and read it meanwhile
                                                   (cachefollow)

Rules: only whole files that the validator has seen get their name, so a copy that is there needs no second look. How
bytes come in is `cachedownload`'s matter, what goes out again is `cachecleanup`'s.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import IO, Any

from ._arguments import a, a_handler, check_flag, check_function, check_number, check_path, checked
from ._environment import number_of, switch_of
from ._stage import RestCurried
from ._types import Handler, Sample
from .cachecleanup import LRUCleanup, read_locked, sweep, touch
from .cachedownload import DISK_FULL, Job, Validator, download, fetch, is_there
from .cachefollow import open_growing
from .cachenames import check_cache_name, islocal, pipe_cleaner, url_to_cache_name
from .cachepartial import read_etag
from .errors import NotFoundError, OpenError, public_url
from .filetypes import EARLY, check_record_format, check_tar_format, get_filetype, magic_filetype, record_kind
from .gopen import path_of, rewrite_url
from .handlers import reraise_exception
from .openers import StreamingOpen, open_each, open_streaming
from .storage.local import open_read
from .storage.options import StorageOptions
from .storage.options import storage_options as options_of
from .storage.urls import scheme_of
from .tariterators import expand_and_group, group_by_keys, tar_file_expander

__all__ = [
    "FileCache",
    "LRUCleanup",
    "StreamingOpen",
    "cached_tarfile_samples",
    "cached_tarfile_to_samples",
    "cached_url_opener",
    "check_tar_format",
    "download",
    "get_filetype",
    "islocal",
    "magic_filetype",
    "pipe_cleaner",
    "url_to_cache_name",
]

logger = logging.getLogger(__name__)

default_cache_dir: str
"""WDS_CACHE, or `./_cache`; read whenever it is asked for."""
default_cache_size: float
"""WDS_CACHE_SIZE in bytes, or 1e18."""
verbose_cache: int
"""WDS_VERBOSE_CACHE: 1 logs what the cache does."""


class FileCache:
    """Stage: open each url (or `{"url": ...}`) from a local copy, made when it is first asked for.

    Gives `{"url", "stream", "local_path"}`. Local files are opened where they are. Of several processes of a host that
    ask for one shard, one downloads it, and all read it while it comes; the file at "local_path" is there when the
    stream has been read to its end. When the disk is full, shards are streamed, with one warning, and not kept.

    Args:
        cache_dir: the folder, made when it is missing; None: WDS_CACHE, or `./_cache`.
        url_to_name: called with a url, gives the name of its copy in the folder; a result that is a url itself is
            named by `url_to_cache_name`.
        verbose: log what is opened and downloaded; so does WDS_VERBOSE_CACHE=1.
        validator: called with a file that has just come; false refuses it. `check_tar_format` refuses by the first
            bytes; for any other one the whole shard is downloaded before it is read. None: everything is kept.
        handler: asked when a shard cannot be had; true skips it, false ends the stage.
        cache_size: bytes that the folder may hold, what is being downloaded included, besides the shards that are
            being read; what was used longest ago goes. 0 or less: no bound.
        cache_cleanup_interval: seconds between two looks at what other processes added while nothing is downloaded;
            None: look each time.
        wait: download a shard whole before it is read, so that the file at "local_path" is there from the start.
        revalidate: ask, whenever a copy is opened, whether the shard still has the size and the ETag that it had when
            it was copied, and copy it anew if not; one request without a body each. None: WDS_CACHE_REVALIDATE=1 says
            so.
        storage_options: how remote urls are read, a `StorageOptions` or a dict of its names.

    Attributes:
        cleaner: the `LRUCleanup`, or None.
    """

    @checked(
        "FileCache",
        cache_dir=a(check_path, optional=True),
        url_to_name=check_function,
        verbose=check_flag,
        validator=a(check_function, optional=True),
        handler=a_handler,
        cache_size=a(check_number, "bytes"),
        cache_cleanup_interval=a(check_number, "seconds", optional=True),
        wait=check_flag,
    )
    def __init__(
        self,
        cache_dir: str | os.PathLike[str] | None = None,
        *,
        url_to_name: Callable[[str], str] = url_to_cache_name,
        verbose: bool = False,
        validator: Validator | None = check_tar_format,
        handler: Handler = reraise_exception,
        cache_size: float = -1,
        cache_cleanup_interval: float | None = 30,
        wait: bool = False,
        revalidate: bool | None = None,
        storage_options: StorageOptions | Mapping[str, Any] | None = None,
    ) -> None:
        self.cache_dir = os.path.expanduser(_cache_dir() if cache_dir is None else os.fspath(cache_dir))
        self.url_to_name = url_to_name
        self.verbose = verbose or switch_of("WDS_VERBOSE_CACHE")
        self.validator = validator
        self.handler = handler
        self.cleaner: LRUCleanup | None = None
        if cache_size > 0:
            self.cleaner = LRUCleanup(self.cache_dir, cache_size, verbose=self.verbose, interval=cache_cleanup_interval)
        self.wait = wait
        self.revalidate = switch_of("WDS_CACHE_REVALIDATE") if revalidate is None else revalidate
        self.storage_options = None if storage_options is None else options_of(storage_options)
        self._warned = self._swept = False

    def __call__(self, urls: Iterable[Any]) -> Iterator[dict[str, Any]]:
        return open_each(urls, self._open, self.handler)

    def get_file(self, url: str) -> str:
        """The path of a local file that holds the shard: its own where the url is local, else that of its copy.

        Raises:
            ValueError: what came is no tar archive (`WrongContentError`), or `url_to_name` gave no name.
            OpenError: it cannot be downloaded or written.
        """
        path = path_of(url)
        if path is not None:
            return path
        job = self._job(url)
        fetch(job, self._stale(job))
        touch(job.dest)
        return job.dest

    def _open(self, url: str) -> dict[str, Any]:
        if url == "-" or path_of(url) is not None:
            return open_streaming(url)
        try:
            job = self._job(url)
            stream = self._stream(job)
        except OpenError as exn:
            if exn.errno not in DISK_FULL:
                raise
            self._warn_once(exn)
            return open_streaming(url, self.storage_options)
        if self.verbose:
            logger.info("opening %s from %s", public_url(url), job.dest)
        return {"stream": stream, "local_path": job.dest}

    def _job(self, url: str) -> Job:
        dest = os.path.join(self.cache_dir, check_cache_name(self.url_to_name(url), url))
        validator = self.validator
        if validator is check_tar_format and record_kind(url) is not None:
            validator = check_record_format
        return Job(
            url,
            dest,
            options=self.storage_options,
            validator=validator,
            make_room=self._make_room,
            keep_etag=self.revalidate,
            verbose=self.verbose,
        )

    def _stream(self, job: Job) -> IO[bytes]:
        """The copy, or what has come of it."""
        stale = self._stale(job)
        whole = self.wait or os.name == "nt" or (job.validator is not None and job.validator not in EARLY)
        while True:
            stream: IO[bytes] | None = None
            if is_there(job.dest, stale):
                stream = self._copy(job)
            elif whole:
                fetch(job, stale)
            else:
                stream = open_growing(job, stale, self._warn_once)
            if stream is not None:
                return stream

    def _copy(self, job: Job) -> IO[bytes] | None:
        """The copy that is there; None: a cleanup of another process was faster."""
        touch(job.dest)
        try:
            stream = read_locked(open_read(job.dest))
        except NotFoundError:
            return None
        if self.cleaner is not None:
            self.cleaner.cleanup()  # behind the lock: not the shard that is to be read now
        return stream

    def _stale(self, job: Job) -> os.stat_result | None:
        """The copy, if one is there that is not of what is at the url now."""
        if not self.revalidate:
            return None
        try:
            copy = os.stat(job.dest)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return copy if _has_changed(job, copy.st_size) else None

    def _make_room(self) -> None:
        """Something is about to come: called in the thread that downloads it."""
        if not self._swept:
            self._swept = True
            sweep(self.cache_dir)
        if self.cleaner is not None:
            self.cleaner.make_room()

    def _warn_once(self, exn: Exception) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(f"{exn}; from now on shards that find no room are streamed, not kept", stacklevel=2)


def cached_url_opener(
    data: Iterable[Any],
    handler: Handler = reraise_exception,
    cache_size: float = -1,
    cache_dir: str | None = None,
    url_to_name: Callable[[str], str] = pipe_cleaner,
    validator: Validator | None = check_tar_format,
    verbose: bool = False,
    always: bool = False,
) -> Iterator[dict[str, Any]]:
    """Open each `{"url": ...}` through a `FileCache` with these arguments; `cache_size` 0 streams.

    Args:
        always: Ignored, local files are never copied; kept for callers of 0.2.
    """
    if cache_size == 0:
        return StreamingOpen(verbose=verbose, handler=handler)(data)
    cache = FileCache(
        cache_dir, url_to_name=url_to_name, verbose=verbose, validator=validator, handler=handler, cache_size=cache_size
    )
    return cache(data)


def cached_tarfile_samples(
    src: Iterable[Any],
    handler: Handler = reraise_exception,
    cache_size: float = -1,
    cache_dir: str | None = None,
    verbose: bool = False,
    url_to_name: Callable[[str], str] = pipe_cleaner,
    always: bool = False,
    select_files: Callable[[str], bool] | None = None,
    rename_files: Callable[[str], str] | None = None,
) -> Iterator[Sample]:
    """Samples of the shards `{"url": ...}`, read from local copies: `tarfile_samples` behind `cached_url_opener`."""
    streams = cached_url_opener(src, handler, cache_size, cache_dir, url_to_name, verbose=verbose, always=always)
    if select_files is None and rename_files is None:
        return expand_and_group(streams, handler)
    return group_by_keys(tar_file_expander(streams, handler, select_files, rename_files), handler=handler)


cached_tarfile_to_samples = RestCurried(cached_tarfile_samples)


def shard_opener(
    cache_dir: str | os.PathLike[str] | None,
    cache_size: float | None,
    url_to_name: Callable[[str], str] | None,
    verbose: bool,
    handler: Handler,
    storage_options: StorageOptions | Mapping[str, Any] | None = None,
) -> FileCache | StreamingOpen:
    """The opener for these arguments of WebDataset, and for WDS_CACHE and WDS_CACHE_SIZE where they say nothing.

    Raises:
        ValueError: the folder does not exist.
    """
    folder = cache_dir if cache_dir is not None else os.environ.get("WDS_CACHE") or None
    if cache_size is None or cache_size < 0:
        cache_size = _cache_size(-1)
    if cache_size == 0 or folder is None:
        if cache_size > 0 and folder is None and not os.environ.get("WDS_CACHE_SIZE"):
            logger.warning("cache_size without cache_dir or WDS_CACHE: shards are streamed, not kept")
        return StreamingOpen(verbose=verbose, handler=handler, storage_options=storage_options)
    folder = os.path.expanduser(folder)
    if not os.path.isdir(folder):
        what = "is no folder" if os.path.exists(folder) else "does not exist"
        raise ValueError(f"cache directory {folder} {what}; make it first, or name another (cache_dir, WDS_CACHE)")
    return FileCache(
        folder,
        url_to_name=url_to_name or pipe_cleaner,
        verbose=verbose,
        handler=handler,
        cache_size=cache_size,
        storage_options=storage_options,
    )


def _has_changed(job: Job, size: int) -> bool:
    """Whether the object has another size or ETag than its copy; false where that cannot be known."""
    from .storage import places

    url = rewrite_url(job.url)
    if scheme_of(url) not in places.PLACES:
        return False  # what a command or a program's own opener gives has neither
    try:
        there = places.stat(url, job.options)
    except OpenError as exn:
        logger.warning("the copy is read, whether it is still right is not known: %s", exn)
        return False
    if there.size is not None and there.size != size:
        return True
    strong = there.etag is not None and there.etag.startswith('"')
    return strong and there.etag != read_etag(job.dest)


def _cache_dir() -> str:
    return os.environ.get("WDS_CACHE") or "./_cache"


def _cache_size(default: float = 1e18) -> float:
    """WDS_CACHE_SIZE in bytes; `1e12` is a number too."""
    text = os.environ.get("WDS_CACHE_SIZE") or str(default)
    try:
        size = float(text)
    except ValueError:
        size = float("nan")
    if size != size:
        raise ValueError(f"the environment variable WDS_CACHE_SIZE must be a number of bytes, got {text!r}")
    return size


_FROM_ENVIRONMENT: dict[str, Callable[[], Any]] = {
    "default_cache_dir": _cache_dir,
    "default_cache_size": _cache_size,
    "verbose_cache": partial(number_of, "WDS_VERBOSE_CACHE", 0),
}


def __getattr__(name: str) -> Any:
    if name in _FROM_ENVIRONMENT:
        return _FROM_ENVIRONMENT[name]()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
