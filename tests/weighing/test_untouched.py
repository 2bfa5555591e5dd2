"""A measurement leaves no trace: the run is that with the weight said, to the bit."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.data import DataLoader, Dataset
from toy import DEVICES, assert_equal_weights, weights_of

from training import Callback, CheckpointError, EvaluationCallback, Trainer
from training.hardware.rng import rng_state
from training.weighing.untouched import untouched


class Restless(nn.Module):
    """Has dropout, BatchNorm, a generator of its own, and a layer in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 4)
        )
        self.layers[2].eval()
        self.noise = torch.Generator().manual_seed(3)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of rows with a label of their own."""
        torch.rand(1, generator=self.noise)
        return nn.functional.cross_entropy(self.layers(x), labels)


class Draws(Dataset[Any]):
    """Draws its samples; the loss is a mean over those with a label."""

    def __len__(self) -> int:
        return 22

    def __getitem__(self, index: int) -> dict[str, Any]:
        label = -100 if index % 4 == 0 else index % 3
        return {"x": torch.randn(6) + random.random(), "labels": torch.tensor(label)}


class Saves(Callback):
    """Saves at every boundary, and keeps what it saw before the first batch."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.seen: list[Any] = []

    def on_batch_begin(self, trainer: Trainer) -> None:
        """Keep the state before the first batch is trained on."""
        if not self.seen:
            modes = [m.training for m in trainer.model.modules()]
            grads = [p.grad for p in trainer.model.parameters()]
            noise = trainer.model.noise.get_state()
            drawn = rng_state()
            self.seen = [modes, grads, noise.tolist(), str(drawn["torch"].tolist())]
            self.seen += [drawn["python"], [id(b) for b in trainer.model.buffers()]]
            self.seen += [[w.tolist() for w in weights_of(trainer.model)]]

    def on_step_end(self, trainer: Trainer) -> None:
        """Ask for a checkpoint."""
        if self.folder is not None:
            trainer.request_checkpoint("each step")

    def on_checkpoint(self, trainer: Trainer) -> None:
        """Save."""
        if self.folder is not None:
            trainer.save_checkpoint(self.folder / f"{trainer.step}.pt")


def build(
    model: nn.Module, *callbacks: Callback, device: str = "cpu", **options: Any
) -> Trainer:
    """Return a trainer of six windows."""
    return Trainer(
        model,
        DataLoader(Draws(), batch_size=4, shuffle=True),
        optimizer=torch.optim.AdamW(model.parameters(), lr=0.01),
        gradient_accumulation_steps=2,
        num_epochs=2,
        seed=7,
        callbacks=list(callbacks),
        device=device,
        **options,
    )


def run(folder: Path | None = None, start: Path | None = None, **options: Any) -> Any:
    """Return (trainer, callback) of a run."""
    random.seed(1)
    np.random.seed(1)
    saves = Saves(folder)
    trainer = build(Restless(), saves, **options)
    if start is not None:
        trainer.load_checkpoint(start)
    trainer.train()
    return trainer, saves


def assert_equal_ends(one: Trainer, other: Trainer) -> None:
    """Weights, optimizer, generators and history are equal to the bit."""
    assert_equal_weights(one.model, other.model)
    states = zip(
        one.optimizer.state.values(), other.optimizer.state.values(), strict=True
    )
    assert all(torch.equal(a["exp_avg_sq"], b["exp_avg_sq"]) for a, b in states)
    for left, right in zip(one.history, other.history, strict=True):
        assert {**left, "seconds": 0} == {**right, "seconds": 0}


def test_w3_a_measured_run_is_that_with_the_unit_said_to_the_bit() -> None:
    (measured, seen), (said, expected) = run(), run(loss_per="labels")
    assert measured.state.weigher.settings()["unit"] == "labels"
    assert_equal_ends(measured, said)
    noises = measured.model.noise, said.model.noise
    assert torch.equal(noises[0].get_state(), noises[1].get_state())
    for own, other in zip(seen.seen[:5], expected.seen[:5], strict=True):
        assert own == other
    assert seen.seen[6] == expected.seen[6]


def draws_noise(
    scale: float, loss_per: str | None = "labels", *callbacks: Callback
) -> tuple[Trainer, Tensor]:
    """Train with a step that closes over a generator; return its state, too."""
    torch.manual_seed(0)
    model, noise = nn.Linear(3, 2), torch.Generator().manual_seed(5)

    def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, labels = batch
        blurred = x + scale * torch.randn(x.shape, generator=noise)
        return nn.functional.cross_entropy(model(blurred), labels)

    batches = [(torch.randn(4, 3), torch.tensor([0, 1, 1, -100])) for _ in range(3)]
    trainer = Trainer(
        *(model, batches, batches if callbacks else None),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        step_fn=step,
        loss_per=loss_per,
        num_epochs=2,
        device="cpu",
        gradient_accumulation_steps=2,
        callbacks=callbacks,
    )
    trainer.train()
    return trainer, noise.get_state()


def test_a_measurement_draws_nothing_from_a_generator_of_step_fn() -> None:
    measured, said = draws_noise(0.0, None), draws_noise(0.0)
    assert measured[0].state.weigher.settings()["unit"] == "labels"
    assert torch.equal(measured[1], said[1])


def test_an_evaluation_draws_nothing_from_a_generator_of_step_fn() -> None:
    evaluated = draws_noise(1.0, "labels", EvaluationCallback(every_n_steps=1))
    alone = draws_noise(1.0)
    assert torch.equal(evaluated[1], alone[1])
    assert_equal_weights(evaluated[0].model, alone[0].model)


class Adversaries(nn.Module):
    """The second trains itself in each step, by an optimizer of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 1)
        self.other = torch.optim.Adam(self.second.parameters(), lr=0.1)

    def step(self, _: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Step the second; return the loss of the first."""
        mask = batch["mask"].unsqueeze(1)
        made = self.first(batch["x"]) * mask
        self.other.zero_grad()
        (self.second(made.detach()) - self.second(batch["x"])).mean().backward()
        self.other.step()
        return made.square().sum() / mask.sum()


@pytest.mark.parametrize("window", [1, 2])
def test_w3_another_optimizer_that_a_step_moves_is_put_back(window: int) -> None:
    """Masks tell units apart: in the first batch, and in the last, which is longer."""

    def trained(**options: Any) -> Adversaries:
        model, generator = Adversaries(), torch.Generator().manual_seed(1)
        batches = [
            {
                "x": torch.randn(size, 6, generator=generator),
                "mask": (torch.arange(size) < size - ones).float(),
            }
            for size, ones in ((4, 0), (4, 0), (4, 1), (6, 3))
        ]
        trainer = Trainer(
            *(model, batches),
            optimizer=torch.optim.SGD(model.first.parameters(), lr=0.1),
            step_fn=model.step,
            gradient_accumulation_steps=window,
            device="cpu",
            **options,
        )
        trainer.train()
        return model

    measured = trained()
    said = trained(loss_per=lambda batch: float(batch["mask"].sum()))
    assert int(measured.other.state[measured.second.weight]["step"]) == 4
    assert_equal_weights(measured, said)


class Followed(nn.Module):
    """Has a teacher, moved through ``.data``, and a critic that a callback steps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.heat, self.is_warm = 1.0, False
        self.cooled = torch.tensor(1.0)  # its extra state
        self.first, self.critic = nn.Linear(6, 6), nn.Linear(6, 6)
        self.teacher = nn.Linear(6, 6).requires_grad_(False)
        self.other = torch.optim.SGD(self.critic.parameters(), lr=0.1)

    def step(self, _: nn.Module, batch: Tensor) -> Tensor:
        """Return the loss of the first; the others learn beside it."""
        self.teacher.weight.data.mul_(0.9).add_(self.first.weight.data, alpha=0.1)
        (self.critic(batch) - batch).square().mean().backward()
        self.heat *= 0.9 if self.is_warm else 0.5
        self.is_warm, self.cooled = True, self.cooled.mul_(0.8)
        return (self.first(batch) * self.heat - batch * self.cooled).square().mean()

    def get_extra_state(self) -> Tensor:
        return self.cooled

    def set_extra_state(self, state: Tensor) -> None:
        self.cooled = state.clone()


class StepsCritic(Callback):
    """Steps the critic, whose state it would keep."""

    alters_training = True

    def __init__(self, model: Followed) -> None:
        self.optimizer = model.other

    def on_step_end(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()


@pytest.mark.parametrize("window", [1, 2])
def test_w3_a_teacher_gradients_of_others_and_numbers_are_put_back(
    window: int,
) -> None:
    def trained(**options: Any) -> Followed:
        model = Followed()
        Trainer(
            *(model, [torch.randn(size, 6) for size in (4, 4, 4, 6)]),
            optimizer=torch.optim.SGD(model.first.parameters(), lr=0.1),
            step_fn=model.step,
            gradient_accumulation_steps=window,
            callbacks=[StepsCritic(model)],
            device="cpu",
            **options,
        ).train()
        return model

    assert_equal_weights(trained(), trained(loss_per="samples"))


class DrawsInPassing(Restless):
    """Its dropout is a function, which no mode of a module holds back."""

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of rows with a label of their own."""
        x = nn.functional.dropout(x, 0.3, self.training)
        return super().forward(x, labels)


@pytest.mark.parametrize("device", DEVICES)
def test_w3_what_a_measurement_draws_on_the_device_is_put_back(device: str) -> None:
    random.seed(1)
    measured, said = (DrawsInPassing() for _ in range(2))
    build(measured, device=device).train()
    random.seed(1)
    build(said, device=device, loss_per="labels").train()
    assert_equal_weights(measured, said)


def test_w3_the_generator_of_the_card_is_put_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn = torch.Generator()  # in the card's place: without one there is no other
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: drawn.get_state())
    monkeypatch.setattr(
        torch.cuda, "set_rng_state", lambda state, device: drawn.set_state(state)
    )
    with FakeTensorMode():  # says that it is on a card, and holds no number
        parameter = nn.Parameter(torch.empty(2, device="cuda:0"))
    before = drawn.get_state()
    modules = [nn.Sequential(nn.Linear(1, 1), nn.ParameterList([parameter]))]
    with untouched(modules, keeps_parameters=False):
        torch.rand(1, generator=drawn)
        assert not torch.equal(drawn.get_state(), before)
    assert torch.equal(drawn.get_state(), before)


def test_a_measured_run_resumes_at_every_boundary_to_the_bit(tmp_path: Path) -> None:
    whole, _ = run(tmp_path / "whole")
    boundaries = sorted((tmp_path / "whole").iterdir())
    assert len(boundaries) == 6
    for path in boundaries:
        rest, _ = run(tmp_path / "rest", start=path)
        assert_equal_ends(rest, whole)
        if rest.step > int(path.stem):
            again = torch.load(tmp_path / "rest" / "6.pt", weights_only=True)
            first = torch.load(tmp_path / "whole" / "6.pt", weights_only=True)
            assert again["settings"] == first["settings"]


class OtherLoss(Restless):
    """Its loss is a mean over rows, labelled or not."""

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Return the loss."""
        torch.rand(1, generator=self.noise)
        return nn.functional.cross_entropy(self.layers(x), labels.clamp(min=0))


@pytest.mark.parametrize("allowed", [False, True])
def test_a_resume_with_a_loss_of_another_unit_needs_consent(
    tmp_path: Path, allowed: bool
) -> None:
    run(tmp_path)
    trainer = build(OtherLoss())
    changes = ["loss_per"] if allowed else []
    trainer.load_checkpoint(tmp_path / "2.pt", allow_changes=changes)
    if allowed:
        trainer.train()
        assert trainer.state.weigher.settings()["unit"] == "samples"
        return
    with pytest.raises(CheckpointError, match="--allow-change loss_per"):
        trainer.train()


def test_a_unit_that_is_said_on_resume_is_compared_at_once(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(CheckpointError, match="loss_per was 'labels', is 'samples'"):
        run(start=tmp_path / "2.pt", loss_per="samples")


def test_a_function_that_weighed_is_missed_on_resume(tmp_path: Path) -> None:
    def tokens(batch: Mapping[str, torch.Tensor]) -> float:
        return float((batch["labels"] != -100).sum())

    run(tmp_path, loss_per=tokens)
    with pytest.raises(CheckpointError, match=r"loss_per was the function .*tokens"):
        run(start=tmp_path / "2.pt")
    run(start=tmp_path / "2.pt", loss_per=tokens)


def test_a_checkpoint_from_before_units_were_kept_is_resumed(tmp_path: Path) -> None:
    whole, _ = run(tmp_path)
    state = torch.load(tmp_path / "2.pt", weights_only=True)
    del state["settings"]["loss_per"]
    torch.save(state, tmp_path / "old.pt")
    rest, _ = run(start=tmp_path / "old.pt")
    assert_equal_ends(rest, whole)


def test_buffers_stay_the_same_objects() -> None:
    model = Restless()
    before = [id(buffer) for buffer in model.buffers()]
    trainer = Trainer(
        model,
        DataLoader(Draws(), batch_size=4),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        device="cpu",
    )
    trainer.train()
    assert [id(buffer) for buffer in model.buffers()] == before


def test_a_generator_without_a_state_is_left_alone() -> None:
    rows = Draws()
    rows.source = random.SystemRandom()  # type: ignore[attr-defined]
    with untouched([], DataLoader(rows)):
        pass
