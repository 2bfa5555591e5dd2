"""What stands in an argument ends in a sentence, whatever it is."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training.files.path_mistakes import path_mistake

Command = Callable[..., tuple[int, str, str]]

CONFIG = """\
data: {train: rows/train.jsonl, validation: rows/val.jsonl, batch_size: 1}
model: {build: {}}
training: {num_epochs: 4, save_dir: out}
plugins: [evaluation, checkpointing, csv]
"""
LONG, HUGE = "a" * 5000, "9" * 290


@pytest.fixture
def planned(workplace: Path) -> Path:
    (workplace / "run.yaml").write_text(CONFIG)
    (workplace / "escape.yaml").write_text(CONFIG + '"\\e[2J\\e]0;title\\a": 1\n')
    return workplace


def sets(*words: str) -> list[str]:
    return ["plan", "run.yaml", *(part for word in words for part in ("--set", word))]


REFUSED: dict[str, list[str]] = {
    "a number for a plugin": sets("plugins.csv=1"),
    "null for a plugin": sets("plugins.csv=null"),
    "a list for a plugin": sets("plugins.csv=[1]"),
    "a text for all plugins": sets("plugins=csv"),
    "a save_dir of 5,000 letters": sets(f"training.save_dir={LONG}"),
    "a save_dir of a long name below none": sets(f"training.save_dir=x/{'a' * 300}"),
    "a data folder of 5,000 letters": sets(f"data.root={LONG}"),
    "a data file of 5,000 letters": sets(f"data.train={LONG}"),
    "a long key": sets(f"{LONG}=1"),
    "a key of dots": sets("...=1"),
    "a key with an escape sequence": sets("\x1b[2J=1"),
    "a value with an escape sequence": sets("task=\x1b[2J"),
    "a key with a NUL": sets("a\0=1"),
    "a key with half a character": sets("a\ud800=1"),
    "no key": sets("=1"),
    "num_epochs of 290 digits": sets(f"training.num_epochs={HUGE}"),
    "num_epochs of 5,000 digits": sets("training.num_epochs=" + "9" * 5000),
    "an infinite num_epochs": sets("training.num_epochs=.inf"),
    "a plugin file of 300 letters": ["plan", "run.yaml", "-p", f"./{'a' * 300}.py:X"],
    "a NUL in a plugin file": ["plan", "run.yaml", "-p", "./x\0.py:Y"],
    "a NUL in a plugin's name": ["plan", "run.yaml", "-p", "x\0"],
    "an escape sequence in a plugin's name": ["plan", "run.yaml", "-p", "\x1b[2J"],
    "an empty plugin": ["plan", "run.yaml", "-p", ""],
    "a NUL in --plugins-dir": ["plan", "run.yaml", "--plugins-dir", "\0"],
    "a --plugins-dir of 5,000 letters": ["plan", "run.yaml", "--plugins-dir", LONG],
    "an empty configuration": ["plan", ""],
    "a configuration of 5,000 letters": ["plan", LONG],
    "a configuration with a NUL": ["plan", "a\0.yaml"],
    "a configuration with an escape sequence": ["plan", "\x1b[2J.yaml"],
    "a folder for a configuration": ["plan", "."],
    "escape sequences in a key of the file": ["plan", "escape.yaml"],
    "a checkpoint with a NUL": ["export", "a\0", "b.safetensors"],
    "a target with a NUL": ["export", "a", "b\0.safetensors"],
    "a device of a million digits": [
        *("predict", "--checkpoint", "a", "--image", "b", "--question", "c"),
        *("--device", "cuda:" + "9" * 1_000_000),
    ],
    "an odd device": [
        *("predict", "--checkpoint", "a", "--image", "b", "--question", "c"),
        *("--device", "\x1b[2J"),
    ],
    "a NUL in a question": [
        *("predict", "--checkpoint", "a", "--image", "b", "--question", "c\0"),
    ],
    "a NUL for --resume": ["run", "run.yaml", "--resume", "a\0"],
    "a trace of 5,000 letters": ["run", "run.yaml", "--profile-trace", LONG],
    "an endless watchdog": ["run", "run.yaml", "--watchdog", "inf"],
    "predictions with a NUL": [
        *("evaluate", "run.yaml", "--checkpoint", "a", "--predictions", "\0"),
    ],
    "a plugin to show of 5,000 letters": ["plugins", "show", LONG],
    "a plugin to explain with an escape": ["plugins", "why", "\x1b[2J"],
    "a new plugin with a NUL": ["plugins", "new", "a\0"],
    "a new plugin in a long folder": ["plugins", "new", "a_b", "--into", LONG],
}


@pytest.mark.parametrize("arguments", REFUSED.values(), ids=REFUSED)
def test_an_odd_argument_is_refused_in_printable_words(
    planned: Path, command: Command, arguments: list[str]
) -> None:
    code, _, err = command(*arguments)
    assert code == 2, err[-300:]
    assert "Traceback" not in err
    assert err.replace("\n", "").isprintable()


ACCEPTED: dict[str, list[str]] = {
    "a mapping for a plugin": sets("plugins.csv={filename: a.csv}"),
    "a very long run": sets("training.num_epochs=1000000000000"),
    "the longest run": sets(f"training.num_epochs={2**63 - 1}"),
    "endless max_steps": sets("training.max_steps=1000000000000"),
    "endless patience": [
        *sets(f"plugins.early_stopping.patience={HUGE}"),
        *("-p", "early_stopping"),
    ],
    "endless cadence": sets(f"plugins.checkpointing.save_frequency={HUGE}"),
    "endless top k": sets(f"plugins.checkpointing.save_top_k={HUGE}"),
    "an endless warmup": [
        *sets(f"plugins.lr_scheduling.warmup={HUGE}"),
        *("--set", "plugins.lr_scheduling.type=linear", "-p", "lr_scheduling"),
    ],
}


@pytest.mark.parametrize("arguments", ACCEPTED.values(), ids=ACCEPTED)
@pytest.mark.timeout(60)
def test_a_plan_of_any_length_is_answered(
    planned: Path, command: Command, arguments: list[str]
) -> None:
    code, out, err = command(*arguments)
    assert (code, err) == (0, ""), err[-300:]
    assert "plan of vqa" in out


def test_a_run_too_long_to_count_through_says_so(
    planned: Path, command: Command
) -> None:
    _, out, _ = command(*sets("training.num_epochs=1000000000000"))
    assert "4,000,000,000,000 in all" in out
    assert "evaluations  not counted: the run has more than 1,000,000 steps" in out
    assert "checkpointing: not counted" in out


def test_a_device_without_end_is_no_configuration(
    planned: Path, command: Command
) -> None:
    size = int(Path("/proc/self/statm").read_text().split()[0])
    limit: Any = resource.getrlimit(resource.RLIMIT_AS)
    room = size * resource.getpagesize() + (500 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (room, limit[1]))
    try:
        code, _, err = command("plan", "/dev/zero")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limit)
    assert (code, "it is a device, not a file" in err) == (2, True)


@pytest.mark.parametrize("path", ["", ".", "a/b", "~", "a" * 255, "\udcff", Path("x")])
def test_what_the_system_can_have_is_a_path(path: str | Path) -> None:
    assert path_mistake(path) == ""
