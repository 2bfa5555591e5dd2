"""Two plugins that keep checkpoints, each in a folder of its own."""

from pathlib import Path

import pytest
import torch
from torch import nn

from trainbus_checkpointing import ModelCheckpointCallback
from trainbus_checkpointing.manifest import Manifest
from trainbus_checkpointing.retention import Entry
from training import Callback, Trainer
from training.plugin import MetricValue


def trainer(folder: Path, num_epochs: int) -> Trainer:
    """Return one with two keepers, whose model gets worse by the epoch."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    x = torch.ones(2, 1)
    kept = {"monitor": "train_loss", "save_last": False}
    return Trainer(
        model,
        [(x, x)] * 2,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1, maximize=True),
        loss_fn=nn.functional.mse_loss,
        num_epochs=num_epochs,
        plugins=[
            ("best", ModelCheckpointCallback(save_dir=folder / "best", **kept)),
            (
                "latest",
                ModelCheckpointCallback(save_dir=folder / "latest", monitor=None),
            ),
        ],
        save_dir=folder,
        device="cpu",
        seed=0,
    )


def test_auto_goes_on_from_the_file_that_has_come_furthest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer(tmp_path, num_epochs=3).train()
    assert [file.name[:14] for file in (tmp_path / "best").glob("*.pt")] == [
        "checkpoint-001"
    ]
    again = trainer(tmp_path, num_epochs=4)
    again.train(resume="auto")
    assert Path(str(again.resumed_from)).parent.name == "latest"
    assert len(again.history) == 4


class Measures(Callback):
    """Measures ``a``, which falls, and ``b``, whose best is that of one epoch."""

    def __init__(self, best_of_b: int) -> None:
        self.best_of_b = best_of_b

    def metric_names(self) -> list[str]:
        return ["a", "b"]

    def evaluate(self, trainer: Trainer) -> dict[str, float]:
        is_best = trainer.epoch == self.best_of_b
        return {"a": 1 / trainer.epoch, "b": 0.125 if is_best else 0.5}


class SavesItself(Callback):
    """Saves at each boundary, before those that keep checkpoints."""

    def on_checkpoint(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(Path(trainer.save_dir) / f"own-{trainer.epoch}.pt")


class Dies(Callback):
    """Raises as the epoch after ``epoch`` begins."""

    def __init__(self, epoch: int | None) -> None:
        self.epoch = epoch

    def on_epoch_begin(self, trainer: Trainer) -> None:
        if trainer.epoch == self.epoch:
            raise RuntimeError("died")


def two_monitors(folder: Path, best: int, dies_after: int | None = None) -> Trainer:
    """Return one whose first keeper watches ``a`` and whose second watches ``b``."""
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    x = torch.ones(2, 1)
    first = ModelCheckpointCallback(folder / "by_a", monitor="a")
    second = ModelCheckpointCallback(folder / "by_b", monitor="b")
    return Trainer(
        model,
        [(x, x)] * 2,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss_fn=nn.functional.mse_loss,
        num_epochs=4,
        plugins=[
            ("measures", Measures(best)),
            ("saves", SavesItself()),
            ("first", first),
            ("second", second),
            ("dies", Dies(dies_after)),
        ],
        save_dir=folder,
        device="cpu",
        seed=0,
    )


@pytest.mark.parametrize("best", [1, 2], ids=["first save", "later save"])
@pytest.mark.parametrize(
    "source", ["auto", "by_a/checkpoint-00{}-{:.4f}.pt", "own-{}.pt"]
)
def test_a_best_found_where_the_run_died_is_known_whoever_wrote_the_file_resumed(
    tmp_path: Path, source: str, best: int
) -> None:
    with pytest.raises(RuntimeError, match="died"):
        two_monitors(tmp_path, best, dies_after=best).train()
    if source != "auto":
        source = str(tmp_path / source.format(best, 1 / best))
    again = two_monitors(tmp_path, best)
    again.train(resume=source)
    kept = {name: again.plugins[name].best_path for name in ("first", "second")}
    assert kept == {
        "first": tmp_path / "by_a" / "checkpoint-004-0.2500.pt",
        "second": tmp_path / "by_b" / f"checkpoint-00{best}-0.1250.pt",
    }
    listed = Manifest.read(tmp_path / "by_b")
    assert listed.entries == listed.current  # none is of another run


@pytest.mark.parametrize(
    ("value", "step", "position", "run"),
    [
        pytest.param(0.25, 6, (3, 6), 2, id="the same value there"),
        pytest.param(0.25, 6, (3, 7), 2, id="and a boundary later"),
        pytest.param(0.5, 2, (3, 6), 1, id="of the run before"),
        pytest.param(0.75, 6, (3, 6), None, id="another value"),
        pytest.param(0.25, 4, (3, 6), None, id="at another step"),
        pytest.param(0.25, 6, (2, 5), None, id="of a later state"),
        pytest.param(float("nan"), 8, (4, 8), None, id="no number"),
    ],
)
def test_a_run_whose_named_files_are_gone_is_known_by_what_it_measured(
    tmp_path: Path, value: float, step: int, position: tuple[int, int], run: int | None
) -> None:
    listed = [
        Entry("a.pt", 2, 1, 2, True, "epoch_end", run=1, metrics={"b": 0.5, "c": 1.0}),
        Entry("b.pt", 6, 3, 6, True, "epoch_end", run=2, metrics={"b": 0.25}),
        Entry("c.pt", 8, 4, 8, True, "epoch_end", run=3, metrics={"b": None}),
    ]
    latest = {"b": MetricValue(value, step, 0, "test")}
    manifest = Manifest(tmp_path, listed, 3)
    assert manifest.run_resumed([("gone.pt", 4)], position, latest) == run
    assert manifest.run_resumed([("a.pt", 2)], position, latest) == 1  # named: first
