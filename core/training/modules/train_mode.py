"""Train and eval mode: each module stays in that which its owner gave it.

A module is frozen when it carries ``_is_frozen = True``, and single parameters of one
when it names them in ``_frozen_parameters``; ``freeze_model`` sets both, and
``unfreeze_model`` takes them away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import compress
from typing import Any

import torch
from torch import nn

from training.messages.error_texts import add_note, text_of
from training.modules.optimizer_checks import PARAMETERS
from training.modules.plain_names import named_parts, plain_name, some
from training.modules.reachable import reachable

log = logging.getLogger(__name__)

#: What torch says where something that has no gradient is differentiated.
LACKING = (
    "does not require grad",
    "doesn't require grad",
    "Tensor that has requires_grad=False",
)


class Modes:
    """The modes of a run's modules, from epoch to epoch.

    A module in eval mode inside a model in train mode was put there by its owner, or by
    a plugin, and stays: dropout in it is off, running statistics do not move. A model
    that is in eval mode itself, as ``from_pretrained`` returns it, goes into train mode
    as a whole, but for what rested before, in an earlier run of the trainer, too.
    Frozen modules are always in eval mode.

    Args:
        roots: part of a checkpoint -> module: the model, and a loss that is a module.
        loss: ``loss_fn`` or ``step_fn``; other modules that it uses are in eval mode in
            evaluations, and else in the mode that their owner gave them.
    """

    def __init__(
        self, roots: dict[str, nn.Module], loss: Callable[..., Any] | None = None
    ) -> None:
        self._roots, self._loss = roots, loss
        self._resting: set[nn.Module] = set()
        self._frozen: set[nn.Module] = set()
        self._is_told = self._is_held = self._is_at_rest = False

    def begin(self) -> None:
        """Begin a run: what is told once in each is told anew."""
        self._is_told = self._is_held = False

    def train(self) -> None:
        """Put all into train mode that does not rest; call it when an epoch begins."""
        self._resting = self._rest()
        if not self._is_told:
            self._tell()
        for root in self._roots.values():
            root.train()  # its own, which may keep more in eval mode
        thawed, self._frozen = self._frozen, self._marked()
        for module in (self._resting - thawed) | self._frozen:
            module.training = False
        self._is_at_rest = not self._roots["model"].training

    def hold(self) -> None:
        """Go back into train mode unless the model rests as a whole.

        Call it before a batch that comes while the model is in eval mode.
        """
        if self._is_at_rest:
            return
        if not self._is_held:
            log.warning(
                "the model was left in eval mode between two batches, by a hook or by "
                "step_fn, and goes back into train mode; to measure it, call eval() "
                "within 'with trainer.modes.evaluation():', which puts modes back; to "
                "train it so, call eval() of its parts, which stay as they are"
            )
        self._is_held = True
        self.train()

    def in_eval(self) -> list[str]:
        """Return the names of the modules that rest while the run trains."""
        resting, named = self._rest(), named_parts(self._roots)
        return list(dict.fromkeys(n for n, m in named if m in resting))

    def restore(self, in_eval: Collection[str]) -> list[str]:
        """Give modules the modes of a checkpoint; return names where that differs."""
        resting, changed = self._rest(), {}
        for name, module in named_parts(self._roots):
            if (module in resting) != (name in in_eval):
                changed[name] = True
            module.training = name not in in_eval
        return list(changed)

    @contextmanager
    def evaluation(self) -> Iterator[None]:
        """Measure: in eval mode, without gradients; each mode is as before after."""
        with evaluating(*self._roots.values(), loss=self._loss):
            yield

    def _rest(self) -> set[nn.Module]:
        """Return what is in eval mode under a root in train mode, or was before."""
        return {
            module
            for root in self._roots.values()
            for module in root.modules()
            if (not module.training if root.training else module in self._resting)
        }

    def _marked(self) -> set[nn.Module]:
        """Return all frozen modules, with the modules in them."""
        return {
            module
            for root in self._roots.values()
            for part in frozen_modules(root).values()
            for module in part.modules()
        }

    def _tell(self) -> None:
        """Say once in a run which modules rest though they are not frozen."""
        self._is_told = True
        resting = self._resting - self._marked()
        names = {name for name, module in named_parts(self._roots) if module in resting}
        tops = sorted(n for n in names if n.rpartition(".")[0] not in names)
        if tops:
            log.warning(
                "stays in eval mode, as it was before training: %s; dropout in it is "
                "off and running statistics do not move; call model.train() just "
                "before training to train it in train mode",
                some(tops),
            )


def frozen_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return name -> module for every module marked as frozen."""
    return {
        name: module
        for name, module in model.named_modules()
        if getattr(module, "_is_frozen", False)
    }


def frozen_parameters(model: nn.Module) -> set[nn.Parameter]:
    """Return all parameters that are frozen, by themselves or with a module."""
    frozen: set[nn.Parameter] = set()
    for module in frozen_modules(model).values():
        frozen.update(module.parameters())
    for module in model.modules():
        names = getattr(module, "_frozen_parameters", ())
        frozen.update(getattr(module, name) for name in names)
    return frozen


def keep_frozen(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Freeze again what is marked as frozen; warn of what somebody meant to train."""
    frozen = frozen_parameters(model)
    thawed = [
        plain_name(model, name)
        for name, parameter in model.named_parameters()
        if parameter in frozen and parameter.requires_grad
    ]
    if thawed:
        log.warning(
            "requires gradients, but is marked as frozen and is frozen again: %s; to "
            "train it call unfreeze_model(model) of trainbus_models.model_utils before "
            "the optimizer is built",
            some(thawed),
        )
    freeze_again(model, optimizer)


def freeze_again(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Take gradients off frozen parameters, and those out of the optimizer."""
    frozen = frozen_parameters(model)
    if not frozen:
        return
    for group in optimizer.param_groups:
        stays = [p not in frozen for p in group["params"]]
        for each in group.keys() & PARAMETERS:
            group[each] = list(compress(group[each], stays))
    for parameter in frozen:
        parameter.requires_grad_(False)
        parameter.grad = None
        optimizer.state.pop(parameter, None)


@contextmanager
def in_eval_mode(
    *models: nn.Module, loss: Callable[..., Any] | None = None
) -> Iterator[None]:
    """Put modules into eval mode; give every one its own mode back after.

    Args:
        models: roots, whose own ``eval()`` and ``train()`` are called.
        loss: ``loss_fn`` or ``step_fn``, of which it holds for all modules it uses.
    """
    own = {module for model in models for module in model.modules()}
    with _used_in_eval_mode(loss, own), _modes_kept(*models):
        for model in models:
            model.eval()
        yield


@contextmanager
def evaluating(
    *models: nn.Module, loss: Callable[..., Any] | None = None
) -> Iterator[None]:
    """Measure: in eval mode, and without gradients; both end with it.

    An error for want of a gradient says how to come to it.

    Args:
        models: what is measured.
        loss: ``loss_fn`` or ``step_fn``: modules that it uses are in eval mode, too.
    """
    with in_eval_mode(*models, loss=loss), _without_gradients():
        yield


def lacks_gradients(error: Exception) -> bool:
    """Whether something was differentiated that has no gradient."""
    return any(words in text_of(error) for words in LACKING)


@contextmanager
def _without_gradients() -> Iterator[None]:
    try:
        # Not inference_mode: a tensor that a module caches would break training.
        with torch.no_grad():
            yield
    except RuntimeError as error:
        if lacks_gradients(error):
            add_note(
                error,
                "evaluations record no gradients: put what is differentiated below "
                "torch.enable_grad(), or leave it out where torch.is_grad_enabled() is "
                "False, and let a step_fn step nothing while model.training is False",
            )
        raise


@contextmanager
def _used_in_eval_mode(loss: Any, own: set[nn.Module]) -> Iterator[None]:
    """Put what a loss uses beside ``own`` into eval mode meanwhile."""
    found = [held for _, held in reachable(loss) if isinstance(held, nn.Module)]
    used = {module for held in found for module in held.modules()} - own
    # What torch.jit.freeze returns has no mode.
    modes = {each: each.training for each in used if hasattr(each, "training")}
    # The attribute, not eval(): that raises for what torch has exported.
    for module in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def _modes_kept(*roots: nn.Module) -> Iterator[None]:
    modes = {module: module.training for root in roots for module in root.modules()}
    try:
        yield
    finally:
        for root in roots:
            root.train(modes[root])  # its own, which may do more, as merge weights
        for module, training in modes.items():
            module.training = training
