"""R10: the states of an optimizer find their parameters by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.nets import LAYERS, Net, end_of, first_difference, mean_loss, trainer_of
from faults.runs import SavesEverywhere, loader_of
from torch import Tensor, nn

from training import CheckpointError
from training.checkpoint.optimizer_state import fitted, named_state, parameter_names
from training.loop.criterion import Criterion


def by_layer(net: Net, *order: str) -> list[dict[str, Any]]:
    """Return a group with a rate of its own for each layer."""
    rates = {"first": 0.01, "second": 0.02, "last": 0.03}
    return [
        {"params": list(getattr(net, name).parameters()), "lr": rates[name]}
        for name in order
    ]


Build = Callable[[], tuple[Net, torch.optim.Optimizer]]


def made(
    kind: Any,
    *order: str,
    of: Callable[[Net], Any] = Net.parameters,
    tied: str = "",
    **options: Any,
) -> Build:
    """Return a function that builds layers in ``order`` and an optimizer of them."""
    return lambda: (
        net := Net(order or LAYERS, tied),
        kind(of(net), **{"lr": 0.01, **options}),
    )


def grouped(*order: str) -> Callable[[Net], Any]:
    return lambda net: by_layer(net, *order)


Adam, AdamW, SGD = torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD
NAMED = {"of": Net.named_parameters}
BACKWARDS = {"of": lambda net: list(net.parameters())[::-1]}
ONE, OTHER = ("second", "last", "first"), ("last", "first", "second")
MOMENTUM = {"lr": 0.1, "momentum": 0.9}
#: What is in another order -> before, after.
ORDERS: dict[str, tuple[Build, Build]] = {
    "layers": (made(Adam), made(Adam, *ONE)),
    "groups": (made(Adam, of=grouped(*LAYERS)), made(Adam, of=grouped(*OTHER))),
    "parameters of a group": (made(AdamW), made(AdamW, **BACKWARDS)),
    "nothing, now with named_parameters": (made(Adam), made(Adam, **NAMED)),
    "layers, with named_parameters": (
        made(Adam, **NAMED),
        made(Adam, "last", "second", "first", **NAMED),
    ),
    "nothing, named_parameters no more": (made(Adam, **NAMED), made(Adam)),
    "layers of which one is shared": (
        made(Adam, tied="after"),
        made(Adam, *ONE, tied="after"),
    ),
    "layers, SGD with momentum": (
        made(SGD, **MOMENTUM),
        made(SGD, *OTHER, **MOMENTUM),
    ),
    "layers, Adafactor": (
        made(torch.optim.Adafactor),
        made(torch.optim.Adafactor, *OTHER),
    ),
    "layers, SGD without a state": (made(SGD, lr=0.1), made(SGD, *OTHER, lr=0.1)),
}


@pytest.mark.parametrize("what", ORDERS)
def test_r10_each_parameter_keeps_its_own_state_in_another_order_of(
    tmp_path: Path, what: str
) -> None:
    before, after = ORDERS[what]
    straight = trainer_of(*before(), SavesEverywhere(tmp_path))
    straight.train()
    for path in ("0-3.pt", "2-12.pt"):
        trainer = trainer_of(*after())
        trainer.load_checkpoint(tmp_path / path)
        trainer.train()
        assert first_difference(end_of(trainer), end_of(straight)) is None


def test_r10_by_position_the_momentum_would_be_that_of_another_layer(
    tmp_path: Path,
) -> None:
    """The negative control; files of earlier releases have nothing else to go by."""
    before = ORDERS["layers"][0]
    straight = trainer_of(*before(), SavesEverywhere(tmp_path))
    straight.train()
    state = torch.load(tmp_path / "0-3.pt", weights_only=True)
    del state["optimizer"]["names"]
    names = state["settings"]["optimizer.groups"]
    state["settings"]["optimizer.groups"] = [len(each) for each in names]
    torch.save(state, tmp_path / "old.pt")
    same = trainer_of(*before())
    same.load_checkpoint(tmp_path / "old.pt")
    same.train()
    assert first_difference(end_of(same), end_of(straight)) is None
    net = Net(("second", "first", "last"))
    other = trainer_of(net, torch.optim.Adam(net.parameters(), lr=0.01))
    other.load_checkpoint(tmp_path / "old.pt")
    other.train()
    assert first_difference(end_of(other), end_of(straight)) is not None


def two(net: Net, first: str, second: str) -> list[dict[str, Any]]:
    """Return two groups of parameters whose names begin so."""
    named = list(net.named_parameters())
    return [
        {"params": [p for name, p in named if name.startswith(tuple(each.split()))]}
        for each in (first, second)
    ]


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        pytest.param(
            lambda net: two(net, "first", "second"),
            r"was \['model.last.bias', 'model.last.weight'\], is \[\]",
            id="fewer parameters",
        ),
        pytest.param(
            lambda net: two(net, "first second", "last"),
            "was 'model.first.bias and model.second.bias in two groups', is .*one",
            id="the same ones, otherwise",
        ),
        pytest.param(
            lambda net: net.parameters(),
            r"was 'model.first.bias and model.last.bias in two groups', is .*one group",
            id="one group",
        ),
    ],
)
def test_r10_other_groups_are_refused_by_the_names_that_differ(
    tmp_path: Path, groups: Any, told: str
) -> None:
    net = Net()
    before = torch.optim.SGD(two(net, "first", "second last"), lr=0.1, momentum=0.9)
    trainer_of(net, before).save_checkpoint(tmp_path / "a.pt")
    net = Net()
    trainer = trainer_of(net, torch.optim.SGD(groups(net), lr=0.1, momentum=0.9))
    with pytest.raises(CheckpointError, match=f"optimizer.groups {told}"):
        trainer.load_checkpoint(tmp_path / "a.pt")
    trainer.load_checkpoint(tmp_path / "a.pt", allow_changes=["optimizer.groups"])


def test_r10_options_are_compared_by_the_names_of_their_groups(tmp_path: Path) -> None:
    net = Net()
    optimizer = torch.optim.Adam(by_layer(net, *LAYERS))
    trainer_of(net, optimizer).save_checkpoint(tmp_path / "a.pt")
    net = Net()
    groups = by_layer(net, "last", "first", "second")
    groups[1]["lr"] = 0.5
    trainer = trainer_of(net, torch.optim.Adam(groups))
    told = r"optimizer.lr was \[0.03, 0.01, 0.02\], is \[0.03, 0.5, 0.02\]"
    with pytest.raises(CheckpointError, match=told):
        trainer.load_checkpoint(tmp_path / "a.pt")
    trainer.load_checkpoint(tmp_path / "a.pt", allow_changes=["optimizer.lr"])
    trainer.train()
    rates = [group["lr"] for group in trainer.optimizer.param_groups]
    assert rates == [0.03, 0.5, 0.02]


def test_r10_a_state_of_all_parameters_in_one_is_refused_in_another_order(
    tmp_path: Path,
) -> None:
    net = Net()
    optimizer = torch.optim.LBFGS(net.parameters())
    batch = next(iter(loader_of(noise=False, shuffle=False)))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = mean_loss(net, batch)
        loss.backward()
        return loss

    torch.optim.LBFGS.step(optimizer, closure)

    def names(net: nn.Module) -> Any:
        return parameter_names(net, Criterion(None, net))

    saved = named_state(optimizer, names(net))
    same, other = Net(), Net(("last", "first", "second"))
    fitted(saved, torch.optim.LBFGS(same.parameters()), names(same), [0])
    with pytest.raises(CheckpointError, match="of more than this parameter"):
        fitted(saved, torch.optim.LBFGS(other.parameters()), names(other), [0])
