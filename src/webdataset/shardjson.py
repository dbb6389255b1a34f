"""Shards and their counts -> a wids JSON as text, which `countedshards` and wids read. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

KIND = "wids-shard-index-v1"
VERSION = 1


def shard_entry(url: str, nsamples: int, filesize: int, md5sum: str | None = None) -> dict[str, Any]:
    """What a JSON says about a shard."""
    hashed = {} if md5sum is None else {"md5sum": md5sum}
    return {"url": url, **hashed, "nsamples": nsamples, "filesize": filesize}


def format_json(entries: Sequence[Mapping[str, Any]], name: str, **more: Any) -> str:
    """The text of a JSON with these shards; further keys where their values are not None."""
    spec: dict[str, Any] = {"__kind__": KIND, "wids_version": VERSION, "shardlist": entries, "name": name}
    return json.dumps(spec | {key: value for key, value in more.items() if value is not None}, indent=2)


def shorten_name(s: str) -> str:
    """The words of a name without numbers and repetitions.

    >>> shorten_name("data/imagenet-train-000000")
    'data-imagenet-train'
    """
    words = [word for word in re.split(r"\W+", s) if word and not word.isdigit()]
    return "-".join(dict.fromkeys(words))


def json_of_pattern(pattern: str, writer: str = "") -> str:
    """Where the JSON of the shards of a `%` pattern lies: beside them, named by what stands before the number.

    >>> json_of_pattern("s3://b/set/train-%06d.tar"), json_of_pattern("%06d.tar"), json_of_pattern("a_%d.tar", "1-of-4")
    ('s3://b/set/train.json', 'shardindex.json', 'a-1-of-4.json')
    """
    begin = re.match(r"(?:[^%]|%%)*", pattern)
    folder, slash, stem = (begin[0] if begin else "").replace("%%", "%").rpartition("/")
    stem = stem.rstrip("-_. ") or "shardindex"
    return f"{folder}{slash}{stem}{writer and '-' + writer}.json"
