"""What moves in hidden modules, behind hooks, and in parts of a loader is named."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Dataset, Sampler, WeightedRandomSampler
from toy import Moves, Saves

from training import Callback, Trainer

X = torch.linspace(-1, 1, 24).view(12, 2)


class Keeps(Callback):
    """Has ``held`` in its state, or only holds it."""

    def __init__(self, held: Any) -> None:
        self.held = held


class KeepsState(Keeps):
    def state_dict(self) -> dict[str, Any]:
        return {"held": "as if"}

    def load_state_dict(self, state: Any) -> None:
        self.held = self.held


def train(
    path: Path,
    model: nn.Module,
    *beside: Callback,
    rows: Any = None,
    moves: Any = None,
    **options: Any,
) -> None:
    options.setdefault("optimizer", torch.optim.SGD(model.parameters(), lr=0.01))
    if "loss_fn" not in options:
        options.setdefault("step_fn", lambda model, batch: model(batch).square().mean())
    trainer = Trainer(
        model,
        rows or [X],
        callbacks=[*beside, Moves(moves), Saves(path)],
        num_epochs=4,
        device="cpu",
        **options,
    )
    trainer.train()


def named(text: str) -> list[str]:
    """Return the places that were named."""
    told = [part.split(";")[0] for part in text.split("variables: ")[1:]]
    return [name for each in told for name in each.split(", ")]


class Plain:
    """An object of the user's."""


class Student(nn.Linear):
    """Follows itself by a teacher that is no submodule."""

    def __init__(self, place: str) -> None:
        super().__init__(2, 2)
        teacher = nn.Sequential(copy.deepcopy(nn.Linear(2, 2)))
        self.read: Any = lambda: teacher
        self.moves = True
        match place:
            case "list":
                self._t = [teacher]
            case "attribute":
                self.__dict__["t"] = teacher
            case "object":
                self.obj = Plain()
                self.obj.t = teacher  # type: ignore[attr-defined]
            case "rests":
                self._t, self.moves = [teacher], False
            case "itself":
                self._t, self.read = [self], lambda: [self]
            case "submodule":
                self.t = teacher

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        if self.training and self.moves:
            with torch.no_grad():
                self.read()[0].weight.lerp_(self.weight.detach() + 0.1, 0.1)
        return out - self.read()[0].weight.mean().detach()


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("list", "model._t.0.0.weight"),
        ("attribute", "model.t.0.weight"),
        ("object", "model.obj.t.0.weight"),
        ("rests", ""),
        ("itself", ""),
        ("submodule", ""),
    ],
)
def test_r8_a_module_that_is_hidden_in_a_plain_attribute_and_moves_is_named(
    place: str, told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path / "a.pt", Student(place))
    assert named(caplog.text) == ([told] if told else [])


def test_r8_a_hidden_module_of_a_loss_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._t = [nn.BatchNorm1d(2, affine=False)]

        def forward(self, out: Tensor, y: Tensor) -> Tensor:
            return (self._t[0](out) - y).square().mean()

    train(tmp_path / "a.pt", nn.Linear(2, 2), rows=[(X, X)], loss_fn=Loss())
    assert "loss._t.0.running_mean" in named(caplog.text)


@pytest.mark.parametrize("by", ["a plugin with state", "a plugin", "step_fn"])
def test_r8_a_hidden_module_that_others_save_is_not_named(
    by: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = Student("list")
    teacher = model._t[0]
    beside: list[Callback] = []
    options: dict[str, Any] = {}
    if by == "step_fn":
        options["step_fn"] = lambda model, x: (model(x) - teacher(x)).square().mean()
    else:
        beside = [Keeps(teacher) if by == "a plugin" else KeepsState([teacher])]
    train(tmp_path / "a.pt", model, *beside, **options)
    assert bool(named(caplog.text)) == (by == "a plugin")


class Center(nn.Module):
    """A hook that is a module with a buffer."""

    mu: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mu", torch.zeros(2))

    def __call__(self, module: nn.Module, given: Any) -> Any:
        self.mu = 0.9 * self.mu + 0.1 * given[0].detach().mean(0) + 0.1
        return (given[0] - self.mu,)


def hooked(kind: str) -> dict[str, Any]:
    """Return a model and its optimizer, with a hook that has a state."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    state = {"mu": torch.zeros(2)}

    def counts(*given: Any) -> None:
        state["mu"] = state["mu"] + 1

    match kind:
        case "a module":
            model[0].register_forward_pre_hook(Center())
        case "a closure":
            model[0].register_forward_hook(counts)
        case "of gradients":
            model[1].register_full_backward_hook(counts)
        case "of parameters":
            for parameter in model.parameters():
                parameter.register_hook(counts)
        case "after a gradient":
            model[0].bias.register_post_accumulate_grad_hook(counts)
        case "of the optimizer":
            average = AveragedModel(model)
            optimizer.register_step_post_hook(
                lambda *_: average.update_parameters(model)
            )
        case "of torch":
            nn.utils.spectral_norm(model[0])
    return {"model": model, "optimizer": optimizer}


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("a module", "model.0._forward_pre_hooks.0.mu"),
        ("a closure", "model.0._forward_hooks.0.state.mu"),
        ("of gradients", "model.1._backward_hooks.0.state.mu"),
        ("of parameters", "model.0.weight._backward_hooks.0.state.mu"),
        ("after a gradient", "model.0.bias._post_accumulate_grad_hooks.0.state.mu"),
        (
            "of the optimizer",
            "optimizer._optimizer_step_post_hooks.0.average.n_averaged",
        ),
        ("of torch", ""),
    ],
)
def test_r8_what_a_hook_moves_and_no_checkpoint_holds_is_named(
    kind: str, told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tmp_path / "a.pt", **hooked(kind))
    assert (told in named(caplog.text)) if told else not named(caplog.text)


class Rows(Dataset[Tensor]):
    """Rows, and what moves as they are read."""

    def __init__(self, what: str = "") -> None:
        self.what, self.noise, self.labels = what, 1.0, torch.zeros(12)
        self.cache: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return 12

    def __getitem__(self, row: int) -> Tensor:
        if self.what == "anneals":
            self.noise *= 0.9
        elif self.what == "labels":
            self.labels[row] += 0.1
        elif self.what == "caches" and row not in self.cache:
            self.cache[row] = X[row].clone()
        return X[row] * self.noise

    def batch(self, rows: list[Tensor]) -> Tensor:
        return torch.stack(rows)


class Cools(Sampler[int]):
    """Draws by a temperature of its own."""

    def __init__(self) -> None:
        self.heat = 1.0

    def __len__(self) -> int:
        return 12

    def __iter__(self) -> Any:
        self.heat *= 0.9
        weights = torch.arange(1.0, 13.0) ** self.heat
        return iter(torch.multinomial(weights, 12).tolist())


class Packs:
    """Carries rows on into the next batch."""

    def __init__(self) -> None:
        self.rest = [X[0]]

    def __call__(self, rows: list[Tensor]) -> Tensor:
        rows = self.rest + rows
        self.rest = rows[-1:]
        return torch.stack(rows[:-1])


def counting() -> Any:
    calls = {"n": 0}

    def collate(rows: list[Tensor]) -> Tensor:
        calls["n"] += 1
        return torch.stack(rows) * calls["n"]

    return collate


def loaders() -> dict[str, DataLoader[Any]]:
    """Return loaders with a part that moves something, by its place."""
    lasts = Rows("caches")
    order = WeightedRandomSampler(torch.ones(12), 12)
    return {
        "Cools.heat": DataLoader(Rows(), 5, sampler=Cools()),
        "WeightedRandomSampler.weights": DataLoader(Rows(), 5, sampler=order),
        "Packs.rest.0": DataLoader(Rows(), 5, shuffle=True, collate_fn=Packs()),
        "collate.calls.n": DataLoader(Rows(), 5, collate_fn=counting()),
        "Rows.noise": DataLoader(Rows("anneals"), 5),
        "Rows.labels": DataLoader(Rows("labels"), 5),
        "": DataLoader(lasts, 5, shuffle=True, collate_fn=lasts.batch),
    }


def moved_in(loader: Any) -> Any:
    """Return what moves a sampler's weights, as a callback would."""
    weights = getattr(loader.sampler, "weights", None)
    return None if weights is None else lambda: weights.mul_(0.9)


@pytest.mark.parametrize("told", list(loaders()))
def test_r8_what_a_part_of_a_loader_moves_and_no_checkpoint_holds_is_named(
    told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = loaders()[told]
    train(tmp_path / "a.pt", nn.Linear(2, 2), rows=rows, moves=moved_in(rows))
    assert named(caplog.text) == ([f"train_dataloader.{told}"] if told else [])


@pytest.mark.parametrize("kind", [Keeps, KeepsState])
def test_r8_what_a_callback_with_a_state_holds_of_a_loader_is_its_own_affair(
    kind: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = loaders()["WeightedRandomSampler.weights"]
    holds = kind(rows.sampler)
    train(tmp_path / "a.pt", nn.Linear(2, 2), holds, rows=rows, moves=moved_in(rows))
    assert bool(named(caplog.text)) == (kind is Keeps)


def test_r8_what_moves_once_an_epoch_is_named_though_each_step_is_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class SavesAll(Callback):
        def on_step_end(self, trainer: Trainer) -> None:
            trainer.save_checkpoint(tmp_path / "b.pt")

    rows = loaders()["Cools.heat"]
    train(tmp_path / "a.pt", nn.Linear(2, 2), SavesAll(), rows=rows)
    assert named(caplog.text) == ["train_dataloader.Cools.heat"]


class Shy:
    """Tells nobody what it is made of."""

    @property
    def __dict__(self) -> Any:
        raise RuntimeError("not for you")


class Odd:
    """Has no text for the module of its class."""

    __module__ = property(lambda self: None)  # type: ignore[assignment]


class Mapped(Dataset[Tensor]):
    """Calls a function of the user's on rows, which are in a list."""

    def __init__(self, more: Any = None) -> None:
        self.rows, self.func, self.more = [0.0] * 12, lambda row: row, more

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Tensor:
        self.rows[index] += 1.0
        return self.func(X[index])


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support", "ignore:.*torch.jit")
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(Shy, id="whose attributes raise"),
        pytest.param(Odd, id="whose module is no text"),
        pytest.param(X.to_sparse_csr, id="a sparse tensor"),
        pytest.param(
            lambda: [torch.jit.script(nn.Sequential(nn.Linear(2, 2)))],
            id="a scripted module",
        ),
        pytest.param(lambda: tuple(range(1000)), id="a long tuple"),
    ],
)
def test_r8_what_cannot_be_looked_into_ends_no_run_and_needs_no_word(
    make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, held = nn.Linear(2, 2), make()
    vars(model)["held"] = held
    rows = DataLoader(Mapped(held), 5)
    train(tmp_path / "a.pt", model, KeepsState(held), rows=rows)
    assert named(caplog.text) == []
