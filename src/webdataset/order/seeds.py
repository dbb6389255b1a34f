"""Seeds: (seed, epoch, reader, stage) -> one integer, the same on every machine and Python.

Epoch 0 of reader 0 and stage 0 is the seed itself, so orders published for a seed stay; everything else goes
through the finaliser of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number
generators, 2014), which `hash()` could not replace: it differs from process to process.
"""

from __future__ import annotations

import random

_MASK = (1 << 64) - 1


def _splitmix64(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def mix_seed(seed: int, epoch: int = 0, reader: int = 0, stage: int = 0) -> int:
    """The seed of one stage of one reader in one epoch; `mix_seed(seed)` is `seed`, unless that is negative."""
    if epoch == reader == stage == 0 <= seed:  # Random(-3) would be Random(3)
        return seed
    mixed = 0
    for part in (seed, epoch, reader, stage) if stage else (seed, epoch, reader):
        mixed = _splitmix64(mixed ^ (part & _MASK))
    return mixed


def epoch_random(seed: int, epoch: int = 0, reader: int = 0, stage: int = 0) -> random.Random:
    """A generator of its own for one stage of one reader in one epoch."""
    return random.Random(mix_seed(seed, epoch, reader, stage))
