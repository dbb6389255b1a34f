"""A url becomes a binary stream: `gopen` rewrites it, asks the security switch, and hands it to its scheme's handler.

    "-"                    standard input or output
    path, file:            a local file
    pipe:COMMAND           a shell command
    http: https:           native; gopen_schemes["http"] = gopen_curl brings the curl command back
    s3: gs: az: abfs:      native, with the credentials that the stores' own tools use
    ftps: scp: sftp:       curl        ais: ais
    hf: htgs:              read over https: the Hugging Face hub, Google's public buckets
    anything else          what the program has registered in `gopen_schemes`, then what fsspec knows

Rules: environment variables are read when a url is opened, each in one function. A shell runs for `pipe:` alone.
Inside the package write `from .gopen import gopen`: the attribute `webdataset.gopen` is the function.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, BinaryIO

from ._arguments import check_number
from ._environment import number_of
from .errors import MissingDependencyError, UnknownSchemeError, public_url
from .security import refuse_if_secure
from .storage import commands, local, pipe, standard
from .storage.pipe import Pipe
from .storage.urls import scheme_of
from .storage.verbose import trace

__all__ = [
    "Pipe",
    "gopen",
    "gopen_ais",
    "gopen_curl",
    "gopen_error",
    "gopen_file",
    "gopen_fsspec",
    "gopen_gsutil",
    "gopen_hf",
    "gopen_htgs",
    "gopen_http",
    "gopen_pipe",
    "gopen_schemes",
    "gopen_store",
    "info",
    "reader",
    "rewrite_url",
    "set_options",
]

info: dict[str, Any] = {}
"""What a program wants to see in each line of GOPEN_VERBOSE, such as the number of its worker."""


def gopen(url: str | os.PathLike[str], mode: str = "rb", bufsize: int = 8192, **kw: Any) -> BinaryIO:
    """Open a url, for reading ("rb") or writing ("wb"), as a binary stream that is its own context manager.

    Args:
        url: a url, a path, or "-".
        bufsize: buffer of commands; local files take GOPEN_BUFFER.
        kw: options of the handler: `headers` and `timeout` for http, those of `Pipe` for commands; none for files.

    Raises:
        NotFoundError: there is nothing.
        OpenError: it cannot be opened.
        UnknownSchemeError: no handler is registered.
        SecurityError: the security switch is on and forbids it.
        ValueError: another mode.
        TypeError: the url is neither text nor a path.
    """
    url = _text(url)
    _check_mode(mode)
    check_number("gopen", "bufsize", bufsize, "bytes", optional=True)
    trace("GOPEN", public_url(url), info)
    stream: BinaryIO = _stream_of(url, mode, bufsize, kw)
    return stream


def _stream_of(url: str, mode: str, bufsize: int, kw: dict[str, Any]) -> Any:
    if url == "-":
        return standard.open_standard(mode)
    url = rewrite_url(url)
    scheme = scheme_of(url)
    if scheme in ("", "file"):
        return gopen_file(url, mode, bufsize)
    if scheme in _schemes_for_ais():
        return gopen_ais(url, mode, bufsize, **kw)
    handler = gopen_schemes.get(scheme)
    if handler is None and mode == "rb" and os.path.exists(url):
        return gopen_file(url, mode, bufsize)  # a file whose name only looks like a url
    return (handler or _handler_of_the_rest(url))(url, mode, bufsize, **kw)


def _handler_of_the_rest(url: str) -> Callable[..., Any]:
    """Who opens a url whose scheme is not in the table: the program's `__default__`, else fsspec if that knows it."""
    from .storage import anywhere

    default = gopen_schemes["__default__"]
    return gopen_fsspec if default is gopen_error and anywhere.knows(url) else default


def reader(url: str | os.PathLike[str], **kw: Any) -> BinaryIO:
    """Open a url for reading: `gopen(url, "rb", **kw)`."""
    return gopen(url, "rb", **kw)


def rewrite_url(url: str | os.PathLike[str]) -> str:
    """The url after the first rule of GOPEN_REWRITE (`regex=replacement;regex=replacement`) that changes it.

    A regex must match at the beginning; a replacement may name its groups.

    Raises:
        SecurityError: GOPEN_REWRITE is set and the security switch is on.
        ValueError: a rule without "=", or with a broken regex.
    """
    url = _text(url)
    for pattern, replacement in _rewrite_rules():
        try:
            changed = re.sub(f"^{pattern}", replacement, url)
        except re.error as exn:
            raise ValueError(
                f"the environment variable GOPEN_REWRITE: {pattern!r}={replacement!r} is no rule: {exn}"
            ) from None
        if changed != url:
            trace("GOPEN REWRITE", public_url(url), "->", public_url(changed))
            return changed
    return url


def set_options(
    obj: Any,
    timeout: float | None = None,
    ignore_errors: bool | None = None,
    ignore_status: list[int] | None = None,
    handler: Any = None,
) -> bool:
    """Change the options of an open `Pipe`; False, and nothing changed, if it is another stream.

    Args:
        handler: Ignored; kept for old callers.
    """
    if not isinstance(obj, Pipe):
        return False
    if timeout is not None:
        obj.timeout = timeout
    if ignore_errors is not None:
        obj.ignore_errors = ignore_errors
    if ignore_status is not None:
        obj.ignore_status = [0, *ignore_status]
    return True


def path_of(url: str) -> str | None:
    """The path that `gopen` reads for a url, None for what it opens in some other way."""
    return local.local_path(rewrite_url(url))


def gopen_file(url: str, mode: str = "rb", bufsize: int = 8192) -> Any:
    """Open a path or a `file:` url; the buffer's size is GOPEN_BUFFER, not `bufsize`."""
    url = _text(url)
    _check_mode(mode)
    path = local.local_path(url)
    path = url if path is None else path
    if mode == "wb":
        return local.open_write(path, _file_buffer())
    refuse_if_secure("gopen: unsafe_gopen is False, cannot open local files")
    return local.open_read(path, _file_buffer())


def gopen_pipe(url: str, mode: str = "rb", bufsize: int = 8192, **kw: Any) -> Pipe:
    """Read or write through the shell command that follows `pipe:`."""
    _check_mode(mode)
    refuse_if_secure("gopen_pipe: unsafe_gopen is False, cannot open pipe URLs")
    command = re.sub(r"^pipe:", "", url, flags=re.IGNORECASE)
    opener = pipe.open_read if mode == "rb" else pipe.open_write
    return opener(command, [141], url, bufsize=bufsize, **kw)


def gopen_http(url: str, mode: str = "rb", bufsize: int = 8192, **kw: Any) -> Any:
    """Read an http(s) url, or write it by PUT; `kw` are storage options.

    `bufsize` is ignored; kept because every handler takes it.
    """
    return _by_place(url, mode, kw)


def gopen_curl(url: str, mode: str = "rb", bufsize: int = 8192, **kw: Any) -> Pipe:
    """Read or write with the curl command."""
    return _by_tool("curl", url, mode, bufsize, kw)


def gopen_gsutil(url: str, mode: str = "rb", bufsize: int = 8192, **kw: Any) -> Pipe:
    """Read or write with the gsutil command."""
    return _by_tool("gsutil", url, mode, bufsize, kw)


def gopen_ais(url: str, mode: str = "rb", bufsize: int = 8192, **kw: Any) -> Pipe:
    """Read or write with the ais command; USE_AIS_FOR (`s3:gs`) sends other schemes here too."""
    return _by_tool("ais", url, mode, bufsize, kw)


def gopen_htgs(url: str, mode: str = "rb", bufsize: int = 8192, **kw: Any) -> Any:
    """Read `htgs://BUCKET/OBJECT`, an object of a public Google bucket, over https (or STORAGE_EMULATOR_HOST)."""
    _check_read_only(url, mode)
    return _by_place(url, mode, kw)


def gopen_hf(url: str, mode: str = "rb", bufsize: int = 8192, **kw: Any) -> Any:
    """Read `hf://datasets/OWNER/NAME[@REVISION]/PATH` over https, with the user's token."""
    _check_read_only(url, mode)
    return _by_place(url, mode, kw)


def gopen_store(url: str, mode: str = "rb", bufsize: int = 8192, **kw: Any) -> Any:
    """Read or write an object of an object store; `kw` are storage options. `bufsize` is ignored, as for http."""
    return _by_place(url, mode, kw)


def gopen_fsspec(url: str, mode: str = "rb", bufsize: int = 8192, **kw: Any) -> Any:
    """Read or write by fsspec: the handler of schemes that it knows and nobody has registered.

    `kw` are storage options, `bufsize` is ignored.
    """
    return _by_place(url, mode, kw)


def gopen_error(url: str, *args: Any, **kw: Any) -> Any:
    """Say that nobody opens such urls: the handler of schemes that nobody has registered and fsspec does not know."""
    scheme = scheme_of(url)
    more = "" if find_spec("fsspec") else " or install what knows many more: pip install fsspec;"
    known = ", ".join(sorted({"file", *gopen_schemes} - {"__default__"}))
    raise UnknownSchemeError(
        f"no gopen handler defined for {scheme!r}; there are {known};{more} add one with "
        f"webdataset.gopen_schemes[{scheme!r}] = f(url, mode, bufsize, **kw), or name a command that reads it: "
        f'"pipe:COMMAND"; for a local file of this name write "./" before it',
        url=url,
    )


gopen_schemes: dict[str, Callable[..., Any]] = {
    "__default__": gopen_error,
    "pipe": gopen_pipe,
    "http": gopen_http,
    "https": gopen_http,
    "sftp": gopen_curl,
    "ftps": gopen_curl,
    "scp": gopen_curl,
    "ais": gopen_ais,
    "htgs": gopen_htgs,
    "hf": gopen_hf,
    "s3": gopen_store,
    "gs": gopen_store,
    "az": gopen_store,
    "abfs": gopen_store,
    "abfss": gopen_store,
}
"""Scheme to handler `f(url, mode, bufsize, **kw)` that gives a binary stream; programs add their own."""


def is_native(url: str) -> bool:
    """Whether the library itself reads this url from a server, with no handler or command of the program's."""
    try:
        scheme = scheme_of(rewrite_url(url))
        if scheme in ("", "file", *_schemes_for_ais()):
            return False
        return (gopen_schemes.get(scheme) or _handler_of_the_rest(url)) in NATIVE
    except (TypeError, ValueError):  # opening it says why
        return False


NATIVE = (gopen_http, gopen_hf, gopen_htgs, gopen_store, gopen_fsspec)
"""Handlers whose bytes this process fetches: they take storage options, and shards may be opened ahead."""


def _text(url: Any) -> str:
    text = os.fspath(url) if isinstance(url, os.PathLike) else url
    if not isinstance(text, str):
        raise TypeError(f"a url must be a str or a path, got {type(url).__name__}: {url!r:.100}")
    return text


def _check_mode(mode: str) -> None:
    if mode not in ("rb", "wb"):
        raise ValueError(f'the mode must be "rb" or "wb", got {mode!r}')


def _check_read_only(url: str, mode: str) -> None:
    _check_mode(mode)
    if mode != "rb":
        raise ValueError(f"{public_url(url)}: {scheme_of(url)} urls can only be read, got mode {mode!r}")


def _by_place(url: str, mode: str, kw: dict[str, Any]) -> Any:
    """The stream for a url that the library reads and writes itself; `kw` are storage options, or `options`, all of
    them in one value. The command-line tool of the scheme does it if the option `tool` says so, or if it is installed
    and the package that finds the credentials is not."""
    from .storage import places
    from .storage.options import storage_options

    _check_mode(mode)
    options = storage_options(kw.pop("options", None), **kw)
    tool = commands.TOOL_FOR.get(scheme_of(url))
    if tool is not None and options.tool:
        return commands.open_instead(url, mode, tool, options)
    try:
        return (places.open_read if mode == "rb" else places.open_write)(url, options)
    except MissingDependencyError as exn:
        if tool is None or not commands.installed(tool):
            raise
        commands.say_once(f"{exn}; until then the {tool} command serves {scheme_of(url)} urls")
        return commands.open_instead(url, mode, tool, options)


def _by_tool(tool: str, url: str, mode: str, bufsize: int, kw: dict[str, Any]) -> Pipe:
    _check_mode(mode)
    if scheme_of(url) == "file" and mode == "rb":  # curl reads local files, too
        refuse_if_secure("gopen: unsafe_gopen is False, cannot open local files")
    opener = commands.open_read if mode == "rb" else commands.open_write
    return opener(url, tool, bufsize=bufsize, **kw)


def _rewrite_rules() -> list[tuple[str, str]]:
    """GOPEN_REWRITE as (regex, replacement) pairs."""
    text = os.environ.get("GOPEN_REWRITE")
    if not text:
        return []
    refuse_if_secure("rewrite_url: unsafe_gopen is False, cannot rewrite URLs using environment variables")
    rules = [rule.split("=", 1) for rule in text.split(";") if rule.strip()]
    for rule in rules:
        if len(rule) != 2:
            fact = f'{rule[0]!r} has no "="; write regex=replacement;regex=replacement'
            raise ValueError(f"the environment variable GOPEN_REWRITE: {fact}")
    return [(rule[0], rule[1]) for rule in rules]


def _schemes_for_ais() -> list[str]:
    """USE_AIS_FOR, a list with colons between."""
    return [scheme.lower() for scheme in os.environ.get("USE_AIS_FOR", "").split(":") if scheme]


def _file_buffer() -> int:
    """GOPEN_BUFFER in bytes, -1 for the usual one."""
    size = number_of("GOPEN_BUFFER", -1, "a number of bytes")
    return size if size != 1 else -1  # 1 would mean lines, which binary files do not have
