"""What the page of examples in Python says of a second optimizer is so."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training import ConfigError, NonFiniteError, Trainer

ROOT = Path(__file__).parents[2]
PAGE = "docs/examples-in-python.md"
BATCHES = [(each,) for each in (torch.ones(160, 2).cumsum(dim=0) / 80).split(16)]


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trainer]:
    """Return what builds the page's first trainer, with validation and options."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    source = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[0]

    def make(folder: str, **options: Any) -> Trainer:
        def with_options(model: Any, _: Any, **shown: Any) -> Trainer:
            own = {"val_dataloader": BATCHES[:2], "save_dir": folder, **options}
            return Trainer(model, BATCHES, **{**shown, **own})

        # Up to where it trains; the name is looked up as it is called.
        lines, _, _ = source.partition("trainer.train()")
        names: dict[str, Any] = {"__name__": "page", "Trainer": with_options}
        lines = lines.replace(", Trainer\n", "\n", 1)
        exec(compile(lines, PAGE, "exec"), names)
        trainer: Trainer = names["trainer"]
        return trainer

    return make


def fresh() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"g": nn.Linear(4, 2), "d": nn.Linear(2, 1)})


def by_hand(windows: int, most: float | None) -> dict[str, Tensor]:
    model, bce = fresh(), nn.functional.binary_cross_entropy_with_logits
    g, d = model["g"], model["d"]
    first, second = (torch.optim.Adam(each.parameters(), lr=1e-2) for each in (g, d))
    yes, no = torch.ones(16, 1), torch.zeros(16, 1)
    torch.manual_seed(5)
    for _ in range(3):
        for place, (real,) in enumerate(BATCHES, start=1):
            made = g(torch.randn(16, 4))
            second.zero_grad()
            (bce(d(real), yes) + bce(d(made.detach()), no)).backward()
            second.step()
            (bce(d(made), yes) / windows).backward()
            if place % windows == 0:
                if most is not None:
                    nn.utils.clip_grad_norm_(g.parameters(), most)
                first.step()
                first.zero_grad()
    return model.state_dict()


@pytest.mark.parametrize(("windows", "most"), [(1, None), (2, None), (1, 0.1)])
def test_the_second_optimizer_steps_once_a_batch_and_unclipped(
    build: Callable[..., Trainer], windows: int, most: float | None
) -> None:
    options = {"gradient_accumulation_steps": windows, "max_grad_norm": most}
    trainer = build("runs/gan", **options)
    trainer.train()
    for name, weight in by_hand(windows, most).items():
        assert torch.equal(trainer.model.state_dict()[name], weight), name


def test_it_resumes_to_the_bit(
    build: Callable[..., Trainer], caplog: pytest.LogCaptureFixture
) -> None:
    whole = build("runs/whole")
    whole.train()
    build("runs/part", max_steps=14).train()
    rest = build("runs/part")
    rest.train(resume="auto")
    assert rest.resumed_from is not None
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(rest.model.state_dict()[name], weight), name
    assert not re.search("no checkpoint holds|stay as they are", caplog.text)


def test_a_nan_reaches_the_weights_that_the_second_one_steps(
    build: Callable[..., Trainer],
) -> None:
    trainer = build("runs/nan")
    trainer.train_dataloader = [(torch.full((16, 2), torch.nan),)]
    with pytest.raises(NonFiniteError):
        trainer.train()
    weights = trainer.model.state_dict()
    assert weights["d.weight"].isnan().all()
    assert not weights["g.weight"].isnan().any()


@pytest.mark.parametrize("name", ["optimizer", "optimizers"])
def test_who_passes_two_optimizers_is_sent_to_the_page(name: str) -> None:
    model = fresh()
    two = [torch.optim.Adam(part.parameters()) for part in model.values()]
    with pytest.raises((ConfigError, TypeError)) as told:
        Trainer(model, BATCHES, loss_fn=nn.functional.mse_loss, **{name: two})
    assert PAGE in str(told.value)
    assert (ROOT / PAGE).exists()
