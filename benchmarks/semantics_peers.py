"""Each trainer on the cases of ``semantics.py``, through its own public parts.

To add one: write a class with ``fit`` and ``best_of`` and a line in ``PEERS``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim.lr_scheduler import ConstantLR, LRScheduler
from torch.utils.data import DataLoader


@dataclass
class Job:
    """What is trained, in fp32 on the CPU unless it is scaled.

    Attributes:
        model: called with a batch as keywords; returns ``{"loss": mean loss}``.
        batches: mappings; ``labels`` of -100 do not count.
        optimizer: over the model's parameters.
        accumulation: batches of a window.
        num_epochs: passes over the batches.
        scheduler: to be advanced with each update, or None.
        is_scaled: train with a ``GradScaler``, as fp16 does.
    """

    model: nn.Module
    batches: list[dict[str, torch.Tensor]]
    optimizer: torch.optim.Optimizer
    accumulation: int = 1
    num_epochs: int = 1
    scheduler: LRScheduler | None = None
    is_scaled: bool = False


class Peer(Protocol):
    """A trainer on trial."""

    def fit(self, job: Job) -> None:
        """Train, with the trainer's own loop and its defaults."""

    def best_of(self, values: Sequence[float]) -> float:
        """Return what its early stopping takes for the lowest of ``values``."""


def weight_of(batch: dict[str, torch.Tensor]) -> int:
    """Return the items behind the mean loss: labels after the shift, or inputs."""
    labels = batch.get("labels")
    if labels is None:
        return len(next(iter(batch.values())))
    counted = labels[:, 1:] if labels.dim() == 2 else labels
    return int((counted != -100).sum())


class Trainbus:
    """This project's trainer; a step says what its mean loss weighs."""

    def fit(self, job: Job) -> None:
        """Train with ``Trainer``."""
        from training import LearningRateSchedulerCallback, NonFiniteError, Trainer

        callbacks = []
        if job.scheduler is not None:
            callbacks = [LearningRateSchedulerCallback(job.scheduler, interval="step")]
        trainer = Trainer(
            job.model,
            job.batches,
            optimizer=job.optimizer,
            callbacks=callbacks,
            num_epochs=job.num_epochs,
            gradient_accumulation_steps=job.accumulation,
            fp16=job.is_scaled,
            device="cpu",
            step_fn=lambda model, batch: {
                "loss": model(**batch)["loss"],
                "weight": weight_of(batch),
            },
        )
        # Its default is to end the run, with the weights as they were.
        with contextlib.suppress(NonFiniteError):
            trainer.train()

    def best_of(self, values: Sequence[float]) -> float:
        """Return ``best_value`` after a run that measured ``values``."""
        from training import Callback, EarlyStoppingCallback, Trainer

        class Measures(Callback):
            def evaluate(self, trainer: Any) -> dict[str, float]:
                return {"val_loss": values[trainer.epoch - 1]}

        model = nn.Linear(1, 1)
        stopper = EarlyStoppingCallback(patience=99)
        Trainer(
            model,
            [(torch.ones(1, 1), torch.ones(1, 1))],
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            loss_fn=nn.functional.mse_loss,
            callbacks=[Measures(), stopper],
            num_epochs=len(values),
            device="cpu",
        ).train()
        assert stopper.best_value is not None
        return stopper.best_value


class Lightning:
    """``lightning.Trainer`` with ``accumulate_grad_batches``."""

    def fit(self, job: Job) -> None:
        """Train with automatic optimization."""
        import lightning

        class Module(lightning.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.network = job.model

            def training_step(self, batch: Any, batch_idx: int) -> Any:
                return self.network(**batch)["loss"]

            def configure_optimizers(self) -> Any:
                if job.scheduler is None:
                    return job.optimizer
                schedule = {"scheduler": job.scheduler, "interval": "step"}
                return [job.optimizer], [schedule]

        trainer = _lightning_trainer(
            max_epochs=job.num_epochs,
            accumulate_grad_batches=job.accumulation,
            plugins=[_lightning_precision()] if job.is_scaled else None,
        )
        trainer.fit(Module(), DataLoader(job.batches, batch_size=None))

    def best_of(self, values: Sequence[float]) -> float:
        """Return ``best_score`` of ``EarlyStopping``."""
        import lightning
        from lightning.pytorch.callbacks import EarlyStopping

        measured = iter(values)

        class Module(lightning.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(1, 1)

            def training_step(self, batch: Any, batch_idx: int) -> Any:
                return self.layer(batch).mean()

            def validation_step(self, batch: Any, batch_idx: int) -> None:
                self.log("val_loss", next(measured), batch_size=1)

            def configure_optimizers(self) -> Any:
                return torch.optim.SGD(self.parameters(), lr=0.1)

        stopper = EarlyStopping("val_loss", patience=99)
        trainer = _lightning_trainer(max_epochs=len(values), callbacks=[stopper])
        data = DataLoader(torch.ones(1, 1))
        trainer.fit(Module(), data, data)
        return float(stopper.best_score)


def _lightning_trainer(**options: Any) -> Any:
    import lightning

    return lightning.Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )


def _lightning_precision() -> Any:
    """Return its fp16 precision on a CPU; by name it would become bf16 there."""
    from lightning.pytorch.plugins.precision import MixedPrecision

    scaler = torch.amp.GradScaler("cpu")
    return MixedPrecision("16-mixed", device="cpu", scaler=scaler)


class Ignite:
    """An engine around ignite's ``supervised_training_step``."""

    def fit(self, job: Job) -> None:
        """Train with ``gradient_accumulation_steps``."""
        from ignite.engine import (
            Engine,
            Events,
            supervised_training_step,
            supervised_training_step_amp,
        )
        from ignite.handlers import LRScheduler as Handler

        options: dict[str, Any] = {
            "model": job.model,
            "optimizer": job.optimizer,
            "loss_fn": lambda outputs, batch: outputs["loss"],
            "device": "cpu",
            "prepare_batch": lambda batch, device, non_blocking: (batch, batch),
            "model_fn": lambda model, batch: model(**batch),
            "gradient_accumulation_steps": job.accumulation,
        }
        if job.is_scaled:
            scaler = torch.amp.GradScaler("cpu")
            engine = Engine(supervised_training_step_amp(**options, scaler=scaler))
        else:
            engine = Engine(supervised_training_step(**options))
        if job.scheduler is not None:
            engine.add_event_handler(Events.ITERATION_STARTED, Handler(job.scheduler))
        engine.run(job.batches, max_epochs=job.num_epochs)

    def best_of(self, values: Sequence[float]) -> float:
        """Return ``best_score`` of ``EarlyStopping``, whose scores are negated."""
        from ignite.engine import Engine
        from ignite.handlers import EarlyStopping

        measured = iter(values)
        trainer = Engine(lambda engine, batch: None)
        trainer.state.max_epochs = 1
        stopper = EarlyStopping(99, lambda engine: -next(measured), trainer)
        evaluator = Engine(lambda engine, batch: None)
        for _ in values:
            stopper(evaluator)
        return -float(stopper.best_score)


class Transformers:
    """transformers' ``Trainer``; its accelerator gets a scaler where one is due."""

    def fit(self, job: Job) -> None:
        """Train with ``gradient_accumulation_steps``."""
        with tempfile.TemporaryDirectory() as folder:
            trainer = _hf_trainer(job, folder)
            if job.is_scaled:  # fp16=True on a CPU makes none
                trainer.accelerator.scaler = torch.amp.GradScaler("cpu")
            trainer.train()

    def best_of(self, values: Sequence[float]) -> float:
        """Return ``state.best_metric`` after evaluations that gave ``values``."""
        model = nn.Linear(1, 1)

        class Loss(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = model

            def forward(self, x: Any) -> Any:
                return {"loss": self.layer(x).mean()}

        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        batches = [{"x": torch.ones(1, 1)}]
        job = Job(Loss(), batches, optimizer, num_epochs=len(values))
        with tempfile.TemporaryDirectory() as folder:
            trainer = _hf_trainer(job, folder, measured=values)
            trainer.train()
        return float(trainer.state.best_metric)


def _hf_trainer(job: Job, folder: str, measured: Sequence[float] | None = None) -> Any:
    from transformers import EarlyStoppingCallback, Trainer, TrainingArguments

    values = itertools.chain(measured or ())

    class Loaded(Trainer):
        def get_train_dataloader(self) -> Any:
            return DataLoader(self.train_dataset, batch_size=None)

        def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
            metrics = {"eval_loss": next(values)}
            self.control = self.callback_handler.on_evaluate(
                self.args, self.state, self.control, metrics
            )
            return metrics

    strategy = "epoch" if measured else "no"
    arguments = TrainingArguments(
        output_dir=folder,
        num_train_epochs=job.num_epochs,
        gradient_accumulation_steps=job.accumulation,
        max_grad_norm=0.0,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        eval_strategy=strategy,
        save_strategy=strategy,
        load_best_model_at_end=False,
        metric_for_best_model="loss",
        greater_is_better=False,
    )
    scheduler = job.scheduler or ConstantLR(job.optimizer, factor=1.0)
    return Loaded(
        model=job.model,
        args=arguments,
        train_dataset=job.batches,
        eval_dataset=job.batches if measured else None,
        callbacks=[EarlyStoppingCallback(99)] if measured else [],
        optimizers=(job.optimizer, scheduler),
    )


#: name -> (module that must be there, distribution, the peer)
PEERS: dict[str, tuple[str, str, Peer]] = {
    "trainbus": ("training", "trainbus", Trainbus()),
    "lightning": ("lightning", "lightning", Lightning()),
    "transformers": ("accelerate", "transformers", Transformers()),
    "ignite": ("ignite", "pytorch-ignite", Ignite()),
}


def installed() -> dict[str, Peer]:
    """Return the peers that can be imported here."""
    return {
        name: peer
        for name, (module, _, peer) in PEERS.items()
        if importlib.util.find_spec(module) is not None
    }
