"""Stages that change which samples come, and when, or look at them on their way: the samples stay as they are.

Random stages draw from (seed, epoch, reader), see `webdataset.order.seeded`; the order itself is
made in `webdataset.order.buffer`.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from inspect import signature
from itertools import islice
from numbers import Real
from random import Random
from typing import Any

from .._arguments import a, check_count, check_number, check_path, check_text, checked, shown
from .._closing import close_source
from .._logfile import append_locked, open_log
from .._stage import PipelineStage, checkedfilter
from .._types import Handler
from ..order.buffer import pick, shuffled, shuffled_by_size
from ..order.seeded import EpochAttribute, SeededStage, seeded_random
from ..order.seeds import epoch_random
from ..order.sizes import bytes_of, image_bytes
from ..workers import reader_info, resolve_seed

__all__ = ["ShuffleStage", "detshuffle", "info", "log_keys", "pick", "rsample", "shuffle", "slice"]

MUCH_MEMORY = 1 << 30
"""Decoded images in a shuffle buffer that hold more bytes than this are worth a warning."""


def _closing(stream: Iterator[Any], source: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from stream
    finally:
        close_source(source)


def _shuffle(
    data: Iterable[Any],
    bufsize: float = 1000,
    initial: float = 100,
    rng: Random | None = None,
    seed: int | str | None = None,
    handler: Handler | None = None,
    *,
    max_bytes: float | None = None,
) -> Iterator[Any]:
    """Shuffle in a buffer: another order in each epoch, the same one for the same seed.

    Args:
        bufsize: samples that the buffer holds at most, all of them in memory; 0 or 1 leaves the order as it is.
        initial: samples that must be there before the first comes out; at most `bufsize`.
        rng: generator to use instead of a seed.
        seed: None means WDS_SEED or 0; "random" draws one, and logs it.
        handler: ignored; kept for 0.2 callers.
        max_bytes: bytes that the samples in the buffer hold at most (of bytes, str, arrays, tensors and images);
            a larger sample is in the buffer alone. Sizes are not looked at without it.
    """
    for name, value in (("bufsize", bufsize), ("initial", initial)):
        if not isinstance(value, (int, float, Real)):
            raise TypeError(f"shuffle: {name} must be a number of samples, got {shown(value)}")
    if max_bytes is not None and (isinstance(max_bytes, bool) or not isinstance(max_bytes, (int, float, Real))):
        raise TypeError(f"shuffle: max_bytes must be a number of bytes or None, got {shown(max_bytes)}")
    if max_bytes is not None and not max_bytes > 0:
        raise ValueError(f"shuffle: max_bytes must be more than 0, got {shown(max_bytes)}")
    source = iter(data)
    generator = seeded_random(seed, rng)
    if max_bytes is not None:
        return _closing(shuffled_by_size(source, bufsize, initial, generator, max_bytes, bytes_of), source)
    return _warning(shuffled(source, bufsize, initial, generator), source, bufsize)


def _warning(stream: Iterator[Any], source: Iterator[Any], bufsize: float) -> Iterator[Any]:
    """The stream; what is in the buffer is looked at once, with the first sample that comes out."""
    try:
        for sample in stream:
            _warn_of_images(sample, bufsize)
            yield sample
            break
        yield from stream
    finally:
        close_source(source)


def _warn_of_images(sample: Any, bufsize: float) -> None:
    size = image_bytes(sample)
    if size and size * bufsize > MUCH_MEMORY and reader_info().reader == 0:
        warnings.warn(
            f"shuffle: a buffer of {bufsize:.0f} samples with decoded images ({size / 1e6:.1f} MB each) holds"
            f" {size * bufsize / 1e9:.1f} GB in each reader: shuffle before decode, or pass max_bytes",
            stacklevel=2,
        )


def _kept_back(bufsize: float, initial: float) -> float:
    return 2 * min(bufsize, initial) + 2


class ShuffleStage(SeededStage):
    """A `shuffle` with its arguments."""

    @property
    def kept_back(self) -> float:
        """Samples that may go in before one comes out."""
        bound = signature(_shuffle).bind((), *self.args, **self.kw)
        bound.apply_defaults()
        return _kept_back(bound.arguments["bufsize"], bound.arguments["initial"])


shuffle = checkedfilter(_shuffle, ShuffleStage)


class detshuffle(EpochAttribute, PipelineStage):  # noqa: N801 -- the published name
    """Shuffle in a buffer, with the generator of `seed` + `epoch` in each pass; all readers draw alike.

    Attributes:
        epoch: number of the running pass, -1 before the first; a program may set it.
    """

    @checked("detshuffle", epoch=check_number)
    def __init__(
        self,
        bufsize: float = 1000,
        initial: float = 100,
        seed: int | str | None = 0,
        epoch: int = -1,
        *,
        max_bytes: float | None = None,
    ) -> None:
        """`bufsize`, `initial`, `seed` and `max_bytes` as for `shuffle`; the first pass is epoch `epoch` + 1."""
        super().__init__(epoch)
        self.max_bytes = max_bytes
        self.bufsize = bufsize
        self.initial = initial
        self.seed = resolve_seed(seed)
        _shuffle((), bufsize, initial, Random(0), max_bytes=max_bytes)  # wrong arguments are found now

    def run(self, src: Iterable[Any]) -> Iterator[Any]:
        """One pass, the next epoch."""
        rng = epoch_random(self.seed + self._next_epoch())
        return _shuffle(src, self.bufsize, self.initial, rng, max_bytes=self.max_bytes)

    @property
    def kept_back(self) -> float:
        """Samples that may go in before one comes out."""
        return _kept_back(self.bufsize, self.initial)

    def __repr__(self) -> str:
        return f"<detshuffle {self.bufsize} initial={self.initial} seed={self.seed} epoch={self.epoch}>"


def _slice(data: Iterable[Any], *args: int | None) -> Iterator[Any]:
    """A part of the stream, with the arguments of `itertools.islice`: `slice(n)`, `slice(start, stop, step)`."""
    if not 1 <= len(args) <= 3:
        raise TypeError(f"slice: give stop, or start and stop, or start, stop and step; got {len(args)} arguments")
    for name, value in zip(("stop",) if len(args) == 1 else ("start", "stop", "step"), args, strict=False):
        if value is not None:
            check_count("slice", name, value, 1 if name == "step" else 0, "items")
    source = iter(data)
    return _closing(islice(source, *args), source)


_slice.__name__ = "islice"  # what programs find in the text of the stage
slice = checkedfilter(_slice)


def _rsample(
    data: Iterable[Any], p: float = 0.5, *, seed: int | str | None = None, rng: Random | None = None
) -> Iterator[Any]:
    """Keep each sample with probability `p`; other ones in each epoch, the same ones for the same seed."""
    if isinstance(p, bool) or not isinstance(p, (int, float, Real)) or not 0 <= p <= 1:
        raise ValueError(f"rsample: p must be a probability from 0 to 1, got {p!r}")
    draw = seeded_random(seed, rng).random
    source = iter(data)
    return _closing((sample for sample in source if draw() < p), source)


rsample = checkedfilter(_rsample, SeededStage)

_stderr_at_import = sys.stderr


def _check_stream(where: str, name: str, value: Any) -> None:
    if not callable(getattr(value, "write", None)):
        raise TypeError(f"{where}: {name} must be something to write to, such as sys.stdout, got {shown(value)}")


@checked(
    "info",
    fmt=a(check_text, optional=True),
    n=a(check_number, "samples"),
    every=a(check_number, "samples"),
    width=a(check_number, "characters", whole=True),
    stream=_check_stream,
)
def _info(
    data: Iterable[Any],
    fmt: str | None = None,
    n: int = 3,
    every: int = -1,
    width: int = 50,
    stream: Any = sys.stderr,
    name: str = "",
) -> Iterator[Any]:
    """Print the first `n` samples and each `every`-th one on their way.

    Args:
        fmt: format string for the fields of a sample; by default a line of `name` and one for each field.
        n: samples to print at the beginning.
        every: after that, each so many samples one is printed; less than 1 means none.
        width: characters of each value.
        stream: where to print, standard error by default.
        name: what to call this place in the pipeline.
    """
    source = iter(data)
    try:
        for i, sample in enumerate(source):
            if i < n or (every > 0 and (i + 1) % every == 0):
                text = _described(sample, fmt, width, name)
                (sys.stderr if stream is _stderr_at_import else stream).write(text + "\n")
            yield sample
    finally:
        close_source(source)


info = checkedfilter(_info)


def _described(sample: Any, fmt: str | None, width: int, name: str) -> str:
    if not isinstance(sample, dict):
        return f"--- {name}\n{repr(sample)[:width]}" if fmt is None else fmt.format(sample)
    if fmt is not None:
        return fmt.format(**sample)
    return "\n".join([f"--- {name}", *(f"{key} {repr(value)[:width]}" for key, value in sample.items())])


@checked("log_keys", logfile=a(check_path, optional=True))
def _log_keys(data: Iterable[Any], logfile: str | os.PathLike[str] | None = None) -> Iterator[Any]:
    """Append a line to a file for each sample, before it goes on: index, worker, rank and key, separated by tabs.

    Worker and rank are the fields `__worker__` and `__rank__` of the sample, or None. Lines of several processes
    do not mix. Without a file nothing happens.
    """
    source = iter(data)
    log = None
    try:
        for i, sample in enumerate(source):
            if logfile:
                if log is None:
                    log = open_log(logfile)
                fields = sample if isinstance(sample, dict) else {}
                values = (i, fields.get("__worker__"), fields.get("__rank__"), fields.get("__key__"))
                append_locked(log, "\t".join(str(value) for value in values) + "\n")
            yield sample
    finally:
        if log is not None:
            os.close(log)
        close_source(source)


log_keys = checkedfilter(_log_keys)
