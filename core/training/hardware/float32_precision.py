"""Whether fp32 products may round their factors to TF32, for as long as a run lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from training.errors import ConfigError


@contextmanager
def using_tf32(tf32: bool | None) -> Iterator[None]:
    """Set the process's switches for matrix products and cuDNN, and put them back.

    Args:
        tf32: False computes in full fp32; None leaves the process as it is.
    Raises:
        ConfigError: the process has used torch's newer switches, which these exclude.
    """
    if tf32 is None:
        yield
        return
    try:
        before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError as error:
        raise ConfigError(
            f"tf32 is {tf32}, but this process has set fp32_precision in "
            "torch.backends by itself; leave one of them alone"
        ) from error
    _set("high" if tf32 else "highest", tf32)
    try:
        yield
    finally:
        _set(*before)


def _set(products: str, convolutions: bool) -> None:
    torch.set_float32_matmul_precision(products)
    torch.backends.cudnn.allow_tf32 = convolutions
