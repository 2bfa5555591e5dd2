"""Records the work of a step once and replays it, where that can be done."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainbus_cuda_graphs import recording
from trainbus_cuda_graphs.graphed_window import GraphedWindow
from training.callbacks import Callback
from training.plugin import why_not_deferred

if TYPE_CHECKING:
    from training import Trainer

log = logging.getLogger(__name__)


class CUDAGraphsCallback(Callback):
    """Take the launching of kernels off the CPU, by CUDA graphs.

    Python in the forward pass then runs only while recording, so it must not depend on
    data, and batches must be of one shape. Where a run cannot be recorded, its steps
    run as they would without this plugin, and a warning says why.
    """

    name = "cuda_graphs"
    hook_api = ">=1.1,<2"

    def make_window(
        self, trainer: Trainer, module: nn.Module
    ) -> Callable[..., GraphedWindow] | None:
        """Return what makes a window that is recorded; None where nothing can be."""
        recorder = recording.recorder_for(trainer.device)
        cannot_defer = why_not_deferred(trainer.optimizer, trainer.nonfinite)
        why = cannot_defer or why_not_recorded(trainer, module)
        if recorder is not None and why is None:
            return partial(GraphedWindow, recorder=recorder)
        log.warning(
            "cuda_graphs is on, but %s; steps run without it",
            why or f"a {trainer.device.type} device records nothing",
        )
        return None


def why_not_recorded(trainer: Trainer, module: nn.Module) -> str | None:
    """Return what forbids to record the steps of a run, None if nothing does.

    Args:
        trainer: the run.
        module: what its loop calls.
    """
    optimizer: Any = trainer.optimizer
    if trainer.grad_scaler is not None:
        return "precision is 'fp16', whose loss scale decides on each step"
    compiled_from = getattr(module, "_orig_mod", module)  # as torch.compile has it
    if module is not trainer.model and compiled_from is not trainer.model:
        return "a plugin wraps the model, and what wrappers do is not recorded"
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        return "the optimizer has step hooks, which a replay would not call"
    if type(optimizer).zero_grad is not torch.optim.Optimizer.zero_grad:
        return "the optimizer has a zero_grad() of its own, which no replay calls"
    if any(isinstance(group["lr"], Tensor) for group in optimizer.param_groups):
        return "the optimizer's lr is a tensor; use a number"
    return None
