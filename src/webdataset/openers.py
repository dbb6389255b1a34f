"""Shard urls -> streams, as a stage: the loop that all openers share, and `StreamingOpen`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ._arguments import a_handler, check_flag, checked
from ._barren import Barren
from ._closing import closing_source
from ._types import Handler
from .errors import OpenError, public_url
from .handlers import reraise_exception
from .openahead import Opener, opened_in_order
from .storage.options import StorageOptions
from .storage.options import storage_options as options_of
from .tariterators import locate_shard, note_fault

logger = logging.getLogger(__name__)

PATIENCE = 1000
"""So many shards that could not be opened, always the same, are no passing trouble of the network."""


def open_each(
    urls: Iterable[Any],
    opener: Opener,
    handler: Handler,
    early: Callable[[str], bool] | None = None,
    options: StorageOptions | None = None,
) -> Iterator[dict[str, Any]]:
    """Each url (or `{"url": ...}`) with what `opener` gives for it; the handler says what becomes of failures.

    Args:
        early: whether a shard may be opened before its turn; None: never. `options` say how many.
    """
    failed = Barren(PATIENCE)
    source_of_urls = iter(urls)
    sources = (dict(item) if isinstance(item, dict) else {"url": item} for item in source_of_urls)
    openings = opened_in_order(sources, opener, early, options or options_of())
    with closing_source(source_of_urls), closing_source(openings):
        for source, opening in openings:
            url = source["url"]
            try:
                source.update(opening.result())
            except Exception as exn:
                note_fault(source)
                if failed.add(url):
                    raise OpenError(f"{failed} could not be opened, the last one because: {exn}", url=url) from exn
                if handler(locate_shard(exn, url)):
                    continue
                return
            failed.clear()
            yield source


def open_streaming(url: str, options: StorageOptions | None = None) -> dict[str, Any]:
    """The shard as `gopen` gives it, with the path of a local file."""
    from .gopen import gopen, is_native, path_of

    given: dict[str, Any] = {} if options is None or not is_native(url) else {"options": options}
    opened: dict[str, Any] = {"stream": gopen(url, **given)}
    path = path_of(url)
    if path is not None:
        opened["local_path"] = path
    return opened


class StreamingOpen:
    """Stage: open each url (or `{"url": ...}`) as it comes; gives `{"url", "stream"}`, local files `"local_path"` too.

    Remote shards that come next are opened ahead: see `openahead`.

    Args:
        verbose: log each url that is opened.
        handler: asked when one cannot be opened; true skips it, false ends the stage.
        storage_options: how remote urls are read, a `StorageOptions` or a dict of its names.
    """

    @checked("StreamingOpen", verbose=check_flag, handler=a_handler)
    def __init__(
        self,
        verbose: bool = False,
        handler: Handler = reraise_exception,
        *,
        storage_options: StorageOptions | Mapping[str, Any] | None = None,
    ) -> None:
        self.verbose = verbose
        self.handler = handler
        self.storage_options = None if storage_options is None else options_of(storage_options)

    def __call__(self, urls: Iterable[Any]) -> Iterator[dict[str, Any]]:
        from .gopen import is_native

        return open_each(urls, self._open, self.handler, is_native, self.storage_options)

    def _open(self, url: str) -> dict[str, Any]:
        if self.verbose:
            logger.info("opening %s", public_url(url))
        return open_streaming(url, self.storage_options)
