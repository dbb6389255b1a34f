"""The command `widsindex`: makes wids JSON files, changes them, and shows what they list.

widsindex create -o train.json -n train 'train-{000..099}.tar'
widsindex update -b https://host/data train.json
widsindex info -t train.json
widsindex sample train.json 1900
"""

from __future__ import annotations

import argparse
import io
import json
import os
import posixpath
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from webdataset._commandline import in_one_line
from webdataset.errors import ShardListError
from webdataset.shardjson import format_json, shorten_name
from webdataset.storage.atomic import AtomicFile
from webdataset.storage.urls import scheme_of

from . import wids_dl
from .indexmaking import shard_entry, shard_names
from .wids_specs import load_remote_dsdesc_raw, urldir, urlmerge

COLUMNS = ("file", "name", "nbytes", "nsamples", "base", "last", "datasets")


def __getattr__(name: str) -> Any:
    if name == "wids":  # imports torch
        from importlib import import_module

        return import_module("wids.wids")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def format_with_suffix(num: float) -> str:
    """A number in steps of 1000.

    >>> format_with_suffix(1234567), format_with_suffix(8)
    ('1.2M', '8.0')
    """
    for suffix in ("", "k", "M", "G", "T", "P"):
        if num < 1000:
            return f"{num:.1f}{suffix}"
        num /= 1000
    return f"{num:.1f}E"


def urldirbase(url: str) -> str:
    """The folder of what a url names, as a url: `file:///...` of a path."""
    return urldir(url) if scheme_of(url) else f"file://{os.path.dirname(os.path.abspath(url))}"


def urlfile(url: str) -> str:
    """The file name of a url or path."""
    return posixpath.basename(url)


def maybe_read(x: Any) -> Any:
    """The bytes of a stream; anything else as it is."""
    if isinstance(x, io.BytesIO):
        return x.getvalue()
    return x.read() if hasattr(x, "read") else x


def maybe_decode(sample: dict[str, Any]) -> dict[str, Any]:
    """The sample with the bytes of its streams."""
    return {key: maybe_read(value) for key, value in sample.items()}


class AtomicJsonUpdate:
    """`with AtomicJsonUpdate(path) as data:` changes a JSON file; what it was before is `<path>.bak`.

    Nothing is changed when the block raises.
    """

    def __init__(self, filename: str | os.PathLike[str]) -> None:
        self.filename = os.fspath(filename)
        self.backup_filename = self.filename + ".bak"
        self.data: Any = None

    def __enter__(self) -> Any:
        self.data = load_remote_dsdesc_raw(self.filename)
        return self.data

    def __exit__(self, kind: Any, *exc: object) -> None:
        if kind is None:
            text = json.dumps(self.data, indent=2)
            shutil.copyfile(self.filename, self.backup_filename)
            _write(self.filename, text)


def main_create(args: argparse.Namespace) -> None:
    """Make an index of shards."""
    files = sys.stdin.read().split() if args.files == ["-"] else args.files
    names = shard_names(files)
    if not names:
        raise ShardListError("no shards were named")
    name = args.name
    if not name:
        name = shorten_name(os.path.splitext(files[0])[0])
        _say(f"setting name to {name}")
    info = None if args.info is None else Path(args.info).read_text(encoding="utf-8")
    entries = []
    for shard in names:
        _say(shard)
        entries.append(shard_entry(shard))
    _write(args.output, format_json(entries, name, base=args.base, info=info))


def main_update(args: argparse.Namespace) -> None:
    """Change an index: name, base, folders of the shards."""
    with AtomicJsonUpdate(args.filename) as data:
        data["name"] = args.name or data.get("name") or Path(args.filename).stem
        if args.keep or args.nokeep:
            data["keep"] = bool(args.keep)
        if args.info is not None:
            data["info"] = args.info
        shards = data.get("shardlist", [])
        if args.nodir:
            _change_urls(shards, urlfile)
        if args.dir is not None:
            _change_urls(shards, lambda url: f"{args.dir.rstrip('/')}/{urlfile(url)}")
        if args.rebase:
            folder = urlmerge(urldir(args.filename), data.get("base") or "")
            folders = {urldirbase(urlmerge(folder, shard["url"])) for shard in shards}
            if len(folders) != 1:
                raise ShardListError(f"{args.filename}: the shards are in {len(folders)} folders, so there is no base")
            data["base"] = folders.pop()
            _say(f"rebasing to {data['base']}")
            _change_urls(shards, urlfile)
        if args.base is not None:
            data["base"] = args.base


def main_info(args: argparse.Namespace) -> None:
    """Show what indexes list."""
    if args.table:
        _say("\t".join(COLUMNS))
    for filename in args.filenames:
        data = load_remote_dsdesc_raw(filename)
        if not args.table:
            print_long_info(data, filename)
            continue
        shards = data.get("shardlist", [])
        last = shards[-1]["url"] if shards else None
        components = len(data.get("datasets", []))
        row = (filename, data.get("name"), *_totals(shards), data.get("base"), last, components)
        _say("\t".join(map(str, row)))


def print_long_info(data: dict[str, Any], filename: str) -> None:
    """Print what an index lists, a fact a line."""
    shards = data.get("shardlist", [])
    nbytes, nsamples = _totals(shards)
    base = data.get("base")
    rows = {
        "name": data.get("name"),
        "info": data.get("info"),
        "base": base if base is not None else f"None (assumed: {urldir(filename)})",
        "total size": format_with_suffix(nbytes),
        "total samples": format_with_suffix(nsamples),
        "avg sample size": format_with_suffix(nbytes / max(1, nsamples)),
        "avg shard size": format_with_suffix(nbytes / max(1, len(shards))),
        "first shard": shards[0]["url"] if shards else None,
        "last shard": shards[-1]["url"] if shards else None,
    }
    _say(f"filename: {filename}")
    for name, value in rows.items():
        _say(f"{name:>16}: {value}")
    for component in data.get("datasets", []):
        _say(f"{'dataset':>16}: {component.get('name') or component.get('source_url')}")
    _say("")


def main_sample(args: argparse.Namespace) -> None:
    """Show one sample."""
    from .dataset import ShardListDataset

    raw = args.raw or args.cat is not None
    dataset = ShardListDataset(args.filename, transformations=[] if raw else "PIL")
    try:
        sample = maybe_decode(dataset[args.index])
    finally:
        dataset.close()
    if args.cat is not None:
        if args.cat not in sample:
            fields = ", ".join(key for key in sample if not key.startswith("__"))
            raise ShardListError(f"the sample has no field {args.cat!r}; it has {fields}")
        data = sample[args.cat]
        sys.stdout.flush()
        sys.stdout.buffer.write(data if isinstance(data, bytes) else str(data).encode("utf-8"))
        sys.stdout.buffer.flush()
        return
    sys.stderr.write(f"dataset size: {len(dataset)}\n")
    width = max(map(len, sample))
    for key in sorted(sample):
        _say(f"{key:<{width}} {sample[key]!r}"[: args.width])


def main() -> None:
    """Run the command with the arguments of the program; errors end it with status 1 and one line."""
    args = _parser().parse_args()
    commands: dict[str, Callable[[argparse.Namespace], None]] = {
        "create": main_create,
        "update": main_update,
        "info": main_info,
        "sample": main_sample,
    }
    with in_one_line(f"widsindex {args.command}"):
        try:
            commands[args.command](args)
        except BrokenPipeError:
            os._exit(1)  # whoever read what was printed has enough


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "widsindex",
        description="Make, change and show wids JSON files.",
        epilog="""examples:
  widsindex create -n flowers -o flowers.json "flowers-{000..099}.tar"
  widsindex info flowers.json
  widsindex sample flowers.json 7
  widsindex create --help""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, what: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=what, description=f"{what.capitalize()}.")

    create = command("create", "make an index of shards")
    create.add_argument(
        "files", nargs="+", help="shards: paths, urls, patterns with braces or stars; - reads names from stdin"
    )
    create.add_argument("--output", "-o", default="shardindex.json", help="file to write (default: shardindex.json)")
    create.add_argument("--name", "-n", default="", help="name of the data set (default: from the first shard)")
    create.add_argument("--info", "-i", help="file with a description of the data set")
    create.add_argument("--base", "-b", help="what relative urls are below")
    update = command("update", "change an index")
    update.add_argument("filename", help="the index")
    update.add_argument("-n", "--name", help="set the name of the data set")
    keep = update.add_mutually_exclusive_group()
    keep.add_argument("-k", "--keep", action="store_true", help="copies of its shards are never removed")
    keep.add_argument("-K", "--nokeep", action="store_true", help="copies of its shards may be removed")
    update.add_argument("-i", "--info", help="set the description, a text")
    update.add_argument("-D", "--nodir", action="store_true", help="remove the folders from the urls")
    update.add_argument("-d", "--dir", help="set the folder of all urls")
    update.add_argument("-b", "--base", help="set what relative urls are below")
    update.add_argument("-B", "--rebase", action="store_true", help="make the folder that all shards share the base")
    info = command("info", "show what indexes list")
    info.add_argument("filenames", nargs="+", help="the indexes")
    info.add_argument("-t", "--table", action="store_true", help="a line for each, with tabs")
    sample = command("sample", "show one sample")
    sample.add_argument("filename", help="the index")
    sample.add_argument("index", type=int, help="number of the sample")
    sample.add_argument("-p", "--python", action="store_true", help="show decoded values, as without it")
    sample.add_argument("-r", "--raw", action="store_true", help="show bytes")
    sample.add_argument("-c", "--cat", help="write the bytes of this field, such as .txt, and nothing else")
    sample.add_argument("-w", "--width", type=int, default=250, help="characters of a line")
    return parser


def _change_urls(shards: list[dict[str, Any]], change: Callable[[str], str]) -> None:
    for shard in shards:
        shard["url"] = change(shard["url"])


def _totals(shards: list[dict[str, Any]]) -> tuple[int, int]:
    """Bytes, where they are known, and samples."""
    return sum(shard.get("filesize") or 0 for shard in shards), sum(shard["nsamples"] for shard in shards)


def _write(path: str, text: str) -> None:
    """Write a file that appears complete or not at all."""
    target = AtomicFile(path, overwrite=True)
    try:
        data = memoryview(text.encode("utf-8"))
        while data:
            data = data[target.write(data) :]
        target.close()
    finally:
        if not target.closed:
            target.abort()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


__all__ = [
    "AtomicJsonUpdate",
    "format_with_suffix",
    "load_remote_dsdesc_raw",
    "main",
    "main_create",
    "main_info",
    "main_sample",
    "main_update",
    "maybe_decode",
    "maybe_read",
    "print_long_info",
    "shorten_name",
    "urldir",
    "urldirbase",
    "urlfile",
    "wids_dl",
]

if __name__ == "__main__":
    main()
