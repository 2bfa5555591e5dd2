"""What the page for users of other trainers calls ours is ours."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from torch import nn

import training
from trainbus_distributed import DistributedCallback
from training.app.config.schema import Config
from training.hookspecs import HOOKS
from training.messages.other_trainers import NAMES
from training.trainer import Trainer

PAGE = Path(__file__).parents[2] / "docs" / "from-lightning-and-transformers.md"
# Values, and words of the command line and of torch, by what they stand beside.
WORDS = {
    *("bf16", "fp16", "ddp", "fsdp2", "collate_fn", "evaluate", "score", "collate"),
    *("check_finite", "applied", "ema", "step"),
    *("state_dict", "load_state_dict", "data", "training", "Trainer", "step_fn"),
    *("plugins", '"no:progress"', '"no:evaluation"', '"auto"', "train(resume=...)"),
    *("torchrun", "trainbus evaluate", "trainbus predict --rows FILE --out FILE"),
    *("paths.best_checkpoint", "summary.json", "weights_only"),
    'model.load_state_dict(torch.load(FILE, weights_only=True)["model"])',
    'EvaluationCallback(metrics=["accuracy", "f1"])',
    *("trainbus export FILE OUT", "--resume auto", "--profile-plugins"),
}


def ours(text: str) -> list[str]:
    """Return what stands in backquotes in the last column of the tables."""
    rows = re.findall(r"^\|.*\| ([^|]*) \|$", text, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row)]


def is_ours(name: str) -> bool:
    """Whether there is such a hook, attribute, argument or key."""
    if name in HOOKS or name in WORDS or hasattr(training.Callback, name):
        return True
    call = re.fullmatch(r"(\w+)\((?:(\w+)=\.\.\.)?\)", name)
    if call:
        parameters = inspect.signature(getattr(training, call[1])).parameters
        return call[2] is None or call[2] in parameters
    first, _, rest = name.partition(".")
    if first == "distributed":
        return rest in inspect.signature(DistributedCallback).parameters
    if first == "trainer":
        return hasattr(Trainer, rest)
    if first in training.__all__:
        return hasattr(getattr(training, first), rest)
    section = Config.model_fields.get(first)
    return section is not None and rest in section.annotation.model_fields


@pytest.mark.parametrize("name", NAMES)
def test_a_trainer_says_what_an_argument_of_another_is_called_here(name: str) -> None:
    with pytest.raises(TypeError, match=rf"no argument '{name}'; here it is ") as told:
        Trainer(nn.Linear(1, 1), [], **{name: 1})
    own = inspect.signature(Trainer).parameters
    assert set(re.findall(r"(\w+)=\.\.\.", str(told.value))) <= own.keys()
    for kind, options in re.findall(r"(\w+Callback)\((\w+=[^\[].*)\)\]", str(told.value)):
        eval(f"made({options})", {"made": getattr(training, kind)})  # refuses others


def test_the_signature_of_a_trainer_is_what_it_takes() -> None:
    parameters = inspect.signature(Trainer).parameters.values()
    assert all(each.kind is not each.VAR_KEYWORD for each in parameters)
    with pytest.raises(TypeError, match=r"'num_epoch' \(did you mean 'num_epochs'\?\)"):
        Trainer(nn.Linear(1, 1), [], num_epoch=1)  # type: ignore[call-arg]


def test_every_name_that_is_called_ours_is_there() -> None:
    named = ours(PAGE.read_text(encoding="utf-8"))
    assert len(named) > 100
    assert [name for name in named if not is_ours(name)] == []


@pytest.mark.parametrize(
    "name",
    ["Trainer(epochs=...)", "trainer.fit", "on_fit_start", "data.batchsize", "fsdp"],
)
def test_a_name_that_is_not_ours_is_found(name: str) -> None:
    assert not is_ours(name)
