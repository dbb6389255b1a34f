"""The same fields through the published package and through this one: equal, but for a list of differences."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import subprocess
import sys
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any

import cbor
import msgpack
import numpy as np
import PIL.Image

from tools import published

PROBE = """
import hashlib, json, pickle, sys, warnings
warnings.simplefilter("ignore")
import numpy as np
from webdataset import autodecode as ad

def show(value):
    if isinstance(value, np.ndarray):
        return f"array {value.dtype} {value.shape} {hashlib.sha1(np.ascontiguousarray(value).tobytes()).hexdigest()}"
    if type(value).__module__.startswith("PIL"):
        return f"{value.mode} {value.size} {hashlib.sha1(value.tobytes()).hexdigest()}"
    if isinstance(value, dict):
        return {repr(key): show(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *map(show, value)]
    return f"{type(value).__name__} {value!r}"

def decoded(field, data, *handlers):
    try:
        return show(ad.Decoder(list(handlers))({"__key__": "k", field: data})[field])
    except ad.DecodingError as exn:
        return "an error"

fields = pickle.load(sys.stdin.buffer)
given = {field: decoded(field, data) for field, data in fields.items()}
for spec in ad.imagespecs:
    if not spec.startswith("torch"):
        for field, data in fields.items():
            if "image" in field:
                given[f"{spec} {field}"] = decoded(field, data, ad.imagehandler(spec))
print("RESULT" + json.dumps(given))
"""

DIFFERENT = {
    # What the writer encodes, the decoder decodes.
    **dict.fromkeys(("1.html", "1.htm", "1.class", "1.count", "1.msgpack", "null.msgpack"), "written, so it is read"),
    **dict.fromkeys(("null.json", "null.jsn.gz", "null.mp", "null.msg", "null.cbor"), "None is a value"),
    # Data is not trusted.
    **dict.fromkeys(("path.pyd", "function.pyd"), "not among the safe types"),
    # cbor2 reads what cbor leaves as tags.
    "date.cbor": "a datetime instead of a Tag",
}


def npy(array: np.ndarray, **kw: Any) -> bytes:
    """What numpy saves."""
    stream = io.BytesIO()
    np.save(stream, array, **kw)
    return stream.getvalue()


def image(pixels: Any, kind: str) -> bytes:
    """What Pillow saves."""
    stream = io.BytesIO()
    (PIL.Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels).save(stream, kind)
    return stream.getvalue()


def fields() -> dict[str, bytes]:
    """Fields of every extension, right and wrong."""
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (6, 5, 3), np.uint8)
    grey = rgb[..., 0]
    made: dict[str, bytes] = {}
    for extension in ["txt", "text", "transcript", "html", "htm", "csv", "yaml", "bin", "jsonl", "pt", "foo", "TXT"]:
        made[f"1.{extension}"] = "é\n".encode()
    for extension in ["cls", "cls2", "class", "count", "index", "inx", "id"]:
        made[f"1.{extension}"] = b" 12\n"
    texts = {"a": b"[1, 2.5, NaN]", "b": b'{"a":1,"a":2}', "bom": b"\xef\xbb\xbf1", "utf16": '"é"'.encode("utf-16")}
    texts |= {"null": b"null", "bad": b"{", "empty": b"", "big": b"9" * 40, "surrogate": b'"\\ud800"', "blank": b" 1 "}
    for name, text in texts.items():
        made[f"{name}.json"] = text
        made[f"{name}.jsn.gz"] = gzip.compress(text)
    for name, number in {"bad": b"x", "float": b"1.5", "minus": b"-3", "score": b"1_000", "none": b""}.items():
        made[f"{name}.cls"] = number
    made["bad.txt"] = b"\xff"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        made[f"{protocol}.pyd"] = pickle.dumps([{"a": (1, {2})}, rgb, Decimal("1.5"), np.float32(1)], protocol)
    made |= {"a.pickle": pickle.dumps(1), "a.pkl": pickle.dumps("x"), "bad.pyd": b"\x80\x04K"}
    made |= {"path.pyd": pickle.dumps(PurePosixPath("a")), "function.pyd": pickle.dumps(len)}
    for name, value in {"null": None, "a": {"a": b"x", "b": "y"}, "1": [1, 2.5, 2**60], "keys": {1: 2}}.items():
        made |= {f"{name}.{extension}": msgpack.packb(value) for extension in ("mp", "msg")}
        made[f"{name}.cbor"] = cbor.dumps(value)
    made |= {"1.msgpack": msgpack.packb(1), "null.msgpack": msgpack.packb(None)}
    made |= {"bad.mp": b"\xc1", "more.mp": b"\1\2", "bad.cbor": b"\xff", "date.cbor": b"\xc1\x1a\x51\x4b\x67\xb0"}
    arrays = [rgb, np.float16([1, 2]), np.asfortranarray(rng.normal(size=(3, 4))), np.array(5), np.zeros((0, 3))]
    arrays += [np.array(["ab", "c"]), np.arange(3, dtype=">i4"), np.array([(1, 2.0)], dtype="i4,f8")]
    made |= {f"{i}.npy": npy(array) for i, array in enumerate(arrays)}
    made |= {"object.npy": npy(np.array([{}], dtype=object)), "bad.npy": b"x", "cut.npy": npy(rgb)[:-1]}
    stream = io.BytesIO()
    np.savez_compressed(stream, a=rgb, b=grey)
    made |= {"a.npz": stream.getvalue(), "bad.npz": b"x"}
    made |= {"a.gz": gzip.compress(b"x"), "a.foo.gz": gzip.compress(b"x"), "bad.txt.gz": b"x"}
    made |= {"cut.txt.gz": gzip.compress(b"x")[:-3], "two.txt.gz": gzip.compress(b"x") * 2, "a.txt.bz2": b"x"}
    modes = {mode: PIL.Image.fromarray(rgb).convert(mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")}
    made |= {f"{mode}.image.png": image(picture, "PNG") for mode, picture in modes.items()}
    made |= {"deep.image.png": image(grey.astype(np.uint16) * 200, "PNG"), "bad.image.png": b"x"}
    made |= {f"image.{kind.lower()}": image(rgb, kind) for kind in ("JPEG", "BMP", "PPM", "TIFF", "GIF", "WEBP")}
    made |= {"cmyk.image.jpg": image(PIL.Image.fromarray(rgb).convert("CMYK"), "JPEG")}
    made |= {"zipped.image.png.gz": gzip.compress(image(rgb, "PNG")), "cut.image.png": image(rgb, "PNG")[:90]}
    return made


def answers(python: str, data: bytes, folder: Path) -> dict[str, Any]:
    """What the package of a Python gives for the fields."""
    environment = {**os.environ}
    if python != sys.executable:
        environment.pop("PYTHONPATH", None)  # it may lead to our own package
    done = subprocess.run(
        [python, "-c", PROBE], input=data, cwd=folder, env=environment, stdout=subprocess.PIPE, check=True
    )
    answer: dict[str, Any] = json.loads(done.stdout.decode().rpartition("RESULT")[2])
    return answer


def test_fields_decode_as_published(tmp_path: Path) -> None:
    """Every extension and image spec gives the published value or an error where it does; the rest is on the list."""
    data = pickle.dumps(fields())
    theirs, ours = answers(published(), data, tmp_path), answers(sys.executable, data, tmp_path)
    assert theirs.keys() == ours.keys()
    assert len(ours) > 250
    different = {field: (theirs[field], ours[field]) for field in ours if theirs[field] != ours[field]}
    assert different.keys() == DIFFERENT.keys(), different
