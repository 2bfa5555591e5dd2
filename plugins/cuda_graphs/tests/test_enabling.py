"""An argument and a name switch the same plugin on, once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from toy import Regression, regression_batches

from trainbus_cuda_graphs import CUDAGraphsCallback
from trainbus_cuda_graphs.cuda_graphs import why_not_recorded
from training import ConfigError, PluginError, Trainer


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
    says = "cuda_graphs is on, but .* run: pip install trainbus-cuda-graphs"
    with pytest.raises(PluginError, match=says):
        trainer_with(cuda_graphs=True)


@pytest.mark.parametrize("asked", [{"cuda_graphs": True}, {"plugins": ["cuda_graphs"]}])
@pytest.mark.parametrize(
    "compile_",
    [
        {"mode": "reduce-overhead"},
        {"mode": "max-autotune"},
        {"options": {"triton.cudagraphs": True}},
    ],
)
def test_a_compiler_that_records_too_is_refused(
    asked: dict[str, Any], compile_: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match="records CUDA graphs itself; drop cuda_"):
        trainer_with(**asked, compile=compile_)
    trainer_with(compile=compile_)


@pytest.mark.parametrize(
    "compile_", [{"mode": "default"}, {"options": {"triton.cudagraphs": False}}]
)
def test_a_compiler_that_does_not_record_is_welcome(compile_: dict[str, Any]) -> None:
    assert "cuda_graphs" in trainer_with(cuda_graphs=True, compile=compile_).plugins


@pytest.mark.parametrize("first", [True, False])
def test_a_checkpoint_fits_a_run_with_and_without_it(
    first: bool, tmp_path: Path
) -> None:
    saves = trainer_with(cuda_graphs=first)
    saves.train()
    saves.save_checkpoint(tmp_path / "a.pt")
    goes_on = trainer_with(cuda_graphs=not first, num_epochs=2)
    goes_on.load_checkpoint(tmp_path / "a.pt")
    goes_on.train()
    assert goes_on.step == 4


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
