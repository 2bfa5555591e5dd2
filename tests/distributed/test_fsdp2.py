"""Weights in parts on two processes: a run ends as that of one process does."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from ranks import Ranks
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from trainbus_distributed.fsdp2 import FSDP2Strategy
from trainbus_distributed.sharded.gradients import ShardedGradients
from trainbus_distributed.sharded.plan import modules_to_shard
from training import Callback, ConfigError, Trainer
from training.plugin import GradientCheck

pytestmark = pytest.mark.distributed

CLOSE = 1e-6
FSDP2 = {"engine": "fsdp2", "shard_modules": ["Block"]}


class Rows(Dataset[Any]):
    """Rows with token weights."""

    def __init__(self, tokens: list[int]) -> None:
        self._tokens = tokens

    def __len__(self) -> int:
        return len(self._tokens)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        drawn = torch.Generator().manual_seed(index)
        mask = torch.zeros(6)
        mask[: self._tokens[index]] = 1.0
        return {
            "x": torch.randn(6, 4, generator=drawn),
            "y": torch.randn(6, generator=drawn),
            "mask": mask,
        }


#: Tokens of each row, of loaders with batches of 4 in order.
DATA = {
    "plain": [6] * 12,
    "ragged": [6, 1, 3, 2, 5, 5, 1, 4, 2, 6, 3],
    "a part of weight 0": [6, 3, 0, 0, 0, 0, 2, 1, 4, 0, 0, 0],
    "a last batch of 1": [6, 1, 3, 2, 5, 5, 1, 4, 2],
}


class Block(nn.Module):
    """A layer that is gathered by itself."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(size, size)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(x)) + x


class Net(nn.Module):
    """Two blocks between two layers; widths that two processes cannot halve."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter = nn.Linear(4, 7)
        self.blocks = nn.Sequential(Block(7), Block(7))
        self.leave = nn.Linear(7, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.blocks(self.enter(x)))


def token_step(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the mean loss over tokens; 0/0 without any."""
    error = (model(batch["x"]).squeeze(-1) - batch["y"]) ** 2
    return (error * batch["mask"]).sum() / batch["mask"].sum()


def tokens(batch: Mapping[str, Tensor]) -> float:
    return float(batch["mask"].sum())


OPTIMIZERS = {
    "sgd": lambda ps: torch.optim.SGD(ps, 0.05, momentum=0.9),
    "adamw": lambda ps: torch.optim.AdamW(ps, 0.01),
    "fused": lambda ps: torch.optim.AdamW(ps, 0.01, fused=True),
    "foreach": lambda ps: torch.optim.AdamW(ps, 0.01, foreach=True),
}


class Notes(Callback):
    """Keeps the loss and norm of each step."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.norms: list[float] = []

    def on_step_end(self, logs: Mapping[str, Any]) -> None:
        self.losses.append(float(logs["loss"]))
        self.norms.append(float(logs.get("grad_norm", 0.0)))


def whole(value: Any) -> Any:
    """Return a tensor whole, on its own."""
    value = value.full_tensor() if hasattr(value, "full_tensor") else value
    return value.detach().clone()


def trained(
    data: str, options: Mapping[str, Any], plugin: Mapping[str, Any]
) -> dict[str, Any]:
    """Train; return weights, moments, losses, norms and history."""
    model, notes, options = Net(), Notes(), dict(options)
    make = OPTIMIZERS[options.pop("optimizer", "adamw")]
    optimizer = make(model.parameters())
    trainer = Trainer(
        model,
        DataLoader(Rows(DATA[data]), batch_size=4),
        optimizer=optimizer,
        step_fn=token_step,
        loss_per=tokens,
        callbacks=[notes],
        plugins=[{"distributed": dict(plugin)}],
        num_epochs=2,
        seed=3,
        device="cpu",
        **options,
    )
    trainer.train()
    state = optimizer.state_dict()["state"]
    rows = [[v for k, v in r.items() if k != "seconds"] for r in trainer.history]
    return {
        "weights": [whole(p) for p in model.parameters()],
        "moments": [
            whole(v) for s in state.values() for v in s.values() if torch.is_tensor(v)
        ],
        "losses": torch.tensor(notes.losses),
        "norms": torch.tensor(notes.norms),
        "history": torch.tensor(rows, dtype=torch.float64),
    }


def furthest(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    """Return the largest difference of all that two runs ended with."""
    assert a.keys() == b.keys()
    pairs: list[Any] = []
    for name, value in a.items():
        is_many = isinstance(value, list)
        pairs += zip(value, b[name], strict=True) if is_many else [(value, b[name])]
    return max(float((x - y).abs().max()) for x, y in pairs)


def cases() -> list[Any]:
    """Return all combinations; a run of the tests takes one of five of them."""
    all_of_them = itertools.product(
        *(DATA, (1, 2, 3), (None, 0.5), ("sgd", "adamw", "fused"))
    )
    rest = pytest.mark.exhaustive
    return [
        pytest.param(*each, marks=() if number % 5 == 0 else rest)
        for number, each in enumerate(all_of_them)
    ]


@pytest.mark.parametrize(("data", "accumulation", "clip", "optimizer"), cases())
def test_d6_d11_weights_in_parts_end_as_those_of_one_process(
    two: Ranks, data: str, accumulation: int, clip: float | None, optimizer: str
) -> None:
    options = {
        "optimizer": optimizer,
        "max_grad_norm": clip,
        "gradient_accumulation_steps": accumulation,
    }
    alone = trained(data, options, {})
    for each in two.run(trained, data, options, FSDP2):
        assert furthest(alone, each) < CLOSE


def test_d11_kernels_of_many_parameters_step_parts_alike(two: Ranks) -> None:
    options = {"optimizer": "foreach", "max_grad_norm": 0.5}
    alone = trained("ragged", options, {})
    for each in two.run(trained, "ragged", options, FSDP2):
        assert furthest(alone, each) < CLOSE


@pytest.mark.parametrize("optimizer", ["adamw", "fused"])
def test_d12_steps_that_overflow_are_the_same_in_fp16(
    two: Ranks, optimizer: str
) -> None:
    options = {"precision": "fp16", "optimizer": optimizer, "max_grad_norm": 0.5}
    alone = trained("ragged", options, {})
    left, right = two.run(trained, "ragged", options, FSDP2)
    assert furthest(left, right) == 0.0
    assert furthest(alone, left) < 1e-2  # an attempt more or less would show


class LocalNorm(ShardedGradients):
    """Clips by the norm of its own part: what must be found."""

    def clip(self, max_norm: float) -> Tensor:
        return GradientCheck(self._sharded).clip(max_norm)


RIGHT = FSDP2Strategy.exchanging
MUTANTS: dict[str, Any] = {
    "the norm of a part": ("gradient_check", lambda s, ps: LocalNorm(ps, s.group)),
    "the first batch": ("exchanging", lambda s, exchanges: RIGHT(s, not exchanges)),
}


def trained_wrongly(which: str) -> dict[str, Any]:
    name, wrong = MUTANTS[which]
    right = FSDP2Strategy.__dict__[name]
    setattr(FSDP2Strategy, name, wrong)
    try:
        options = {"max_grad_norm": 0.5, "gradient_accumulation_steps": 2}
        return trained("ragged", options, FSDP2)
    finally:
        setattr(FSDP2Strategy, name, right)


@pytest.mark.parametrize("which", MUTANTS)
def test_d8_d11_what_is_clipped_or_exchanged_wrongly_shows(
    two: Ranks, which: str
) -> None:
    options = {"max_grad_norm": 0.5, "gradient_accumulation_steps": 2}
    alone = trained("ragged", options, {})
    wrong = two.run(trained_wrongly, which)
    assert max(furthest(alone, each) for each in wrong) > CLOSE


class Stream(IterableDataset[Any]):
    """Rows without a length."""

    def __iter__(self) -> Iterator[Any]:
        rows = Rows(DATA["ragged"])
        return (rows[i] for i in range(len(rows)))


def streamed(plugin: Mapping[str, Any]) -> list[Tensor]:
    return weights_of_run(plugin, loader=DataLoader(Stream(), batch_size=4))


def weights_of_run(plugin: Mapping[str, Any], loader: Any, **more: Any) -> list[Tensor]:
    model = Net()
    options: dict[str, Any] = {
        "step_fn": token_step,
        "loss_per": tokens,
        "gradient_accumulation_steps": 2,
        **more,
    }
    Trainer(
        model,
        loader,
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        plugins=[{"distributed": dict(plugin)}],
        num_epochs=2,
        seed=3,
        device="cpu",
        **options,
    ).train()
    return [whole(p) for p in model.parameters()]


def test_d8_a_tail_without_a_known_end_is_exchanged(two: Ranks) -> None:
    alone = streamed({})
    for each in two.run(streamed, FSDP2):
        assert furthest({"weights": alone}, {"weights": each}) < CLOSE


def unexchanged() -> str:
    """Return what is said where the tail of a loader is not exchanged."""
    right = FSDP2Strategy.exchanges
    FSDP2Strategy.exchanges = lambda self, is_last: is_last  # type: ignore[method-assign]
    try:
        streamed(FSDP2)
    except ConfigError as error:
        return str(error)
    finally:
        FSDP2Strategy.exchanges = right  # type: ignore[method-assign]
    return "trained"


def test_d8_gradients_that_were_never_exchanged_move_nothing(two: Ranks) -> None:
    for told in two.run(unexchanged):
        assert "fsdp2 has not exchanged the gradients of its last window" in told


def refused(call: str) -> str:
    """Return what the first window says of a step that calls parts of the model."""

    def part(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
        if call == "a block":  # which gathers its own weights
            return model.blocks[0](batch["x"].mean().expand(7)).mean()
        return model.enter(batch["x"]).mean()

    loader = DataLoader(Rows(DATA["plain"]), batch_size=4)
    try:
        weights_of_run(FSDP2, loader, step_fn=part)
    except ConfigError as error:
        return str(error)
    return "trained"


@pytest.mark.parametrize("call", ["a layer of the root", "a block"])
def test_d42_a_step_that_does_not_call_the_model_is_refused(
    two: Ranks, call: str
) -> None:
    for told in two.run(refused, call):
        assert "without calling the model (Net)" in told
        assert "register_fsdp_forward_method" in told


def refusals() -> list[str]:
    """Return what is said of trainers that cannot be built."""
    told = []
    loader = DataLoader(Rows(DATA["plain"]), batch_size=4)
    with_state = Net()
    stepped = torch.optim.AdamW(with_state.parameters())
    with_state(torch.ones(1, 4)).sum().backward()
    stepped.step()
    mixed = Net()
    mixed.enter.double()
    for model, optimizer, names in (
        (with_state, stepped, ["Block"]),
        (net := Net(), torch.optim.SGD(net.parameters(), 0.1), ["Blok"]),
        (mixed, torch.optim.SGD(mixed.parameters(), 0.1), ["Block"]),
        (fused := Net(), torch.optim.SGD(fused.parameters(), 0.1, fused=True), []),
    ):
        plugin = {"engine": "fsdp2", "shard_modules": names}
        try:
            Trainer(
                model,
                loader,
                optimizer=optimizer,
                plugins=[{"distributed": plugin}],
                device="cpu",
            )
        except ConfigError as error:
            told.append(str(error))
    return told


def test_d40_what_cannot_be_sharded_is_refused_as_the_trainer_is_built(
    two: Ranks,
) -> None:
    for state, name, types, fused in two.run(refusals):
        assert "the AdamW has a state already" in state
        assert "names 'Blok'" in name
        assert "(did you mean 'Block'?)" in name
        assert "train in float32 and float64" in types
        assert "no fused SGD" in fused


def test_d41_what_shares_a_weight_with_others_stays_with_the_root() -> None:
    net = Net()
    net.blocks[0].linear.weight = net.blocks[1].linear.weight
    assert modules_to_shard(Net(), ["Block"]) != []
    assert modules_to_shard(net, ["Block"]) == []
    apart = modules_to_shard(net, ["Linear"])
    assert apart == [net.leave, net.enter]
