"""Pickled numpy arrays and torch tensors -> objects, each part checked before it reaches C code.

Both libraries trust the pickle: a hand-made one can set offsets and sizes beyond the memory that is
there, or change a dtype that the whole program shares. Here the pickle gets functions that check
their arguments, and the BUILD instruction is obeyed for fresh arrays, dtypes and OrderedDicts only.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import re
import types
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from .._optional import require
from ..errors import SecurityError, printable
from .pickles import OLD_MODULES, REFUSED, SAFE, Locked, allowed_globals

Dtype = np.dtype[Any]
Array = np.ndarray[Any, Any]


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise SecurityError(f"this pickle holds {what} that numpy or torch would not write")


def _checked_shape(shape: Any) -> tuple[int, ...]:
    _require(isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape), "a shape")
    checked: tuple[int, ...] = tuple(shape)
    return checked


def _array_class(*args: Any) -> Any:
    raise SecurityError("this pickle calls numpy.ndarray, which numpy's own pickles do not")


ARRAY_CLASS = Locked(_array_class)


def _reconstruct(kind: Any, shape: Any, code: Any) -> Array:
    _require(kind is ARRAY_CLASS, "an array class")
    return np.empty(0, np.int8)


def _dtype(spec: Any, align: Any = False, copy: Any = False) -> Dtype:
    _require(isinstance(spec, str) and re.fullmatch(r"[biufcmMSUVO]\d{1,9}", spec) is not None, "a dtype")
    fresh: Dtype = np.dtype(spec, copy=True)
    return fresh  # a copy: BUILD changes it, and plain dtypes are shared


def _frombuffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> Array:
    _require(type(buffer) in (bytes, bytearray), "an array buffer")
    _require(isinstance(dtype, np.dtype) and not dtype.hasobject, "an array dtype")
    shape = _checked_shape((shape,) if type(shape) is int else shape)
    _require(len(buffer) == math.prod(shape) * dtype.itemsize and order in ("C", "F"), "an array size")
    return np.ndarray(shape, dtype, bytearray(buffer), order=order)


def _scalar(dtype: Any, data: Any) -> Any:
    _require(isinstance(dtype, np.dtype) and not dtype.hasobject, "a scalar dtype")
    _require(isinstance(data, bytes) and len(data) == dtype.itemsize, "a scalar size")
    return np.ndarray((), dtype, data)[()]


def _build_array(array: Any, state: Any) -> None:
    _require(isinstance(state, tuple) and len(state) in (4, 5), "an array state")
    shape, dtype, fortran, data = state[-4:]
    shape = _checked_shape(shape)
    _require(isinstance(dtype, np.dtype) and array.shape == (0,) and array.flags.owndata, "an array state")
    if dtype.hasobject:
        _require(dtype == np.dtype(object) and type(data) is list, "an array of objects")
        _require(len(data) == math.prod(shape), "an array size")
    else:
        _require(type(data) is bytes and len(data) == math.prod(shape) * dtype.itemsize, "an array size")
    array.__setstate__((1, shape, dtype, bool(fortran), data))


def _build_dtype(dtype: Any, state: Any) -> None:
    _require(isinstance(state, tuple) and len(state) in (8, 9), "a dtype state")
    byteorder, subarray, names, fields = state[1:5]
    _require(byteorder in ("<", ">", "|", "="), "a byte order")
    meant: Dtype
    if subarray is not None:
        _require(isinstance(subarray, tuple) and len(subarray) == 2 and isinstance(subarray[0], np.dtype), "a subarray")
        shape = subarray[1]
        meant = np.dtype((subarray[0], _checked_shape((shape,) if type(shape) is int else shape)))
    elif names is not None:
        meant = _record_dtype(dtype, names, fields, state[7])
    elif dtype.kind in "mM" and len(state) == 9:
        unit, count = state[8][1][:2]
        unit = unit.decode("ascii") if isinstance(unit, bytes) else unit
        _require(re.fullmatch("[a-zA-Zμ]{1,7}", unit) is not None and type(count) is int, "a time unit")
        meant = np.dtype(dtype.str[1:] if unit == "generic" else f"{dtype.kind}8[{count}{unit}]")
    else:
        meant = np.dtype(dtype.str)
    if byteorder in "<>":
        meant = meant.newbyteorder(byteorder) if names is None and subarray is None else meant
    _require(not meant.hasobject or meant == np.dtype(object), "a record of objects")
    _require(meant.itemsize == dtype.itemsize, "a dtype size")
    dtype.__setstate__(meant.__reduce__()[2])


def _record_dtype(dtype: Dtype, names: Any, fields: Any, flags: Any) -> Dtype:
    _require(isinstance(names, tuple) and isinstance(fields, dict) and set(names) <= fields.keys(), "a record dtype")
    entries = [fields[name] for name in names]
    _require(all(isinstance(entry, tuple) and isinstance(entry[0], np.dtype) for entry in entries), "a record dtype")
    return np.dtype(
        {
            "names": list(names),
            "formats": [entry[0] for entry in entries],
            "offsets": [entry[1] for entry in entries],
            "itemsize": dtype.itemsize,
        },
        align=isinstance(flags, int) and bool(flags & 128),
    )


def _storage(data: Any) -> Any:
    torch = require("torch", "torch", "decoding a pickled tensor")
    storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    _require(isinstance(storage, torch.storage.TypedStorage), "a tensor storage")
    return storage


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, requires_grad: Any = False, *hooks: Any) -> Any:
    import torch
    from torch._utils import _rebuild_tensor_v2

    _require(isinstance(storage, torch.storage.TypedStorage), "a tensor storage")
    size, stride = _checked_shape(tuple(size)), _checked_shape(stride)
    _require(type(offset) is int and offset >= 0 and len(size) == len(stride), "a tensor shape")
    last = offset + sum((count - 1) * step for count, step in zip(size, stride, strict=True))
    there = storage._untyped_storage.nbytes() // storage._element_size()
    _require(math.prod(size) == 0 or last < there, "a tensor size")
    return _rebuild_tensor_v2(storage, offset, size, stride, bool(requires_grad), collections.OrderedDict())


def _parameter(data: Any, requires_grad: Any, *hooks: Any) -> Any:
    import torch

    _require(isinstance(data, torch.Tensor), "a parameter")
    return torch.nn.Parameter(data, bool(requires_grad))


def _torch_size(sizes: Any) -> Any:
    return require("torch", "torch", "decoding a pickled tensor").Size(_checked_shape(sizes))


def _torch_device(*args: Any) -> Any:
    return require("torch", "torch", "decoding a pickled tensor").device(*args)


def _build_ordered(ordered: collections.OrderedDict[Any, Any], state: Any) -> None:
    _require(type(state) is dict, "the state of an OrderedDict")
    ordered.__dict__.update(state)  # torch's state dicts carry `_metadata`


_NUMBERS = (
    "bool bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128"
    " datetime64 timedelta64"
)

REBUILD: dict[str, Any] = {
    **SAFE,
    "numpy.dtype": Locked(_dtype),
    "numpy.ndarray": ARRAY_CLASS,
    "torch._utils._rebuild_tensor_v2": Locked(_tensor),
    "torch._utils._rebuild_parameter": Locked(_parameter),
    "torch.storage._load_from_bytes": Locked(_storage),
    "torch.Size": Locked(_torch_size),
    "torch.device": Locked(_torch_device),
    **{f"numpy.{name}": getattr(np, name) for name in _NUMBERS.split() if hasattr(np, name)},
}
for _core in ("numpy.core", "numpy._core"):  # numpy 1 and 2
    REBUILD[f"{_core}.multiarray._reconstruct"] = Locked(_reconstruct)
    REBUILD[f"{_core}.multiarray.scalar"] = Locked(_scalar)
    REBUILD[f"{_core}.numeric._frombuffer"] = Locked(_frombuffer)


_build_any: Callable[[Any], None] = pickle._Unpickler.dispatch[pickle.BUILD[0]]


class CarefulUnpickler(pickle._Unpickler):
    """The restricted unpickler for pickles with arrays or tensors: Python's own, in Python, so that BUILD is seen."""

    stack: list[Any]

    def find_class(self, module: str, name: str) -> Any:
        """What the pickle gets for a global name; SecurityError for names that are not safe."""
        full = f"{OLD_MODULES.get(module, module)}.{name}"
        if full in REBUILD:
            return REBUILD[full]
        if full in allowed_globals:
            return super().find_class(module, name)
        if module == "torch":
            torch = require("torch", "torch", "decoding a pickled tensor")
            value = getattr(torch, name, None)
            if isinstance(value, torch.dtype):
                return value
        raise SecurityError(REFUSED.format(name=printable(full)))

    def load_build(self) -> None:
        """BUILD: give an object its state."""
        state, target = self.stack[-1], self.stack[-2]
        kind = type(target)
        if f"{kind.__module__}.{kind.__qualname__}" in allowed_globals:
            _build_any(self)
            return
        for family, build in _BUILD:
            if kind is family or (family is np.dtype and isinstance(target, np.dtype)):
                build(target, state)
                self.stack.pop()
                return
        raise SecurityError(f"this pickle sets the state of {printable(kind.__qualname__)}, which only its class may")

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **pickle._Unpickler.dispatch,
        pickle.BUILD[0]: load_build,
    }


_BUILD: tuple[tuple[type, Callable[[Any, Any], None]], ...] = (
    (np.ndarray, _build_array),
    (np.dtype, _build_dtype),
    (collections.OrderedDict, _build_ordered),
)


def load_torch_archive(data: bytes) -> Any:
    """The value in a torch file (the zip kind), on the CPU, read with CarefulUnpickler.

    Raises:
        SecurityError: the file names a type that is not safe, or holds TorchScript.
    """
    import torch

    if any(name == "constants.pkl" for name in torch._C.PyTorchFileReader(io.BytesIO(data)).get_all_records()):
        raise SecurityError("this torch file holds TorchScript, a program; load it with torch.jit.load if you trust it")
    careful = types.SimpleNamespace(__name__=__name__, Unpickler=CarefulUnpickler)
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=False, pickle_module=careful)
