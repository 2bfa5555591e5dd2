"""An argument and a name switch the same plugin on, once."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import nn
from toy import Regression, regression_batches

from trainbus_cuda_graphs import CUDAGraphsCallback
from trainbus_cuda_graphs.cuda_graphs import why_not_recorded
from training import Trainer


def trainer_with(model: nn.Module | None = None, **options: Any) -> Trainer:
    model = Regression() if model is None else model
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    return Trainer(
        model, regression_batches(2), optimizer=optimizer, device="cpu", **options
    )


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"cuda_graphs": True}, id="the argument"),
        pytest.param({"plugins": ["cuda_graphs"]}, id="its name"),
        pytest.param({"callbacks": [CUDAGraphsCallback()]}, id="an instance"),
        pytest.param({"cuda_graphs": True, "plugins": ["cuda_graphs"]}, id="both"),
    ],
)
def test_it_is_on_once_however_it_is_asked_for(options: dict[str, Any]) -> None:
    trainer = trainer_with(**options)
    assert [*trainer.plugins] == ["cuda_graphs"]
    assert isinstance(trainer.plugins["cuda_graphs"], CUDAGraphsCallback)


def test_it_is_off_where_nobody_asks_for_it() -> None:
    assert "cuda_graphs" not in trainer_with().plugins


def test_where_it_is_missing_the_argument_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "trainbus_cuda_graphs", None)
    with pytest.raises(ImportError, match="run: pip install trainbus-cuda-graphs"):
        trainer_with(cuda_graphs=True)


@pytest.mark.parametrize("by", ["nobody", "the run", "its owner"])
def test_a_compiled_model_is_no_wrapped_one(by: str) -> None:
    model: Any = Regression()
    given = torch.compile(model) if by == "its owner" else model
    called: Any = torch.compile(given) if by == "the run" else given
    assert why_not_recorded(trainer_with(given), called) is None


def test_a_wrapped_model_is_not_recorded_compiled_or_not() -> None:
    trainer = trainer_with()
    wrapped = nn.Sequential(trainer.model)
    for called in (wrapped, torch.compile(wrapped)):
        assert "wraps the model" in str(why_not_recorded(trainer, called))
