"""What processes change alone in a run is refused before anything is saved."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import Ranks
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from trainbus_distributed.alike import FACTORS, digests
from training import Callback, ModelCheckpointCallback, TrainbusError, Trainer

pytestmark = pytest.mark.distributed


def rows(number: int) -> TensorDataset:
    """Return rows of (x, y)."""
    drawn = torch.Generator().manual_seed(5)
    return TensorDataset(
        torch.randn(number, 4, generator=drawn), torch.randn(number, 1, generator=drawn)
    )


class Tuned(nn.Module):
    """A layer, a buffer that passes leave as it is, and one that no checkpoint holds.

    Where ``is_moving`` passes write it through ``data``, of which there is no trace.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 1)
        self.is_moving = False
        self.scale: Tensor
        self.cache: Tensor
        self.register_buffer("scale", torch.ones(2))
        self.register_buffer("cache", torch.zeros(2), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.is_moving and self.training:
            self.scale.data.add_(x.mean())
        return self.last(torch.tanh(self.first(x))) * self.scale[0]


class Tempered(nn.Module):
    """A loss that trains a temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.warmth = nn.Parameter(torch.ones(()))

    def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.mse_loss(outputs * self.warmth, labels)


class Changes(Callback):
    """Changes ``what`` behind the second step, on the last process or on all."""

    mutates = ("parameters", "optimizer")

    def __init__(self, what: str, on_all: bool, weight: nn.Parameter) -> None:
        self.what, self.on_all, self.weight = what, on_all, weight

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step == 2 and (self.on_all or not trainer.is_main):
            with torch.no_grad():
                self.change(trainer)
        if trainer.step == 3 and self.what == "what a stop saves":
            trainer.request_stop("enough")

    def change(self, trainer: Trainer) -> None:
        model: Any = trainer.model
        if self.what in ("a rate", "what a stop saves", "what is saved inside"):
            trainer.optimizer.param_groups[0]["lr"] *= 0.9
        elif self.what == "a layer":
            model.first.requires_grad_(False)
        elif self.what == "a new buffer":
            model.register_buffer("extra", torch.ones(2))
        elif self.what == "a buffer":
            model.scale.fill_(5.0)
        elif self.what == "a pass":
            model.is_moving = True
        elif self.what == "a cache":
            model.cache.fill_(5.0)
        elif self.what == "a sign":
            model.first.weight.neg_()
        elif self.what == "an order":
            model.first.weight.copy_(model.first.weight.flip(0))
        elif self.what == "the loss":
            self.weight.mul_(3.0)


def changed(
    what: str, on_all: bool, engine: str, folder: Path
) -> tuple[str, int, Any, Any]:
    """Train while something changes; return what is raised, when, files, a buffer."""
    torch.manual_seed(0)
    model, loss, loose = Tuned(), Tempered(), nn.Parameter(torch.ones(1))
    beside = loss.warmth
    function: Any = loss
    if what == "beside the loss":
        beside = loose
        what = "the loss"

        def function(outputs: Tensor, labels: Tensor) -> Tensor:
            return nn.functional.mse_loss(outputs * loose, labels)

    groups = [{"params": [*model.parameters()]}, {"params": [beside]}]
    unused = {"find_unused_parameters": True} if what == "a layer" else {}
    trainer = Trainer(
        model,
        DataLoader(rows(20), batch_size=4),
        optimizer=torch.optim.SGD(groups, 0.01),
        loss_fn=function,
        loss_per="samples",
        num_epochs=2,
        callbacks=[
            Changes(what, on_all, beside),
            ModelCheckpointCallback(
                monitor=None,
                every_n_steps=3 if what == "what is saved inside" else None,
            ),
        ],
        plugins=[{"distributed": {"engine": engine, **unused}}],
        seed=0,
        device="cpu",
        save_dir=folder,
    )
    try:
        trainer.train()
    except TrainbusError as error:
        told = str(error)
    else:
        told = ""
    return told, trainer.step, sorted(folder.rglob("*.pt")), model.scale.tolist()


#: What is changed on one process -> what is told of it, and behind which step.
ON_ONE = {
    "a rate": ("the learning rate of group 0 is", 5),
    "a layer": ("whether model.first.weight trains is", 5),
    "a new buffer": ("whether there is a buffer model.extra is", 5),
    "a sign": ("model.first.weight is", 5),
    "an order": ("model.first.weight is", 5),
    "the loss": ("loss.warmth is", 5),
    "beside the loss": ("loss.loose is", 5),
    "what a stop saves": ("the learning rate of group 0 is", 3),
    "what is saved inside": ("the learning rate of group 0 is", 3),
}


@pytest.mark.parametrize("what", ON_ONE)
def test_what_one_process_changes_in_a_run_is_refused_before_anything_is_saved(
    two: Ranks, what: str, tmp_path: Path
) -> None:
    first, second = two.run(changed, what, False, "ddp", tmp_path)
    told, step = ON_ONE[what]
    assert first == second
    assert f"{told} not the same on rank 1 as on rank 0 after step {step}" in first[0]
    assert first[1:3] == (step, [])


@pytest.mark.parametrize("what", ["a rate", "the loss"])
def test_so_it_is_where_weights_lie_in_parts(
    two: Ranks, what: str, tmp_path: Path
) -> None:
    first, second = two.run(changed, what, False, "fsdp2", tmp_path)
    assert first == second
    assert f"{ON_ONE[what][0]} not the same on rank 1" in first[0]


def followed(what: str, engine: str, folder: Path) -> tuple[list[str], Any]:
    """Train; return what is told of buffers, and one of them at the end."""
    told = Told()
    log = logging.getLogger("trainbus_distributed.buffers")
    log.addHandler(told)
    try:
        error, step, files, scale = changed(what, what == "a pass", engine, folder)
    finally:
        log.removeHandler(told)
    assert (error, step) == ("", 10)
    assert files
    return told.lines, scale


@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
@pytest.mark.parametrize("what", ["a buffer", "a pass"])
def test_buffers_that_part_unseen_follow_the_main_process_from_the_next_save_on(
    two: Ranks, what: str, engine: str, tmp_path: Path
) -> None:
    ((line,), scale), (quiet, other) = two.run(followed, what, engine, tmp_path)
    assert "Tuned (scale, cache) have come to differ" in line
    assert "they follow the main process" in line
    assert not quiet
    assert scale == other
    assert (scale == [1.0, 1.0]) is (what == "a buffer")


@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
@pytest.mark.parametrize(
    ("what", "on_all"),
    [
        ("nothing", True),
        ("a cache", False),
        ("a rate", True),
        ("a buffer", True),
        ("the loss", True),
        ("what is saved inside", True),
    ],
)
def test_what_all_processes_change_or_no_checkpoint_holds_is_not_refused(
    two: Ranks, what: str, on_all: bool, engine: str, tmp_path: Path
) -> None:
    for told, step, files, _ in two.run(changed, what, on_all, engine, tmp_path):
        assert not told
        assert step == 10
        assert files


@pytest.mark.parametrize(
    "kind", [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.bool]
)
def test_bits_and_their_order_are_compared_whatever_the_type(kind: torch.dtype) -> None:
    # More than are looked at together, and a tail.
    drawn = torch.Generator().manual_seed(0)
    plain = torch.randint(2, (FACTORS // 16 + 7,), generator=drawn).to(kind)
    others = [plain, plain.flip(0), plain.roll(2), plain.logical_not().to(kind)]
    last = plain.clone()
    last[-1] = not last[-1]
    others.append(last)
    if kind.is_floating_point:
        others += [-plain, plain * float("nan")]
    assert digests([plain.view(-1, 1).expand(-1, 2)[:, 0]], torch.device("cpu")) == (
        digests([plain], torch.device("cpu"))
    )
    found = digests(others, torch.device("cpu"))
    assert len({*found}) == len(found)
    assert digests([each.clone() for each in others], torch.device("cpu")) == found


class Told(logging.Handler):
    """Keeps what is told."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


class Hooks(Callback):
    """Puts a hook on the gradient of a weight when the run begins, on all processes."""

    mutates = ("gradients",)

    def __init__(self, way: str) -> None:
        self.way = way

    def on_train_begin(self, trainer: Trainer) -> None:
        weight = next(trainer.model.parameters())
        if self.way == "accumulated":
            weight.register_post_accumulate_grad_hook(clamp)
        if self.way == "computed":
            weight.register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))

    def on_before_step(self, trainer: Trainer) -> None:
        if self.way == "before the step":
            clamp(next(trainer.model.parameters()))


def clamp(weight: Tensor) -> None:
    assert weight.grad is not None
    weight.grad.clamp_(-0.01, 0.01)


def told_of_hooks(way: str, engine: str) -> list[str]:
    """Train with a hook; return what is told of it."""
    torch.manual_seed(0)
    model, told = nn.Linear(4, 1), Told()
    trainer = Trainer(
        model,
        DataLoader(rows(20), batch_size=4),
        optimizer=torch.optim.SGD(model.parameters(), 0.01),
        loss_fn=nn.functional.mse_loss,
        loss_per="samples",
        callbacks=[Hooks(way)],
        plugins=[{"distributed": {"engine": engine}}],
        seed=0,
        device="cpu",
    )
    log = logging.getLogger("trainbus_distributed.strategy")
    log.addHandler(told)
    try:
        trainer.train()
    finally:
        log.removeHandler(told)
    return [line for line in told.lines if "hooks on gradients" in line]


@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
@pytest.mark.parametrize("way", ["accumulated", "computed"])
def test_a_hook_on_a_gradient_is_told_of_as_it_hears_that_of_a_part(
    two: Ranks, way: str, engine: str
) -> None:
    (line,), quiet = two.run(told_of_hooks, way, engine)
    assert "hooks on gradients (of weight) hear them before they are exchanged" in line
    assert "on_before_step" in line
    assert not quiet


@pytest.mark.parametrize("way", ["before the step", "none"])
def test_a_run_without_such_hooks_is_told_of_none(two: Ranks, way: str) -> None:
    assert two.run(told_of_hooks, way, "ddp") == [[], []]
