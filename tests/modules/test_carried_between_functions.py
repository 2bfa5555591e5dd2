"""A carried state is told apart from notes where several functions share a name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from modules.test_carried_states import Net, X, check_is_told
from torch import Tensor, nn

mse = nn.functional.mse_loss


class Recurrent(Net):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 2, batch_first=True)
        self.count: Any = torch.ones(())

    def encode(self, x: Tensor) -> Any:
        return self.gru(x, self.h)


class AsksInOneMethod(Recurrent):
    def forward(self, x: Tensor) -> Tensor:
        if self.h is None:
            self.h = torch.zeros(1, len(x), 2)
        y, h = self.encode(x)
        self.h = h.detach()
        out: Tensor = self.head(y[:, -1])
        return out


class DetachesAtTheNextBatch(Recurrent):
    def forward(self, x: Tensor) -> Tensor:
        if self.h is not None:
            self.h = self.h.detach()
        y, self.h = self.encode(x)
        self.h = self.h * 1.0
        out: Tensor = self.head(y[:, -1])
        return out


class DetachesInAMethod(Recurrent):
    def forward(self, x: Tensor) -> Tensor:
        y, self.h = self.cell(x, self.h)
        out: Tensor = self.head(y[:, -1])
        return out

    def repackage(self) -> None:
        self.h = tuple(each.detach() for each in self.h)


class PairsValues(Net):
    def forward(self, x: Tensor) -> Tensor:
        y, state = self.run(x, self.h)
        self.h, self.cache = state, None
        return y


class AddsToAnItem(Net):
    def forward(self, x: Tensor) -> Tensor:
        if self.st["h"] is None:
            self.st["h"] = torch.ones(())
        y, _ = self.run(x * self.st["h"])
        self.st["h"] += y.detach().mean()
        return y


class SetsADefault(Net):
    def forward(self, x: Tensor) -> Tensor:
        y, self.st["h"] = self.run(x, self.st.setdefault("h", None))
        return y


class Takes(Net):
    """Keeps figures, which are taken out and forgotten."""

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.run(x)
        self.cache = {"mean": y.detach().mean()}
        return y

    def taken(self) -> Any:
        taken, self.cache = self.cache, None
        return taken


class TakesTheLast(Net):
    """Keeps one figure, which is taken out and forgotten."""

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.run(x)
        self.cache = y.detach()
        return y

    def taken(self) -> Any:
        taken, self.cache = self.cache, None
        return taken


class TakesToATuple(Takes):
    def taken(self) -> Any:
        taken, self.cache, self.st = self.cache, (), {}
        return taken


class Accumulates(Recurrent):
    """Sums a loss up, with its graph, from nothing in each batch."""

    def forward(self, x: Tensor) -> Tensor:
        self.begin()
        y, _ = self.run(x)
        self.count = self.count + y.pow(2).mean()
        return y + 0.0 * self.count

    def begin(self) -> None:
        self.count = 0.0


class SetsAnew(Net):
    def forward(self, x: Tensor) -> Tensor:
        self.h = x.detach()
        self.h = self.h * self.head.weight.detach().sum()
        return self.run(x)[0]


class NotesOutputs(Net):
    def forward(self, x: Tensor) -> Any:
        y, _ = self.run(x)
        self.h = y.detach()
        return SimpleNamespace(h=y)


class NotesMean(Net):
    """Notes what a loss counts under that name, too."""

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.run(x)
        self.h = y.detach()
        return y


class Around(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = NotesMean()
        self.register_buffer("h", torch.zeros(3))

    def forward(self, x: Tensor) -> Any:
        y = self.inner(x)
        self.h = self.h * 0.9 + y.detach().mean(0)
        return y - self.h


class Centers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("h", torch.zeros(3))

    def forward(self, y: Tensor, target: Tensor) -> Tensor:
        self.h = self.h * 0.9 + y.detach().mean(0)
        return mse(y - self.h, target)


def by_loss(y: Any, target: Tensor) -> Tensor:
    y.h = y.h.float()
    return mse(y.h, target)


def by_step(model: Any, batch: Any) -> Tensor:
    out = model(batch[0])
    out.h = out.h.float()
    return mse(out.h, batch[1])


def repackages(model: Any, batch: Any) -> Tensor:
    if model.h is not None:
        model.repackage()
    return mse(model(batch[0]), batch[1])


def repackaged(state: Any) -> Any:
    return tuple(each.detach() for each in state)


class Step:
    """As the language model among PyTorch's examples."""

    h: Any = None

    def __call__(self, net: Any, batch: Any) -> Tensor:
        if self.h is None:
            self.h = (torch.zeros(1, len(batch[0]), 2), torch.zeros(1, len(X), 2))
        self.h = repackaged(self.h)
        y, self.h = net.cell(batch[0], self.h)
        return mse(net.head(y[:, -1]), batch[1])


class StepOfTwoMethods:
    h: Any = None

    def encode(self, net: Any, x: Tensor) -> Any:
        return net.gru(x, self.h)

    def __call__(self, net: Any, batch: Any) -> Tensor:
        if self.h is None:
            self.h = torch.zeros(1, len(batch[0]), 2)
        y, h = self.encode(net, batch[0])
        self.h = h.detach()
        return mse(net.head(y[:, -1]), batch[1])


def with_loss(kind: Any, loss_fn: Any = lambda: mse) -> Any:
    return lambda: (kind(), {"loss_fn": loss_fn()})


CARRIED = {
    "asks in one method": with_loss(AsksInOneMethod),
    "asks in one method of a step": lambda: (
        Recurrent(),
        {"step_fn": StepOfTwoMethods()},
    ),
    "detaches at the next batch": with_loss(DetachesAtTheNextBatch),
    "detaches in a method": lambda: (DetachesInAMethod(), {"step_fn": repackages}),
    "detaches by a function": lambda: (Net(), {"step_fn": Step()}),
    "beside a None": with_loss(PairsValues),
    "adds to an item": with_loss(AddsToAnItem),
    "sets a default": with_loss(SetsADefault),
}
NOTED = {
    "takes": with_loss(Takes),
    "takes the last": with_loss(TakesTheLast),
    "takes and leaves a tuple": with_loss(TakesToATuple),
    "accumulates": with_loss(Accumulates),
    "sets anew": with_loss(SetsAnew),
    "a step writes to outputs": lambda: (NotesOutputs(), {"step_fn": by_step}),
    "a loss writes to outputs": with_loss(NotesOutputs, lambda: by_loss),
    "a loss counts that name": with_loss(NotesMean, Centers),
    "a module around counts it": with_loss(Around),
}
CASES = [
    *(pytest.param(each, True, id=name) for name, each in CARRIED.items()),
    *(pytest.param(each, False, id=name) for name, each in NOTED.items()),
]


@pytest.mark.parametrize(("make", "is_carried"), CASES)
def test_r8_a_state_is_known_from_a_note_of_its_name_in_another_function(
    make: Any, is_carried: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check_is_told(make, is_carried, tmp_path, caplog)
