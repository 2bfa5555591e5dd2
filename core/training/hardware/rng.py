"""The random generators that a run draws from, the global ones first of all."""

from __future__ import annotations

import hashlib
import random
import sys
from typing import Any

import torch


def seed_everything(seed: int) -> None:
    """Seed python, numpy (if it is loaded) and torch, on every device."""
    seed_host(seed)
    torch.manual_seed(seed)


def seed_host(seed: int) -> None:
    """Seed the CPU generators of python, torch and, if it is loaded, numpy."""
    random.seed(seed)
    # Only the CPU generator: manual_seed would reset the CUDA generators too.
    torch.default_generator.manual_seed(seed)
    # Nobody draws from a numpy that nobody has imported.
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)  # numpy takes 32 bits


def rank_seed(seed: int, rank: int, step: int = 0) -> int:
    """Return the 63-bit seed of a process beside the main one.

    Args:
        seed: the run's.
        rank: of the process, from 1.
        step: at which it joins.
    """
    return _seed_from(repr((seed, rank, step)).encode())


def seed_of_state() -> int:
    """Return the 63-bit seed that the state of torch's CPU generator stands for.

    Nothing is drawn; whoever draws or seeds in between gets another one.
    """
    return _seed_from(torch.get_rng_state().numpy().tobytes())


def _seed_from(words: bytes) -> int:
    return int.from_bytes(hashlib.sha256(words).digest()[:8], "big") >> 1


def rng_state(device: torch.device | None = None) -> dict[str, Any]:
    """Return the state of every global generator as tensors and JSON values.

    Args:
        device: of the run; on a card its generator is kept, and no other card's.
    """
    version, words, gauss = random.getstate()
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "torch": torch.get_rng_state(),
    }
    if "numpy" in sys.modules:
        kind, keys, *rest = sys.modules["numpy"].random.get_state()
        state["numpy"] = [kind, keys.tolist(), *rest]
    if device is not None and device.type == "cuda":
        state["cuda"] = [torch.cuda.get_rng_state(device)]
    return state


def load_rng_state(state: dict[str, Any], device: torch.device | None = None) -> None:
    """Put every global generator where ``rng_state`` found it.

    Args:
        state: an earlier release kept those of all cards of its machine; then the one
            of this run's card counts, else the first.
        device: of the run.
    """
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    torch.set_rng_state(state["torch"])
    if "numpy" in state:
        import numpy as np

        kind, keys, *rest = state["numpy"]
        np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    cards = state.get("cuda")
    if cards and device is not None and device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.set_rng_state(cards[index if index < len(cards) else 0], device)


def seeded_rng_state(seed: int, device: torch.device | None = None) -> dict[str, Any]:
    """Return the state right after ``seed_everything``; no generator is moved."""
    before = rng_state(device)
    try:
        seed_everything(seed)
        return rng_state(device)
    finally:
        load_rng_state(before, device)


def is_generator(value: Any) -> bool:
    """Whether it is a random generator of python, torch or numpy."""
    kinds: tuple[Any, ...] = (random.Random, torch.Generator)
    # Not imported here: without an import there is none of its generators.
    if "numpy" in sys.modules:
        numpy_random = sys.modules["numpy"].random
        kinds += (numpy_random.Generator, numpy_random.RandomState)
    # Of its class: what torch's own answers for an object is a function of Python.
    return issubclass(type(value), kinds)
