"""Every error the library raises on purpose.

    WebDatasetError
    ├── DataError                     the data is wrong; knows its place
    │   ├── TarError                  (tarfile.ReadError)  not a tar archive, or a damaged one
    │   │   ├── HeaderError           a header block that cannot be believed
    │   │   ├── TruncatedError        (EOFError)  the archive ends too early
    │   │   ├── CompressionError      the compressed stream around the archive is damaged
    │   │   └── StreamError           (OSError)  the stream broke while it was read
    │   ├── SampleError               (ValueError)  members do not make a sample
    │   │   ├── DuplicateFieldError   one field twice in one sample
    │   │   ├── TornSampleError       the members of one sample are not neighbours
    │   │   └── MissingFieldError     (KeyError)  a field that was asked for is not there
    │   ├── CollationError            (ValueError, AssertionError)  samples do not make a batch, or a batch no samples
    │   ├── DecodingError             (ValueError)  bytes are not what their name says
    │   ├── StaleIndexError           (ValueError)  an index does not fit its shard
    │   └── OpenError                 (OSError)  a url cannot be opened, read or written
    │       ├── NotFoundError         (FileNotFoundError)  there is nothing at this url
    │       ├── UnknownSchemeError    (ValueError)  nobody knows how to open such urls
    │       ├── WrongContentError     (ValueError)  what came to be kept is not what was asked for
    │       └── ConnectionLostError   the bytes stopped before the announced end
    ├── TransferTimeoutError          (TimeoutError)  a message did not come or go in the time that was given
    ├── EmptyDatasetError             (ValueError)  there was nothing to read
    ├── ShardListError                (ValueError)  shards cannot be listed or split as asked
    ├── EncodingError                 (ValueError)  a sample cannot be written
    ├── ErrorBudgetError              more was skipped than an ErrorPolicy allows
    ├── SecurityError                 (ValueError)  the program did not allow what the data asks for
    └── MissingDependencyError        (ImportError)  an optional package is not installed

Each class also is the builtin (in brackets) that old code catches. A DataError says its place and
its fact in one line, `train-0003.tar!a/b.json: invalid JSON (byte 17)`, keeps the parts as
attributes, and survives pickling and torch's way of carrying errors out of DataLoader workers, so
that it crosses processes whole. Code that knows a part of the place which an inner layer could not
know adds it with `locate`.
"""

from __future__ import annotations

import re
import tarfile
from typing import Any

from ._crossing import arrived

PLACE = ("url", "member", "key", "field", "offset", "stage", "worker")

READING = ("open", "read", "group")
"""Stages of which every shard goes through; the text of an error does not name them."""


class WebDatasetError(Exception):
    """Base of all errors that this library raises on purpose."""

    def __init__(self, *args: Any) -> None:
        from_worker = arrived(args[0]) if len(args) == 1 and isinstance(args[0], str) else None
        if from_worker is not None:
            parts, traceback = from_worker
            self.add_note(traceback)
            args = (parts["message"],)
        super().__init__(*args)


class DataError(WebDatasetError):
    """The data is wrong; every part of the place that is known is an attribute, the others are None.

    Attributes:
        message: the fact, without the place.
        url: the shard (passwords and query strings are left out of the text).
        member: name of the archive member.
        key: key of the sample.
        field: field of the sample (`json`, `seg.png`).
        offset: byte offset in the uncompressed archive or stream.
        stage: the pipeline stage that found out: "open", "read", "group", or the name of a filter.
        worker: "rank/worker" of the reader, where there are several.
    """

    message: str = "wrong data"  # the class has one, so torch makes the error anew with `message=`
    url: str | None
    member: str | None
    key: str | None
    field: str | None
    offset: int | None
    stage: str | None
    worker: str | None

    def __init__(self, message: str = "", **place: Any) -> None:
        unknown = place.keys() - set(PLACE)
        if unknown:
            raise TypeError(f"unknown part of a place: {', '.join(sorted(unknown))}")
        from_worker = arrived(message)
        if from_worker is not None:
            place, traceback = from_worker
            message = place["message"]
            self.add_note(traceback)
        super().__init__(message)
        self.message = message
        for part in PLACE:
            setattr(self, part, place.get(part))

    def locate(self, **place: Any) -> DataError:
        """Fill in the parts of the place that are still unknown, and return the error itself."""
        for part, value in place.items():
            if getattr(self, part) is None:
                setattr(self, part, value)
        return self

    def __str__(self) -> str:
        shown = self.message
        if self.offset is not None:
            shown += f" (byte {self.offset})"
        name = self.member
        if name is None and self.key is not None:
            name = self.key if self.field is None else f"{self.key}.{self.field}"
        elif name is None:
            name = self.field
        if name is not None:
            name = printable(name)
        url = None if self.url is None else public_url(str(self.url))
        place = "!".join(part for part in (url, name) if part is not None)
        if self.stage is not None and self.stage not in READING:
            shown += f" [in {self.stage}]"
        if self.worker is not None:
            shown += f" [reader {self.worker}]"
        return f"{place}: {shown}" if place else shown

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.__dict__))


def _rebuild(kind: type[DataError], message: str, state: dict[str, Any]) -> DataError:
    error = kind(message)
    error.__dict__.update(state)
    return error


class TarError(DataError, tarfile.ReadError):
    """Not a tar archive, or a damaged one."""


class HeaderError(TarError):
    """A header block that cannot be believed: wrong checksum, a number that is none, a bad record."""


class TruncatedError(TarError, EOFError):
    """The archive, or the compressed stream around it, ends before it should."""


class CompressionError(TarError):
    """The compressed stream around the archive is damaged."""


class StreamError(TarError, OSError):
    """The stream broke while the archive was read; what the stream said is `__cause__`."""


class SampleError(DataError, ValueError):
    """The members are readable but do not make a sample."""


class DuplicateFieldError(SampleError):
    """One sample has the same field twice."""


class TornSampleError(SampleError):
    """A key comes back later in its shard with other fields: the members of a sample are not neighbours."""


class MissingFieldError(SampleError, KeyError):
    """A field that was asked for is not in the sample."""

    __str__ = DataError.__str__  # KeyError would show the repr


class CollationError(DataError, ValueError, AssertionError):
    """Samples that do not make a batch, or a batch that does not fall apart into samples."""


class DecodingError(DataError, ValueError):
    """The bytes of a field are not what its name says; the cause is `__cause__`.

    `k` is the older name of `field`. `sample` is the sample as it was before decoding, in the
    process that decoded it; it is left behind when the error is pickled.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        k: str | None = None,
        sample: Any = None,
        *,
        message: str = "",
        **place: Any,
    ) -> None:
        super().__init__(message, url=url, key=key, **{"field": k, **place})
        self.sample = sample

    @property
    def k(self) -> str | None:
        """The field."""
        return self.field

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild_decoding_error, (type(self), {**self.__dict__, "sample": None}))


def _rebuild_decoding_error(kind: type[DecodingError], state: dict[str, Any]) -> DecodingError:
    error = kind(message=state["message"])
    error.__dict__.update(state)
    return error


class OpenError(DataError, OSError):
    """A url cannot be opened, read or written: the message says status, attempts and what to do."""


class NotFoundError(OpenError, FileNotFoundError):
    """There is nothing at this url."""


class StaleIndexError(DataError, ValueError):
    """An index does not fit its shard: it is cut, of another shard, or the shard changed since it was made."""


class UnknownSchemeError(OpenError, ValueError):
    """No handler is registered for urls of this scheme."""


class WrongContentError(OpenError, ValueError):
    """What a url gave is no shard, so the cache does not keep it."""


class ConnectionLostError(OpenError):
    """A transfer stopped before its announced end.

    Attributes:
        got: bytes that arrived.
        expected: bytes that were announced, None where no length was.
    """

    got: int = 0
    expected: int | None = None


class TransferTimeoutError(WebDatasetError, TimeoutError):
    """A message did not come, or was not taken, within the time that was given."""


class EmptyDatasetError(WebDatasetError, ValueError):
    """There was nothing to read where something was expected."""


class ShardListError(WebDatasetError, ValueError):
    """Shards cannot be listed or split as asked: an unbalanced pattern, a missing variable, several nodes."""


class EncodingError(WebDatasetError, ValueError):
    """A sample cannot be written as it is."""


class ErrorBudgetError(WebDatasetError):
    """More was skipped than an ErrorPolicy allows; the last error is `__cause__`."""


class SecurityError(WebDatasetError, ValueError):
    """The program did not allow what the data, or an environment variable, asks for."""


class MissingDependencyError(WebDatasetError, ImportError):
    """An optional package is not installed; the message says how to install it."""

    def __init__(self, message: str = "", *, name: str | None = None) -> None:
        super().__init__(message)
        self.name = name


def printable(text: str, limit: int = 200) -> str:
    """Text from the data as it may be shown: control characters and lone surrogates escaped."""
    shown = text if text.isprintable() else text.encode("unicode_escape", "surrogateescape").decode("ascii")
    return shown if len(shown) <= limit else f"{shown[:limit]}…({len(shown)} characters)"


_PRIVATE = (
    "authorization|bearer|token|secret|password|passwd|passphrase|pgpass|credential|cookie|signature"
    "|api[_-]?key|access[_-]?key|account[_-]?key|sse-c-key|sse-customer-key"
)

_SECRETS: list[tuple[str, str]] = [
    (r"(?<=://)[^/\s'\"]*@", ""),  # user and password of urls
    (r"(\w://[^\s'\"?]*)\?[^\s'\"]*", r"\1"),  # query strings
    (rf"(['\"])([^'\"]*(?:{_PRIVATE})[\w-]*\s*[:=]\s*)[^'\"]*\1", r"\1\2…\1"),  # 'Authorization: Bearer x'
    (rf"((?:{_PRIVATE})[\w-]*\s*[:=]\s*|--[\w-]*(?:{_PRIVATE})[\w-]*\s+)(?:(['\"])[^'\"]*\2|[^\s'\"…]+)", r"\1\2…\2"),
    (r"(?<=\s)(-u|--user|--proxy-user)(\s*|=)['\"]?[^\s'\":]*:[^\s'\"]+['\"]?", r"\1\2…"),
    (r"(?<=\s)-b\s*(?:'[^'=]*=[^']*'|\"[^\"=]*=[^\"]*\"|[^\s='\"]+=[^\s'\"]*)", "-b …"),  # curl's cookies
    (r"(?<=sshpass )-p\s*\S+", "-p …"),
]


def _public_command(command: str) -> str:
    for pattern, shown in _SECRETS:
        command = re.sub(pattern, shown, command, flags=re.IGNORECASE)
    return command


def public_url(url: str) -> str:
    """A url as it may be shown: no user and password, no query string of a remote url, no control characters.

    In a `pipe:` command also the values of headers, variables and options that are named like secrets are left out.
    """
    if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", url):
        url = re.sub(r"(?<=://)[^/\s]*@", "", url)
        if not url.startswith("file:"):
            url = re.sub(r"[?#].*", "", url, flags=re.DOTALL)
    elif url[:5].lower() == "pipe:":
        url = url[:5] + _public_command(url[5:])
    return printable(url, 500)


__all__ = [
    "CollationError",
    "CompressionError",
    "ConnectionLostError",
    "DataError",
    "DecodingError",
    "DuplicateFieldError",
    "EmptyDatasetError",
    "EncodingError",
    "ErrorBudgetError",
    "HeaderError",
    "MissingDependencyError",
    "MissingFieldError",
    "NotFoundError",
    "OpenError",
    "SampleError",
    "SecurityError",
    "ShardListError",
    "StaleIndexError",
    "StreamError",
    "TarError",
    "TornSampleError",
    "TransferTimeoutError",
    "TruncatedError",
    "UnknownSchemeError",
    "WebDatasetError",
    "WrongContentError",
]
