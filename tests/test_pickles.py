"""Tests of the restricted unpickler: safe values come back whole, planted code never runs."""

from __future__ import annotations

import builtins
import collections
import datetime
import decimal
import fractions
import io
import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from webdataset import security
from webdataset.autodecode import Decoder, DecodingError, allowed_globals, decoders, handle_extension
from webdataset.codecs.pickles import Locked
from webdataset.codecs.rebuild import CarefulUnpickler
from webdataset.errors import SecurityError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Planted:
    """Pickles to a call of `function(*args)`, with a state when there is one."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.function, self.args, self.state = function, args, state

    def __reduce__(self) -> tuple[Any, ...]:
        return (self.function, self.args) if self.state is None else (self.function, self.args, self.state)


class Box:
    """A class that programs may allow in their data."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Box) and self.value == other.value

    __hash__ = None  # type: ignore[assignment]


def planted_calls(canary: Path) -> list[Planted]:
    """Calls that would create the canary file."""
    code = f"open({str(canary)!r}, 'w').close()"
    return [
        Planted(os.system, f"touch {canary}"),
        Planted(eval, code),
        Planted(exec, code),
        Planted(builtins.open, str(canary), "w"),
        Planted(subprocess.check_call, ["touch", str(canary)]),
        Planted(os.mkdir, str(canary)),
        Planted(getattr, "text", "upper"),
        Planted(__import__, "antigravity"),
        Planted(pickle.loads, pickle.dumps(Planted(os.mkdir, str(canary)))),
        Planted(np.load, str(canary)),
        Planted(np.memmap, str(canary), "u1", "w+", 0, 1),
        Planted(torch.load, str(canary)),
        Planted(torch.save, 1, str(canary)),
    ]


def carriers(planted: Any) -> dict[str, bytes]:
    """Fields of every kind that could hold a pickle, with the planted object inside."""
    objects = np.array([planted, None], dtype=object)
    fields: dict[str, bytes] = {}
    for protocol in PROTOCOLS:
        fields[f"{protocol}.pyd"] = pickle.dumps(planted, protocol)
        fields[f"{protocol}.pickle"] = pickle.dumps({"a": [1, planted]}, protocol)
        fields[f"{protocol}.pkl"] = pickle.dumps([objects, np.zeros(3)], protocol)
    for zipped in (True, False):
        stream = io.BytesIO()
        torch.save({"x": planted, "t": torch.zeros(2)}, stream, _use_new_zipfile_serialization=zipped)
        fields[f"{zipped}.pth"] = stream.getvalue()
    stream = io.BytesIO()
    np.save(stream, objects, allow_pickle=True)
    fields["npy"] = stream.getvalue()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("a.npy", stream.getvalue())
    fields["npz"] = archive.getvalue()
    return fields


def test_planted_code_never_runs(tmp_path: Path) -> None:
    """Calls hidden in pyd, pickle, pkl, pth, npy and npz fields are refused, in every protocol and nesting."""
    canary = tmp_path / "canary"
    for planted in planted_calls(canary):
        for field, data in carriers(planted).items():
            with pytest.raises(DecodingError):
                Decoder([])({"__key__": "a", field: data})
            assert not canary.exists(), (planted.function, field)
    assert "antigravity" not in sys.modules


def test_the_plants_are_alive(tmp_path: Path) -> None:
    """The same pickles do their work under the standard unpickler, so the test above tests something."""
    canary = tmp_path / "canary"
    pickle.loads(pickle.dumps(Planted(os.mkdir, str(canary))))
    assert canary.exists()


def test_the_refused_name_is_in_the_message() -> None:
    """The error names what the pickle asks for and where the program can allow it."""
    with pytest.raises(SecurityError, match=r"asks for builtins\.eval, .*webdataset\.autodecode\.allowed_globals"):
        decoders["pyd"](pickle.dumps(Planted(eval, "1")))
    with pytest.raises(DecodingError, match=r"shard\.tar!a\.pkl: this pickle asks for builtins\.eval") as caught:
        Decoder([])({"__key__": "a", "__url__": "shard.tar", "pkl": pickle.dumps(Planted(eval, "1"))})
    assert isinstance(caught.value.__cause__, SecurityError)


SAFE_VALUES = [
    None,
    [True, 1, -(2**70), 1.5, 3 + 4j, "é", b"\0\xff", bytearray(b"\xff"), ...],
    ({1, 2}, frozenset("ab"), slice(1, 2, 3), {"k": (1, [])}),
    collections.OrderedDict(a=1),
    collections.deque([1, 2], 3),
    collections.defaultdict(list, {1: [2]}),
    collections.Counter("aab"),
    [decimal.Decimal("-1.50"), fractions.Fraction(-1, 3), fractions.Fraction(5)],
    [datetime.date(2020, 1, 1), datetime.time(1, 2), datetime.timedelta(1), datetime.timezone.utc],  # noqa: UP017
    datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
    [np.float32(1), np.int64(3), np.bool_(True), np.complex64(1j), np.str_("é"), np.datetime64("2020-01-01T00:00")],
    [np.dtype("f4"), np.dtype(">i2"), np.dtype("M8"), np.dtype("M8[25s]"), np.dtype("U7"), np.dtype(object)],
    np.dtype([("a", "f4"), ("b", ">i8", (2,))]),
    np.dtype([("a", "i1"), ("b", "f8")], align=True),
    np.float32,
    [torch.float32, torch.Size([1, 2]), torch.device("cpu")],
]

ARRAYS = [
    np.arange(6.0).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.array(["ab", "c"]),
    np.array([b"x"]),
    np.array(["2020"], "M8[D]"),
    np.array([3], "m8[25s]"),
    np.array([1, None, "x"], dtype=object),
    np.array(5),
    np.zeros((0, 3)),
    np.arange(3, dtype=">u2"),
    np.array([(1, [2, 3])], dtype=[("a", "f4"), ("b", "i8", (2,))]),
    np.array([True]),
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_safe_values_come_back(protocol: int) -> None:
    """Containers, scalars, dates, dtypes come back as the standard unpickler gives them."""
    for value in SAFE_VALUES:
        decoded = decoders["pyd"](pickle.dumps(value, protocol))
        assert decoded == value
        assert type(decoded) is type(value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_come_back(protocol: int) -> None:
    """Arrays come back as the standard unpickler gives them, and are writable."""
    for value in ARRAYS:
        data = pickle.dumps(value, protocol)
        decoded, expected = decoders["pyd"](data), pickle.loads(data)
        assert type(decoded) is np.ndarray
        assert (decoded.dtype, decoded.shape, decoded.strides) == (expected.dtype, expected.shape, expected.strides)
        assert (decoded == expected).all()
        assert decoded.flags.writeable


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_tensors_come_back(protocol: int) -> None:
    """Tensors and parameters come back with strides, dtype and requires_grad; state dicts keep their metadata."""
    tensors = [
        torch.arange(6.0).reshape(2, 3).T,
        torch.zeros(0, 3),
        torch.tensor(3),
        torch.nn.Parameter(torch.ones(2)),
        torch.arange(4, dtype=torch.bfloat16)[1:3],
    ]
    for tensor in tensors:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about the storages that it pickles itself
            data = pickle.dumps(tensor, protocol)
        decoded = decoders["pickle"](data)
        assert torch.equal(decoded, tensor)
        assert type(decoded) is type(tensor)
        assert (decoded.stride(), decoded.requires_grad) == (tensor.stride(), tensor.requires_grad)
    state = torch.nn.Linear(2, 2).state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = pickle.dumps(state, protocol)
    assert decoders["pickle"](data)._metadata == state._metadata


def test_pickles_of_arrays_take_no_torch() -> None:
    """Decoding a pickle of arrays does not import torch."""
    program = (
        "import pickle, sys, numpy; from webdataset.codecs import decoders;"
        "decoders['pyd'](pickle.dumps([numpy.zeros(2), {1: 2}])); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


NDARRAY, RECONSTRUCT, DTYPE = "cnumpy\nndarray\n", "cnumpy._core.multiarray\n_reconstruct\n", "cnumpy\ndtype\n"
FRESH = f"{RECONSTRUCT}({NDARRAY}(I0\ntVb\ntR"
F8, O8, V8 = (f"{DTYPE}(V{spec}\nI00\nI01\ntR" for spec in ("f8", "O8", "V8"))
FILL = f"(I1\n(I1\nt{F8}I00\nC\x08aaaaaaaatb"
CRAFTED = {
    "a called array class": (f"{NDARRAY}((I5\nttR.", "calls numpy.ndarray"),
    "an array larger than its data": (f"{FRESH}(I1\n(I9\nt{F8}I00\nC\x01xtb.", "an array size"),
    "a negative size": (f"{FRESH}(I1\n(I-1\nt{F8}I00\nC\x00tb.", "a shape"),
    "an array built twice": (f"{FRESH}{FILL}{FILL}.", "an array state"),
    "objects from bytes": (f"{FRESH}(I1\n(I1\nt{O8}I00\nC\x08aaaaaaaatb.", "an array of objects"),
    "a field beyond its record": (f"{V8}(I3\nV|\nN(Va\nt(Va\n({F8}I4096\ntdI8\nI1\nI16\ntb.", "requires 4104 bytes"),
    "an object in a record": (f"{V8}(I3\nV|\nN(Va\nt(Va\n({O8}I0\ntdI8\nI1\nI16\ntb.", "a record of objects"),
    "another dtype spec": (f"{DTYPE}(V1000000000f8\nI00\nI01\ntR.", "holds a dtype"),
    "an attribute for a class": ("cbuiltins\nlist\n(N(Vx\nI1\ndtb.", "cannot set 'x' attribute of immutable type"),
    "an attribute for a function": ("c_codecs\nencode\n(N(V_call\nI1\ndtb.", "change a function"),
    "a state beside arrays": (f"{RECONSTRUCT}(N(V_call\nI1\ndtb.", "sets the state of Locked"),
    "huge bytes": ("cbuiltins\nbytes\n(I1000000000000\ntR.", "makes bytes of int"),
    "a huge bytearray": ("cbuiltins\nbytearray\n(I1000000000000\ntR.", "makes bytes of int"),
    "another codec": ("c_codecs\nencode\n(Vabc\nVzlib_codec\ntR.", "codec zlib_codec"),
    "a dotted name": ("\x80\x04\x8c\x08builtins\x8c\x0ddict.fromkeys\x93.", "asks for builtins.dict.fromkeys"),
    "a persistent id": ("Pabc\n.", "persistent"),
    "an extension code": ("\x80\x02\x82\x01.", "unregistered extension code 1"),
    "nothing": ("", "Ran out of input"),
    "no end": ("(I1\n", "Ran out of input"),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_pickles_are_refused(name: str) -> None:
    """Hand-made pickles that reach for memory or for the program itself are errors."""
    data, match = CRAFTED[name]
    with pytest.raises(DecodingError, match=match):
        Decoder([])({"__key__": "a", "pyd": data.encode("latin-1")})


def test_the_crafted_pieces_work() -> None:
    """The pieces of the pickles above make an array when nothing is wrong with them."""
    assert decoders["pyd"](f"{FRESH}{FILL}.".encode("latin-1")).tobytes() == b"aaaaaaaa"


def test_shared_dtypes_cannot_be_changed() -> None:
    """A pickle that asks for the dtype itself, not a copy, and swaps its bytes changes nothing outside."""
    swapped = decoders["pyd"](f"{DTYPE}(Vf8\nI00\nI00\ntR(I3\nV>\nNNNI-1\nI-1\nI0\ntb.".encode("latin-1"))
    assert swapped == np.dtype(">f8")
    assert np.array([1.0]).tobytes() == np.array([1.0], "f8").tobytes()
    assert np.dtype("f8").isnative


def test_crafted_tensors_are_refused() -> None:
    """A tensor that claims more than its storage is an error, not a view of other memory."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        storage = torch.arange(4)._typed_storage()
        for offset, size, stride in (
            (0, (5,), (1,)),
            (2, (3,), (1,)),
            (0, (4,), (2,)),
            (-1, (1,), (1,)),
            (0, (1,), (-1,)),
        ):
            planted = Planted(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, {})
            with pytest.raises(SecurityError, match=r"tensor|shape"):
                decoders["pyd"](pickle.dumps(planted, 2))


def test_functions_given_to_pickles_cannot_be_changed() -> None:
    """No attribute can be set on what a pickle may call."""
    function = Locked(len)
    for name in ("_call", "__class__", "other"):
        with pytest.raises(SecurityError):
            setattr(function, name, print)
    assert function([1]) == 1


def test_fractions_that_would_fill_the_memory() -> None:
    """A fraction is made of digits only: no exponent, no floats."""
    for text in ("1e999999999", "1/3e9", 0.5, "inf"):
        with pytest.raises(SecurityError, match="a fraction of something"):
            decoders["pyd"](pickle.dumps(Planted(fractions.Fraction, text)))


def test_types_given_to_pickles_cannot_be_changed() -> None:
    """Every class on both lists is immutable, so that BUILD cannot change it for the program."""
    from webdataset.codecs.rebuild import REBUILD

    for name, given in REBUILD.items():
        if isinstance(given, type):
            with pytest.raises(TypeError, match=r"immutable|cannot set"):
                given.webdataset_test = 1
        else:
            assert given is Ellipsis or type(given) is Locked, name


def test_the_program_can_allow_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name in allowed_globals is loaded, alone and beside arrays; others stay refused."""
    name = f"{Box.__module__}.{Box.__qualname__}"
    for value in (Box(3), [Box(3), np.float32(1)]):
        data = pickle.dumps(value)
        with pytest.raises(SecurityError, match=name):
            decoders["pyd"](data)
        allowed_globals.add(name)
        try:
            assert decoders["pyd"](data) == value
            with pytest.raises(SecurityError, match="eval"):
                decoders["pyd"](pickle.dumps([Box(3), Planted(eval, "1")]))
        finally:
            allowed_globals.discard(name)


def test_the_program_can_unpickle_everything() -> None:
    """A handler of the program with the standard unpickler takes the field first."""
    decoder = Decoder([handle_extension("pyd pickle pkl", pickle.loads)])
    assert decoder({"__key__": "a", "pyd": pickle.dumps(Box(3))})["pyd"] == Box(3)


def test_weights_only_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """pth fields with classes of the program load when pytorch_weights_only is False, and only then."""
    stream = io.BytesIO()
    torch.save(Box(3), stream)
    with pytest.raises(SecurityError, match=r"Box"):
        decoders["pth"](stream.getvalue())
    monkeypatch.setattr("webdataset.autodecode.pytorch_weights_only", False)
    assert decoders["pth"](stream.getvalue()) == Box(3)


def test_torchscript_is_refused() -> None:
    """A torch file that holds a program is not loaded."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for member in ("data.pkl", "constants.pkl", "version"):
            archive.writestr(f"archive/{member}", b"\x80\x02N." if member != "version" else b"3\n")
    with pytest.raises(DecodingError, match="TorchScript"):
        Decoder([])({"__key__": "a", "pth": stream.getvalue()})


def test_the_switch_of_careful_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """With enforce_security nothing is unpickled, with the published messages."""
    monkeypatch.setattr(security, "enforce_security", True)
    with pytest.raises(
        ValueError, match=r"^Unpickling is not allowed for security reasons when enforce_security is set\.$"
    ):
        decoders["pyd"](pickle.dumps(1))
    with pytest.raises(
        ValueError, match=r"^torch\.loads is not allowed for security reasons when enforce_security is set\.$"
    ):
        decoders["pth"](b"")


def test_the_careful_unpickler_agrees_with_the_fast_one() -> None:
    """Values without arrays are the same through both unpicklers."""
    for value in SAFE_VALUES[:8]:
        for protocol in PROTOCOLS:
            data = pickle.dumps(value, protocol)
            assert CarefulUnpickler(io.BytesIO(data)).load() == decoders["pyd"](data) == value
