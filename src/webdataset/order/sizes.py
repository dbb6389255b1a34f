"""How many bytes a sample holds in memory, near enough to bound a buffer. Pure; imports no torch and no Pillow."""

from __future__ import annotations

from typing import Any

IMAGE_BYTES = 64 << 10
"""An array of three dimensions that is as large as this is taken for a decoded image."""


def bytes_of(value: Any) -> int:
    """Bytes of the bytes, text, arrays, tensors and images in a sample, at any depth; anything else counts nothing."""
    if isinstance(value, (bytes, bytearray, str)):
        return len(value)
    if isinstance(value, dict):
        return sum(map(bytes_of, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(bytes_of, value))
    size = getattr(value, "nbytes", None)
    if isinstance(size, int):
        return size
    return _pixels(value) if type(value).__module__.startswith("PIL.") else 0


def image_bytes(sample: Any) -> int:
    """Bytes of the decoded images in a sample, Pillow's and large arrays of three dimensions; 0 for none."""
    values = sample.values() if isinstance(sample, dict) else sample if isinstance(sample, (list, tuple)) else (sample,)
    return sum(bytes_of(value) for value in values if _is_image(value))


def _is_image(value: Any) -> bool:
    if type(value).__module__.startswith("PIL."):
        return hasattr(value, "getbands")
    return getattr(value, "ndim", None) == 3 and getattr(value, "nbytes", 0) >= IMAGE_BYTES


def _pixels(image: Any) -> int:
    width, height = getattr(image, "size", (0, 0))
    return int(width) * int(height) * len(image.getbands()) if hasattr(image, "getbands") else 0
