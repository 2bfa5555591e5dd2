"""G1 on the command line: no exception of a plugin looks like success or somebody's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., tuple[int, str, str]]


def raising(hook: str, error: str) -> str:
    """Return the source of a plugin that raises ``error`` in ``hook``."""
    return (
        "from training import Callback, ConfigError, DataError\n"
        "class Bad(Callback):\n"
        f"    def {hook}(self):\n"
        f"        raise {error}\n"
    )


@pytest.mark.parametrize("hook", ["on_setup", "on_step_end", "evaluate", "on_close"])
@pytest.mark.parametrize(
    ("error", "code"),
    [
        pytest.param("SystemExit", 1, id="an exit without a code is no success"),
        pytest.param("SystemExit(0)", 1, id="nor is one with 0"),
        pytest.param("SystemExit(143)", 1, id="nor was it a signal"),
        pytest.param("GeneratorExit", 1, id="nothing passes by"),
        pytest.param("ValueError('no')", 1, id="code that raises"),
        pytest.param("ConfigError('no')", 2, id="a setting that is refused"),
        pytest.param("DataError('no')", 3, id="data that is refused"),
        pytest.param("KeyboardInterrupt", 130, id="an interrupt of its own"),
    ],
)
def test_the_end_of_a_run_names_the_plugin_that_caused_it(
    hook: str,
    error: str,
    code: int,
    install: Any,
    command: Command,
    small_config: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.chdir(tmp_path)
    module = f"lab_bad_{abs(hash(request.node.name))}"
    install("lab", f"bad = {module}:Bad", raising(hook, error))
    path = small_config(plugins=["bad"])
    ended, _, err = command("run", str(path), "--set", "training.max_steps=1")
    assert ended == code
    step = 0 if hook == "on_setup" else 1
    note = f"raised by plugin 'bad' ({module}.Bad, lab 1.0) in {hook} at step {step}"
    assert note in err


@pytest.mark.parametrize(
    ("name", "code"),
    [("SIGTERM", 143), ("SIGUSR1", 138), ("SIGINT", 130), ("SIGHUP", 129)],
)
def test_a_signal_ends_with_its_own_code_and_blames_nobody(
    name: str,
    code: int,
    install: Any,
    command: Command,
    small_config: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    module = f"lab_{name.lower()}"
    source = (
        "import os, signal\n"
        "from training import Callback\n"
        "class Sends(Callback):\n"
        "    def on_step_end(self):\n"
        f"        os.kill(os.getpid(), signal.{name})\n"
    )
    install("lab", f"sends = {module}:Sends", source)
    path = small_config(plugins=["sends"])
    stops = "training.stop_on_sigusr1=true"
    ended, _, err = command("run", str(path), "--set", stops)
    assert ended == code
    assert "raised by plugin" not in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("error", "words"),
    [
        pytest.param(
            "SystemExit(0)", "cannot be constructed: SystemExit: 0", id="exit"
        ),
        pytest.param("KeyError('a')", "cannot be constructed: KeyError: 'a'", id="bug"),
        pytest.param("ValueError('no')", "refuses its options: no", id="refusal"),
    ],
)
def test_a_constructor_that_raises_is_named_with_its_distribution(
    error: str, words: str, install: Any, command: Command, small_config: Any
) -> None:
    module = f"lab_built_{error[:5].lower()}"
    install("lab", f"bad = {module}:Bad", raising("__init__", error))
    code, _, err = command("run", str(small_config(plugins=["bad"])))
    assert code == 2
    assert f"plugins.bad: Bad ({module}.Bad, lab 1.0) {words}" in err
