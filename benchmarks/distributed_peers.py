"""Other trainers on the two workloads of ``distributed.py``, on several processes.

Each has two functions. One trains a model once over batches, each process on its part,
divided by hand, so that times compare the trainer alone. The other trains on the
ragged rows as the library divides and weighs them when it is given the rows, in the
way its own guide shows, and returns the final weights.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

Batch = tuple[Tensor, Tensor]
Train = Callable[[], Any]


def _weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def _lightning(model: nn.Module, loss_of: Any, optimizer: Any, **options: Any) -> Any:
    """Return (trainer, module) of Lightning, on every process of the group."""
    import lightning

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = model

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return loss_of(self.network, batch)["loss"]

        def configure_optimizers(self) -> Any:
            return optimizer

    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=torch.distributed.get_world_size(),
        strategy="ddp",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    return trainer, Module()


def lightning_timed(model: nn.Module, parts: Sequence[Batch], loss_of: Any) -> Train:
    """Return Lightning's ``fit`` for one epoch."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    trainer, module = _lightning(
        model, loss_of, optimizer, max_epochs=1, use_distributed_sampler=False
    )
    loader = DataLoader(parts, batch_size=None)  # a list would be several loaders
    return lambda: trainer.fit(module, loader)


def lightning_ragged(model: nn.Module, rows: Dataset[Any], loss_of: Any) -> Any:
    """Return the weights by Lightning: its sampler, its mean over processes."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    options = {"max_epochs": 2, "accumulate_grad_batches": 2}
    trainer, module = _lightning(model, loss_of, optimizer, **options)
    share = 4 // torch.distributed.get_world_size()
    trainer.fit(module, DataLoader(rows, batch_size=share))
    return _weights(model)


def accelerate_timed(model: nn.Module, parts: Sequence[Batch], loss_of: Any) -> Train:
    """Return a loop of one's own with what accelerate has prepared."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)

    def train() -> None:
        wrapped, stepping = accelerator.prepare(model, optimizer)
        for batch in parts:
            stepping.zero_grad(set_to_none=True)
            accelerator.backward(loss_of(wrapped, batch)["loss"])
            stepping.step()

    return train


def accelerate_ragged(model: nn.Module, rows: Dataset[Any], loss_of: Any) -> Any:
    """Return the weights by accelerate, with its ``accumulate``."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    share = 4 // torch.distributed.get_world_size()
    wrapped, stepping, loader = accelerator.prepare(
        model, optimizer, DataLoader(rows, batch_size=share)
    )
    for _ in range(2):
        for batch in loader:
            with accelerator.accumulate(wrapped):
                accelerator.backward(loss_of(wrapped, batch)["loss"])
                stepping.step()
                stepping.zero_grad()
    accelerator.gradient_state._reset_state()  # a singleton
    return _weights(model)


def _hugging_face(
    model: nn.Module, rows: Any, loss_of: Any, optimizer: Any, **options: Any
) -> Any:
    """Return transformers' ``Trainer`` over batches that are mappings."""
    from transformers import PrinterCallback, Trainer, TrainingArguments

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = model

        def forward(self, **batch: Tensor) -> dict[str, Tensor]:
            values = batch if "mask" in batch else tuple(batch.values())
            return {"loss": loss_of(self.network, values)["loss"]}

    class Loaded(Trainer):
        """Batches by hand, where no batch size is given."""

        def get_train_dataloader(self) -> Any:
            if "per_device_train_batch_size" in options:
                return super().get_train_dataloader()
            return DataLoader(self.train_dataset, batch_size=None)

        def _get_train_sampler(self, *_: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    arguments = TrainingArguments(
        output_dir="unused",
        use_cpu=True,
        ddp_backend="gloo",
        ddp_find_unused_parameters=False,
        max_grad_norm=0.0,
        lr_scheduler_type="constant",
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
        remove_unused_columns=False,
        **options,
    )
    still = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    trainer = Loaded(
        model=Wrapped(),
        args=arguments,
        train_dataset=rows,
        optimizers=(optimizer, still),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def hf_timed(model: nn.Module, parts: Sequence[Batch], loss_of: Any) -> Train:
    """Return transformers' ``Trainer.train`` for one epoch."""
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    rows = [{"x": x, "y": y} for x, y in parts]
    trainer = _hugging_face(model, rows, loss_of, optimizer, num_train_epochs=1)
    return trainer.train


def hf_ragged(model: nn.Module, rows: Dataset[Any], loss_of: Any) -> Any:
    """Return the weights by transformers' ``Trainer`` and the model's own loss."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    trainer = _hugging_face(
        model,
        rows,
        loss_of,
        optimizer,
        num_train_epochs=2,
        per_device_train_batch_size=4 // torch.distributed.get_world_size(),
        gradient_accumulation_steps=2,
    )
    trainer.train()
    return _weights(model)


#: name -> (module it needs, timed, ragged).
PEERS = {
    "accelerate": ("accelerate", accelerate_timed, accelerate_ragged),
    "Lightning": ("lightning", lightning_timed, lightning_ragged),
    "HF Trainer": ("accelerate", hf_timed, hf_ragged),  # it needs accelerate
}


def installed() -> dict[str, tuple[str, Any, Any]]:
    """Return the peers that are here, quietened."""
    warnings.filterwarnings("ignore", module="lightning|transformers|accelerate")
    return {
        name: peer for name, peer in PEERS.items() if importlib.util.find_spec(peer[0])
    }
