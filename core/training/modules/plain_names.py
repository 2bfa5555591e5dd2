"""Weights under the names they have where nothing is wrapped or compiled.

``torch.compile``, ``DataParallel`` and the like put a module inside another and a word
into the names of its weights, at the top of a model or at any part of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from training.hardware.strategy import PARALLEL

#: What wrappers that have no public class call the module inside.
INNER = ("_orig_mod", "_checkpoint_wrapped_module")


def plain_name(model: nn.Module, name: str) -> str:
    """Return the dotted ``name`` of something in ``model`` without the wrappers."""
    module: nn.Module | None = model
    kept = []
    for part in name.split("."):
        if module is None or part != _inner(module):
            kept.append(part)
        inside = {} if module is None else module._modules
        # The _modules of a scripted module have no get().
        module = inside[part] if part in inside else None  # noqa: SIM401
    return ".".join(kept)


def named_parts(wholes: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    """Yield (plain name, module) for every module in several, which have names."""
    for name, whole in wholes.items():
        for path, module in whole.named_modules():
            yield ".".join(filter(None, (name, plain_name(whole, path)))), module


def weights_of(model: nn.Module, keep_vars: bool = False) -> dict[str, Any]:
    """Return the model's ``state_dict`` under plain names; nothing is copied.

    Args:
        model: wrapped or not, as a whole or in parts.
        keep_vars: return the parameters themselves, not their values.
    """
    state = model.state_dict(keep_vars=keep_vars)
    return {plain_name(model, name): value for name, value in state.items()}


def load_weights(
    model: nn.Module, weights: Mapping[str, Any], strict: bool = True
) -> None:
    """Give ``model`` weights under plain names, however it is wrapped.

    A buffer that is None, as one that the first batch makes, is made for them. What is
    expanded gets memory for all its elements, since torch writes to nothing else.
    """
    for path, module in model.named_modules():
        for name in [n for n, buffer in module._buffers.items() if buffer is None]:
            saved = weights.get(plain_name(model, f"{path}.{name}" if path else name))
            if isinstance(saved, Tensor):
                at = next(model.parameters(), saved).device
                module._buffers[name] = torch.empty_like(saved, device=at)
    state = {}
    for name, held in model.state_dict(keep_vars=True).items():
        if (plain := plain_name(model, name)) in weights:
            state[name] = weights[plain]
            if isinstance(held, Tensor) and is_expanded(held):
                held.data = held.detach().clone()  # it stays the tensor others know
    model.load_state_dict(state, strict=strict)


def is_expanded(tensor: Tensor) -> bool:
    """Whether elements share memory, as ``expand`` lets them."""
    has_strides = tensor.layout is torch.strided and not tensor.is_nested
    return has_strides and any(
        size > 1 and stride == 0
        for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
    )


def as_plain(model: nn.Module, saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``saved`` under plain names; earlier releases saved those of wrappers."""
    live = {name: plain_name(model, name) for name in model.state_dict()}
    if saved.keys() == set(live.values()):
        return dict(saved)
    if saved.keys() == live.keys():
        return {live[name]: value for name, value in saved.items()}
    return {name.replace("_orig_mod.", ""): value for name, value in saved.items()}


def some(names: Sequence[str], limit: int = 5) -> str:
    """Return the first names, and how many more there are."""
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")


def _inner(module: nn.Module) -> str | None:
    """Return the name under which a wrapper keeps its module, None for any other."""
    if isinstance(module, PARALLEL):
        return "module"
    return next((name for name in INNER if name in module._modules), None)
