"""What arguments of other trainers are called here, told to who passes one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

from torch import nn

from training.errors import did_you_mean

__all__ = ["NAMES", "SECOND_OPTIMIZER", "misfit_of_method", "suggests_arguments"]

#: The way out for who has several optimizers.
SECOND_OPTIMIZER: Final = (
    "let step_fn step another one, and a callback keep its state "
    "(docs/examples-in-python.md, a GAN)"
)

_OPTIMIZER = "that of optimizer=..., which you build, as torch.optim.AdamW"
_LOADER = "the {0} of the DataLoader that is train_dataloader=..."
_EPOCHS, _EVERY = "num_epochs=...", "gradient_accumulation_steps=..."
_EVERY_STEPS = "callbacks=[EvaluationCallback(every_n_steps=100)]"
_STEP_LOG = "callbacks=[CSVLoggerCallback(every_n_steps=10)]"
_WARMUP = "callbacks=[LearningRateSchedulerCallback(type='linear', warmup=0.1)]"
_TRAIN, _VAL = "train_dataloader=DataLoader(...)", "val_dataloader=DataLoader(...)"

#: An argument of another trainer -> what it is here; the page for who comes from
#: Lightning or transformers has more, and each of theirs.
NAMES: Final[Mapping[str, str]] = {
    # Lightning.
    "max_epochs": _EPOCHS,
    "accumulate_grad_batches": _EVERY,
    "gradient_clip_val": "max_grad_norm=...",
    "default_root_dir": "save_dir=...",
    "check_val_every_n_epoch": "callbacks=[EvaluationCallback(every_n_epochs=2)]",
    "val_check_interval": _EVERY_STEPS,
    "log_every_n_steps": _STEP_LOG,
    "limit_train_batches": "max_steps=..., or a smaller loader",
    **dict.fromkeys(("enable_progress_bar", "disable_tqdm"), 'plugins=["no:progress"]'),
    **dict.fromkeys(("accelerator", "devices"), "device=..."),
    **dict.fromkeys(("logger", "report_to"), "plugins=[...] or callbacks=[...]"),
    # transformers.
    "args": "an argument for each of what that holds, such as num_epochs=...",
    "num_train_epochs": _EPOCHS,
    "output_dir": "save_dir=...",
    "per_device_train_batch_size": _LOADER.format("batch_size"),
    "data_collator": _LOADER.format("collate_fn"),
    "train_dataset": _TRAIN,
    "eval_dataset": _VAL,
    "bf16": 'precision="bf16"',
    "torch_compile": "compile=...",
    "compute_loss_func": "loss_fn=...",
    "compute_metrics": "callbacks=[EvaluationCallback(metrics=[...])]",
    **dict.fromkeys(("processing_class", "tokenizer"), "processor=..."),
    **dict.fromkeys(("eval_strategy", "eval_steps"), _EVERY_STEPS),
    **dict.fromkeys(("lr_scheduler_type", "warmup_steps", "warmup_ratio"), _WARMUP),
    "logging_steps": _STEP_LOG,
    "save_steps": "callbacks=[ModelCheckpointCallback(every_n_steps=100)]",
    "save_total_limit": "callbacks=[ModelCheckpointCallback(save_top_k=3)]",
    "metric_for_best_model": "callbacks=[ModelCheckpointCallback(monitor='accuracy', "
    "mode='max')]",
    "load_best_model_at_end": "trainer.load_checkpoint(PATH, weights_only=True) behind "
    "train(), with the best_path of a ModelCheckpointCallback",
    # Anybody's.
    **dict.fromkeys(("epochs", "n_epochs"), _EPOCHS),
    **dict.fromkeys(("learning_rate", "lr", "weight_decay"), _OPTIMIZER),
    "batch_size": _LOADER.format("batch_size"),
    **dict.fromkeys(("criterion", "loss"), "loss_fn=..."),
    "optimizers": f"optimizer=..., which is one; {SECOND_OPTIMIZER}",
}


def suggests_arguments(init: Callable[..., None]) -> Callable[..., None]:
    """Let a constructor say which of its arguments one that it does not have may mean.

    Its signature stays: editors and ``help()`` show what it takes, and nothing else.
    """
    known = inspect.signature(init).parameters

    @functools.wraps(init)
    def telling(self: Any, *args: Any, **kwargs: Any) -> None:
        for name in (each for each in kwargs if each not in known):
            way = f"; here it is {NAMES[name]}" if name in NAMES else ""
            raise TypeError(
                f"{type(self).__name__}() has no argument {name!r}"
                f"{way or did_you_mean(name, known)}"
            )
        init(self, *args, **kwargs)

    return telling


def misfit_of_method(function: Any, why: str | None) -> str | None:
    """Return why ``function`` is no ``step_fn``: ``why``, or more of a bound method.

    A ``training_step`` is a method of the model with ``batch`` and ``batch_idx``: bound
    it takes two arguments, as a ``step_fn`` does, and they are others.
    """
    owner = getattr(function, "__self__", None)
    if not isinstance(owner, nn.Module):
        return why
    if why is None and "batch_idx" not in inspect.signature(function).parameters:
        return None  # that of a loss, say, which takes model and batch
    return (
        f"it is bound to its {type(owner).__name__}; pass the function of the class, "
        f"{function.__qualname__}, with the parameters self, which is the model then, "
        "and batch alone"
    )
