"""What users' hooks lead to: no checkpoint asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from torch import nn
from torch.optim import Optimizer

from training.modules.of_user import is_users_hook
from training.modules.plain_names import plain_name
from training.modules.reachable import Found, joined, reachable

OF_MODULES = (
    "_forward_pre_hooks",
    "_forward_hooks",
    "_backward_pre_hooks",
    "_backward_hooks",
)
OF_TENSORS = ("_backward_hooks", "_post_accumulate_grad_hooks")
OF_OPTIMIZERS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")


def held_by_hooks(
    modules: Mapping[str, nn.Module], optimizer: Optimizer, passed_over: Iterable[Any]
) -> Found:
    """Return what users' hooks lead to, below the names of who has them.

    Args:
        modules: part -> module, such as the model.
        optimizer: that of the run.
        passed_over: objects that others save.
    """
    # One search for all: what many of them share is found once.
    hooks = dict(_hooks_of(modules, optimizer))
    return reachable(partial(len, **hooks), passed_over) if hooks else []


def _hooks_of(
    modules: Mapping[str, nn.Module], optimizer: Optimizer
) -> Iterator[tuple[str, Any]]:
    for kind, number, hook in _users_hooks(optimizer, OF_OPTIMIZERS):
        yield f"optimizer.{kind}.{number}", hook
    for place, whole in modules.items():
        for path, module in whole.named_modules():
            for kind, number, hook in _users_hooks(module, OF_MODULES):
                at = joined(place, plain_name(whole, path))
                yield f"{at}.{kind}.{number}", hook
        for path, parameter in whole.named_parameters():
            for kind, number, hook in _users_hooks(parameter, OF_TENSORS):
                at = joined(place, plain_name(whole, path))
                yield f"{at}.{kind}.{number}", hook


def _users_hooks(holder: Any, kinds: Iterable[str]) -> Iterator[tuple[str, int, Any]]:
    """Yield (kind, number, hook) for those that no library has registered."""
    for kind in kinds:
        hooks = getattr(holder, kind, None)
        for number, hook in enumerate((hooks or {}).values()):
            if is_users_hook(hook):
                yield kind, number, hook
