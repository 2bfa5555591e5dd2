"""Sizes of small models, checked before the library meets them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated

from pydantic import Field

from training.errors import ConfigError

__all__ = [
    "Count",
    "Deviation",
    "Fraction",
    "Layers",
    "Length",
    "Seed",
    "Side",
    "check_sizes",
    "fresh_weights",
]

#: Options of families have these types, so that a configuration's are checked by them.
Count = Annotated[int, Field(ge=1, lt=2**63)]
#: Each is built one by one, so that a slip of the hand fills the memory slowly.
Layers = Annotated[int, Field(ge=1, le=10_000)]
#: Tokens of a text, its first and last one included.
Length = Annotated[int, Field(ge=3, lt=2**63)]
#: Side in pixels that pictures are resized to.
Side = Annotated[int, Field(ge=16, le=2**16)]
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
#: Of fresh weights, which are float32.
Deviation = Annotated[float, Field(gt=0, le=3.4e38, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]

#: What torch says of a tensor that is too large, for its numbers or for the memory.
TOO_LARGE = (
    *("Storage size calculation overflowed", "Overflow when unpacking"),
    *("not enough memory", "alloc"),
)


def check_sizes(hidden_size: int, heads: int, image_size: int, patch: int) -> None:
    """Refuse a width that the heads do not divide, or a side that patches do not.

    Raises:
        ConfigError: a remainder is left.
    """
    if hidden_size % heads:
        raise ConfigError(
            f"hidden_size is {hidden_size}, which num_attention_heads {heads} does not "
            "divide; choose a multiple"
        )
    if image_size % patch:
        raise ConfigError(
            f"image_size is {image_size}, which patch_size {patch} does not divide; "
            "choose a divisor"
        )


@contextmanager
def fresh_weights(seed: int, hidden_size: int, **sizes: int) -> Iterator[None]:
    """Draw a model's weights from ``seed``; the global random state stays as it was.

    Args:
        seed: of the weights.
        hidden_size: width of its layers, each of which has a square of it.
        sizes: what else it is built from, to be named if it is too large.
    Raises:
        ConfigError: the model does not fit into memory.
    """
    import torch

    sizes = {"hidden_size": hidden_size, **sizes}
    # Else a vector of that width is filled first, for half a minute and with gigabytes.
    if 4 * hidden_size**2 > _memory_bytes():
        raise _too_large(sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            yield
        except (MemoryError, RuntimeError, TypeError) as error:
            if not any(words in str(error) for words in TOO_LARGE):
                raise
            raise _too_large(sizes) from error


def _too_large(sizes: Mapping[str, int]) -> ConfigError:
    told = [f"{name} {size}" for name, size in sizes.items()]
    return ConfigError(
        f"a model of {', '.join(told[:-1])} and {told[-1]} does not fit into memory; "
        "choose smaller ones"
    )


def _memory_bytes() -> float:
    """Return the machine's memory; infinite where the system does not tell."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return math.inf
