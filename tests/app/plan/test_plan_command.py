"""``trainbus plan``: what a run would do, found without doing or writing any of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., tuple[int, str, str]]

CONFIG = """\
data: {train: rows/train.jsonl, validation: rows/val.jsonl, batch_size: 1}
model: {build: {}}
training:
  num_epochs: 4
  gradient_accumulation_steps: 3
  save_dir: out
  optimizer: {lr: 0.01}
plugins:
  - evaluation
  - checkpointing: {save_top_k: 2}
  - early_stopping: {patience: 2}
  - lr_scheduling: {type: linear, warmup: 2}
  - csv
"""
PLAN = """\
  rows         4 train, 4 validation
  updates      8 in all, if none is skipped
               4 epochs of 4 batches: 2 steps of 3 batches, the last one of 1, \
stepped with its own weight
  evaluations  4: after steps 2, 4, 6, 8
  stop         early_stopping (val_loss): at the earliest after step 6
  rate         update  linear rate
                    1     0.003333  first
                    2     0.006667  25% of the run
                    3         0.01  warmup done
                    4     0.008333  50% of the run
                    6        0.005  75% of the run
                    8     0.001667  last
  files        out/config.yaml
               out/history.json
               out/summary.json
               out/starts.json
               out/checkpoints/checkpoint-{epoch:03d}-{val_loss:.4f}.pt: 2 to 4 written
               out/checkpoints/last-epoch{epoch:03d}-step{step}.pt: 0 to 2 written
               out/training_log.csv
  deleted      checkpointing: 1 to 2 of its own checkpoints; at most 4 exist at a time

conflicts: none found
"""


@pytest.fixture
def planned(workplace: Path) -> Path:
    (workplace / "run.yaml").write_text(CONFIG)
    return workplace


def files_of(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if "__pycache__" not in path.parts}


def test_the_plan_reads_like_this_and_writes_nothing(
    planned: Path, command: Command
) -> None:
    before = files_of(planned)
    code, out, err = command("plan", "run.yaml")
    assert (code, err) == (0, "")
    head, body = out.split("\n", 1)
    assert head.endswith("plan of vqa; nothing is run")
    assert body == PLAN
    assert files_of(planned) == before


def test_rows_that_all_have_one_label_are_a_conflict(
    planned: Path, command: Command
) -> None:
    rows = planned / "rows/train.jsonl"
    rows.write_text((rows.read_text().splitlines()[0] + "\n") * 4)
    code, out, _ = command("plan", "run.yaml")
    assert code == 0
    assert "\nconflicts\n  every training row has the same answer, 'red': there" in out


def test_synthetic_pictures_are_counted_without_being_kept(
    planned: Path, command: Command
) -> None:
    (planned / "run.yaml").write_text(
        "data: {synthetic: {num_train_images: 5, num_validation_images: 3}, "
        "batch_size: 8}\nmodel: {build: {}}\ntraining: {save_dir: out}\n"
    )
    before = files_of(planned)
    code, out, _ = command("plan", "run.yaml")
    assert code == 0
    assert "20 train, 12 validation" in out
    assert files_of(planned) == before


def test_what_is_there_already_is_said_to_be_kept(
    planned: Path, command: Command
) -> None:
    (planned / "out").mkdir()
    (planned / "out/summary.json").write_text("{}")
    _, out, _ = command("plan", "run.yaml")
    assert "out/summary.json, which exists: kept aside" in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        pytest.param(
            ["plugins.early_stopping.patience=4"],
            "early_stopping.patience is 4, but the run has only 4 checks of val_loss",
            id="patience longer than the run",
        ),
        pytest.param(
            ["plugins.early_stopping.min_epochs=9"],
            "early_stopping.min_epochs is 9: longer than the run",
            id="min_epochs longer than the run",
        ),
        pytest.param(
            [
                "plugins.evaluation.every_n_epochs=2",
                "plugins.checkpointing.save_best_only=false",
            ],
            "checkpointing saves 2 times between evaluations, first after step 2",
            id="saves between evaluations",
        ),
        pytest.param(
            [
                "plugins.evaluation.every_n_epochs=3",
                "plugins.checkpointing.save_frequency=5",
                "plugins.checkpointing.frequency_applies_to_best=true",
            ],
            "checkpointing never saves when val_loss is fresh",
            id="saves that never meet an evaluation",
        ),
        pytest.param(
            ["plugins.lr_scheduling.warmup=8"],
            "lr_scheduling.warmup is 8 updates, but the run has 8",
            id="warmup as long as the run",
        ),
        pytest.param(
            [
                "plugins.lr_scheduling.type=step",
                "plugins.lr_scheduling.step_size=4",
                "plugins.lr_scheduling.interval=epoch",
            ],
            "lr_scheduling.step_size is 4 epochs, but the run has 4",
            id="a drop after the run",
        ),
        pytest.param(
            [
                "plugins.lr_scheduling.type=plateau",
                "plugins.lr_scheduling.warmup=0",
                "plugins.lr_scheduling.patience=3",
            ],
            "lr_scheduling.patience is 3, but the run has only 4 checks",
            id="a plateau more patient than the run",
        ),
        pytest.param(
            ["training.max_steps=9"],
            "training.max_steps is 9, but num_epochs 4 ends the run after 8 steps",
            id="max_steps that never binds",
        ),
        pytest.param(
            ["plugins.evaluation.every_n_steps=9"],
            "evaluation.every_n_steps is 9, but the run has 8 steps",
            id="a cadence longer than the run",
        ),
        pytest.param(
            ["training.gradient_accumulation_steps=5"],
            "every window is a partial one",
            id="windows longer than an epoch",
        ),
        pytest.param(
            ["data.validation=null"],
            "evaluation is enabled, but data.validation names no rows",
            id="evaluation without rows",
        ),
    ],
)
def test_a_conflict_is_named(
    planned: Path, command: Command, arguments: list[str], told: str
) -> None:
    sets = [word for each in arguments for word in ("--set", each)]
    code, out, err = command("plan", "run.yaml", *sets)
    assert (code, err) == (0, "")
    assert told in out.partition("\nconflicts\n")[2]


def test_a_curriculum_that_leaves_rows_out_for_ever_is_a_conflict_and_warned_of(
    planned: Path, command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    chosen = "data.curriculum={epochs: 3, field: answer, values: [red, blue]}"
    sets = ["--set", chosen, "--set", "plugins=[evaluation]"]
    beginning = "2 alone in epochs 1 to 3: those of answer red, blue"
    told = "the run has 3 epochs: 2 of 4 training rows are never trained on"
    for length in ("num_epochs=3", "max_steps=6"):
        short = [*sets, "--set", f"training.{length}"]
        _, out, _ = command("plan", "run.yaml", *short)
        assert told in out.partition("\nconflicts\n")[2]
        caplog.clear()
        _, out, _ = command("run", "run.yaml", *short)
        assert beginning in out
        assert caplog.text.count(told) == 1
    for length in ("num_epochs=4", "max_steps=7"):
        _, out, _ = command("plan", "run.yaml", *sets, "--set", f"training.{length}")
        assert beginning in out
        assert "conflicts: none found" in out


@pytest.mark.parametrize(
    ("changes", "epochs", "steps"),
    [
        pytest.param(["num_epochs=null", "max_steps=9"], 5, 9, id="max_steps alone"),
        pytest.param(["num_epochs=null"], 3, 6, id="neither"),
        pytest.param(["num_epochs=2", "max_steps=9"], 2, 4, id="the fewer of both"),
    ],
)
def test_a_run_is_as_long_as_is_planned(
    changes: list[str],
    epochs: int,
    steps: int,
    planned: Path,
    command: Command,
) -> None:
    sets = [word for each in changes for word in ("--set", f"training.{each}")]
    sets += ["--set", "plugins.lr_scheduling.warmup=0"]
    _, out, _ = command("plan", "run.yaml", *sets)
    assert f"{epochs} epochs of 4 batches" in out
    code, _, err = command("run", "run.yaml", *sets)
    assert code == 0, err
    (summary,) = planned.rglob("summary.json")
    assert json.loads(summary.read_text())["steps"] == steps


def test_without_validation_rows_no_check_is_counted(
    planned: Path, command: Command
) -> None:
    sets = ["data.validation=null", "plugins.early_stopping.patience=4"]
    _, out, _ = command("plan", "run.yaml", "--set", sets[0], "--set", sets[1])
    assert "names no rows" in out
    assert "of val_loss: it can never stop" not in out


@pytest.mark.parametrize(
    ("name", "is_measured"),
    [
        pytest.param("train_loss", True, id="every run's"),
        pytest.param("exact_match", True, id="the task's"),
        pytest.param("accuracy/other", True, id="of a kind"),
        pytest.param("val_los", False, id="misspelt"),
        pytest.param("f1", False, id="another task's"),
        pytest.param("accuracy/yes_no", False, id="of a kind that no row has"),
        pytest.param("exact_match/other", False, id="not told by kind"),
        pytest.param("val_loss/clean", False, id="of a loader that is not there"),
    ],
)
def test_watching_what_the_run_would_refuse_is_a_conflict(
    name: str, is_measured: bool, planned: Path, command: Command
) -> None:
    change = ("run.yaml", "--set", f"plugins.early_stopping.monitor={name}")
    _, out, _ = command("plan", *change)
    found = "early_stopping.monitor is" in out.partition("\nconflicts\n")[2]
    code, _, err = command("run", *change, "--set", "training.num_epochs=1")
    assert (found, code != 0) == (not is_measured, not is_measured), err
    assert "(did you mean 'val_loss'?)" in out or name != "val_los"


def test_watching_a_metric_without_evaluation_is_a_conflict(
    planned: Path, command: Command
) -> None:
    _, out, _ = command("plan", "run.yaml", "-p", "no:evaluation")
    assert "early_stopping.monitor is 'val_loss', but no plugin evaluates" in out
    assert "checkpointing.monitor is 'val_loss', but no plugin evaluates" in out
    assert "lr_scheduling" not in out.partition("\nconflicts\n")[2]


OWN = """from training import Callback, hookimpl
class Memory(Callback):
    reads_validation = False
    def evaluate(self):
        return {"megabytes": 1.0}
class Around(Callback):
    @hookimpl(wrapper=True)
    def evaluate(self):
        yield
class Batches(Callback):
    produces = ("batches",)
    def evaluate(self, trainer):
        return {"batches": float(sum(1 for _ in trainer.val_dataloader))}
"""


@pytest.mark.parametrize(
    ("enabled", "is_measured"),
    [
        pytest.param([], True, id="by default"),
        pytest.param(["-p", "no:evaluation"], False, id="switched off"),
        pytest.param(
            ["-p", "no:evaluation", "-p", "./own.py:Memory"],
            False,
            id="other metrics alone",
        ),
        pytest.param(
            ["-p", "no:evaluation", "-p", "./own.py:Around"],
            False,
            id="surrounded alone",
        ),
        pytest.param(
            ["-p", "no:evaluation", "-p", "./own.py:Batches"], True, id="one's own"
        ),
    ],
)
def test_validation_rows_that_nobody_measures_are_told_of(
    enabled: list[str],
    is_measured: bool,
    planned: Path,
    command: Command,
    caplog: pytest.LogCaptureFixture,
) -> None:
    changes = ["run.yaml", "-p", "no:early_stopping", "--set"]
    changes += ["plugins.checkpointing.monitor=null"]
    changes += enabled
    Path("own.py").write_text(OWN)
    told = "there are validation rows, but no plugin measures them"
    _, out, _ = command("plan", *changes)
    assert (told in out) is not is_measured
    code, _, err = command("run", *changes, "--set", "training.num_epochs=1")
    assert code == 0, err
    assert (told in caplog.text) is not is_measured


def test_an_evaluator_of_ones_own_in_a_configuration_gets_its_rows(
    planned: Path, command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    Path("own.py").write_text(OWN)
    plugins = "plugins=[csv, ./own.py:Batches]"
    code, _, err = command("run", "run.yaml", "--set", plugins)
    assert code == 0, err
    history = json.loads(next(Path().rglob("history.json")).read_text())
    assert history[-1]["batches"] == 4.0
    assert "val_" not in f"{history}{caplog.text}", "it says itself what is on"


def test_max_steps_inside_an_epoch_is_planned(planned: Path, command: Command) -> None:
    _, out, _ = command("plan", "run.yaml", "--set", "training.max_steps=5")
    assert "5 in all, if none is skipped" in out
    assert "max_steps ends it 1 step into epoch 3" in out
    assert "evaluations  3: after steps 2, 4, 5" in out


@pytest.mark.parametrize(
    ("value", "told"),
    [
        pytest.param("data.train=rows/none.jsonl", "rows/none.jsonl", id="no file"),
        pytest.param("plugins.csv.filenam=1", "filenam", id="misspelt option"),
    ],
)
def test_mistakes_are_those_of_a_run(
    planned: Path, command: Command, value: str, told: str
) -> None:
    code, out, err = command("plan", "run.yaml", "--set", value)
    assert code in (2, 3)
    assert told in err
    assert out == ""


def test_no_batch_at_all_is_refused(planned: Path, command: Command) -> None:
    code, _, err = command(
        *("plan", "run.yaml", "--set", "data.batch_size=8"),
        *("--set", "data.drop_last=true"),
    )
    assert code == 2
    assert "4 training rows make no batch of 8" in err
