"""Tests of image specs and image encoders: dtype, shape, range, and the same numbers everywhere."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from webdataset.autodecode import IMAGE_EXTENSIONS, Decoder, DecodingError, ImageHandler, imagehandler, imagespecs
from webdataset.codecs import encoders
from webdataset.codecs.images import imageencoder
from webdataset.errors import EncodingError

HEIGHT, WIDTH = 7, 9
RGB = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
ALL_VALUES = np.arange(256, dtype=np.uint8).reshape(16, 16)


def png(image: Any, mode: str | None = None) -> bytes:
    """PNG bytes of an array, converted to a mode by Pillow."""
    picture = PIL.Image.fromarray(image)
    stream = io.BytesIO()
    (picture if mode is None else picture.convert(mode)).save(stream, "PNG")
    return stream.getvalue()


FILES = {
    "RGB": png(RGB),
    "L": png(RGB, "L"),
    "LA": png(RGB, "LA"),
    "RGBA": png(np.dstack([RGB, RGB[..., 0]])),
    "P": png(RGB, "P"),
    "1": png(RGB, "1"),
    "I;16": png(RGB[..., 0].astype(np.uint16) * 257),
}
COLOURS = {"l": "L", "rgb": "RGB", "rgba": "RGBA"}


def expected(data: bytes, colours: str) -> np.ndarray:
    """The pixels as Pillow alone gives them."""
    return np.array(PIL.Image.open(io.BytesIO(data)).convert(COLOURS[colours]))


@pytest.mark.parametrize("spec", [spec for spec in imagespecs if imagespecs[spec][0] == "numpy"])
@pytest.mark.parametrize("mode", FILES)
def test_numpy_specs(spec: str, mode: str) -> None:
    """numpy specs give (H, W) or (H, W, C), uint8 or float32 in 0 to 1, writable and in C order."""
    _, numbers, colours = imagespecs[spec]
    pixels = ImageHandler(spec)(".png", FILES[mode])
    wanted = expected(FILES[mode], colours)
    assert type(pixels) is np.ndarray
    assert pixels.shape == wanted.shape == ((HEIGHT, WIDTH) if colours == "l" else (HEIGHT, WIDTH, len(colours)))
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous
    if numbers == "uint8":
        assert pixels.dtype == np.uint8
        assert (pixels == wanted).all()
    else:
        assert pixels.dtype == np.float32
        assert pixels.tobytes() == (wanted.astype(np.float32) / np.float32(255)).tobytes()
        assert 0 <= pixels.min() <= pixels.max() <= 1


@pytest.mark.parametrize("spec", [spec for spec in imagespecs if imagespecs[spec][0] == "torch"])
@pytest.mark.parametrize("mode", FILES)
def test_torch_specs_hold_the_numbers_of_numpy(spec: str, mode: str) -> None:
    """torch specs give contiguous (H, W) or (C, H, W) tensors, bit for bit the numbers of the numpy spec."""
    _, numbers, colours = imagespecs[spec]
    tensor = ImageHandler(spec)(".png", FILES[mode])
    array = ImageHandler(colours + ("8" if numbers == "uint8" else ""))(".png", FILES[mode])
    assert isinstance(tensor, torch.Tensor)
    assert tensor.is_contiguous()
    assert tensor.dtype == (torch.uint8 if numbers == "uint8" else torch.float32)
    if array.ndim == 3:
        array = array.transpose(2, 0, 1)
    assert tensor.shape == array.shape
    assert tensor.numpy().tobytes() == array.tobytes()


@pytest.mark.parametrize("spec", [spec for spec in imagespecs if imagespecs[spec][0] == "pil"])
@pytest.mark.parametrize("mode", FILES)
def test_pillow_specs(spec: str, mode: str) -> None:
    """Pillow specs give loaded images of the mode, free of the file they came from."""
    image = ImageHandler(spec)(".png", FILES[mode])
    colours = imagespecs[spec][2]
    assert type(image) is PIL.Image.Image
    assert image.mode == COLOURS[colours]
    assert (np.array(image) == expected(FILES[mode], colours)).all()
    assert image.size == (WIDTH, HEIGHT)


def test_every_value_is_divided_exactly() -> None:
    """All 256 values become value / 255 in float32, in numpy and torch alike."""
    data = png(ALL_VALUES)
    wanted = np.array([np.float32(value) / np.float32(255) for value in range(256)], np.float32).reshape(16, 16)
    assert (ImageHandler("l")(".png", data) == wanted).all()
    assert (ImageHandler("torchl")(".png", data).numpy() == wanted).all()


def test_unknown_spec() -> None:
    """An unknown image spec is a ValueError that lists the known ones; case matters."""
    for spec in ("rbg", "RGB", ""):
        with pytest.raises(ValueError, match=r"^Unknown imagespec: .*l8, rgb8"):
            imagehandler(spec)


def test_extensions() -> None:
    """Fields are taken by their last extension in any case; others go to the next handler."""
    handler = ImageHandler("rgb8")
    for key in (".png", ".left.PNG", ".a.b.png", "png"):
        assert (handler(key, FILES["RGB"]) == RGB).all()
    for key in (".txt", ".png.gz", ".", ".pngx"):
        assert handler(key, FILES["RGB"]) is None
    assert ImageHandler("rgb8", extensions=["foo"])(".png", b"") is None
    assert (ImageHandler("rgb8", extensions=["foo"])(".foo", FILES["RGB"]) == RGB).all()
    assert ImageHandler("rgb8", "foo bar").extensions == {"foo", "bar"}
    assert {"png", "jpg", "jpeg", "webp", "tiff", "ppm", "img", "image"} <= set(IMAGE_EXTENSIONS)


def test_handlers_pickle() -> None:
    """An ImageHandler crosses to spawned workers."""
    handler = pickle.loads(pickle.dumps(imagehandler("rgb8", ["foo"])))
    assert (handler(".foo", FILES["RGB"]) == RGB).all()
    assert handler(".png", FILES["RGB"]) is None


@pytest.mark.parametrize("extension", ["jpg", "jpeg", "img", "image", "png", "ppm", "tiff", "tif", "pgm", "pbm"])
def test_written_images_are_read(extension: str) -> None:
    """Each image extension of the writer is decoded by image specs; all but JPEG are exact in their own colours."""
    data = encoders[extension](RGB)
    assert type(data) is bytes
    if extension in ("pgm", "pbm"):
        wanted = np.array(PIL.Image.fromarray(RGB).convert("L"))
        wanted = wanted if extension == "pgm" else np.where(wanted < 128, 0, 255)
        assert (ImageHandler("l8")(f".{extension}", data) == wanted).all()
        assert data[:2] == {"pgm": b"P5", "pbm": b"P4"}[extension]
        return
    decoded = ImageHandler("rgb8")(f".{extension}", data)
    assert decoded.shape == RGB.shape
    if data[:2] == b"\xff\xd8":
        smooth = np.full((16, 16, 3), 100, np.uint8)
        assert abs(ImageHandler("rgb8")(".jpg", encoders[extension](smooth)).astype(int) - 100).max() <= 2
    else:
        assert (decoded == RGB).all()


@pytest.mark.parametrize(
    ("array", "spec"),
    [
        (np.dstack([RGB, RGB[..., 0]]), "rgba8"),
        (RGB, "rgb8"),
        (RGB[..., 0], "l8"),
        (RGB[..., :1], "l8"),
        (RGB[::2, ::-1], "rgb8"),
    ],
)
def test_png_arrays(array: np.ndarray, spec: str) -> None:
    """Grey, (H, W, 1), RGB, RGBA and strided arrays are written as they are."""
    decoded = ImageHandler(spec)(".png", encoders["png"](array))
    assert (decoded == (array[..., 0] if array.shape[2:] == (1,) else array)).all()


def test_other_number_types() -> None:
    """bool and 16-bit grey are kept; Pillow images are taken in any mode that the format has."""
    flags = RGB[..., 0] > 100
    assert ((ImageHandler("l8")(".png", encoders["png"](flags)) > 0) == flags).all()
    assert (ImageHandler("l8")(".pbm", encoders["pbm"](flags)) == np.where(flags, 255, 0)).all()
    deep = RGB[..., 0].astype(np.uint16) * 257
    for extension in ("png", "pgm"):
        assert (np.array(PIL.Image.open(io.BytesIO(encoders[extension](deep)))) == deep).all()
    palette = PIL.Image.fromarray(RGB).convert("P")
    assert PIL.Image.open(io.BytesIO(encoders["png"](palette))).mode == "P"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_scaled(dtype: Any) -> None:
    """Floats from 0 to 1 become floor(x * 255); what rounding put just outside is clipped."""
    values = np.array([[0.0, 1.0, 0.5, 0.25, -0.0005, 1.0005]], dtype)
    assert ImageHandler("l8")(".png", encoders["png"](values)).tolist() == [[0, 255, 127, 63, 0, 255]]
    pixels = (ALL_VALUES / 255).astype(dtype)
    assert abs(ImageHandler("l8")(".png", encoders["png"](pixels)).astype(int) - ALL_VALUES).max() <= 1


@pytest.mark.parametrize(
    ("extension", "image", "match"),
    [
        ("png", np.full((2, 2), 255.0), r"image values out of range: floats must be from 0 to 1, got 255\.0 to 255\.0"),
        ("png", np.full((2, 2), -0.1), "image values out of range"),
        ("png", np.full((2, 2), np.nan), "image values out of range"),
        ("png", np.zeros((2, 2, 5), np.uint8), r"got \(2, 2, 5\)"),
        ("png", np.zeros(4, np.uint8), r"got \(4,\)"),
        ("png", np.zeros((0, 4), np.uint8), r"got \(0, 4\)"),
        ("png", np.zeros((2, 2), np.int64), "got int64"),
        ("png", np.zeros((2, 2, 3), np.uint16), "got uint16 of the shape"),
        ("png", [[1]], "needs a Pillow image or a numpy array, got list"),
        ("jpg", np.zeros((2, 2, 4), np.uint8), "mode RGBA cannot be written as JPG"),
    ],
)
def test_images_that_cannot_be_written(extension: str, image: Any, match: str) -> None:
    """The error says what was given and what is possible."""
    with pytest.raises(EncodingError, match=match):
        encoders[extension](image)


def test_imageencoder_takes_names_of_formats() -> None:
    """The published function writes PNG by default, and any Pillow format by name."""
    assert imageencoder(RGB)[:4] == b"\x89PNG"
    assert imageencoder(RGB, "JPG")[:2] == imageencoder(RGB, "jpeg")[:2] == b"\xff\xd8"
    assert imageencoder(RGB, format="bmp")[:2] == b"BM"


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", r"a\.png: cannot identify image file; starts with b''"),
        (
            b"<html>not found</html>",
            r"a\.png: cannot identify image file; starts with b'<html>not found<' \(22 bytes\)",
        ),
        (FILES["RGB"][:-30], r"a\.png: .*(truncated|broken)"),
    ],
)
def test_images_that_cannot_be_read(data: bytes, match: str) -> None:
    """A wrong or truncated image gives one line with place and fact."""
    with pytest.raises(DecodingError, match=match) as caught:
        Decoder([ImageHandler("rgb")])({"__key__": "a", "__url__": "x.tar", "png": data})
    assert "\n" not in str(caught.value)
