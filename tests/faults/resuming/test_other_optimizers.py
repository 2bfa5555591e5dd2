"""R9: an optimizer that is in no checkpoint, or keeps a state of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import regression_batches

from training import Callback, CheckpointError, ConfigError, Trainer
from training.callbacks import ModelCheckpointCallback

SENTENCE = "whose state no checkpoint holds"


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.maker, self.critic = nn.Linear(2, 4), nn.Linear(4, 1)


class Critic(Callback):
    """Steps the critic, and keeps the state of its optimizer."""

    alters_training = True

    def __init__(self, model: Pair) -> None:
        self.optimizer = torch.optim.Adam(model.critic.parameters(), lr=0.1)

    def step(self, model: Any, batch: Any) -> Tensor:
        made = model.maker(batch[0][:, :2])
        self.optimizer.zero_grad()
        loss = (
            model.critic(made.detach()).square().mean() - model.critic(batch[0]).mean()
        )
        loss.backward()
        self.optimizer.step()
        return -model.critic(made).mean()

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.optimizer.load_state_dict(dict(state))


class Holds:
    """A callable object with the optimizer as its attribute."""

    def __init__(self, critic: Critic) -> None:
        self.own, self.step = critic.optimizer, critic.step

    def __call__(self, model: Any, batch: Any) -> Tensor:
        return self.step(model, batch)


def make(place: str = "a callback", **options: Any) -> Trainer:
    model = Pair()
    critic = Critic(model)
    own = critic.optimizer
    main = torch.optim.Adam(model.maker.parameters(), lr=0.1)

    def closes(model: Any, batch: Any) -> Tensor:
        assert own is not None
        return critic.step(model, batch)

    def uses_main(model: Any, batch: Any) -> Tensor:
        assert main.param_groups
        return critic.step(model, batch)

    if place == "the model":
        model.own = own
    step_fn = {"a closure": closes, "an attribute": Holds(critic)}.get(place)
    return Trainer(
        model,
        regression_batches(),
        optimizer=main,
        step_fn=uses_main if place == "the run's" else step_fn or critic.step,
        callbacks=[critic] if place in ("a callback", "the run's") else [],
        num_epochs=2,
        device="cpu",
        **options,
    )


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("a closure", "own"),
        ("an attribute", "own"),
        ("a method", "optimizer"),
        ("the model", "model.own"),
    ],
)
def test_r9_an_optimizer_that_is_in_no_checkpoint_is_told_of_with_its_place(
    place: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    make(place).train()
    assert caplog.text.count(f"has {name}, {SENTENCE}") == 1


@pytest.mark.parametrize("place", ["a closure", "a callback"])
def test_r9_what_another_optimizer_steps_is_not_said_to_stay_as_it_is(
    place: str, caplog: pytest.LogCaptureFixture
) -> None:
    make(place).train()
    assert "stay as they are" not in caplog.text


def test_r9_the_runs_own_optimizer_in_a_step_fn_is_none_to_tell_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    make("the run's").train()
    assert SENTENCE not in caplog.text


def test_r9_a_callback_that_keeps_its_optimizer_resumes_to_the_bit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, part, rest = make(), make(max_steps=5), make()
    whole.train()
    part.train()
    part.save_checkpoint(tmp_path / "a.pt")
    rest.load_checkpoint(tmp_path / "a.pt")
    rest.train()
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, rest.model.state_dict()[name])
    assert SENTENCE not in caplog.text


class Lookahead(torch.optim.SGD):
    """Keeps the state of what it wraps under another name."""

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        return {"fast_state": state["state"], "param_groups": state["param_groups"]}


class Remembers(torch.optim.SGD):
    """Steps by a list among its options, which each step extends."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, lr=0.1)
        self.param_groups[0]["past"] = []

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        past = self.param_groups[0]["past"]
        past.append(len(past) + 1.0)
        self.param_groups[0]["lr"] = 0.1 / sum(past)
        super().step()


def of_its_own(kind: Any, **options: Any) -> Trainer:
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    return Trainer(
        model,
        regression_batches(),
        optimizer=kind(model.parameters()),
        loss_fn=nn.functional.mse_loss,
        device="cpu",
        **options,
    )


def test_r9_an_optimizer_whose_state_no_run_could_load_is_told_before_the_first_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sentence = "Lookahead, has no 'state' but fast_state, param_groups, and no run"
    saves = ModelCheckpointCallback(tmp_path, monitor="train_loss")
    trainer = of_its_own(Lookahead, callbacks=[saves])
    with pytest.raises(ConfigError, match=sentence):
        trainer.train()
    assert trainer.step == 0
    of_its_own(Lookahead).train()
    assert "this run cannot be saved: the state_dict() of the optimizer" in caplog.text
    assert sentence in caplog.text


def test_r9_a_list_among_its_options_that_steps_extend_is_restored(
    tmp_path: Path,
) -> None:
    whole, part, rest = (of_its_own(Remembers, max_steps=each) for each in (4, 2, 4))
    whole.train()
    part.train()
    part.save_checkpoint(tmp_path / "a.pt")
    rest.load_checkpoint(tmp_path / "a.pt")
    rest.train()
    assert rest.optimizer.param_groups[0]["past"] == [1.0, 2.0, 3.0, 4.0]
    assert torch.equal(whole.model.weight, rest.model.weight)  # type: ignore[arg-type]


class Bags(nn.Module):
    """Has an embedding with sparse gradients."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.bag, self.head = nn.EmbeddingBag(20, 4, sparse=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return (rows, 2) logits of (rows, 5) indices."""
        made: Tensor = self.head(self.bag(x))
        return made


def sparse(max_steps: int) -> Trainer:
    draw = torch.Generator().manual_seed(9)
    x = torch.randint(0, 20, (6, 4, 5), generator=draw)
    y = torch.randint(0, 2, (6, 4), generator=draw)
    model = Bags()
    return Trainer(
        model,
        list(zip(x, y, strict=True)),
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        loss_fn=nn.functional.cross_entropy,
        max_steps=max_steps,
        num_epochs=2,
        device="cpu",
    )


@pytest.mark.parametrize("step", [1, 3, 6])
def test_r9_a_sparse_momentum_resumes_to_the_bit(step: int, tmp_path: Path) -> None:
    whole, part, rest = sparse(9), sparse(step), sparse(9)
    whole.train()
    part.train()
    part.save_checkpoint(tmp_path / "a.pt")
    rest.load_checkpoint(tmp_path / "a.pt")
    rest.train()
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, rest.model.state_dict()[name])
    one, other = (each.optimizer.state_dict()["state"][0] for each in (whole, rest))
    one, other = one["momentum_buffer"], other["momentum_buffer"]
    assert one.is_sparse
    assert other.is_sparse
    assert torch.equal(one.to_dense(), other.to_dense())


def test_r9_a_momentum_of_other_numbers_is_refused_with_both(tmp_path: Path) -> None:
    part = sparse(1)
    part.train()
    state = part.optimizer.state[part.optimizer.param_groups[0]["params"][0]]
    state["momentum_buffer"] = state["momentum_buffer"].long()
    part.save_checkpoint(tmp_path / "a.pt")
    sentence = (
        "is a torch.sparse_coo tensor of torch.int64 (20, 4), not a torch.sparse_coo "
        "tensor of torch.float32 (20, 4)"
    )
    with pytest.raises(CheckpointError, match=re.escape(sentence)):
        sparse(9).load_checkpoint(tmp_path / "a.pt")


class Composite(torch.optim.Optimizer):
    """Steps by two others; ``merges`` their states into its own, which is saved."""

    def __init__(self, parameters: Any, merges: bool = True) -> None:
        weight, bias = parameters
        self.first = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
        self.second = torch.optim.Adam([bias], lr=0.1)
        super().__init__(self.first.param_groups + self.second.param_groups, {})
        self.param_groups = self.first.param_groups + self.second.param_groups
        self.merges = merges

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for each in (self.first, self.second):
            each.step()
            if self.merges:
                self.state.update(each.state)

    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict(state)
        inner = self.first, self.second
        for each, group in zip(inner, self.param_groups, strict=True):
            each.param_groups = [group]
            each.state.update((p, self.state[p]) for p in group["params"])


def test_r9_states_of_two_optimizers_that_one_has_merged_resume_without_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, part, rest = (of_its_own(Composite, max_steps=each) for each in (4, 2, 4))
    whole.train()
    part.train()
    part.save_checkpoint(tmp_path / "a.pt")
    rest.load_checkpoint(tmp_path / "a.pt")
    rest.train()
    part.train()
    assert torch.equal(whole.model.weight, rest.model.weight)  # type: ignore[arg-type]
    assert torch.equal(whole.model.bias, rest.model.bias)  # type: ignore[arg-type]
    assert SENTENCE not in caplog.text


def test_r9_a_state_that_was_not_merged_is_told_of_once_it_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = of_its_own(partial(Composite, merges=False), max_steps=2)
    trainer.train()
    assert SENTENCE not in caplog.text
    for name in "ab":
        trainer.save_checkpoint(tmp_path / name)
        assert caplog.text.count(f"the Composite keeps first, second, {SENTENCE}") == 1
