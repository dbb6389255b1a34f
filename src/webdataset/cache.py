"""Openers: stages that turn shard urls into streams. Local copies of remote shards will live here too."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from ._types import Handler
from .errors import public_url
from .handlers import reraise_exception
from .storage.local import local_path
from .tariterators import locate_shard

logger = logging.getLogger(__name__)


class StreamingOpen:
    """Stage: open each url (or `{"url": ...}`) as it comes; gives `{"url", "stream"}`, local files `"local_path"` too.

    Args:
        verbose: log each url that is opened.
        handler: asked when one cannot be opened; true skips it, false ends the stage.
    """

    def __init__(self, verbose: bool = False, handler: Handler = reraise_exception) -> None:
        self.verbose = verbose
        self.handler = handler

    def __call__(self, urls: Iterable[Any]) -> Iterator[dict[str, Any]]:
        from .gopen import gopen, rewrite_url

        for item in urls:
            source = dict(item) if isinstance(item, dict) else {"url": item}
            url = source["url"]
            if self.verbose:
                logger.info("opening %s", public_url(url))
            try:
                source["stream"] = gopen(url)
                path = local_path(rewrite_url(url))
            except Exception as exn:
                if self.handler(locate_shard(exn, url)):
                    continue
                return
            if path is not None:
                source["local_path"] = path
            yield source
