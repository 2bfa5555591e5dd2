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
