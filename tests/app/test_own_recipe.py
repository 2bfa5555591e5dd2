"""The page about a task, a family and a reader of one's own: what it shows runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., tuple[int, str, str]]

PAGE = Path(__file__).parents[2] / "docs" / "your-own-task.md"


def shown(language: str) -> list[str]:
    """Return the page's blocks of a language."""
    text = PAGE.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


OWN, TEST = shown("python")
(RUN,) = shown("yaml")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    Path("run.yaml").write_text(RUN)


def test_they_train_evaluate_and_predict_from_the_checkpoint_alone(
    command: Command,
) -> None:
    code, out, err = command("run", "run.yaml")
    assert code == 0, err
    assert "accuracy" in out
    (saved,) = map(str, Path("out/checkpoints").glob("checkpoint-*.pt"))
    code, out, err = command("evaluate", "run.yaml", "--checkpoint", saved)
    assert (code, "accuracy" in out) == (0, True), err
    Path("run.yaml").unlink()
    code, out, _ = command("predict", "--checkpoint", saved, "--field", "number=7")
    assert (code, out.strip() in ("odd", "even")) == (0, True)


def test_a_class_in_a_file_does_its_own_task_whatever_it_is_called(
    command: Command,
) -> None:
    unnamed = OWN.replace('    name = "parity"\n', "")
    assert unnamed != OWN
    Path("own.py").write_text(unnamed)
    code, out, err = command("run", "run.yaml")
    assert (code, "accuracy" in out) == (0, True), err


def test_a_family_that_calls_a_task_otherwise_is_told_by_what_the_task_goes(
    command: Command,
) -> None:
    Path("other.py").write_text(OWN.replace('    name = "parity"\n', ""))
    code, _, err = command("plan", "run.yaml", "--set", "task=./other.py:Parity")
    assert code == 2
    assert "does not do the task 'Parity', but parity; those that do" in err
    assert "a class in a file goes by its `name`" in err


def test_they_are_planned_and_their_gradient_is_checked(command: Command) -> None:
    code, out, err = command("plan", "run.yaml")
    assert (code, "40 train, 10 validation" in out) == (0, True), err
    assert command("check", "run.yaml")[0] == 0


@pytest.mark.parametrize(
    ("setting", "measured"),
    [
        pytest.param("[loss]", {"val_loss"}, id="the loss"),
        pytest.param("[accuracy]", {"val_loss", "accuracy"}, id="its own"),
        pytest.param("null", {"val_loss", "accuracy"}, id="all"),
    ],
)
def test_the_tasks_own_metrics_are_chosen_by_name(
    setting: str, measured: set[str], command: Command
) -> None:
    code, _, err = command(
        "run", "run.yaml", "--set", f"plugins.evaluation.metrics={setting}"
    )
    assert code == 0, err
    final = json.loads(Path("out/summary.json").read_text())["final"]
    assert {*final} & {"val_loss", "accuracy", "exact_match", "f1"} == measured


@pytest.mark.parametrize(
    ("metrics", "monitor", "told"),
    [
        pytest.param("null", "right", "none found", id="what the task measures"),
        pytest.param("[right]", "right", "none found", id="what is chosen"),
        pytest.param("[loss]", "right", "but this run reports", id="what is left out"),
        pytest.param(
            "null", "rigth", "did you mean 'right'", id="what nobody measures"
        ),
    ],
)
def test_the_plan_knows_what_will_be_measured(
    metrics: str, monitor: str, told: str, command: Command
) -> None:
    Path("own.py").write_text(OWN.replace('"accuracy"', '"right"'))
    code, out, err = command(
        *("plan", "run.yaml", "-p", "early_stopping", "--set", "training.num_epochs=9"),
        *("--set", f"plugins.evaluation.metrics={metrics}"),
        *("--set", f"plugins.early_stopping.monitor={monitor}"),
    )
    assert code == 0, err
    assert told in out


def test_what_no_other_program_reads_is_written_as_weights(command: Command) -> None:
    assert command("run", "run.yaml")[0] == 0
    (saved,) = map(str, Path("out/checkpoints").glob("checkpoint-*.pt"))
    code, _, err = command("export", saved, "folder")
    assert code == 4
    assert "no other program reads" in err
    assert not Path("folder").exists()
    assert command("export", saved, "weights.safetensors")[0] == 0


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        pytest.param("task=Parity", "task 'Parity' is not installed", id="no task"),
        pytest.param(
            "task=./own.py:Net", "it lacks fields, target, score", id="a net"
        ),
        pytest.param("model.type=blib", "did you mean 'blip'", id="no family"),
        pytest.param(
            "model.type=blip", "not do the task 'parity', but vqa; those", id="vqa's"
        ),
        pytest.param("model.widht=3", "model.widht is no option", id="no option"),
        pytest.param(
            "model.build.widht=3", "is no option (did you mean 'width'",
            id="no option of build",
        ),
        pytest.param("model.build.width=x", "model.build.width", id="of another type"),
        pytest.param(
            "data.train={jsonll: {path: a}}", "did you mean 'jsonl'", id="no reader"
        ),
        pytest.param(
            "data.train={a: {}, b: {}}", "data.train is", id="two readers for a split"
        ),
        pytest.param(
            "data.train={'./own.py:Numbers': {cont: 3}}", "did you mean 'count'",
            id="no option of a reader",
        ),
        pytest.param(
            "plugins.evaluation.metrics=[loss, acuracy]",
            "metrics has 'acuracy' (did you mean 'accuracy'?); with the task './own",
            id="no metric",
        ),
        pytest.param(
            "plugins.evaluation.metrics=[exact_match]",
            "choose from: loss, accuracy", id="another task's metric",
        ),
        pytest.param(
            "data.fields={nmber: n}", "data.fields.nmber is no field of the task (did",
            id="no field",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_with_its_place_and_the_nearest_name(
    setting: str, words: str, command: Command
) -> None:
    code, _, err = command("run", "run.yaml", "--set", setting)
    assert code == 2
    assert words in err
    assert "Traceback" not in err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        pytest.param([], "number is missing; add: --field number=...", id="missing"),
        pytest.param(["nmber=3"], "did you mean 'number'", id="misspelt"),
        pytest.param(["number"], "write --field NAME=VALUE", id="no value"),
        pytest.param(["number=1", "number=2"], "is given twice", id="twice"),
    ],
)
def test_a_wrong_field_is_refused(
    fields: list[str], words: str, command: Command
) -> None:
    assert command("run", "run.yaml")[0] == 0
    (saved,) = map(str, Path("out/checkpoints").glob("checkpoint-*.pt"))
    given = [part for field in fields for part in ("--field", field)]
    code, out, err = command("predict", "--checkpoint", saved, *given)
    assert (code, out) == (2, "")
    assert words in err


def test_what_a_checkpoint_says_names_task_family_and_options(command: Command) -> None:
    from training.checkpoint_io import read_checkpoint

    assert command("run", "run.yaml")[0] == 0
    (saved,) = Path("out/checkpoints").glob("checkpoint-*.pt")
    told = read_checkpoint(saved)["metadata"]["model"]
    json.dumps(told)
    assert told["format"] == 2
    assert told["task"] == {"name": "./own.py:Parity", "options": {}}
    assert told["family"]["name"] == "./own.py:Parity"
    assert told["model"] == {"width": 4, "labels": ["even", "odd"]}


def test_a_class_that_is_both_is_made_once_of_a_checkpoint_too() -> None:
    from training.app.building.saved_model import SavedModel

    taking = "    def __init__(self, base: int = 10):\n        self.base = base\n\n"
    Path("own.py").write_text(OWN.replace("    def score", f"{taking}    def score", 1))
    said = {"name": "./own.py:Parity", "options": {"base": 2}}
    told = {"format": 2, "task": said, "family": {**said, "options": {}}}
    task, family = SavedModel("a.pt", told).parts()
    assert family is task
    assert family.base == 2
    task, family = SavedModel("a.pt", {**told, "family": said}).parts()
    assert family is not task
    assert family.task is task


def test_a_field_in_place_of_a_default_of_build_counts_and_is_recorded(
    command: Command,
) -> None:
    from training.checkpoint_io import read_checkpoint

    own = OWN.replace("width: int = 8", "width: int = Field(8)")
    Path("own.py").write_text(f"from pydantic import Field\n{own}")
    Path("run.yaml").write_text(RUN.replace("width: 4", ""))
    assert command("run", "run.yaml")[0] == 0
    (saved,) = Path("out/checkpoints").glob("checkpoint-*.pt")
    told = read_checkpoint(saved)
    assert told["metadata"]["model"]["model"]["width"] == 8
    assert told["settings"]["model.build.width"] == 8


def test_the_example_fits_in_a_hundred_lines() -> None:
    assert len([line for line in OWN.splitlines() if line.strip()]) <= 100


def test_the_confidence_that_the_page_shows_conforms_and_stands_beside_predictions(
    command: Command,
) -> None:
    (sure,) = shown("text")
    own = OWN.replace("    def describe(", f"{sure}\n    def describe(", 1)
    Path("own.py").write_text(own)
    require_test_passes()
    assert command("run", "run.yaml")[0] == 0
    (saved,) = map(str, Path("out/checkpoints").glob("checkpoint-*.pt"))
    _, out, err = command("predict", "--checkpoint", saved, "--field", "number=7")
    assert out.strip() in ("odd", "even")
    assert re.fullmatch(r"trainbus: probability [01][.]\d+\n", err)


def test_the_test_that_the_page_shows_passes() -> None:
    require_test_passes()


def require_test_passes() -> None:
    """Run the page's test beside what ``own.py`` holds now."""
    Path("test_own.py").write_text(TEST)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_a_file_of_rows_is_answered_some_with_the_target_some_without(
    command: Command,
) -> None:
    assert command("run", "run.yaml")[0] == 0
    (saved,) = map(str, Path("out/checkpoints").glob("checkpoint-*.pt"))
    Path("ask.csv").write_text("number,odd\n07,odd\n12,\n3,neither\n")
    given = ("predict", "--checkpoint", saved, "--rows", "ask.csv", "--out")
    code, _, err = command(*given, "said.jsonl")
    assert code == 0, err
    said = [json.loads(line) for line in Path("said.jsonl").read_text().splitlines()]
    assert [row["number"] for row in said] == ["07", "12", "3"]
    assert [row.get("odd") for row in said] == ["odd", None, "neither"]
    assert {row["prediction"] for row in said} <= {"odd", "even"}
    code, _, err = command(
        *given[:4], "{./own.py:Numbers: {count: 30}}", "--out", "n.jsonl"
    )
    assert code == 0, err
    assert len(Path("n.jsonl").read_text().splitlines()) == 30


def test_the_loss_of_a_split_is_over_its_labelled_rows_however_they_are_batched(
    command: Command,
) -> None:
    assert command("run", "run.yaml")[0] == 0
    (saved,) = map(str, Path("out/checkpoints").glob("checkpoint-*.pt"))
    labelled = ["7,odd", "12,even", "8,even", "31,odd"]
    rows = ["3,", labelled[0], "4,neither", *labelled[1:3], "5,", labelled[3]]
    Path("some.csv").write_text("\n".join(["number,odd", *rows]))
    Path("all.csv").write_text("\n".join(["number,odd", *labelled]))

    def loss_of(name: str, size: int) -> str:
        code, out, err = command(
            *("evaluate", "run.yaml", "--checkpoint", saved, "--split", "test"),
            *("--set", f"data.test={name}", "--set", f"data.eval_batch_size={size}"),
        )
        assert code == 0, err
        (line,) = re.findall(r"^val_loss.*$", out, re.MULTILINE)
        return line

    assert {loss_of("some.csv", n) for n in (1, 2, 3, 7)} == {loss_of("all.csv", 4)}


def test_a_loss_of_no_row_is_left_out_and_that_is_told(command: Command) -> None:
    assert command("run", "run.yaml")[0] == 0
    (saved,) = map(str, Path("out/checkpoints").glob("checkpoint-*.pt"))
    Path("new.csv").write_text("number,odd\n3,neither\n4,neither\n")
    code, out, err = command(
        *("evaluate", "run.yaml", "--checkpoint", saved, "--split", "test"),
        *("--set", "data.test=new.csv"),
    )
    assert code == 0, err
    assert "left out: none of these rows is part of the model's loss" in out
    assert not re.search(r"^val_loss  ", out, re.MULTILINE)
    assert "accuracy" in out


@pytest.mark.parametrize(
    ("was", "now", "setting"),
    [
        pytest.param(
            "n = self.start", "n = 1 + self.start", "dataset", id="other rows"
        ),
        pytest.param("str(count)", '"v2"', "dataset_source", id="another fingerprint"),
    ],
)
def test_a_run_is_resumed_on_other_rows_by_the_consent_that_the_page_names(
    command: Command, was: str, now: str, setting: str
) -> None:
    assert f"(`{setting}`)" in PAGE.read_text(encoding="utf-8")
    assert command("run", "run.yaml")[0] == 0
    code = Path("own.py").read_text().replace(was, now)
    Path("own.py").write_text(code)
    (saved,) = map(str, Path("out/checkpoints").glob("checkpoint-*.pt"))
    ended, _, err = command("run", "run.yaml", "--resume", saved)
    assert (ended, f"(--allow-change {setting})" in err) == (4, True), err
    ended, _, err = command(
        "run", "run.yaml", "--resume", saved, "--allow-change", setting
    )
    assert ended == 0, err


def test_a_task_without_a_form_for_servers_is_refused_before_any_row_is_answered(
    command: Command,
) -> None:
    assert command("run", "run.yaml")[0] == 0
    (saved,) = map(str, Path("out/checkpoints").glob("checkpoint-*.pt"))
    for given in (
        ("evaluate", "run.yaml", "--checkpoint", saved, "--predictions", "p.json"),
        ("predict", "--checkpoint", saved, "--rows", "no.csv", "--out", "p.json"),
    ):
        code, out, err = command(*given)
        assert (code, out) == (2, "")
        assert "the task Parity has no form for servers" in err
        assert not Path("p.json").exists()


def test_a_family_that_does_not_answer_every_row_is_named(command: Command) -> None:
    assert command("run", "run.yaml")[0] == 0
    (saved,) = map(str, Path("out/checkpoints").glob("checkpoint-*.pt"))
    code, all_of_them = Path("own.py").read_text(), '["logits"], processor)'
    assert all_of_them in code
    Path("own.py").write_text(code.replace(all_of_them, f"{all_of_them}[1:]"))
    Path("ask.csv").write_text("number\n7\n12\n")
    given = ("predict", "--checkpoint", saved, "--rows", "ask.csv", "--out", "a.jsonl")
    ended, _, err = command(*given)
    assert ended == 2
    assert "Parity.predict returned 1 value for a batch of 2 rows" in err
    assert not Path("a.jsonl").exists()
