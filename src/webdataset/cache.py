"""Openers: stages that turn shard urls into streams. Local copies of remote shards will live here too."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from ._arguments import a_handler, check_flag, checked
from ._closing import closing_source
from ._types import Handler
from .errors import OpenError, public_url
from .handlers import reraise_exception
from .storage.local import local_path
from .tariterators import locate_shard, note_fault

logger = logging.getLogger(__name__)

HOPELESS = 1000
"""A source that draws the same shards again and again ends when none of so many could be opened."""


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
        from .gopen import gopen, rewrite_url

        failed: list[str] = []  # in a row
        source_of_urls = iter(urls)
        with closing_source(source_of_urls):
            for item in source_of_urls:
                source = dict(item) if isinstance(item, dict) else {"url": item}
                url = source["url"]
                if self.verbose:
                    logger.info("opening %s", public_url(url))
                try:
                    source["stream"] = gopen(url)
                    path = local_path(rewrite_url(url))
                except Exception as exn:
                    note_fault(source)
                    failed.append(url)
                    if len(failed) % HOPELESS == 0 and len(set(failed)) <= len(failed) // 2:
                        raise OpenError(
                            f"{len(failed)} times in a row no shard could be opened, the last one because: {exn}",
                            url=url,
                        ) from exn
                    if self.handler(locate_shard(exn, url)):
                        continue
                    return
                failed = []
                if path is not None:
                    source["local_path"] = path
                yield source
