"""Say what to do when the memory of the device is not enough."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch

from training.bus.callback import BuiltIn
from training.feed.structure import samples_of
from training.messages.error_texts import add_note, repr_of

if TYPE_CHECKING:
    from training.view import TrainerView


class MemoryAdvice(BuiltIn):
    """Add to an out-of-memory error what was held and the four ways out."""

    name = "memory_advice"

    def on_exception(self, trainer: TrainerView, error: BaseException) -> None:
        """Explain it, first of all, so that whoever reports the error has it."""
        if isinstance(error, torch.OutOfMemoryError):
            try:
                add_note(error, _advice(trainer))
            except Exception as later:
                add_note(error, f"then explaining it failed: {repr_of(later)}")


def _advice(trainer: TrainerView) -> str:
    size = _batch_size(trainer.train_dataloader)
    return (
        f"out of memory at step {trainer.step} with batches of {size} and a peak of "
        f"{_peak(trainer.device) / 2**30:.2f} GiB on {trainer.device}; use a smaller "
        f"batch_size, with gradient_accumulation_steps (now "
        f"{trainer.gradient_accumulation_steps}) to make up for it, or half precision "
        f"(now {trainer.precision}), or freeze layers; nothing was tried again, and "
        "the last checkpoint is as it was"
    )


def _peak(device: torch.device) -> int:
    """Return bytes: of tensors on CUDA, of the whole process elsewhere."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _batch_size(loader: Any) -> Any:
    size = getattr(loader, "batch_size", None)
    if size is None and isinstance(loader, (list, tuple)):
        size = samples_of(loader[0])
    return "unknown size" if size is None else size
