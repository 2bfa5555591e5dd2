"""Shuffle exactly, in eight bytes a sample."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

#: Numbers that are Python objects at a time; torch's RandomSampler makes all at once.
CHUNK = 4096


class Permutation(Sampler[int]):
    """Every index of ``range(length)`` once a pass, in the order of ``torch.randperm``.

    The order is that of torch's ``RandomSampler`` with the same generator, in 8 bytes
    of memory a sample instead of about 40.

    Args:
        length: number of samples.
        generator: draws the order; None: torch's own generator, or, under a
            ``Trainer``, one that is seeded by (seed, epoch).
    """

    def __init__(self, length: int, generator: torch.Generator | None = None) -> None:
        self.length = length
        self.generator = generator

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        generator = self.generator
        if generator is None:  # as RandomSampler: a draw from torch's own seeds ours
            generator = torch.Generator()
            generator.manual_seed(int(torch.empty((), dtype=torch.int64).random_()))
        order = torch.randperm(self.length, generator=generator)
        for start in range(0, self.length, CHUNK):
            yield from order[start : start + CHUNK].tolist()
