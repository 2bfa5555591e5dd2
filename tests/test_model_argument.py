"""What is no model, or none that can be trained and saved, is refused when passed."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from toy import regression_batches

from training import ConfigError, Trainer


def traced() -> nn.Module:
    return torch.jit.trace(nn.Linear(4, 1), torch.zeros(2, 4))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: None, "model is None; pass an instance of torch.nn.Module"),
        (lambda: nn.Linear, "model is the class Linear; pass an instance of torch"),
        (lambda: len, "model is <built-in function len>; pass an instance"),
        (traced, "model is TorchScript (TopLevelTracedModule), whose parts"),
        (
            lambda: nn.Sequential(OrderedDict(body=traced())),
            "model.body is TorchScript (TopLevelTracedModule), whose parts",
        ),
    ],
    ids=["None", "a class", "a function", "TorchScript", "TorchScript inside"],
)
def test_what_cannot_be_trained_is_refused_with_what_to_pass(
    make: Callable[[], Any], told: str
) -> None:
    optimizer = torch.optim.SGD(nn.Linear(4, 1).parameters(), lr=0.1)
    with pytest.raises(ConfigError, match=re.escape(told)):
        Trainer(make(), regression_batches(), optimizer=optimizer, device="cpu")


@pytest.mark.parametrize("kind", [nn.LazyLinear, nn.LazyBatchNorm1d])
def test_a_lazy_module_is_refused_until_it_has_its_shape(kind: Any) -> None:
    options: Any = {} if kind is nn.LazyBatchNorm1d else {"out_features": 1}
    model = nn.Sequential(nn.Linear(4, 4), kind(**options), nn.LazyLinear(1))

    def made() -> Trainer:
        return Trainer(
            model,
            regression_batches(),
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            loss_fn=nn.functional.mse_loss,
            device="cpu",
        )

    with pytest.raises(
        ConfigError, match=r"^model\.1 is still without shapes \(Lazy.*run one"
    ):
        made()
    model(regression_batches()[0][0])
    trainer = made()
    trainer.train()
    assert trainer.update == 4


def on_meta(*paths: str, buffers: tuple[str, ...] = ()) -> nn.Module:
    """Return a model of which these parts and buffers have no numbers."""
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    for path in paths:
        model.get_submodule(path).to("meta")
    for name in buffers:
        model[1].register_buffer(name, torch.zeros(4, device="meta"))
    return model


class Projects(nn.Module):
    """A loss with weights of its own."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1, device=device)

    def forward(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return nn.functional.mse_loss(self.layer(outputs), target)


@pytest.mark.parametrize(
    ("make", "loss", "at"),
    [
        pytest.param(lambda: on_meta(""), None, "model.0.weight", id="the whole"),
        pytest.param(lambda: on_meta("2"), None, "model.2.weight", id="a part"),
        pytest.param(
            lambda: on_meta(buffers=("running_var",)),
            *(None, "model.1.running_var"),
            id="a buffer",
        ),
        pytest.param(on_meta, Projects("meta"), "loss.layer.weight", id="the loss"),
    ],
)
def test_a_model_without_numbers_is_refused_by_the_name_of_the_first_that_has_none(
    make: Callable[[], nn.Module], loss: Any, at: str
) -> None:
    model = make()
    told = f"^{re.escape(at)} is on the device 'meta', .* to_empty"
    with pytest.raises(ConfigError, match=told):
        Trainer(
            model,
            regression_batches(),
            optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
            loss_fn=loss or nn.functional.mse_loss,
            device="cpu",
        )
