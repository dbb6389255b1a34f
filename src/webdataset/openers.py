"""Shard urls -> streams, as a stage: the loop that all openers share, and `StreamingOpen`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ._arguments import a_handler, check_flag, checked
from ._barren import Barren
from ._closing import closing_source
from ._types import Handler
from .errors import OpenError, public_url
from .handlers import reraise_exception
from .storage.local import local_path
from .tariterators import locate_shard, note_fault

logger = logging.getLogger(__name__)

PATIENCE = 1000
"""So many shards that could not be opened, always the same, are no passing trouble of the network."""

Opener = Callable[[str], dict[str, Any]]
"""Called with a url; gives what is known of the open shard: `stream`, and `local_path` where there is a file."""


def open_each(urls: Iterable[Any], opener: Opener, handler: Handler) -> Iterator[dict[str, Any]]:
    """Each url (or `{"url": ...}`) with what `opener` gives for it; the handler says what becomes of failures."""
    failed = Barren(PATIENCE)
    source_of_urls = iter(urls)
    with closing_source(source_of_urls):
        for item in source_of_urls:
            source = dict(item) if isinstance(item, dict) else {"url": item}
            url = source["url"]
            try:
                source.update(opener(url))
            except Exception as exn:
                note_fault(source)
                if failed.add(url):
                    raise OpenError(f"{failed} could not be opened, the last one because: {exn}", url=url) from exn
                if handler(locate_shard(exn, url)):
                    continue
                return
            failed.clear()
            yield source


def open_streaming(url: str) -> dict[str, Any]:
    """The shard as `gopen` gives it, with the path of a local file."""
    from .gopen import gopen, rewrite_url

    opened: dict[str, Any] = {"stream": gopen(url)}
    path = local_path(rewrite_url(url))
    if path is not None:
        opened["local_path"] = path
    return opened


class StreamingOpen:
    """Stage: open each url (or `{"url": ...}`) as it comes; gives `{"url", "stream"}`, local files `"local_path"` too.

    Args:
        verbose: log each url that is opened.
        handler: asked when one cannot be opened; true skips it, false ends the stage.
    """

    @checked("StreamingOpen", verbose=check_flag, handler=a_handler)
    def __init__(self, verbose: bool = False, handler: Handler = reraise_exception) -> None:
        self.verbose = verbose
        self.handler = handler

    def __call__(self, urls: Iterable[Any]) -> Iterator[dict[str, Any]]:
        return open_each(urls, self._open, self.handler)

    def _open(self, url: str) -> dict[str, Any]:
        if self.verbose:
            logger.info("opening %s", public_url(url))
        return open_streaming(url)
