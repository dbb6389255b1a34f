"""Pickles and torch files <-> values, without running what the data asks for.

A pickle is a program that names functions to call. The unpickler here knows a short list of names:
builtin containers and scalars, collections, numbers, datetime, numpy arrays, torch tensors. Every other name
is refused with SecurityError. A program that trusts its data

- adds single names, `webdataset.autodecode.allowed_globals.add("mypackage.Box")`, in every process, or
- decodes with the standard pickle: `.decode(wds.handle_extension("pyd pickle pkl", pickle.loads))`, or
- for pth: `webdataset.autodecode.pytorch_weights_only = False`.

Rule for an editor: what `find_class` gives away must not be changeable by the pickle (the BUILD
instruction sets attributes), and must not call, import or allocate what its arguments say. Builtin
types are immutable; everything else goes out as `Locked`. numpy and torch need checks of BUILD too:
see rebuild.py.
"""

from __future__ import annotations

import collections
import datetime
import io
import pickle
import re
import sys
from collections.abc import Callable
from typing import Any

from .._environment import switch_of
from .._optional import require
from ..errors import SecurityError, printable
from ..security import refuse_if_secure

allowed_globals: set[str] = set()
"""Names (`"module.name"`) that the program allows in pickles besides the safe ones; they are imported and called."""

REFUSED = (
    "this pickle asks for {name}, which is not among the safe types; if you trust the data, add the name to"
    " webdataset.autodecode.allowed_globals (the text of webdataset.codecs.pickles has other ways)"
)


class Locked:
    """A function as a pickle may have it: it can be called, and nothing can be set on it."""

    __slots__ = ("_call",)
    _call: Callable[..., Any]

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_call", call)

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise SecurityError("this pickle tries to change a function of the program")


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise SecurityError(f"this pickle asks for the codec {printable(str(encoding))}")
    return text.encode("latin1")


def _bytes(source: bytes | str = b"", encoding: str = "latin1") -> bytes:
    if isinstance(source, str):
        return _latin1(source, encoding)
    if not isinstance(source, bytes):  # an int would allocate that many bytes
        raise SecurityError(f"this pickle makes bytes of {type(source).__name__}")
    return source


def _bytearray(source: bytes | str = b"", encoding: str = "latin1") -> bytearray:
    return bytearray(_bytes(source, encoding))


def _decimal(value: Any) -> Any:
    import decimal

    return decimal.Decimal(value)


def _fraction(numerator: Any, denominator: Any = 1) -> Any:
    import fractions

    if type(numerator) is str and re.fullmatch(r"-?\d{1,4000}(/\d{1,4000})?", numerator) and denominator == 1:
        return fractions.Fraction(numerator)
    if type(numerator) is int and type(denominator) is int:
        return fractions.Fraction(numerator, denominator)
    raise SecurityError("this pickle makes a fraction of something that is none")  # "1e999999999" fills the memory


def _counter(counts: Any = ()) -> collections.Counter[Any]:
    return collections.Counter(counts)


SAFE: dict[str, Any] = {
    **{f"builtins.{kind.__name__}": kind for kind in (bool, int, float, complex, str, slice)},
    **{f"builtins.{kind.__name__}": kind for kind in (list, tuple, dict, set, frozenset)},
    "builtins.bytes": Locked(_bytes),
    "builtins.bytearray": Locked(_bytearray),
    "builtins.Ellipsis": Ellipsis,
    "_codecs.encode": Locked(_latin1),
    **{f"collections.{kind.__name__}": kind for kind in (collections.OrderedDict, collections.deque)},
    "collections.defaultdict": collections.defaultdict,
    "collections.Counter": Locked(_counter),
    "decimal.Decimal": Locked(_decimal),
    "fractions.Fraction": Locked(_fraction),
    **{f"datetime.{kind.__name__}": kind for kind in (datetime.date, datetime.time, datetime.datetime)},
    **{f"datetime.{kind.__name__}": kind for kind in (datetime.timedelta, datetime.timezone)},
}
"""Global name to what a pickle gets for it."""

OLD_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # Python 2, and protocols up to 2


class _NeedsRebuild(Exception):  # numpy or torch is named: take the careful way
    pass


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        full = f"{OLD_MODULES.get(module, module)}.{name}"
        if full in SAFE:
            return SAFE[full]
        if full in allowed_globals:
            return super().find_class(module, name)
        if module.partition(".")[0] in ("numpy", "torch"):
            raise _NeedsRebuild
        raise SecurityError(REFUSED.format(name=printable(full)))


def unpickle_loads(data: bytes) -> Any:
    """The value in a pickle, made of safe types and of those in `allowed_globals` only.

    Raises:
        SecurityError: the pickle names something else, and the message says what; or WDS_SECURE is on.
    """
    refuse_if_secure("Unpickling is not allowed for security reasons when enforce_security is set.")
    try:
        return _Unpickler(io.BytesIO(data)).load()
    except _NeedsRebuild:  # begun anew below, outside of this error
        pass
    from .rebuild import CarefulUnpickler

    return CarefulUnpickler(io.BytesIO(data)).load()


def torch_loads(data: bytes) -> Any:
    """The value in a torch file, on the CPU.

    With `webdataset.autodecode.pytorch_weights_only` true (the default), torch's restricted unpickler
    reads it, and the one of this package what torch refuses: the types are those of pickles.

    Raises:
        SecurityError: the file holds something else, or WDS_SECURE is on.
    """
    from .. import autodecode

    refuse_if_secure("torch.loads is not allowed for security reasons when enforce_security is set.")
    torch = require("torch", "torch", "decoding .pth")
    package = sys.modules[autodecode.__name__.rpartition(".")[0]]
    # Programs also assign webdataset.pytorch_weights_only; either can turn it off.
    weights_only = all((autodecode.pytorch_weights_only, vars(package).get("pytorch_weights_only", True)))
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=weights_only)
    except pickle.UnpicklingError as exn:
        if not weights_only:
            raise
        if data[:2] == b"PK":  # torch refuses numpy arrays, which are safe types here
            from .rebuild import load_torch_archive

            return load_torch_archive(data)
        fact = re.search(r"(unsupported (global|class)|can only)[^\n]*", str(exn), re.IGNORECASE)
        if fact is None:
            raise ValueError("not a torch file, or a damaged one") from exn
        reason = printable(fact[0].split(". ")[0].rstrip("."))
        raise SecurityError(
            f"torch refuses to load this file: {reason};"
            " if you trust the data, set webdataset.autodecode.pytorch_weights_only = False"
        ) from exn


def weights_only_of_environment() -> bool:
    """What WDS_PYTORCH_WEIGHTS_ONLY says: False for 0, True for 1 or nothing.

    Raises:
        SecurityError: it is something else, so what was meant is unknown.
    """
    return switch_of("WDS_PYTORCH_WEIGHTS_ONLY", True, SecurityError)


def torch_dumps(value: Any) -> bytes:
    """What `torch.save` writes for a value."""
    stream = io.BytesIO()
    require("torch", "torch", "encoding .pth").save(value, stream)
    return stream.getvalue()


CODECS: dict[str, tuple[Callable[[bytes], Any] | None, Callable[[Any], bytes]]] = {
    "pyd pickle pkl": (unpickle_loads, pickle.dumps),
    "pth": (torch_loads, torch_dumps),
}
