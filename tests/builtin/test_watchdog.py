"""A plugin that hangs is named, with its stack, wherever it is called."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

Make = Callable[..., Any]

HANGS = """\
import sys, time
from training import Callback, hookimpl
from training.builtin.watchdog import Watchdog
from training.testing import tiny_trainer
from training.discovery.specs import build_plugins

place, mode, seconds = sys.argv[1:]

def hang(here):
    if here == place:
        end = time.monotonic() + float(seconds)
        while time.monotonic() < end:
            time.sleep(0.01)

class Hangs(Callback):
    name = "hangs"
    hook_api = ">=1.1,<2"

    def on_step_end(self, trainer):
        if trainer.step in (2, 3):
            hang("on_step_end")

    @hookimpl(wrapper=True)
    def on_epoch_end(self):
        hang("on_epoch_end")
        yield

    def make_strategy(self):
        hang("make_strategy")

    def wrap_model(self):
        hang("wrap_model")

    def evaluate(self):
        hang("evaluate")

    def on_close(self):
        hang("on_close")

    def state_dict(self):
        hang("state_dict")
        return {"a": 1}

    def load_state_dict(self, state):
        hang("load_state_dict")

with Watchdog(0.2, abort=mode == "abort"):
    ((_, late),) = build_plugins(["./late.py:Late"])
    trainer = tiny_trainer(Hangs(), save_dir="run", num_epochs=1)
    trainer.train()
    path = trainer.save_checkpoint("run/c.pt")
    trainer.load_checkpoint(path)
    trainer.train()
print("done")
"""
LATE = """\
import __main__
__main__.hang("import")

class Late:
    def __init__(self):
        __main__.hang("constructor")
"""


@pytest.fixture
def hangs(tmp_path: Any) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs a plugin that hangs: where, mode, seconds."""
    (tmp_path / "late.py").write_text(LATE)

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", HANGS, *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    ("mode", "seconds", "code", "printed"),
    [
        pytest.param("warn", "0.6", 0, "done\n", id="told, and waited for"),
        pytest.param("abort", "60", 1, "", id="ended if asked to"),
        pytest.param("warn", "0", 0, "done\n", id="silent where nobody hangs"),
    ],
)
def test_a_plugin_that_hangs_is_named_with_its_stack(
    mode: str, seconds: str, code: int, printed: str, hangs: Make
) -> None:
    run = hangs("on_step_end", mode, seconds)
    assert (run.returncode, run.stdout) == (code, printed)
    told = "plugin 'hangs' in on_step_end takes more than 0.2 s, at step 2"
    assert (told in run.stderr) == (seconds != "0")
    assert ("in on_step_end" in run.stderr) == (seconds != "0")


def test_the_stack_is_shown_once_for_a_plugin_and_a_hook(hangs: Make) -> None:
    told = hangs("on_step_end", "warn", "0.6").stderr
    first, second = (told.index(f"more than 0.2 s, at step {n}; ") for n in (2, 3))
    assert "in hang" in told[first:second]
    assert "where is said above" in told[second:]
    assert "in hang" not in told[second:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "words"),
    [
        pytest.param("import", "plugin './late.py:Late' in its import", id="import"),
        pytest.param("constructor", "plugin 'plugins.Late' in its constr", id="built"),
        pytest.param("make_strategy", "'hangs' in make_strategy", id="no step yet"),
        pytest.param("wrap_model", "plugin 'hangs' in wrap_model", id="a service"),
        pytest.param("evaluate", "plugin 'hangs' in evaluate", id="a collection"),
        pytest.param("on_epoch_end", "plugin 'hangs' in its wrapper of", id="around"),
        pytest.param("state_dict", "plugin 'hangs' in state_dict", id="state asked"),
        pytest.param("load_state_dict", "plugin 'hangs' in load_st", id="state given"),
        pytest.param("on_close", "plugin 'hangs' in on_close", id="teardown"),
    ],
)
def test_a_plugin_that_hangs_is_named_wherever_it_is_called(
    place: str, words: str, hangs: Make
) -> None:
    run = hangs(place, "abort", "60")
    assert run.returncode == 1, run.stderr
    assert words in run.stderr
    assert "in hang" in run.stderr, "where it is"
