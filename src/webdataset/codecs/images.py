"""Image bytes <-> arrays, tensors and Pillow images.

Decoding needs an image spec, which names container, number type and colours: `imagespecs` is the
table. Floats are the 8-bit values divided by 255 in float32, the same numbers in numpy and torch.
No orientation tag is applied. 16-bit grey saturates, as Pillow converts it. PostScript is a program, which
Pillow would give to ghostscript: it is refused, whatever the field is called.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from .._arguments import check_items, check_text, did_you_mean
from .._optional import require
from ..errors import EncodingError, SecurityError

_EXTENSIONS = (
    "blp bmp dib bufr cur pcx dcx dds ps eps fit fits fli flc ftc ftu gbr gif grib h5 hdf png apng jp2 j2k jpc jpf jpx"
    " j2c icns ico im iim tif tiff jfif jpe jpg jpeg mpg mpeg msp pcd pxr pbm pgm ppm pnm psd bw rgb rgba sgi ras tga"
    " icb vda vst webp wmf emf xbm xpm"
    " img image"  # the writer makes JPEG of these two
)

IMAGE_EXTENSIONS: list[str] = [*_EXTENSIONS.split()]
"""Extensions that an image spec decodes unless the program names others."""

imagespecs: dict[str, tuple[str, str | None, str]] = {
    "l8": ("numpy", "uint8", "l"),
    "rgb8": ("numpy", "uint8", "rgb"),
    "rgba8": ("numpy", "uint8", "rgba"),
    "l": ("numpy", "float", "l"),
    "rgb": ("numpy", "float", "rgb"),
    "rgba": ("numpy", "float", "rgba"),
    "torchl8": ("torch", "uint8", "l"),
    "torchrgb8": ("torch", "uint8", "rgb"),
    "torchrgba8": ("torch", "uint8", "rgba"),
    "torchl": ("torch", "float", "l"),
    "torchrgb": ("torch", "float", "rgb"),
    "torch": ("torch", "float", "rgb"),
    "torchrgba": ("torch", "float", "rgba"),
    "pill": ("pil", None, "l"),
    "pil": ("pil", None, "rgb"),
    "pilrgb": ("pil", None, "rgb"),
    "pilrgba": ("pil", None, "rgba"),
}
"""Image spec to (container, number type, colours)."""


_PROGRAMS = ("EPS",)  # Pillow's name for all PostScript

_REFUSED = (
    "this is {kind}, which is a program that ghostscript would run; if you trust the data, decode it yourself:"
    ' handle_extension("eps ps", f)'
)


class ImageHandler:
    """Decodes image fields as `imagespec` says; a handler for `decode`.

    | imagespec | gives | values | shape |
    |---|---|---|---|
    | l8, rgb8, rgba8 | writable numpy array | uint8 | (H, W), (H, W, 3), (H, W, 4) |
    | l, rgb, rgba | numpy array | float32 from 0 to 1 | the same |
    | torchl8, torchrgb8, torchrgba8 | torch tensor | uint8 | (H, W), (3, H, W), (4, H, W) |
    | torchl, torchrgb or torch, torchrgba | torch tensor | float32 from 0 to 1 | the same |
    | pill, pil or pilrgb, pilrgba | Pillow image | | |

    Args:
        imagespec: one of the above.
        extensions: fields whose last extension, in lower case, is one of these are decoded.

    Raises:
        ValueError: the image spec is unknown.
    """

    def __init__(self, imagespec: str, extensions: Iterable[str] = IMAGE_EXTENSIONS) -> None:
        if not isinstance(imagespec, str) or imagespec not in imagespecs:
            hint = did_you_mean(imagespec, imagespecs)
            raise ValueError(f"Unknown imagespec: {imagespec!r}{hint}, known are {', '.join(imagespecs)}")
        if not isinstance(extensions, str):
            check_items("imagehandler", "extensions", extensions, "extensions, a str or a list")
        self.imagespec = imagespec
        self.extensions = set(extensions.split() if isinstance(extensions, str) else extensions)

    def accepts(self, key: str) -> bool:
        """Whether a field with this name is decoded here."""
        return key[key.rfind(".") + 1 :].lower() in self.extensions

    def __call__(self, key: str, data: bytes) -> Any:
        """The image, or None when the extension is another one."""
        if not self.accepts(key):
            return None
        container, numbers, colours = imagespecs[self.imagespec]
        pillow = require("PIL.Image", "pillow", "decoding images")
        mode = colours.upper()
        with pillow.open(io.BytesIO(data)) as image:
            if image.format in _PROGRAMS:
                raise SecurityError(_REFUSED.format(kind=image.format))
            image.load()
            if container == "pil":
                return image.convert(mode)
            pixels: np.ndarray[Any, Any] = np.asarray(image if image.mode == mode else image.convert(mode))
        if container == "torch" and pixels.ndim == 3:
            pixels = pixels.transpose(2, 0, 1)
        if numbers == "float":
            result = np.empty(pixels.shape, np.float32)
            np.divide(pixels, np.float32(255), out=result, dtype=np.float32)
        else:
            result = np.array(pixels, order="C")
        if container == "torch":
            return require("torch", "torch", f"decoding images to {self.imagespec!r}").from_numpy(result)
        return result

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.imagespec!r})"


def imagehandler(imagespec: str, extensions: Iterable[str] = IMAGE_EXTENSIONS) -> ImageHandler:
    """An ImageHandler, as a function."""
    return ImageHandler(imagespec, extensions)


_FORMATS = {"JPG": "JPEG", "TIF": "TIFF", "IMG": "PPM", "IMAGE": "PPM", "PBM": "PPM", "PGM": "PPM"}
_MODES = {"PBM": "1", "PGM": "L"}
_OPTIONS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 100}}


def imageencoder(image: Any, format: str = "PNG") -> bytes:
    """Bytes of an image file.

    Args:
        image: a Pillow image, or a numpy array (H, W), (H, W, 1), (H, W, 2: grey and alpha), (H, W, 3) or
            (H, W, 4) of bool, uint8, uint16 (grey only), or floats from 0 to 1.
        format: name of a Pillow format, or jpg, tif, pbm (black and white), pgm (grey); JPEG gets quality 100.

    Raises:
        EncodingError: floats outside of 0 to 1, or an array or mode that the format cannot hold.
    """
    check_text("imageencoder", "format", format, "the name of a format")
    pillow = require("PIL.Image", "pillow", "encoding images")
    name = format.upper()
    plugin = _FORMATS.get(name, name)
    if isinstance(image, np.ndarray):
        image = pillow.fromarray(_pixels(image))
    elif not isinstance(image, pillow.Image):
        raise EncodingError(f"an image field needs a Pillow image or a numpy array, got {type(image).__name__}")
    mode = _MODES.get(name)
    if mode is not None and image.mode != mode and not (mode == "L" and image.mode.startswith("I;16")):
        image = image.convert("L") if mode == "L" else image.convert("L").convert("1", dither=0)
    stream = io.BytesIO()
    try:
        image.save(stream, format=plugin, **_OPTIONS.get(plugin, {}))
    except (OSError, KeyError, ValueError) as exn:
        raise EncodingError(f"an image of the mode {image.mode} cannot be written as {name}: {exn}") from exn
    return stream.getvalue()


def _pixels(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array with a shape and type that Pillow takes."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (2, 3, 4))) or not array.size:
        raise EncodingError(f"an image array has the shape (H, W) or (H, W, 1 to 4) and pixels, got {array.shape}")
    if array.dtype.kind == "f":
        exact = array.astype(np.float32) if array.dtype.itemsize < 4 else array
        low, high = exact.min(), exact.max()
        if not (low > -0.001 and high < 1.001):
            raise EncodingError(f"image values out of range: floats must be from 0 to 1, got {low} to {high}")
        array = (np.clip(exact, 0, 1) * exact.dtype.type(255)).astype(np.uint8)
    if array.dtype == np.uint8 or (array.ndim == 2 and array.dtype in (np.bool_, np.uint16)):
        return np.ascontiguousarray(array)
    raise EncodingError(
        f"an image array holds uint8, floats from 0 to 1, or (grey only) bool or uint16;"
        f" got {array.dtype} of the shape {array.shape}"
    )


CODECS: dict[str, tuple[Callable[[bytes], Any] | None, Callable[[Any], bytes]]] = {
    "jpg jpeg img image": (None, partial(imageencoder, format="jpg")),
    "png": (None, partial(imageencoder, format="png")),
    "pbm": (None, partial(imageencoder, format="pbm")),
    "pgm": (None, partial(imageencoder, format="pgm")),
    "ppm": (None, partial(imageencoder, format="ppm")),
    "tiff tif": (None, partial(imageencoder, format="tiff")),
}
