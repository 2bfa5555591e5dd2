"""R10, R11: states and groups of an optimizer find their parameters by name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from faults.runs import SavesEverywhere, loader_of
from torch import Tensor, nn

from training import Callback, CheckpointError, Trainer
from training.compare import first_difference as first_difference_of
from training.snapshot import capture

#: A run's clock, and the rate of whichever group is the first.
IGNORED = frozenset({"seconds", "lr"})
LAYERS = ("first", "second", "last")


class Net(nn.Module):
    """Three layers, defined in any order; the first one is rectified."""

    def __init__(self, order: tuple[str, ...] = LAYERS, tied: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        made = {"first": (4, 4), "second": (4, 4), "last": (4, 1)}
        layers = {name: nn.Linear(*sizes) for name, sizes in made.items()}
        for name in order:
            setattr(self, name, layers[name])
        if tied == "before":
            self.alias = self.second
        elif tied == "after":
            self.aa = self.second

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        hidden = torch.relu(self.second(torch.relu(self.first(x))))
        return {"loss": nn.functional.mse_loss(self.last(hidden), y)}


def first_difference(left: Any, right: Any) -> str | None:
    return first_difference_of(left, right, ignored=IGNORED)


def mean_loss(model: Any, batch: Any) -> Any:
    return model(batch[0], batch[1])["loss"]


def trainer_of(net: nn.Module, optimizer: Any, *callbacks: Any, **options: Any) -> Any:
    given = {"num_epochs": 3, "seed": 3, "device": "cpu", "step_fn": mean_loss}
    return Trainer(
        net,
        loader_of(),
        optimizer=optimizer,
        callbacks=list(callbacks),
        **{**given, **options},
    )


def end_of(trainer: Trainer) -> dict[str, Any]:
    """Return the end of a run by names, whatever the order in model and optimizer."""
    state = capture(trainer)
    names = {
        id(p): name
        for name, p in trainer.model.named_parameters(remove_duplicate=False)
    }
    moments = {names[id(p)]: dict(s) for p, s in trainer.optimizer.state.items()}
    rates = {
        names[id(p)]: float(group["lr"])
        for group in trainer.optimizer.param_groups
        for p in group["params"]
    }
    kept = {"model", "progress", "history", "rng", "trainable", "in_eval"}
    return {
        **{name: state[name] for name in kept},
        "moments": moments,
        "rates": rates,
        "live": dict(trainer.model.named_parameters()),
    }


def by_layer(net: Net, *order: str) -> list[dict[str, Any]]:
    """Return a group with a rate of its own for each layer."""
    rates = {"first": 0.01, "second": 0.02, "last": 0.03}
    return [
        {"params": list(getattr(net, name).parameters()), "lr": rates[name]}
        for name in order
    ]


Build = Callable[..., Any]
ORDERS: dict[str, tuple[Build, Build]] = {
    "layers": (
        lambda: (net := Net(), torch.optim.Adam(net.parameters(), lr=0.01)),
        lambda: (
            net := Net(("second", "last", "first")),
            torch.optim.Adam(net.parameters(), lr=0.01),
        ),
    ),
    "groups": (
        lambda: (net := Net(), torch.optim.Adam(by_layer(net, *LAYERS))),
        lambda: (
            net := Net(),
            torch.optim.Adam(by_layer(net, "last", "first", "second")),
        ),
    ),
    "parameters of a group": (
        lambda: (net := Net(), torch.optim.AdamW(net.parameters(), lr=0.01)),
        lambda: (
            net := Net(),
            torch.optim.AdamW(list(net.parameters())[::-1], lr=0.01),
        ),
    ),
    "nothing, now with named_parameters": (
        lambda: (net := Net(), torch.optim.Adam(net.parameters(), lr=0.01)),
        lambda: (net := Net(), torch.optim.Adam(net.named_parameters(), lr=0.01)),
    ),
    "layers, with named_parameters": (
        lambda: (net := Net(), torch.optim.Adam(net.named_parameters(), lr=0.01)),
        lambda: (
            net := Net(("last", "second", "first")),
            torch.optim.Adam(net.named_parameters(), lr=0.01),
        ),
    ),
    "nothing, named_parameters no more": (
        lambda: (net := Net(), torch.optim.Adam(net.named_parameters(), lr=0.01)),
        lambda: (net := Net(), torch.optim.Adam(net.parameters(), lr=0.01)),
    ),
    "layers of which one is shared": (
        lambda: (
            net := Net(tied="after"),
            torch.optim.Adam(net.parameters(), lr=0.01),
        ),
        lambda: (
            net := Net(("second", "last", "first"), tied="after"),
            torch.optim.Adam(net.parameters(), lr=0.01),
        ),
    ),
    "layers, SGD with momentum": (
        lambda: (
            net := Net(),
            torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9),
        ),
        lambda: (
            net := Net(("last", "first", "second")),
            torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9),
        ),
    ),
    "layers, Adafactor": (
        lambda: (net := Net(), torch.optim.Adafactor(net.parameters(), lr=0.01)),
        lambda: (
            net := Net(("last", "first", "second")),
            torch.optim.Adafactor(net.parameters(), lr=0.01),
        ),
    ),
    "layers, SGD without a state": (
        lambda: (net := Net(), torch.optim.SGD(net.parameters(), lr=0.1)),
        lambda: (
            net := Net(("last", "first", "second")),
            torch.optim.SGD(net.parameters(), lr=0.1),
        ),
    ),
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
    from training.criterion import Criterion
    from training.optimizer_state import fitted, named_state, parameter_names

    def names(net: nn.Module) -> Any:
        return parameter_names(net, Criterion(None, net))

    saved = named_state(optimizer, names(net))
    same, other = Net(), Net(("last", "first", "second"))
    fitted(saved, torch.optim.LBFGS(same.parameters()), names(same))
    with pytest.raises(CheckpointError, match="of more than this parameter"):
        fitted(saved, torch.optim.LBFGS(other.parameters()), names(other))


class Joins(Callback):
    """Lets the first layer be trained, too, in the second epoch."""

    def __init__(self, when: str) -> None:
        self.when, self.is_done = when, False

    def join(self, trainer: Trainer) -> None:
        trainer.model.first.requires_grad_(True)
        if self.when != "by its gradients alone":
            parameters: Any = list(trainer.model.first.parameters())
            if "param_names" in trainer.optimizer.param_groups[0]:
                parameters = list(trainer.model.first.named_parameters("first"))
            trainer.optimizer.add_param_group({"params": parameters, "lr": 0.01})

    def on_setup(self, trainer: Trainer) -> None:
        if self.when == "at every set-up once it has begun" and trainer.epoch >= 1:
            self.join(trainer)

    def on_train_begin(self, trainer: Trainer, resumed: bool) -> None:
        if self.when == "again when resumed" and resumed and trainer.epoch >= 1:
            self.is_done = True
            self.join(trainer)

    def on_epoch_begin(self, trainer: Trainer) -> None:
        groups = len(trainer.optimizer.param_groups)
        due = {
            "when its epoch begins": trainer.epoch == 1,
            "by its gradients alone": trainer.epoch == 1,
            "when it is not there": trainer.epoch >= 1 and groups == 1,
            "once, as it remembers": trainer.epoch >= 1 and not self.is_done,
            "again when resumed": trainer.epoch >= 1 and not self.is_done,
            "at every set-up once it has begun": trainer.epoch >= 1 and groups == 1,
        }
        if due.get(self.when):
            self.is_done = True
            self.join(trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"is_done": self.is_done} if "remembers" in self.when else {}

    def load_state_dict(self, state: Any) -> None:
        self.is_done = state["is_done"]

    def on_step_end(self, trainer: Trainer) -> None:
        if self.when == "inside an epoch" and trainer.step == 8:
            self.join(trainer)


WAYS = (
    "when its epoch begins",
    "when it is not there",
    "once, as it remembers",
    "again when resumed",
    "at every set-up once it has begun",
    "inside an epoch",
    "by its gradients alone",
)


def gradual(
    when: str, *callbacks: Any, is_named: bool = False, joined: bool = False
) -> Any:
    net = Net()
    if when == "by its gradients alone":
        groups: Any = net.parameters()
    else:
        rest = [net.second, net.last]
        groups = [p for layer in rest for p in layer.parameters()]
    if is_named:
        groups = [
            (name, p) for name, p in net.named_parameters() if "first" not in name
        ]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    if joined:
        optimizer.add_param_group({"params": net.first.parameters(), "lr": 0.01})
    else:
        net.first.requires_grad_(False)
    return trainer_of(net, optimizer, Joins(when), *callbacks, max_grad_norm=0.5)


@pytest.mark.parametrize("when", WAYS)
def test_r11_every_boundary_resumes_a_run_in_which_a_group_joins(
    tmp_path: Path, when: str, record_property: Callable[[str, object], None]
) -> None:
    straight = gradual(when, SavesEverywhere(tmp_path))
    straight.train()
    expected = end_of(straight)
    assert len(expected["moments"]) == 6
    files = sorted(tmp_path.iterdir())
    for path in files:
        trainer = gradual(when)
        trainer.load_checkpoint(path)
        trainer.train()
        found = first_difference(end_of(trainer), expected)
        assert found is None, f"{path.name}: {found}"
    record_property("boundaries", len(files))
    assert len(files) == 18


def test_r11_a_script_may_have_the_group_from_its_beginning(tmp_path: Path) -> None:
    straight = gradual("when it is not there", SavesEverywhere(tmp_path))
    straight.train()
    trainer = gradual("when it is not there", joined=True)
    trainer.load_checkpoint(tmp_path / "1-9.pt")
    trainer.train()
    assert first_difference(end_of(trainer), end_of(straight)) is None
    early = gradual("when it is not there", joined=True)
    told = r"groups was \[\], is \['model.first.bias', 'model.first.weight'\]"
    with pytest.raises(CheckpointError, match=told):
        early.load_checkpoint(tmp_path / "0-3.pt")


def test_r11_a_group_joins_an_optimizer_of_named_parameters(tmp_path: Path) -> None:
    straight = gradual("inside an epoch", SavesEverywhere(tmp_path), is_named=True)
    straight.train()
    trainer = gradual("inside an epoch", is_named=True)
    trainer.load_checkpoint(tmp_path / "1-9.pt")
    trainer.train()
    assert first_difference(end_of(trainer), end_of(straight)) is None
    names = trainer.optimizer.param_groups[1]["param_names"]
    assert names == ["first.weight", "first.bias"]


def test_r11_a_trainer_goes_back_to_before_a_group_had_joined(tmp_path: Path) -> None:
    trainer = gradual("when its epoch begins", SavesEverywhere(tmp_path))
    trainer.train()
    expected = copy.deepcopy(end_of(trainer))
    for path in ("0-3.pt", "1-9.pt"):
        trainer.load_checkpoint(tmp_path / path)
        trainer.train()
        assert first_difference(end_of(trainer), expected) is None, path


def test_r11_what_is_yet_to_join_is_in_a_checkpoint_made_before(tmp_path: Path) -> None:
    gradual("inside an epoch", SavesEverywhere(tmp_path)).train()
    loaded = gradual("inside an epoch")
    loaded.load_checkpoint(tmp_path / "1-9.pt")
    loaded.save_checkpoint(tmp_path / "again.pt")
    one, again = (
        torch.load(tmp_path / name, weights_only=True)["optimizer"]
        for name in ("1-9.pt", "again.pt")
    )
    assert first_difference(one, again) is None
