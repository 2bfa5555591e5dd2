"""What is set on a trainer after it was built is held to what it may be given."""

from __future__ import annotations

import ast
import copy
import inspect
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from toy import make_trainer, regression_batches

from training import Callback, ConfigError, CSVLoggerCallback, Trainer
from training.arguments import attributes
from training.plugin import Strategy

NAN = float("nan")
#: All that a trainer shows of its run.
SHOWN = [
    name
    for name, value in vars(Trainer).items()
    if isinstance(value, property) and name not in ("order_seed", "weights_are")
]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("nonfinite", "STOP", id="a policy that would drop windows"),
        pytest.param("max_grad_norm", -1.0, id="a norm that would turn gradients"),
        pytest.param("gradient_accumulation_steps", 2.5, id="half a batch"),
        pytest.param("gradient_accumulation_steps", 0, id="no batch"),
        pytest.param("max_steps", NAN, id="a bound that is never reached"),
        pytest.param("num_epochs", "4", id="text"),
        pytest.param("seed", "0", id="a seed of text"),
    ],
)
def test_what_is_set_on_a_trainer_is_checked_when_it_trains(
    name: str, value: Any
) -> None:
    trainer = make_trainer()
    setattr(trainer, name, value)
    with pytest.raises(ConfigError, match=f"^{name} is "):
        trainer.train()
    assert trainer.step == 0


def test_a_folder_set_on_a_trainer_may_be_text(tmp_path: Path) -> None:
    trainer = make_trainer(None, None, CSVLoggerCallback(), save_dir=tmp_path / "a")
    trainer.save_dir = str(tmp_path / "b")  # type: ignore[assignment]
    trainer.train()
    assert [each.name for each in tmp_path.glob("*/*.csv")] == ["training_log.csv"]
    assert trainer.save_dir == tmp_path / "b"


def test_a_foreign_number_set_on_a_trainer_becomes_pythons_own() -> None:
    trainer = make_trainer()
    trainer.max_steps = np.int64(2)  # type: ignore[assignment]
    trainer.train()
    assert (trainer.step, type(trainer.max_steps)) == (2, int)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("scheduler", object(), id="the plugin steps the one it was given"),
        pytest.param("tf32", True, id="its plugin was registered, or was not"),
        pytest.param("cuda_graphs", True, id="so was that of a recorded step"),
        pytest.param("strategy", Strategy(), id="the model was placed by another"),
        pytest.param("step", 5, id="counters are the run's"),
    ],
)
def test_what_would_have_no_effect_cannot_be_set(name: str, value: Any) -> None:
    trainer = make_trainer()
    before = getattr(trainer, name)
    with pytest.raises(AttributeError, match=rf"^trainer\.{name} tells .* build a Tra"):
        setattr(trainer, name, value)
    assert getattr(trainer, name) is before


@pytest.mark.parametrize("name", SHOWN)
def test_what_tells_of_a_run_is_refused_by_the_name_that_was_set(name: str) -> None:
    trainer = make_trainer()
    with pytest.raises(AttributeError, match=rf"^trainer\.{name} tells about the run"):
        setattr(trainer, name, 1)


#: What a trainer is built around, with another value for it.
OF_A_TRAINER = {
    "model": nn.Linear(4, 1),
    "criterion": None,
    "modes": None,
    "device": torch.device("meta"),
    "bus": None,
}
#: Arguments that it has taken up as it was built.
TAKEN_UP = [
    "loss_fn",
    "step_fn",
    "callbacks",
    "evaluator",
    "loss_per",
    "fp16",
    "compile",
]
#: What a run has read by ``on_setup``, with another value for it.
OF_A_RUN = {
    "optimizer": torch.optim.SGD([torch.zeros(1)], lr=5.0),
    "train_dataloader": [],
    "seed": 5,
    "save_dir": "elsewhere",
    "stop_on_sigusr1": True,
    "gradient_accumulation_steps": 2,
}
#: What it reads once plugins are set up.
OF_A_WINDOW = {"max_grad_norm": 1e-6, "nonfinite": "skip"}
EARLY = ["wrap_model", "wrap_dataloader", "on_setup"]
LATE = ["metric_names", "on_train_begin", "on_epoch_begin", "on_train_end"]


def test_all_that_a_run_reads_once_is_tried_here() -> None:
    assert set(OF_A_TRAINER) == attributes._OF_A_TRAINER
    assert set(OF_A_RUN) == attributes._OF_A_RUN
    assert set(OF_A_WINDOW) == attributes._OF_A_WINDOW


@pytest.mark.parametrize(
    ("name", "value"), [*OF_A_TRAINER.items(), *((name, None) for name in TAKEN_UP)]
)
def test_what_a_trainer_was_built_with_cannot_be_set(name: str, value: Any) -> None:
    trainer = make_trainer()
    trainer.train()
    with pytest.raises(
        AttributeError, match=rf"^trainer\.{name} cannot .* build another"
    ):
        setattr(trainer, name, value)


def test_a_subclass_keeps_what_it_takes_besides() -> None:
    class Distils(Trainer):
        def __init__(self, *given: Any, teacher: Any, **options: Any) -> None:
            super().__init__(*given, **options)
            self.teacher = self._metadata = self.models = teacher

    toy = make_trainer()
    options = {"optimizer": toy.optimizer, "device": "cpu"}
    trainer = Distils(toy.model, regression_batches(), teacher="wise", **options)
    trainer.train()
    assert trainer.teacher == "wise"


def test_a_misspelt_setting_is_refused_and_an_own_attribute_is_kept() -> None:
    trainer: Any = make_trainer()
    with pytest.raises(AttributeError, match=r"'max_step' \(did you mean 'max_steps'"):
        trainer.max_step = 3
    trainer.model_name = "mine"
    assert trainer.model_name == "mine"


@pytest.mark.parametrize(
    ("name", "value", "way"),
    [
        ("lr", 1e-7, r"each group of trainer\.optimizer\.param_groups: group\['lr'\]"),
        ("learning_rate", 1e-7, r"param_groups: group\['lr'\] = "),
        ("weight_decay", 0.1, r"param_groups: group\['weight_decay'\] = "),
        ("batch_size", 1, r"trainer\.train_dataloader to a loader of that batch size"),
        ("should_stop", True, r"trainer\.request_stop\(reason\)"),
    ],
)
def test_what_is_set_elsewhere_is_refused_with_the_place(
    name: str, value: Any, way: str
) -> None:
    trainer = make_trainer()
    with pytest.raises(AttributeError, match=f"^a trainer has no '{name}'; .*{way}"):
        setattr(trainer, name, value)
    assert not hasattr(trainer, name)


def test_a_subclass_that_takes_a_rate_keeps_it() -> None:
    class Builds(Trainer):
        def __init__(self, model: nn.Module, lr: float) -> None:
            optimizer = torch.optim.SGD(model.parameters(), lr=lr)
            super().__init__(model, regression_batches(), optimizer=optimizer)
            self.lr = lr

    trainer = Builds(make_trainer().model, 0.5)
    assert trainer.lr == 0.5


def test_so_does_one_that_makes_it_of_what_it_takes() -> None:
    class Builds(Trainer):
        def __init__(self, *parts: Any, config: dict[str, Any], **named: Any) -> None:
            super().__init__(*parts, **named)
            self.batch_size = config["batch_size"]

    model = make_trainer().model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    config = {"batch_size": 4}
    trainer = Builds(model, regression_batches(), optimizer=optimizer, config=config)
    assert trainer.batch_size == 4


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        pytest.param(lambda own: None, "optimizer is None", id="none"),
        pytest.param(torch.optim.LBFGS, "needs a closure", id="a closure"),
        pytest.param(
            lambda own: torch.optim.SGD(own, lr=torch.tensor(NAN)), "lr", id="no rate"
        ),
    ],
)
def test_an_optimizer_set_on_a_trainer_is_checked_when_it_trains(
    optimizer: Any, words: str
) -> None:
    trainer = make_trainer()
    trainer.optimizer = optimizer(trainer.model.parameters())
    with pytest.raises(ConfigError, match=words):
        trainer.train()
    assert trainer.step == 0


@pytest.mark.parametrize(
    ("name", "value", "hook"),
    [
        *((*each, hook) for each in OF_A_RUN.items() for hook in [*EARLY, *LATE]),
        *((*each, hook) for each in OF_A_WINDOW.items() for hook in LATE),
    ],
)
def test_what_a_run_was_set_up_with_cannot_be_set_in_it(
    name: str, value: Any, hook: str
) -> None:
    def sets(self: Callback, trainer: Trainer) -> None:
        setattr(trainer, name, value)

    trainer = make_trainer(None, None, type("Sets", (Callback,), {hook: sets})())
    before = getattr(trainer, name)
    told = rf"^trainer\.{name} is .*; set it before train\(\)"
    told += " or in on_setup, or" if name in OF_A_WINDOW else ", or"
    with pytest.raises(AttributeError, match=told) as caught:
        trainer.train()
    assert any("plugin 'Sets'" in note for note in caught.value.__notes__)
    after = getattr(trainer, name)
    assert after is before or after == before
    setattr(trainer, name, value)  # the run is over


@pytest.mark.parametrize(
    ("name", "value", "hook"),
    [
        ("num_epochs", "x", "on_step_end"),
        ("max_steps", -1, "on_step_end"),
        ("metadata", {"a": object()}, "on_step_end"),
        ("max_grad_norm", -1.0, "on_setup"),
        ("nonfinite", "STOP", "on_setup"),
    ],
)
def test_what_may_be_set_in_a_run_is_checked_there(
    name: str, value: Any, hook: str
) -> None:
    def sets(self: Callback, trainer: Trainer) -> None:
        setattr(trainer, name, value)

    trainer = make_trainer(None, None, type("Sets", (Callback,), {hook: sets})())
    before = getattr(trainer, name)
    with pytest.raises(ConfigError, match=rf"^{name}\b.* is ") as caught:
        trainer.train()
    assert any("plugin 'Sets'" in note for note in caught.value.__notes__)
    assert getattr(trainer, name) == before


def test_what_is_read_again_may_be_set_in_a_run() -> None:
    class Shortens(Callback):
        def on_epoch_begin(self, trainer: Trainer) -> None:
            trainer.num_epochs = 2

    trainer = make_trainer(None, None, Shortens(), num_epochs=5)
    trainer.train()
    assert trainer.epoch == 2


@pytest.mark.parametrize("length", [None, 4])
def test_a_run_whose_max_steps_a_hook_lowers_below_the_count_ends(
    length: int | None,
) -> None:
    class Lowers(Callback):
        def on_batch_end(self, trainer: Trainer) -> None:
            if trainer.step == 2:
                trainer.max_steps = 1

    class Stream(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            yield from (regression_batches() if length else regression_batches() * 99)

    data = regression_batches() if length else Stream()
    loader: Any = data if length else torch.utils.data.DataLoader(data, batch_size=None)
    trainer = make_trainer(None, loader, Lowers(), num_epochs=3)
    trainer.train()
    assert trainer.step == 3


def test_the_norm_that_is_set_in_on_setup_clips() -> None:
    class Clips(Callback):
        def on_setup(self, trainer: Trainer) -> None:
            trainer.max_grad_norm = 1e-6

    trainer = make_trainer(None, None, Clips(), lr=1.0)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    trainer.train()
    moved = zip(trainer.model.parameters(), before, strict=True)
    assert 0 < max(float((p.detach() - b).abs().max()) for p, b in moved) < 1e-4


def test_the_policy_that_is_set_in_on_setup_skips() -> None:
    class Skips(Callback):
        def on_setup(self, trainer: Trainer) -> None:
            trainer.nonfinite = "skip"

    batches = regression_batches()
    batches[1] = (batches[1][0] * math.nan, batches[1][1])
    trainer = make_trainer(None, batches, Skips(), loss_per="samples")
    trainer.train()
    assert (trainer.step, trainer.update) == (4, 3)


def test_type_checkers_see_an_attribute_that_a_trainer_has_not() -> None:
    """Where a class defines one of these, they take any name for an attribute."""
    tree = ast.parse(inspect.getsource(Trainer))
    defined = {
        getattr(node, "name", None) or getattr(node, "id", None)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    }
    assert not defined & {"__setattr__", "__getattr__", "__getattribute__"}
    assert {"train", "epoch"} <= defined


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_a_trainer_that_is_copied_or_pickled_says_to_build_another(copied: Any) -> None:
    trainer = make_trainer()
    trainer.train()
    with pytest.raises(TypeError, match=r"^a Trainer cannot be copied .* another one"):
        copied(trainer)
    trainer.train()  # as if nobody had tried


def test_what_holds_a_trainer_is_refused_in_its_words() -> None:
    callback = Callback()
    callback.trainer = make_trainer()  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="a Trainer cannot be copied or pickled"):
        copy.deepcopy(callback)
