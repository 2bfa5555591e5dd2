"""The commands do what their help says, and what they print works as printed."""

from __future__ import annotations

import json
import logging
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.blip.modeling_blip_text import BlipTextLMHeadModel

from training.messages.tables import count, table

Command = Callable[..., tuple[int, str, str]]


def printed_command(text: str, word: str) -> list[str]:
    """Return the arguments of the printed line ``trainbus WORD ...``."""
    (line,) = [each for each in text.splitlines() if f"trainbus {word} " in each]
    return shlex.split(line)[1:]


def test_a_run_prints_what_trains_and_what_came_of_it(
    workplace: Path, command: Command
) -> None:
    code, out, _ = command("run", "run.yaml")
    assert code == 0
    assert "a fresh blip" in out
    assert "4 train, 4 validation" in out
    assert "1 epoch of 2 steps, 2 in all" in out
    assert "question only 0.250, most frequent 0.250" in out
    assert "stopped   num_epochs=1 reached (trainer)" in out
    assert "accuracy/other" in out
    out.encode("ascii")


def test_the_header_fits_a_narrow_terminal(
    workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    _, out, _ = command("run", "run.yaml")
    lines = out.split("folder")[0].splitlines()
    assert len(lines) > 6
    assert max(map(len, lines)) < 40


def test_the_printed_commands_work_as_printed(
    workplace: Path, command: Command
) -> None:
    _, out, _ = command("run", "run.yaml")
    code, answer, _ = command(*printed_command(out, "predict"))
    assert code == 0
    assert len(answer.splitlines()) == 1
    code, report, _ = command(*printed_command(out, "evaluate"))
    assert code == 0
    assert "4 validation rows" in report


@pytest.mark.parametrize("others", ["", ", test: rows/val.jsonl"])
def test_without_validation_rows_they_are_of_those_that_the_run_has(
    workplace: Path, command: Command, others: str
) -> None:
    text = (workplace / "run.yaml").read_text().partition("plugins:")[0]
    text = text.replace(", validation: rows/val.jsonl", others)
    text += "plugins: [checkpointing: {monitor: train_loss}]\n"
    (workplace / "run.yaml").write_text(text)
    code, out, told = command("run", "run.yaml")
    assert code == 0, told
    assert command(*printed_command(out, "predict"))[0] == 0
    if not others:
        assert "trainbus evaluate" not in out
        return
    code, report, _ = command(*printed_command(out, "evaluate"))
    assert code == 0
    assert "4 test rows" in report


def test_a_warning_reads_as_a_sentence_of_the_command_line(workplace: Path) -> None:
    text = (
        "import logging, sys; from training.app.cli import command_line as c;"
        "c._prepare_surroundings(); logging.getLogger('training').warning('a word')"
    )
    ran = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert ran.stderr == "trainbus: warning: a word\n"


def test_a_command_called_from_python_leaves_the_names_of_levels(
    workplace: Path, command: Command
) -> None:
    command("plugins", "list")
    names = [logging.getLevelName(each) for each in (logging.WARNING, logging.ERROR)]
    assert names == ["WARNING", "ERROR"]


def test_evaluating_measures_the_metrics_that_are_asked_for_and_refuses_others(
    workplace: Path, command: Command
) -> None:
    _, out, _ = command("run", "run.yaml")
    judge = *printed_command(out, "evaluate"), "--set"
    listed = "plugins.evaluation.metrics="
    _, report, _ = command(*judge, f"{listed}[loss, exact_match]")
    assert ("exact_match" in report, "accuracy" in report) == (True, False)
    _, report, _ = command(*judge, f"{listed}[loss]")
    assert "4 validation rows\nmetric" in report
    assert ("val_loss" in report, "exact_match" in report) == (True, False)
    asked = f"{listed}[loss]", "--predictions", "p.jsonl"
    _, report, _ = command(*judge, *asked)
    assert "exact_match" not in report
    assert len((workplace / "p.jsonl").read_text().splitlines()) == 4
    for wrong in ("[acuracy]", "[f1]", "[]", "accuracy"):
        planned = command("plan", "run.yaml", "--set", listed + wrong)
        code, out, err = command(*judge, listed + wrong)
        assert (code, out, err) == planned
        assert "plugins.evaluation.metrics" in err


def test_evaluating_a_checkpoint_gives_what_training_measured(
    workplace: Path, command: Command
) -> None:
    _, out, _ = command("run", "run.yaml")
    command(*printed_command(out, "evaluate"), "--predictions", "p.jsonl")
    summary = json.loads((workplace / "out/summary.json").read_text())
    lines = (workplace / "p.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    accuracy = sum(record["accuracy"] for record in records) / len(records)
    assert accuracy == summary["best"][0]["value"]
    assert [record["answer"] for record in records] == ["red", "green", "blue", "white"]


@pytest.fixture
def generations(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Return a list that grows by how each batch of answers is generated."""
    seen: list[tuple[Any, ...]] = []
    generate = BlipTextLMHeadModel.generate

    def noting(self: Any, *arguments: Any, **options: Any) -> Any:
        precision = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
        limits = options["max_new_tokens"], options["num_beams"]
        seen.append((*precision, *limits, torch.get_float32_matmul_precision()))
        return generate(self, *arguments, **options)

    monkeypatch.setattr(BlipTextLMHeadModel, "generate", noting)
    return seen


def write_plugins(workplace: Path, evaluation: str) -> None:
    config = workplace / "run.yaml"
    text = config.read_text().partition("plugins:")[0]
    config.write_text(f"{text}plugins: [{evaluation}, checkpointing]\n")


def test_answers_are_generated_alike_in_a_run_and_by_evaluate(
    workplace: Path, command: Command, generations: list[Any]
) -> None:
    write_plugins(workplace, "evaluation: {max_new_tokens: 3, num_beams: 2}")
    options = ["--set", "training.precision=bf16", "--set", "training.tf32=true"]
    code, _, told = command("run", "run.yaml", *options)
    assert code == 0, told
    in_run = set(generations)
    generations.clear()
    checkpoint = str(next(Path("out").rglob("*.pt")))
    code, _, told = command(
        "evaluate", "run.yaml", "--checkpoint", checkpoint, *options
    )
    assert code == 0, told
    assert set(generations) == in_run == {(True, torch.bfloat16, 3, 2, "high")}


@pytest.mark.parametrize(
    ("evaluation", "limits"),
    [
        pytest.param("evaluation", (12, 1), id="as long as they are learnt"),
        pytest.param(
            "evaluation: {max_new_tokens: 3, num_beams: 2}", (3, 2), id="as it says"
        ),
        pytest.param("evaluation: {num_beams: 2, id: mine}", (12, 2), id="in part"),
    ],
)
def test_answers_are_generated_alike_in_a_run_and_by_predict(
    workplace: Path,
    command: Command,
    generations: list[Any],
    evaluation: str,
    limits: tuple[int, int],
) -> None:
    write_plugins(workplace, evaluation)
    code, _, told = command("run", "run.yaml", "--set", "model.max_answer_length=12")
    assert code == 0, told
    given = "predict", "--checkpoint", str(next(Path("out").rglob("*.pt")))
    for asked in (
        ("--image", "rows/red.png", "--question", "what color?"),
        ("--rows", "rows/val.jsonl", "--out", "said.jsonl"),
    ):
        assert {each[2:4] for each in generations} == {limits}
        generations.clear()
        code, _, told = command(*given, *asked)
        assert code == 0, told
    assert {each[2:4] for each in generations} == {limits}


def test_a_second_run_keeps_the_record_of_the_first(
    workplace: Path, command: Command
) -> None:
    command("run", "run.yaml")
    first = (workplace / "out/summary.json").read_text()
    code, _, _ = command("run", "run.yaml", "--set", "seed=5")
    assert code == 0
    assert (workplace / "out/earlier/001/summary.json").read_text() == first
    assert json.loads((workplace / "out/summary.json").read_text())["seed"] == 5
    command("run", "run.yaml")
    assert (workplace / "out/earlier/002/summary.json").exists()


def test_the_resolved_configuration_runs_again(
    workplace: Path, command: Command
) -> None:
    command("run", "run.yaml", "--set", "training.max_steps=1", "-p", "no:evaluation",
            "--set", "plugins.checkpointing.monitor=null")  # fmt: skip
    code, out, _ = command("run", "out/config.yaml")
    assert code == 0
    assert "max_steps=1 reached" in out


def test_a_failed_run_leaves_a_summary_that_says_so(
    workplace: Path, command: Command
) -> None:
    source = (
        "from training import Callback\n"
        "class Bad(Callback):\n"
        "    def on_epoch_end(self): raise RuntimeError('mine')\n"
    )
    (workplace / "bad.py").write_text(source)
    code, _, err = command("run", "run.yaml", "-p", "./bad.py:Bad")
    assert code == 1
    assert "Traceback" in err
    assert "RuntimeError: mine" in err
    assert "raised by plugin 'Bad'" in err
    summary = json.loads((workplace / "out/summary.json").read_text())
    assert summary["status"] == "failed: RuntimeError: mine"


def test_plugins_are_listed_as_text_and_as_json(command: Command) -> None:
    _, text, _ = command("plugins", "list")
    _, listing, _ = command("plugins", "list", "--json")
    names = [row["name"] for row in json.loads(listing)]
    assert names == sorted(names)
    assert {"csv", "evaluation", "lr_scheduling"} <= set(names)
    assert all(name in text for name in names)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["--help"], id="--help"),
        pytest.param(["--version"], id="--version"),
        pytest.param(["plugins", "list"], id="plugins list"),
    ],
)
def test_looking_around_imports_neither_torch_nor_pydantic(
    arguments: list[str],
) -> None:
    code = (
        "import sys; from training.app.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'torch', 'pydantic', 'yaml', 'ctypes'} & set(sys.modules)))"
    )
    call = [sys.executable, "-c", code, *arguments]
    assert subprocess.run(call, check=False, capture_output=True).returncode == 0


def test_a_table_is_aligned() -> None:
    assert table(["name", "n"], [["a", "10"], ["long one", "9"]]) == [
        "name       n",
        "a         10",
        "long one   9",
    ]


@pytest.mark.parametrize(
    ("number", "thing", "text"),
    [
        pytest.param(1, "step", "1 step", id="one"),
        pytest.param(1200, "step", "1,200 steps", id="many"),
        pytest.param(0, "batch", "0 batches", id="none"),
        pytest.param(2, "process", "2 processes", id="after an s"),
        pytest.param(2, "entry", "2 entries", id="after a y"),
        pytest.param(1, "training picture", "1 training picture", id="of a kind"),
    ],
)
def test_a_count_reads_well(number: int, thing: str, text: str) -> None:
    assert count(number, thing) == text
