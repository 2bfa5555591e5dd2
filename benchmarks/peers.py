"""Other trainers on the workload, plain and full, with their own parts.

To add one: write two functions of the type ``Contestant`` and a line in ``PEERS``.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn
from workload import LR_GAMMA, PATIENCE, Contestant, Workload, validate


def _lightning_module(work: Workload, scheduled: bool) -> Any:
    """Return the workload as a ``LightningModule`` (its ``network`` is trained)."""
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = work.new_model()

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = work.loss_fn(self.network(batch[0]), batch[1])
            self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=1)
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            logits = self.network(batch[0])
            correct = (logits.argmax(dim=1) == batch[1]).float().mean()
            size = len(batch[1])
            self.log("val_loss", work.loss_fn(logits, batch[1]), batch_size=size)
            self.log("accuracy", correct, batch_size=size)

        def configure_optimizers(self) -> Any:
            optimizer = work.new_optimizer(self.network)
            if not scheduled:
                return optimizer
            return [optimizer], [work.new_scheduler(optimizer)]

    return Module()


def _lightning_trainer(work: Workload, folder: Path, full: bool, **options: Any) -> Any:
    import lightning

    return lightning.Trainer(
        max_epochs=work.num_epochs,
        accelerator="cpu",
        devices=1,
        default_root_dir=folder,
        enable_progress_bar=full,
        enable_checkpointing=full,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=len(work.train),
        limit_val_batches=None if full else 0,
        **options,
    )


def lightning_plain(work: Workload, folder: Path) -> tuple[nn.Module, Callable]:
    """Return Lightning's ``fit`` with everything optional off."""
    module = _lightning_module(work, scheduled=False)
    trainer = _lightning_trainer(work, folder, False, logger=False)
    return module.network, lambda: trainer.fit(module, work.train)


def lightning_full(work: Workload, folder: Path) -> tuple[nn.Module, Callable]:
    """Return Lightning's ``fit`` with its own callbacks and CSV logger."""
    from lightning.pytorch.callbacks import (
        EarlyStopping,
        ModelCheckpoint,
        TQDMProgressBar,
    )
    from lightning.pytorch.loggers import CSVLogger

    module = _lightning_module(work, scheduled=True)
    callbacks = [
        TQDMProgressBar(),
        ModelCheckpoint(dirpath=folder, monitor="val_loss", save_top_k=1),
        EarlyStopping(monitor="val_loss", patience=PATIENCE),
    ]
    logger = CSVLogger(folder)
    trainer = _lightning_trainer(work, folder, True, logger=logger, callbacks=callbacks)
    return module.network, lambda: trainer.fit(module, work.train, work.validation)


def _ignite_engine(work: Workload, model: nn.Module, optimizer: Any) -> Any:
    """Return an ignite engine whose update is the bare loop's, with a mean loss."""
    from ignite.engine import Engine
    from ignite.metrics import Average

    def update(engine: Any, batch: Any) -> Any:
        model.train()
        loss = work.loss_fn(model(batch[0]), batch[1])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    engine = Engine(update)
    Average().attach(engine, "train_loss")
    return engine


def ignite_plain(work: Workload, folder: Path) -> tuple[nn.Module, Callable]:
    """Return an ignite engine without handlers beyond the mean loss."""
    model = work.new_model()
    engine = _ignite_engine(work, model, work.new_optimizer(model))
    return model, lambda: engine.run(work.train, max_epochs=work.num_epochs)


def ignite_full(work: Workload, folder: Path) -> tuple[nn.Module, Callable]:
    """Return an ignite engine with its own handlers; the CSV row is by hand."""
    from ignite.engine import Events
    from ignite.handlers import (
        EarlyStopping,
        LRScheduler,
        ModelCheckpoint,
        ProgressBar,
    )

    model = work.new_model()
    optimizer = work.new_optimizer(model)
    engine = _ignite_engine(work, model, optimizer)
    evaluator = _ignite_evaluator(work, model)
    log = open(folder / "log.csv", "w", newline="")  # noqa: SIM115  # until the end

    def score(engine: Any) -> float:
        return -engine.state.metrics["loss"]

    def validate(engine: Any) -> None:
        evaluator.run(work.validation)
        lr = optimizer.param_groups[0]["lr"]
        results = [
            engine.state.metrics["train_loss"],
            *evaluator.state.metrics.values(),
        ]
        csv.writer(log).writerow([engine.state.epoch, *results, lr])
        log.flush()

    engine.add_event_handler(Events.EPOCH_COMPLETED, validate)
    # At the start of an epoch: this handler sets the rate first and steps afterwards.
    schedule = LRScheduler(work.new_scheduler(optimizer))
    engine.add_event_handler(Events.EPOCH_STARTED, schedule)
    engine.add_event_handler(Events.COMPLETED, lambda _: log.close())
    checkpoint = ModelCheckpoint(
        str(folder), score_function=score, n_saved=1, require_empty=False
    )
    kept = {"model": model, "optimizer": optimizer, "trainer": engine}
    evaluator.add_event_handler(Events.COMPLETED, checkpoint, kept)
    stopping = EarlyStopping(patience=PATIENCE, score_function=score, trainer=engine)
    evaluator.add_event_handler(Events.COMPLETED, stopping)
    ProgressBar().attach(engine)
    return model, lambda: engine.run(work.train, max_epochs=work.num_epochs)


def _ignite_evaluator(work: Workload, model: nn.Module) -> Any:
    """Return an evaluating engine with mean loss and accuracy."""
    import torch
    from ignite.engine import Engine
    from ignite.metrics import Accuracy, Loss

    def predict(engine: Any, batch: Any) -> Any:
        model.eval()
        with torch.inference_mode():
            return model(batch[0]), batch[1]

    evaluator = Engine(predict)
    Loss(work.loss_fn).attach(evaluator, "loss")
    Accuracy().attach(evaluator, "accuracy")
    return evaluator


def _hf_trainer(work: Workload, folder: Path, full: bool) -> Any:
    """Return transformers' ``Trainer`` over the same batches, as keyword batches."""
    from torch.utils.data import DataLoader
    from transformers import Trainer, TrainingArguments

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = work.new_model()

        def forward(self, inputs: Any, labels: Any = None) -> Any:
            logits = self.network(inputs)
            return {"loss": work.loss_fn(logits, labels), "logits": logits}

    class Loaded(Trainer):
        def get_train_dataloader(self) -> Any:
            return DataLoader(self.train_dataset, batch_size=None)

        def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
            return DataLoader(self.eval_dataset, batch_size=None)

    def rows(batches: Any) -> list[dict[str, Any]]:
        return [{"inputs": inputs, "labels": targets} for inputs, targets in batches]

    model = Wrapped()
    optimizer = work.new_optimizer(model)
    each_epoch = "epoch" if full else "no"
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=work.num_epochs,
        max_grad_norm=0.0,
        use_cpu=True,
        report_to=[],
        disable_tqdm=not full,
        logging_strategy="epoch",
        logging_nan_inf_filter=False,
        eval_strategy=each_epoch,
        save_strategy=each_epoch,
        save_total_limit=1,
        load_best_model_at_end=False,
        metric_for_best_model="loss",
        greater_is_better=False,
        prediction_loss_only=False,
    )
    return Loaded(
        model=model,
        args=arguments,
        train_dataset=rows(work.train),
        eval_dataset=rows(work.validation),
        callbacks=_hf_callbacks(full),
        compute_metrics=_hf_accuracy if full else None,
        optimizers=(optimizer, _hf_schedule(work, optimizer, full)),
    )


def _hf_callbacks(full: bool) -> list[Any]:
    from transformers import EarlyStoppingCallback

    return [EarlyStoppingCallback(early_stopping_patience=PATIENCE)] if full else []


def _hf_accuracy(prediction: Any) -> dict[str, float]:
    right = prediction.predictions.argmax(axis=1) == prediction.label_ids
    return {"accuracy": float(right.mean())}


def _hf_schedule(work: Workload, optimizer: Any, full: bool) -> Any:
    """Return a schedule for each update, as this peer steps it: halved each epoch."""
    from torch.optim.lr_scheduler import ConstantLR, StepLR

    if full:
        return StepLR(optimizer, step_size=len(work.train), gamma=LR_GAMMA)
    return ConstantLR(optimizer, factor=1.0)


def hf_plain(work: Workload, folder: Path) -> tuple[nn.Module, Callable]:
    """Return transformers' ``Trainer`` with everything optional off."""
    trainer = _hf_trainer(work, folder, full=False)
    return trainer.model.network, trainer.train


def hf_full(work: Workload, folder: Path) -> tuple[nn.Module, Callable]:
    """Return transformers' ``Trainer`` with its own bar, checkpoints and evaluation."""
    trainer = _hf_trainer(work, folder, full=True)
    return trainer.model.network, trainer.train


def _accelerated(work: Workload, folder: Path) -> tuple[Any, Any, Any, Any]:
    """Return (accelerator, model, optimizer, loader), prepared for one CPU."""
    from accelerate import Accelerator
    from torch.utils.data import DataLoader

    accelerator = Accelerator(cpu=True, project_dir=folder)
    model = work.new_model()
    loader = DataLoader(work.train.batches, batch_size=None)
    model, optimizer, loader = accelerator.prepare(
        model, work.new_optimizer(model), loader
    )
    return accelerator, model, optimizer, loader


def _accelerate_epoch(work: Workload, parts: Any, after_step: Callable) -> float:
    """Update on every training batch, as the library's guide does; return the loss."""
    import torch

    accelerator, model, optimizer, loader = parts
    model.train()
    total = torch.zeros(())
    for inputs, targets in loader:
        loss = work.loss_fn(model(inputs), targets)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        total += loss.detach()
        after_step()
    return float(total) / len(work.train)


def accelerate_plain(work: Workload, folder: Path) -> tuple[nn.Module, Callable]:
    """Return a loop of one's own with what accelerate has prepared."""
    parts = _accelerated(work, folder)

    def train() -> None:
        for _ in range(work.num_epochs):
            _accelerate_epoch(work, parts, lambda: None)

    return parts[1], train


def accelerate_full(work: Workload, folder: Path) -> tuple[nn.Module, Callable]:
    """Return the same with its bar, scheduler and checkpoints; the rest is by hand."""
    from accelerate.utils import tqdm

    parts = _accelerated(work, folder)
    accelerator, model, optimizer, _ = parts
    # Prepared it would count batches of all processes; this one counts epochs.
    scheduler = work.new_scheduler(optimizer.optimizer)
    accelerator.register_for_checkpointing(scheduler)

    def train() -> None:
        best, misses = float("inf"), 0
        with open(folder / "log.csv", "w", newline="") as log:
            for epoch in range(1, work.num_epochs + 1):
                with tqdm(total=len(work.train), desc=f"epoch {epoch}") as bar:
                    train_loss = _accelerate_epoch(work, parts, bar.update)
                scores = validate(work, model)
                scheduler.step()
                improved = scores["val_loss"] < best
                best, misses = (
                    (scores["val_loss"], 0) if improved else (best, misses + 1)
                )
                csv.writer(log).writerow([epoch, train_loss, *scores.values()])
                log.flush()
                if improved:
                    accelerator.save_state(str(folder / "best"))
                if misses >= PATIENCE:
                    break

    return model, train


#: name -> (module that must be there, plain, full)
PEERS: dict[str, tuple[str, Contestant, Contestant]] = {
    "lightning": ("lightning", lightning_plain, lightning_full),
    "ignite": ("ignite", ignite_plain, ignite_full),
    "accelerate": ("accelerate", accelerate_plain, accelerate_full),
    "transformers": ("accelerate", hf_plain, hf_full),
}
