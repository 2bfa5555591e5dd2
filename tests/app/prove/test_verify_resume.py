"""``verify-resume`` leaves the files of the real runs as they are."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

WRITES = """
from pathlib import Path
from training import Callback

class Writes(Callback):
    def __init__(self, path: str, log: str) -> None:
        self.path, self.log = Path(path), Path(log)

    def on_step_end(self) -> None:
        assert self.log.read_text().startswith("real")
        self.log.write_text(self.log.read_text() + "a step")
        self.path.write_text("written over")
"""
PLUGINS = """
plugins:
  - evaluation
  - csv: {filename: one.csv}
  - csv: {filename: two.csv, id: second}
  - checkpointing: {save_dir: best}
  - checkpointing: {save_dir: last, id: keeper}
  - ./writes.py:Writes: {path: model.txt, log: real.txt}
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_plugins_write_goes_elsewhere_and_stays_apart(
    workplace: Path,
    command: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    (workplace / "writes.py").write_text(WRITES)
    config, _, _ = (workplace / "run.yaml").read_text().partition("plugins:")
    (workplace / "own.yaml").write_text(config + PLUGINS)
    for name in ("real.txt", "model.txt"):
        (workplace / name).write_text("real")
    before = sorted(workplace.iterdir())
    code, out, err = command("verify-resume", "own.yaml", "--before", "1")
    assert (code, "bit-identical" in out) == (0, True), err
    assert "checkpointing, keeper" in out
    for name in ("real.txt", "model.txt"):
        assert (workplace / name).read_text() == "real"
    assert sorted(workplace.iterdir()) == before


FORGETS = """
from training import Callback

class Forgets(Callback):
    mutates = ("optimizer",)

    def on_setup(self) -> None:
        self.count = 0

    def on_step_end(self, trainer) -> None:
        self.count += 1
        trainer.optimizer.param_groups[0]["lr"] = 1e-2 / self.count
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_plugin_that_changes_training_and_keeps_no_state_is_named_first(
    workplace: Path,
    command: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    (workplace / "forgets.py").write_text(FORGETS)
    config, _, _ = (workplace / "run.yaml").read_text().partition("plugins:")
    plugins = "plugins:\n  - ./forgets.py:Forgets\n"
    (workplace / "own.yaml").write_text(config + plugins)
    code, _, err = command("verify-resume", "own.yaml", "--before", "1")
    assert code != 0
    assert "the resumed run is another one" in err
    assert "Forgets may change training and keeps no state: return what it" in err


DRAWS_AN_ID = """
import time, uuid
from training import Callback

class Tracks(Callback):
    def on_setup(self) -> None:
        self.id = None
        self.seconds = 0.0

    def on_train_begin(self) -> None:
        self.id = self.id or uuid.uuid4().hex

    def on_step_end(self) -> None:
        self.seconds = time.perf_counter()

    def state_dict(self):
        return {"id": self.id, "spent": self.seconds}

    def load_state_dict(self, state) -> None:
        self.id, self.seconds = state["id"], state["spent"]

class Anew(Tracks):
    def load_state_dict(self, state) -> None:
        self.id, self.seconds = uuid.uuid4().hex, state["spent"]
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("plugin", "status"), [("Tracks", 0), ("Anew", 4)])
def test_an_id_that_a_run_draws_goes_on_as_it_was_saved(
    plugin: str,
    status: int,
    workplace: Path,
    command: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    (workplace / "tracks.py").write_text(DRAWS_AN_ID)
    config, _, _ = (workplace / "run.yaml").read_text().partition("plugins:")
    plugins = f"plugins:\n  - ./tracks.py:{plugin}\n"
    (workplace / "own.yaml").write_text(config + plugins)
    code, _, err = command("verify-resume", "own.yaml", "--before", "1")
    assert code == status, err
    assert (f"plugins.{plugin}.id is '" in err) == (plugin == "Anew")
