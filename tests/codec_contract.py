"""What every codec keeps to, as a function that the tests call for each extension and value."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from webdataset.autodecode import Decoder, DecodingError
from webdataset.codecs import decoders, encoders


def same(left: Any, right: Any) -> bool:
    """Equal in type and value, arrays also in dtype, shape and bits; NaN equals NaN."""
    if isinstance(left, np.ndarray):
        if not isinstance(right, np.ndarray) or (left.dtype, left.shape) != (right.dtype, right.shape):
            return False
        return left.tobytes() == right.tobytes()
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return type(right) is list and len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and (left == right or (left != left and right != right))


def round_trips(extension: str, value: Any) -> None:
    """What is encoded is bytes, comes back through the table and through a Decoder, and pickles with its functions."""
    data = encoders[extension](value)
    assert type(data) is bytes
    assert same(value, decoders[extension](data))
    sample = {"__key__": "a", f"some.{extension}": data}
    decoder = pickle.loads(pickle.dumps(Decoder([])))
    assert same(value, decoder(sample)[f"some.{extension}"])
    assert sample == {"__key__": "a", f"some.{extension}": data}
    assert pickle.loads(pickle.dumps(encoders[extension]))(value) == data


def refuses(extension: str, data: bytes, match: str = ".") -> None:
    """Bytes that are no such value give a DecodingError with place, fact and cause."""
    with pytest.raises(DecodingError, match=match) as caught:
        Decoder([])({"__key__": "dir/key", "__url__": "shard.tar", extension: data})
    error = caught.value
    assert str(error).startswith(f"shard.tar!dir/key.{extension}: ")
    assert "\n" not in str(error)
    assert (error.url, error.key, error.field, error.k) == ("shard.tar", "dir/key", extension, extension)
    assert error.__cause__ is not None
    assert isinstance(error, ValueError)
