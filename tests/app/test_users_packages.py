"""A user's own packages called data and models stand beside a script, and stop nobody.

Nothing of ours may import these names: whichever of the two comes first on the path,
one of them would get the other's modules.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from processes import python

pytestmark = pytest.mark.slow

SCRIPT = """\
import json
import sys

import torch.multiprocessing

import data
import models
from training import create_trainer_from_config
from training.app.cli import main


def go(method):
    torch.multiprocessing.set_start_method(method)
    trainer = create_trainer_from_config("run.yaml")
    trainer.train()
    saved = json.load(open("out/summary.json"))["paths"]["best_checkpoint"]
    assert main(["evaluate", "run.yaml", "--checkpoint", saved]) == 0
    question = ["--image", "rows/red.png", "--question", "what color?"]
    assert main(["predict", "--checkpoint", saved, *question]) == 0
    assert main(["export", saved, "exported"]) == 0
    ours = ("data", "models")
    found = [name for name in sys.modules if name.partition(".")[0] in ours]
    assert sorted(found) == ["data", "models"], found
    print(data.OWNER, models.OWNER)


if __name__ == "__main__":
    go(sys.argv[1])
"""


def run_beside_own_packages(
    workplace: Path, script: str, method: str
) -> subprocess.CompletedProcess[str]:
    """Run ``script`` in a folder with a user's ``data/`` and ``models/``."""
    for name in ("data", "models"):
        (workplace / name).mkdir()
        (workplace / name / "__init__.py").write_text("OWNER = 'the user'\n")
    config = (workplace / "run.yaml").read_text()
    config = config.replace("batch_size: 2", "batch_size: 2, num_workers: 1")
    (workplace / "run.yaml").write_text(config)
    (workplace / "script.py").write_text(script)
    return python("script.py", method, cwd=workplace)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_script_beside_packages_of_these_names_trains_evaluates_and_predicts(
    workplace: Path, method: str
) -> None:
    done = run_beside_own_packages(workplace, SCRIPT, method)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("the user the user\n")


@pytest.mark.parametrize("door", ["data.data_pipeline", "models.model_loader"])
def test_there_the_guides_name_is_the_users(workplace: Path, door: str) -> None:
    done = run_beside_own_packages(workplace, f"import {door}\n{SCRIPT}", "fork")
    assert f"No module named '{door}'" in done.stderr
