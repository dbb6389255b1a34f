"""Everything that writes: archives, shards, and the encoders of their fields."""

from .codecs.arrays import numpy_dumps, numpy_npz_dumps, tenbin_dumps
from .codecs.basic import cbor_dumps, mp_dumps
from .codecs.images import imageencoder
from .codecs.pickles import torch_dumps
from .encoders import (
    add_handlers,
    bytestr,
    default_handlers,
    encode_based_on_extension,
    encode_based_on_extension1,
    make_encoder,
    make_handlers,
)
from .recordwriter import RecordWriter
from .shardwriter import ShardWriter
from .tarwriter import TarWriter

__all__ = [
    "RecordWriter",
    "ShardWriter",
    "TarWriter",
    "add_handlers",
    "bytestr",
    "cbor_dumps",
    "default_handlers",
    "encode_based_on_extension",
    "encode_based_on_extension1",
    "imageencoder",
    "make_encoder",
    "make_handlers",
    "mp_dumps",
    "numpy_dumps",
    "numpy_npz_dumps",
    "tenbin_dumps",
    "torch_dumps",
]
