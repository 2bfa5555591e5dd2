"""Sizes of small models, checked before the library meets them."""

from __future__ import annotations

from training.errors import ConfigError

__all__ = ["check_sizes"]


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
