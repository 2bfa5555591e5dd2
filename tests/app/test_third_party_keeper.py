"""A checkpointing plugin of somebody else, written with public names only."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., tuple[int, str, str]]

KEEPER = '''
"""Keep a checkpoint of each epoch, and delete all but the newest and the needed."""

from pathlib import Path

from training import Callback
from training.plugin import Plan


class Keeper(Callback):
    name = "keeper"
    hook_api = ">=1.1,<2"
    before = ("early_stopping",)

    def __init__(self):
        self.folder = Path()

    def on_setup(self, trainer):
        self.folder = trainer.save_dir.absolute() / "kept"

    def on_checkpoint(self, trainer):
        trainer.save_checkpoint(self.folder / f"{trainer.step:06d}.pt")
        answers = trainer.bus.collect("needed_checkpoints", trainer=trainer)
        needed = {step for _, steps in answers for step in steps or ()}
        for path in self.folder.glob("*.pt"):
            if int(path.stem) not in {*needed, trainer.step}:
                path.unlink()

    def resume_candidates(self, trainer):
        kept = (trainer.save_dir / "kept").glob("*.pt")
        return [(path, None) for path in sorted(kept, reverse=True)]

    def find_checkpoint(self, step):
        path = self.folder / f"{step:06d}.pt"
        return path if path.exists() else None

    def plan(self, run):
        place = run.save_dir / "kept" / "{step}.pt"
        return Plan({"deleted": ["keeper: all but two"]}, {place: "one an epoch"})

    def summary(self, trainer):
        kept = sorted(path.name for path in self.folder.glob("*.pt"))
        paths = {"last_checkpoint": str(self.folder / kept[-1])}
        return {"paths": paths, "kept": kept}
'''


@pytest.fixture
def keeping(workplace: Path, install: Callable[[str, str, str], Path]) -> Path:
    """Return a working directory whose run is kept by that plugin."""
    site = install("lab", "1.0", "keeper = lab_keeper:Keeper")
    (site / "lab_keeper.py").write_text(KEEPER)
    text = (workplace / "run.yaml").read_text()
    ours = "  - checkpointing: {monitor: accuracy, mode: max}\n"
    stopper = (
        "early_stopping: {mode: max, monitor: accuracy, restore_best_weights: true}"
    )
    assert ours in text
    text = text.replace(ours, f"  - keeper\n  - {stopper}\n")
    (workplace / "run.yaml").write_text(text)
    return workplace


def summary(workplace: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((workplace / "out/summary.json").read_text())
    return found


def test_it_is_written_with_public_names_only() -> None:
    imported = [n for n in ast.walk(ast.parse(KEEPER)) if isinstance(n, ast.ImportFrom)]
    assert {node.module for node in imported} == {
        "pathlib",
        "training",
        "training.plugin",
    }


def test_its_part_stands_in_the_plan(keeping: Path, command: Command) -> None:
    code, out, err = command("plan", "run.yaml")
    assert (code, err) == (0, "")
    assert "out/kept/{step}.pt: one an epoch" in out
    assert "deleted      keeper: all but two" in out


def test_auto_goes_on_from_what_it_kept(keeping: Path, command: Command) -> None:
    _, out, _ = command("run", "run.yaml", "--resume", "auto")
    assert "no checkpoint below out yet" in out
    code, out, _ = command(
        "run", "run.yaml", "--resume", "auto", "--set", "training.num_epochs=2"
    )
    assert code == 0
    assert "resumed from out/kept/000002.pt" in out
    assert summary(keeping)["steps"] == 4


def test_best_weights_come_from_its_files_and_the_needed_one_stays(
    keeping: Path, command: Command, caplog: pytest.LogCaptureFixture
) -> None:
    # At such a rate nothing improves on the first value, which is that of step 2.
    changes = ("training.num_epochs=4", "plugins.early_stopping.min_delta=0.0")
    sets = [word for change in changes for word in ("--set", change)]
    command("run", "run.yaml", *sets, "--set", "training.optimizer.lr=1.0e-9")
    found = summary(keeping)
    assert found["weights_are"] == "best@2"
    assert found["results"]["keeper"]["kept"] == ["000002.pt", "000008.pt"]
    assert found["paths"]["last_checkpoint"] == "out/kept/000008.pt"
    assert found["best"][0]["watched_by"] == ["early_stopping"]
    assert "live weights stay" not in caplog.text


@pytest.mark.parametrize("hook", ["resume_candidates", "needed_checkpoints"])
def test_an_answer_that_cannot_be_read_is_refused_by_name(
    hook: str, workplace: Path, command: Command
) -> None:
    (workplace / "odd.py").write_text(
        "from training import Callback\n\n\nclass Odd(Callback):\n    name = 'odd'\n"
        f"    hook_api = '>=1.1,<2'\n\n    def {hook}(self):\n        return 5\n"
    )
    run = ("run", "run.yaml", "-p", "./odd.py:Odd")
    auto = ("--resume", "auto") if hook == "resume_candidates" else ()
    code, _, err = command(*run, *auto)
    assert f"plugin 'odd' returned 5 from {hook}" in err
    assert code != 0
