"""Who trains BLIP in ``gpu.py``: a bare loop, trainbus in three ways, and peers.

Each takes (case, folder) and returns (model, clock) when it has trained.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_work import Case, Clocked, device, on_cuda
from torch import nn

Contestant = Callable[[Case, Path], tuple[nn.Module, Clocked]]


def bare(**options: Any) -> Contestant:
    """Return a loop by hand, bf16 under autocast, compiled if options say how."""

    def contestant(case: Case, folder: Path) -> tuple[nn.Module, Clocked]:
        model, clock = case.model(), case.clocked()
        optimizer = case.optimizer(model)
        run = torch.compile(model, **options) if options else model
        for batch in clock:
            inputs = {k: v.to(device(), non_blocking=True) for k, v in batch.items()}
            with torch.autocast(device().type, dtype=torch.bfloat16):
                loss = run(**inputs).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return model, clock

    return contestant


def trainbus(**options: Any) -> Contestant:
    """Return a contestant that trains with a ``Trainer`` and these options."""

    def contestant(case: Case, folder: Path) -> tuple[nn.Module, Clocked]:
        from training import Trainer

        model, clock = case.model(), case.clocked()
        Trainer(
            model,
            clock,
            optimizer=case.optimizer(model),
            device=device(),
            save_dir=folder,
            **{"precision": "bf16", **options},
        ).train()
        return model, clock

    return contestant


def transformers(case: Case, folder: Path, **options: Any) -> tuple[nn.Module, Clocked]:
    """Train with transformers' ``Trainer``, everything optional off but ``options``."""
    from transformers import Trainer, TrainingArguments

    model, clock = case.model(), case.clocked()

    class Loaded(Trainer):
        def get_train_dataloader(self) -> Any:
            return clock

    optimizer = case.optimizer(model)
    constant = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=len(clock),
        bf16=True,
        max_grad_norm=0.0,
        use_cpu=not on_cuda(),
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        save_strategy="no",
        **options,
    )
    Loaded(
        model,
        arguments,
        train_dataset=case.batches,
        optimizers=(optimizer, constant),
    ).train()
    return model, clock


def lightning(case: Case, folder: Path, **options: Any) -> tuple[nn.Module, Clocked]:
    """Train with Lightning's ``Trainer``; ``options`` say how the model is compiled."""
    import lightning as library

    model, clock = case.model(), case.clocked()

    class Module(library.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = model
            self.run = torch.compile(model, **options) if options else model

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return self.run(**batch).loss

        def configure_optimizers(self) -> Any:
            return case.optimizer(self.network)

    library.Trainer(
        max_epochs=1,
        accelerator=device().type,
        devices=1,
        precision="bf16-mixed",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    ).fit(Module(), clock)
    return model, clock


def contestants(smoke: bool) -> dict[str, Contestant]:
    """Return who can run here, the bare loop first."""
    how = {"backend": "eager" if smoke else "inductor"}
    compiled = {"torch_compile": True, "torch_compile_backend": how["backend"]}
    everybody: dict[str, tuple[str, Contestant]] = {
        "bare loop": ("torch", bare()),
        "trainbus": ("training", trainbus()),
        "trainbus, graphs": ("training", trainbus(cuda_graphs=True)),
        "transformers": ("accelerate", transformers),
        "lightning": ("lightning", lightning),
        # Behind the others: compiling takes minutes.
        "bare loop, compile": ("torch", bare(**how)),
        "trainbus, compile": ("training", trainbus(compile=how)),
        "transformers, compile": ("accelerate", partial(transformers, **compiled)),
        "lightning, compile": ("lightning", partial(lightning, **how)),
    }
    return {
        name: contestant
        for name, (module, contestant) in everybody.items()
        if importlib.util.find_spec(module) is not None
    }
