"""What a checkpoint contains, and how a trainer takes it over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from torch import nn

from training.content import describe_foreign, foreign_value
from training.errors import CheckpointError
from training.plugin_states import collect_states
from training.provenance import describe_plugins
from training.settings import settings_of
from training.state import Request, rng_state

if TYPE_CHECKING:
    from training.trainer import Trainer


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module that DistributedDataParallel or torch.compile wraps."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model


def capture(trainer: Trainer) -> dict[str, Any]:
    """Return all state of a run at a boundary; tensors are not copied.

    Raises:
        CheckpointError: something in it is neither a tensor nor a plain value.
        PluginError: the same, in the state of a plugin.
    """
    trainer.settle()
    scaler = trainer.grad_scaler
    state = {
        "settings": settings_of(trainer),
        "progress": trainer.progress.state_dict(),
        "model": dict(unwrapped(trainer.model).state_dict()),
        "optimizer": trainer.optimizer.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "rng": rng_state(),
        "data": trainer.epoch_state,
        "loader": trainer.loader_state,
        "history": trainer.history,
        "metrics": trainer.metrics.state_dict(),
        "requests": [list(astuple(request)) for request in trainer.requests],
        "asked": trainer.pending,
        "plugins": collect_states(trainer),
        "distributions": {
            name: {
                **entry,
                "alters_training": bool(
                    getattr(trainer.plugins[name], "alters_training", False)
                ),
            }
            for name, entry in describe_plugins(trainer.plugins).items()
        },
        "metadata": trainer.metadata,
    }
    # Those of plugins were looked at one by one, to name the plugin.
    foreign = foreign_value({**state, "plugins": {}})
    if foreign is not None:
        raise CheckpointError(f"nothing was saved: {describe_foreign(*foreign)}")
    return state


def check_model(trainer: Trainer, state: Mapping[str, Any], source: str) -> None:
    """Compare names and shapes of the weights; nothing is changed.

    Raises:
        CheckpointError: names or shapes differ; says which.
    """
    model = unwrapped(trainer.model)
    own, saved = model.state_dict(), state["model"]
    missing = sorted(own.keys() - saved.keys())
    unexpected = sorted(saved.keys() - own.keys())
    reshaped = sorted(
        f"{name} is {tuple(saved[name].shape)}, the model's {tuple(own[name].shape)}"
        for name in own.keys() & saved.keys()
        if hasattr(own[name], "shape") and own[name].shape != saved[name].shape
    )
    problems = [
        f"{label} {_some(names)}"
        for label, names in (
            ("missing:", missing),
            ("not in the model:", unexpected),
            ("other shape:", reshaped),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"checkpoint {source!r} does not fit this model; {'; '.join(problems)}: "
            "build the model as it was when the checkpoint was written"
        )


def restore_model(trainer: Trainer, state: Mapping[str, Any]) -> None:
    """Load the weights; ``check_model`` has compared them."""
    unwrapped(trainer.model).load_state_dict(state["model"])


def restore_run(trainer: Trainer, state: Mapping[str, Any], source: str) -> None:
    """Take over optimizer, scaler, counters, history and metrics.

    Raises:
        CheckpointError: the optimizer does not take the saved state.
    """
    try:
        trainer.optimizer.load_state_dict(state["optimizer"])
    except ValueError as error:
        raise CheckpointError(
            f"checkpoint {source!r} does not fit this optimizer ({error}); build it as "
            "it was, or load with weights_only=True"
        ) from error
    if trainer.grad_scaler is not None and state["scaler"]:
        trainer.grad_scaler.load_state_dict(state["scaler"])
    trainer.progress.load_state_dict(state["progress"])
    trainer._history[:] = [dict(row) for row in state["history"]]
    trainer.metrics.load_state_dict(state["metrics"])
    trainer._requests[:] = [Request(*fields) for fields in state["requests"]]


def _some(names: list[str], limit: int = 5) -> str:
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")
