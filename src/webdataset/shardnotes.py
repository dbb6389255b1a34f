"""What was found out about a state of a shard <-> a file in the cache folder, of use for that state only.

A note is a line of JSON, with the state of the shard and a checksum, and then bytes. One of another state, a cut or
damaged one is none. Where no file can be written, there will be none next time.
"""

from __future__ import annotations

import json
import logging
import os
import zlib

from .cachenames import url_to_cache_name
from .errors import OpenError
from .shardbytes import ShardBytes, absolute
from .storage.atomic import write_file

logger = logging.getLogger(__name__)

KIND = "webdataset-note-1"


def note_path(folder: str, url: str, suffix: str) -> str:
    """The file for what is known of a shard; `suffix` says what it is."""
    return os.path.join(folder, url_to_cache_name(absolute(url)) + suffix)


def read_note(folder: str | None, shard: ShardBytes, suffix: str) -> bytes | None:
    """What `write_note` was given for this state of the shard, None where there is nothing right."""
    if folder is None:
        return None
    try:
        with open(note_path(folder, shard.url, suffix), "rb", buffering=0) as file:
            text, _, body = file.read().partition(b"\n")
        head = json.loads(text)
        right = head == json.loads(_head(shard, body)) and is_known(shard)
    except (OSError, ValueError):
        return None
    return body if right else None


def write_note(folder: str | None, shard: ShardBytes, suffix: str, body: bytes) -> None:
    """Keep bytes for this state of the shard, where that can be."""
    if folder is not None and is_known(shard):
        write_file_if_possible(note_path(folder, shard.url, suffix), _head(shard, body) + b"\n" + body)


def write_file_if_possible(path: str, data: bytes) -> None:
    """Write a file for the next time; where that cannot be, there will be none."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_file(path, data)
    except (OSError, OpenError) as exn:
        logger.debug("nothing is cached: %s", exn)


def _head(shard: ShardBytes, body: bytes) -> bytes:
    head = {"kind": KIND, "version": shard.version, "crc32": zlib.crc32(body), "bytes": len(body)}
    return json.dumps(head).encode("ascii")


def is_known(shard: ShardBytes) -> bool:
    """Whether the state of a shard can be told from another one of the same size."""
    return shard.version.mtime_ns is not None or shard.version.etag is not None
