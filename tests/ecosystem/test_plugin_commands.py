"""What the commands about plugins say of a wrong name, a file, and the order."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training.app.cli import main
from training.app.config.load import load_config
from training.app.plugin_tools.scaffold import write_project
from training.errors import ConfigError

Command = Callable[..., tuple[int, str, str]]

MINE = '''
from training import Callback

class Mine(Callback):
    """Listens."""

    hook_api = ">=1.0,<2"
    after = ("csv",)
    consumes = ("monitor",)

    def __init__(self, monitor: str = "val_loss") -> None: ...

    def on_epoch_end(self) -> None: ...
'''
BASE = "data: {train: a}\nmodel: {name: m}\n"


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(MINE)
    return f"{tmp_path}/mine.py:Mine"


# A wrong name.


def test_a_list_with_an_unknown_name_is_printed_and_refused(command: Command) -> None:
    code, out, err = command("plugins", "list", "-p", "cvs")
    assert code == 2
    assert "csv " in out
    assert "-p cvs: plugin 'cvs' is not installed (did you mean 'csv'?)" in err


@pytest.mark.parametrize("order", [[], ["--order"], ["--json"]])
def test_no_form_of_the_list_passes_over_an_unknown_name(
    order: list[str], command: Command
) -> None:
    assert command("plugins", "list", "-p", "cvs", *order)[0] == 2


def test_why_of_an_unknown_name_that_is_chosen_is_refused(command: Command) -> None:
    code, out, err = command("plugins", "why", "nope", "-p", "nope")
    assert (code, out) == (2, "")
    assert "plugin 'nope' is not installed" in err


# A class in a file.


def test_show_check_and_why_take_a_class_in_a_file(mine: str, command: Command) -> None:
    code, out, _ = command("plugins", "show", mine)
    assert code == 0
    assert "hooks         on_epoch_end" in out
    assert command("plugins", "check", mine)[:2] == (0, f"{mine}: good\n")
    assert command("plugins", "why", mine)[1].startswith("Mine is off: ")
    code, out, _ = command("plugins", "why", mine, "-p", mine)
    assert out.splitlines() == ["Mine is active", f"  on: -p {mine}"]


WRITES = """
from pathlib import Path
from training import Callback

Path("imported").write_text("")

class Writes(Callback):
    name = "writes"
    hook_api = ">=1.0,<2"
    ranks = "main"

    def on_train_begin(self) -> None:
        Path("log.csv").write_text("")
"""


@pytest.mark.parametrize(
    "named", [["./own/mine.py:Writes"], ["writes", "--plugins-dir", "own"]]
)
def test_a_check_leaves_the_folder_of_the_user_as_it_was(
    named: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.py").write_text(WRITES)
    (tmp_path / "log.csv").write_text("of the user")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert command("plugins", "check", *named) == (0, f"{named[0]}: good\n", "")
    assert (tmp_path / "log.csv").read_text() == "of the user"
    assert {file.name for file in tmp_path.iterdir()} == {"log.csv", "own"}


@pytest.mark.parametrize("action", ["show", "why", "check"])
def test_a_class_in_a_file_that_is_not_there_is_refused(
    action: str, command: Command
) -> None:
    code, out, err = command("plugins", action, "./gone.py:Mine")
    assert code == 2
    assert "file './gone.py' does not exist" in out + err


def test_a_class_in_a_file_can_be_switched_off_again(mine: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(BASE)
    assert "Mine" not in load_config(path, plugins=[mine, "no:Mine"]).plugins
    assert "Mine" in load_config(path, plugins=[mine, "no:Mine", mine]).plugins
    with pytest.raises(ConfigError, match="no plugin is called 'Mine'"):
        load_config(path, plugins=["no:Mine"])


def test_a_file_that_is_no_code_is_listed_as_broken(
    tmp_path: Path, command: Command
) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "typo.py").write_text("class (")
    folder = ["--plugins-dir", str(tmp_path / "lab")]
    _, out, _ = command("plugins", "list", "--json", *folder)
    (entry,) = (each for each in json.loads(out) if each["name"] == "typo")
    assert entry["state"] == "broken"
    assert "typo.py cannot be read: invalid syntax" in entry["why"]
    code, _, err = command("plugins", "show", "typo", *folder)
    assert code == 2
    assert "cannot be read" in err


# The order.


def test_the_order_names_every_listener_and_the_reason_of_each_edge(
    mine: str, command: Command
) -> None:
    _, out, _ = command("plugins", "list", "--order", "-p", mine, "-p", "no:progress")
    events = out.split("\non_")
    (told,) = (each for each in events if each.startswith("epoch_end: "))
    first, *reasons = told.splitlines()
    assert first == "epoch_end: csv, Mine, run_record"
    assert reasons == [
        "    'Mine' declares after 'csv'",
        "    'run_record' declares after 'csv'",
    ]
    assert (
        "\non_checkpoint: csv, checkpointing\n"
        "    'csv' declares before 'checkpointing'\n"
    ) in out
    assert out.splitlines()[-1].startswith("without a reason given, plugins are called")


def test_the_order_knows_a_plugin_that_has_an_id_by_its_class(
    mine: str, tmp_path: Path, command: Command
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps({"plugins": [{"csv": {"id": "table"}}, mine]}))
    _, out, _ = command("plugins", "list", str(config), "--order")
    assert "\non_epoch_end: table, Mine, " in out
    assert "\n    'Mine' declares after 'csv'\n" in out


def test_the_order_says_what_it_cannot_know(tmp_path: Path, command: Command) -> None:
    (tmp_path / "mine.py").write_text(MINE.replace('("csv",)', "tuple(['csv'])"))
    _, out, _ = command("plugins", "list", "--order", "-p", f"{tmp_path}/mine.py:Mine")
    assert "Mine may stand elsewhere, its 'after' is computed" in out
    (tmp_path / "mine.py").write_text("Mine = type('Mine', (), {})")
    _, out, _ = command("plugins", "list", "--order", "-p", f"{tmp_path}/mine.py:Mine")
    assert "Mine is not in this order, " in out


@pytest.mark.parametrize("value", ["'csv'", "5"])
def test_a_relation_of_the_wrong_type_is_told_without_an_import(
    value: str, tmp_path: Path, command: Command
) -> None:
    (tmp_path / "mine.py").write_text(MINE.replace('("csv",)', value))
    mine = f"{tmp_path}/mine.py:Mine"
    for line in (["show", mine], ["list", "--order", "-p", mine], ["check", mine]):
        code, out, err = command("plugins", *line)
        assert code == 2
        assert f"declares after = {value}; write names in a tuple" in out + err


def test_the_order_tells_of_names_that_look_misspelt(
    tmp_path: Path, command: Command
) -> None:
    (tmp_path / "mine.py").write_text(MINE.replace("csv", "progres"))
    _, out, _ = command("plugins", "list", "--order", "-p", f"{tmp_path}/mine.py:Mine")
    told = "plugin 'Mine' declares after 'progres', which is not there (did you mean"
    assert told in out


def test_why_tells_of_all_that_run_under_ids(tmp_path: Path, command: Command) -> None:
    path = tmp_path / "run.yaml"
    base = "data: {train: a}\nmodel: {name: m}\nplugins:\n"
    path.write_text(f"{base}  - csv: {{id: one}}\n  - csv: {{id: two}}\n")
    _, out, _ = command("plugins", "why", "csv", str(path), "-p", "no:one")
    assert out.splitlines()[3:] == [
        "one, csv, is off",
        f"  on: {path}:4",
        "  off: -p no:one",
        "two, csv, is active",
        f"  on: {path}:5",
    ]
    path.write_text(f"{base}  - early_stopping: {{id: stop}}\n")
    chosen = str(path), "-p", "no:early_stopping"
    _, out, _ = command("plugins", "why", "early_stopping", *chosen)
    assert out.splitlines()[0] == "stop, early_stopping, is off"
    _, out, _ = command("plugins", "list", "--json", *chosen)
    states = {each["name"]: each["state"] for each in json.loads(out)}
    assert states["early_stopping"] == "off"


# Show, and the warning of a shadowed copy.


def test_show_tells_which_options_name_a_metric(mine: str, command: Command) -> None:
    assert "watches       monitor\n" in command("plugins", "show", mine)[1]
    assert "watches       monitor\n" in command("plugins", "show", "early_stopping")[1]


def test_show_tells_the_bounds_of_options(command: Command) -> None:
    out = command("plugins", "show", "checkpointing")[1]
    assert "    save_top_k: int >= -1  = 1\n" in out
    assert "    every_n_steps: int >= 1 | None  = None\n" in out


def test_the_list_warns_of_a_copy_that_is_not_used(
    install: Any, command: Command
) -> None:
    old = install("lab", "watch = lab_shadow:Mine", MINE, "1.0")
    install("lab", "watch = lab_shadow:Mine", MINE, "2.0")
    _, out, _ = command("plugins", "list")
    assert f"warning: a copy in version 1.0 ({old}) is behind it on the path" in out


# Files that commands write.


@pytest.mark.parametrize(
    ("file", "words"),
    [
        pytest.param("gone/trace.json", "folder 'gone' does not exist", id="no folder"),
        pytest.param("run.yaml", "'run.yaml' exists", id="there already"),
        pytest.param("shut/trace.json", "'shut' cannot be written", id="shut"),
    ],
)
def test_a_trace_that_cannot_be_written_is_refused_before_the_run(
    file: str,
    words: str,
    small_config: Any,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    small_config()
    (tmp_path / "shut").mkdir(mode=0o500)
    if file.startswith("shut") and os.access(tmp_path / "shut", os.W_OK):
        pytest.skip("this user may write everywhere")
    code, out, err = command("run", "run.yaml", "--profile-trace", file)
    assert (code, out) == (2, "")
    assert words in err


def test_the_schema_is_all_that_is_printed(
    install: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    install("lab", "watch = lab_loud:Mine", "print('hello')\n" + MINE)
    assert main(["config", "schema"]) == 0
    printed = capsys.readouterr()
    assert "watch" in str(json.loads(printed.out)["properties"]["plugins"])
    assert "hello" in printed.err


@pytest.mark.parametrize("name", ["a_", "a__b", "_a"])
def test_a_name_that_no_distribution_can_have_is_refused(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        write_project(name, tmp_path)
