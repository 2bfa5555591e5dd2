"""``--resume`` finds the newest valid checkpoint, or says of each why it is not."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from training.checkpoint_io import read_checkpoint, write_checkpoint

Command = Callable[..., tuple[int, str, str]]
MORE = "training.num_epochs=2"


def checkpoints(workplace: Path) -> list[Path]:
    """Return the checkpoints of the run, oldest first, as its manifest lists them."""
    folder = workplace / "out/checkpoints"
    listed = json.loads((folder / "manifest.json").read_text())["checkpoints"]
    return [folder / entry["file"] for entry in listed]


def test_without_a_checkpoint_auto_starts_and_says_so(
    workplace: Path, command: Command
) -> None:
    code, out, _ = command("run", "run.yaml", "--resume", "auto")
    assert code == 0
    assert "no checkpoint below out yet: starting afresh" in out


def test_auto_goes_on_from_the_newest_and_prints_a_receipt(
    workplace: Path, command: Command
) -> None:
    command("run", "run.yaml", "-p", "csv")
    code, out, _ = command(
        "run", "run.yaml", "-p", "csv", "--resume", "auto", "--set", MORE
    )
    assert code == 0
    told = f"resumed from {checkpoints(workplace)[0].relative_to(workplace)}"
    assert f"{told}: step 2, 1 epoch complete" in out
    assert "setting num_epochs was 1, is 2" in out
    assert "config training.num_epochs was 1, is 2" in out
    assert re.search(r"2 epochs, 4 steps, 2 of them now, in \d+\.\d s,", out)
    with (workplace / "out/training_log.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]


def test_no_floor_stands_beside_values_that_were_measured_on_other_rows(
    workplace: Path, command: Command
) -> None:
    rows = workplace / "rows"
    first, *_ = (rows / "val.jsonl").read_text().splitlines(keepends=True)
    (rows / "fewer.jsonl").write_text(first)
    command("run", "run.yaml")
    _, same, _ = command("run", "run.yaml", "--resume", "auto", "--set", MORE)
    others = ("--set", "data.validation=rows/fewer.jsonl")
    more = ("--set", "training.num_epochs=3")
    _, other, _ = command("run", "run.yaml", "--resume", "auto", *others, *more)
    more = ("--set", "training.num_epochs=4")
    _, later, _ = command("run", "run.yaml", "--resume", "auto", *others, *more)
    ends = [out.partition("\nmetric ")[2] for out in (same, other, later)]
    assert ["most frequent" in end for end in ends] == [True, False, False]


def test_the_receipt_names_plugins_that_came_and_went(
    workplace: Path, command: Command
) -> None:
    command("run", "run.yaml", "-p", "csv")
    _, out, _ = command(
        "run", "run.yaml", "-p", "progress", "--resume", "auto", "--set", MORE
    )
    assert "plugin progress is new and starts afresh" in out
    assert "plugin csv is no longer active" in out


def test_a_damaged_newest_is_passed_over_with_one_warning(
    workplace: Path, command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    keep = "plugins.checkpointing.save_best_only=false"
    keep_all = "plugins.checkpointing.save_top_k=-1"
    command("run", "run.yaml", "--set", MORE, "--set", keep, "--set", keep_all)
    first, newest = checkpoints(workplace)
    newest.write_bytes(newest.read_bytes()[:-1])
    caplog.clear()
    code, out, _ = command("run", "run.yaml", "--set", MORE, "--resume", "auto")
    assert code == 0
    assert f"resumed from {first.relative_to(workplace)}" in out
    warnings = [
        r.getMessage() for r in caplog.records if "going back" in r.getMessage()
    ]
    assert len(warnings) == 1
    assert newest.name in warnings[0]
    assert "bytes, listed are" in warnings[0]


def test_if_none_is_valid_the_run_ends_with_4_and_says_why_of_each(
    workplace: Path, command: Command
) -> None:
    command("run", "run.yaml")
    for path in checkpoints(workplace):
        path.write_bytes(b"")
    (workplace / "out/checkpoints/manifest.json").unlink()
    code, _, err = command("run", "run.yaml", "--resume", "auto")
    assert code == 4
    assert "no checkpoint of this run is valid" in err
    for path in (workplace / "out/checkpoints").glob("*.pt"):
        assert f"{path.name}: " in err
    assert "is no complete checkpoint" in err


def test_a_changed_seed_is_refused_and_can_be_accepted(
    workplace: Path, command: Command
) -> None:
    command("run", "run.yaml")
    changed = ("run", "run.yaml", "--set", "seed=5", "--set", MORE)
    code, _, err = command(*changed, "--resume", "auto")
    assert code == 4
    assert "seed was 0, is 5" in err
    assert "--allow-change seed" in err
    code, out, _ = command(*changed, "--resume", "auto", "--allow-change", "seed")
    assert code == 0
    assert "setting seed was 0, is 5" in out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        pytest.param(
            ["--resume", "auto", "--allow-change", "sed"],
            2,
            "did you mean 'seed'?); choose from: batch_size, ",
            id="a name that is no setting",
        ),
        pytest.param(
            ["--resume", "auto", "-p", "no:checkpointing"],
            2,
            "enable checkpointing, or name a file",
            id="auto without checkpointing",
        ),
        pytest.param(
            ["--resume", "none.pt"], 4, "'none.pt' cannot be read", id="no such file"
        ),
    ],
)
def test_what_cannot_be_resumed_is_refused_with_the_way_out(
    arguments: list[str], code: int, words: str, workplace: Path, command: Command
) -> None:
    command("run", "run.yaml")
    ended, _, err = command("run", "run.yaml", *arguments)
    assert ended == code
    assert words in err


def test_a_file_can_be_named(workplace: Path, command: Command) -> None:
    command("run", "run.yaml")
    (path,) = checkpoints(workplace)
    code, out, _ = command("run", "run.yaml", "--resume", str(path), "--set", MORE)
    assert code == 0
    assert f"resumed from {path}" in out


def test_a_run_that_was_stopped_stays_stopped_until_it_is_told_to_go_on(
    workplace: Path, command: Command
) -> None:
    stop = "early_stopping"
    options = ("--set", "training.num_epochs=9", "-p", stop)
    patience = (
        "--set",
        f"plugins.{stop}.monitor=accuracy",
        "--set",
        f"plugins.{stop}.mode=max",
    )
    limit = f"plugins.{stop}.patience="
    command("run", "run.yaml", *options, *patience, "--set", f"{limit}1")
    summary = json.loads((workplace / "out/summary.json").read_text())
    assert summary["stop_owner"] == stop
    epochs = summary["epochs"]
    _, out, _ = command(
        "run", "run.yaml", *options, *patience, "--set", f"{limit}1", "--resume", "auto"
    )
    assert "that run was stopped by early_stopping" in out
    assert "set early_stopping.patience above 1" in out
    _, out, _ = command(
        "run", "run.yaml", *options, *patience, "--set", f"{limit}9", "--resume", "auto"
    )
    assert json.loads((workplace / "out/summary.json").read_text())["epochs"] > epochs


@pytest.mark.parametrize(
    "config",
    [
        pytest.param({"plugins": [[1]]}, id="a plugin that is a list"),
        pytest.param({"plugins": [None, {"csv": 5}]}, id="a plugin that is null"),
        pytest.param({"seed": torch.zeros(2)}, id="a tensor"),
        pytest.param([1], id="no mapping"),
    ],
)
def test_a_configuration_of_any_form_is_compared_line_by_line(
    workplace: Path, command: Command, config: object
) -> None:
    """What a run carries is its own: it is told, and no reason to refuse."""
    assert command("run", "run.yaml")[0] == 0
    state = read_checkpoint(checkpoints(workplace)[-1])
    state["metadata"]["config"] = config
    write_checkpoint("odd.pt", state)
    code, out, err = command("run", "run.yaml", "--resume", "odd.pt")
    assert code == 0, err
    assert "config " in out


@pytest.mark.slow
def test_a_terminated_run_exits_143_and_goes_on_by_the_command_that_it_tells(
    workplace: Path,
) -> None:
    code = "import sys; from training.app.cli import main; sys.exit(main())"
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "OMP_NUM_THREADS": "1",
    }
    Path("run.yaml").rename("my run.yaml")
    arguments = (
        "run",
        "my run.yaml",
        "--set",
        "training.num_epochs=100000",
        "--resume",
        "auto",
    )
    pointer = workplace / "out/checkpoints/last.json"
    for _ in range(2):
        before = pointer.read_bytes() if pointer.exists() else b""
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        first = ""
        while "afresh" not in first and "resumed" not in first:
            first = process.stdout.readline()
        # Only a new checkpoint says that training is under way, and listens to signals.
        while not pointer.exists() or pointer.read_bytes() == before:
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
        _, told = process.communicate()
        line = "same options and: trainbus run 'my run.yaml' --resume auto"
        assert told.count(line) == 1
    assert "resumed from" in first


def test_allow_change_without_resume_is_of_no_use(
    workplace: Path, command: Command
) -> None:
    code, _, err = command("run", "run.yaml", "--allow-change", "seed")
    assert (code, "--allow-change seed is of no use without --resume" in err) == (
        2,
        True,
    )
    assert not (workplace / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_verify_resume_proves_a_run_and_finds_a_plugin_that_forgets(
    workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    steps = ("--before", "3", "--after", "99", "--set", "training.num_epochs=3")
    code, out, _ = command("verify-resume", "run.yaml", *steps)
    assert code == 0
    assert "equal: batches, 3 of them" in out
    assert out.endswith("3 steps, killed, 3 more: bit-identical\n"), "not 99"
    (workplace / "forgets.py").write_text(FORGETS)
    monkeypatch.setenv("TRAINBUS_PLUGINS", "./forgets.py:Forgets")
    code, _, err = command("verify-resume", "run.yaml", *steps)
    assert code == 4
    assert "the resumed run is another one: model." in err


@pytest.mark.parametrize("before", ["6", "100000"])
def test_verify_resume_refuses_before_training_where_nothing_would_be_left(
    workplace: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    before: str,
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    (workplace / "trains.py").write_text(TRAINS)
    monkeypatch.setenv("TRAINBUS_PLUGINS", "./trains.py:Trains")
    steps = ("--before", before, "--set", "training.num_epochs=3")
    code, _, err = command("verify-resume", "run.yaml", *steps)
    assert code == 2
    assert f"ends at step 6, so that nothing is left to do after step {before}" in err
    assert not (workplace / "trained").exists()


TRAINS = """
from pathlib import Path
from training import Callback

class Trains(Callback):
    def on_batch_begin(self):
        Path("trained").touch()
"""
FORGETS = """
from training import Callback

class Forgets(Callback):
    count = 0

    def on_before_step(self, trainer):
        self.count += 1
        for parameter in trainer.model.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(self.count)
"""


EARLY = """
import os
import signal

from training import Callback


class Early(Callback):
    name = "early"

    def __init__(self) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.mark.parametrize(
    ("setting", "code"),
    [("false", 0), ("true", -signal.SIGUSR1)],
    ids=["is saved for at the first boundary", "ends at once where it is to end a run"],
)
def test_sigusr1_while_a_run_is_built(workplace: Path, setting: str, code: int) -> None:
    (workplace / "early.py").write_text(EARLY)
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "training", "run", "run.yaml"),
            *("-p", "./early.py:Early", "--set", MORE),
            *("--set", f"training.stop_on_sigusr1={setting}"),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == code, ended.stderr
    if code == 0:
        first, *_ = checkpoints(workplace)
        state = read_checkpoint(first)
        assert ("checkpoint", "SIGUSR1 received") in [
            (kind, reason) for kind, _, reason, *_ in state["requests"]
        ]


def test_an_option_that_was_not_set_is_told_so_and_not_as_none(
    workplace: Path, command: Command
) -> None:
    command("run", "run.yaml")
    more = ("--set", "training.max_grad_norm=1.0", "--allow-change", "max_grad_norm")
    _, out, _ = command("run", "run.yaml", "--resume", "auto", "--set", MORE, *more)
    assert "config training.max_grad_norm was not set, is 1.0" in out


def test_the_folder_of_the_checkpoints_is_told_to_be_that_of_auto(
    workplace: Path, command: Command
) -> None:
    command("run", "run.yaml")
    folder = str(checkpoints(workplace)[0].parent)
    code, _, err = command("run", "run.yaml", "--resume", folder, "--set", MORE)
    assert code != 0
    assert "it is a folder, not a file" in err
    assert "this run keeps its checkpoints in it; 'auto' is the newest" in err
