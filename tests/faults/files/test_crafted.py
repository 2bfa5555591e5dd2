"""C13: a whole file with one wrong value inside is refused, and changes nothing."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from training import Callback, CheckpointError, TrainbusError, Trainer
from training.checkpoint.compare import first_difference
from training.checkpoint.state import capture

exhaustive = pytest.mark.exhaustive
Record = Callable[[str, object], None]
Place = tuple[Any, ...]


class Counts(Callback):
    """Keeps a number, and asks for things."""

    name = "counts"

    def __init__(self) -> None:
        self.seen = 0

    def metric_names(self) -> list[str]:
        return ["val_loss"]

    def on_step_end(self, trainer: Trainer) -> None:
        self.seen += 1
        if trainer.step == 3:
            trainer.request_evaluation("third step")

    def evaluate(self, trainer: Trainer) -> dict[str, float]:
        return {"val_loss": 1.0 / (1 + self.seen)}

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def load_state_dict(self, state: Any) -> None:
        if type(state.get("seen")) is not int:
            raise CheckpointError(f"counts.seen is {state.get('seen')!r}; use a number")
        self.seen = state["seen"]


class Leaves(Callback):
    """Saves inside the second epoch, after five steps."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_step_end(self, trainer: Trainer) -> None:
        if trainer.step == 5:
            trainer.request_checkpoint("five")

    def on_checkpoint(self, trainer: Trainer) -> None:
        if trainer.step == 5:
            trainer.save_checkpoint(self.path)


def make(*callbacks: Any) -> Trainer:
    """Return a trainer of 2 epochs with 3 steps, two groups and a generator."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    groups = [
        {"params": model[0].parameters(), "lr": 0.02},
        {"params": [*model[1].parameters(), *model[2].parameters()]},
    ]
    data = TensorDataset(torch.arange(12.0).view(6, 2), torch.arange(6.0).view(6, 1))
    order = torch.Generator().manual_seed(3)
    return Trainer(
        model,
        DataLoader(data, batch_size=2, shuffle=True, generator=order),
        optimizer=torch.optim.AdamW(groups, lr=0.01),
        loss_fn=nn.functional.mse_loss,
        num_epochs=2,
        seed=0,
        device="cpu",
        callbacks=[Counts(), *callbacks],
        metadata={"note": ["kept"]},
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The state of a real checkpoint."""
    path = tmp_path_factory.mktemp("real") / "a.pt"
    make(Leaves(path)).train()
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state


def places(value: Any, path: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Yield every value with the way to it; of a long list three."""
    if path:
        yield path, value
    if isinstance(value, dict):
        for name in value:
            yield from places(value[name], (*path, name))
    elif isinstance(value, (list, tuple)):
        shown = range(len(value)) if len(value) < 6 else (0, len(value) // 2, -1)
        for index in shown:
            yield from places(value[index], (*path, index))


REMOVED = object()


def wrong_for(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what to put in place of a value, and what that is called."""
    nothing: dict[str, Any] = {
        "None": None,
        "text": "x",
        "True": True,
        "negative": -1,
        "huge": 2**70,
        "half": 1.5,
        "nan": float("nan"),
        "infinite": float("inf"),
        "a list": [],
        "a mapping": {},
        "nested": [[{"x": [1]}]],
        "a tensor": torch.zeros(3),
        "removed": REMOVED,
    }
    yield from nothing.items()
    if isinstance(value, torch.Tensor):
        dense = value.float()
        for dtype in (torch.complex64, torch.int64, torch.bool, torch.float64):
            if dtype is not value.dtype:
                yield str(dtype), dense.to(dtype)
        yield "another shape", torch.zeros(*value.shape, 2, dtype=value.dtype)
        yield "a row short", value.flatten()[:-1]
        yield "on meta", value.to("meta")
        if value.dim():
            yield "sparse", value.to_sparse()
    elif isinstance(value, dict):
        yield "with more", {**value, "more": 1}
        yield "with a number for a name", {**value, 7: 1}
    elif isinstance(value, list):
        yield "with one more", [*value, *value[-1:]]
        yield "with a number more", [*value, 5]


def crafted(state: dict[str, Any], path: Place, value: Any) -> dict[str, Any] | None:
    """Return a copy of ``state`` with ``value`` at ``path``; None inside a tuple."""
    outer = changed = copy.deepcopy(state)
    for part in path[:-1]:
        outer = outer[part]
    if isinstance(outer, tuple):
        return None
    if value is REMOVED:
        del outer[path[-1]]
    else:
        outer[path[-1]] = value
    return changed


def outcome(path: Path, state: dict[str, Any], weights_only: bool) -> tuple[str, str]:
    """Return how loading ended, and what was wrong with that."""
    torch.save(state, path)
    trainer = make()
    before = copy.deepcopy(capture(trainer))
    try:
        trainer.load_checkpoint(path, weights_only=weights_only)
    except CheckpointError as error:
        change = first_difference(before, capture(trainer))
        told = "" if change is None else f"the trainer was changed: {change}"
        if str(path) not in str(error) or "\n" in str(error):
            told = told or f"not one sentence with the file: {error}"
        return "refused", told
    except Exception as error:
        return "failed", f"{type(error).__name__}: {error}"
    try:
        if not weights_only:
            trainer.train()
    except TrainbusError as error:
        return "refused later", "" if "counts" in str(error) else str(error)
    except Exception as error:
        return "failed later", f"{type(error).__name__}: {error}"
    return "loaded", ""


def assert_refused(
    path: Path, state: dict[str, Any] | None, told: str, weights_only: bool = False
) -> None:
    """Loading is refused with the trainer as it was, in a sentence with ``told``."""
    assert state is not None
    assert outcome(path, state, weights_only) == ("refused", "")
    with pytest.raises(CheckpointError, match=told):
        make().load_checkpoint(path, weights_only=weights_only)


def assert_taken(path: Path, state: dict[str, Any] | None) -> None:
    """The control: a run goes on from there to its end."""
    assert state is not None
    assert outcome(path, state, False) == ("loaded", "")


def tried(
    saved: dict[str, Any], path: Path, most: int | None, weights_only: bool = False
) -> tuple[list[str], dict[str, int]]:
    """Try crafted files; return what went wrong, and how often each end was met."""
    cases = [(p, w) for p, value in places(saved) for w in wrong_for(value)]
    chosen = cases if most is None else random.Random(4).sample(cases, most)
    wrong, ends = [], dict.fromkeys(("refused", "loaded"), 0)
    for at, (called, value) in chosen:
        state = crafted(saved, at, value)
        if state is None:
            continue
        end, told = outcome(path, state, weights_only)
        ends[end] = ends.get(end, 0) + 1
        if told:
            wrong.append(f"{'.'.join(map(str, at))} {called}: {end}: {told}")
    return wrong, ends


@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("most", "weights_only"),
    [
        pytest.param(400, False, id="400 files"),
        pytest.param(40, True, id="40 files for their weights"),
        pytest.param(None, False, id="every file", marks=exhaustive),
        pytest.param(None, True, id="every file for its weights", marks=exhaustive),
    ],
)
def test_c13_one_wrong_value_is_refused_with_the_trainer_as_it_was_or_is_harmless(
    saved: dict[str, Any],
    tmp_path: Path,
    most: int | None,
    weights_only: bool,
    record_property: Record,
) -> None:
    wrong, ends = tried(saved, tmp_path / "a.pt", most, weights_only)
    record_property("crafted files", sum(ends.values()))
    assert wrong == []
    assert ends["refused"] > ends["loaded"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda w: w.to(torch.complex64), id="complex"),
        pytest.param(lambda w: w.to(torch.int64), id="whole"),
        pytest.param(lambda w: w.to(torch.bool), id="bool"),
        pytest.param(lambda w: w.to_sparse(), id="sparse"),
        pytest.param(lambda w: w.to("meta"), id="meta"),
        pytest.param(lambda w: w[:, :1], id="another shape"),
        pytest.param(lambda w: w.tolist(), id="a list"),
    ],
)
@pytest.mark.parametrize("weights_only", [False, True])
def test_c13_a_weight_of_another_kind_is_named(
    saved: dict[str, Any], tmp_path: Path, change: Any, weights_only: bool
) -> None:
    state = crafted(saved, ("model", "2.weight"), change(saved["model"]["2.weight"]))
    assert_refused(tmp_path / "a.pt", state, r"2\.weight", weights_only)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_taken(
    saved: dict[str, Any], tmp_path: Path, dtype: torch.dtype
) -> None:
    """The control: a fraction stays one."""
    weight = saved["model"]["2.weight"].to(dtype)
    assert_taken(tmp_path / "a.pt", crafted(saved, ("model", "2.weight"), weight))


@pytest.mark.parametrize("groups", [[5], [2, 4], [["model.0.weight"], 4]], ids=str)
def test_c13_sizes_of_groups_whose_names_are_there_are_refused(
    saved: dict[str, Any], tmp_path: Path, groups: list[Any]
) -> None:
    state = crafted(saved, ("settings", "optimizer.groups"), groups)
    assert_refused(tmp_path / "a.pt", state, r"optimizer\.groups")


def test_a_version_that_was_not_known_is_no_reason_to_refuse(
    saved: dict[str, Any], tmp_path: Path
) -> None:
    state = crafted(saved, ("distributions", "counts"), {"class": "a.B"})
    assert_taken(tmp_path / "a.pt", state)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("exp_avg",), torch.zeros(5)),
        (("exp_avg",), REMOVED),
        (("exp_avg_sq",), torch.zeros(3, 2, dtype=torch.complex64)),
        (("exp_avg",), torch.zeros(3, 2, dtype=torch.float64)),
        (("step",), float("nan")),
        (("step",), torch.tensor(-1.0)),
    ],
    ids=["shape", "removed", "complex", "double", "nan", "negative"],
)
def test_c13_a_state_that_the_optimizer_does_not_keep_is_named(
    saved: dict[str, Any], tmp_path: Path, path: Place, value: Any
) -> None:
    state = crafted(saved, ("optimizer", "state", 0, *path), value)
    assert_refused(tmp_path / "a.pt", state, r"optimizer\.state\[0\]")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("unit",), "elephants"),
        (("live", "elephants"), 1.0),
        (("live", "samples"), -1.0),
        (("scale",), 0.0),
        (("r",), float("nan")),
        (("norm",), -1.0),
        (("num_ignoring",), -1),
        (("cuts",), REMOVED),
        (("is_settled",), "yes"),
        (("has_waited",), "yes"),
        (("undecided",), ["elephants"]),
        (("aside",), {"unit": "labels"}),
        ((), "samples"),
    ],
    ids=lambda each: ".".join(each) or "all" if isinstance(each, tuple) else "",
)
def test_c13_a_unit_of_batches_that_no_run_measures_is_named(
    saved: dict[str, Any], tmp_path: Path, path: Place, value: Any
) -> None:
    state = crafted(saved, ("settings", "loss_per", *path), value)
    assert_refused(tmp_path / "a.pt", state, r"settings\.loss_per")


@pytest.mark.parametrize("weights_only", [False, True])
def test_a_weight_that_is_not_finite_is_named_and_taken(
    saved: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    weights_only: bool,
) -> None:
    """One may look at a run that diverged."""
    weight = torch.full_like(saved["model"]["2.weight"], float("nan"))
    torch.save(crafted(saved, ("model", "2.weight"), weight), tmp_path / "a.pt")
    make().load_checkpoint(tmp_path / "a.pt", weights_only=weights_only)
    assert "NaN or infinite values in the model: 2.weight;" in caplog.text


def test_a_buffer_of_infinities_that_the_model_has_too_is_not_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The control: a mask."""

    def masked() -> Trainer:
        trainer = make()
        trainer.model.register_buffer("mask", torch.full((2, 2), float("-inf")))
        return trainer

    masked().save_checkpoint(tmp_path / "a.pt")
    masked().load_checkpoint(tmp_path / "a.pt")
    assert "infinite" not in caplog.text
