"""Names of plugins: whose one is, and which nobody could say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from training.app.config.load import load_config
from training.discovery import installed
from training.errors import PluginError

Command = Callable[..., tuple[int, str, str]]

MINE = """
from training.callbacks import Callback

class Mine(Callback):
    name = "csv"

    def on_epoch_end(self) -> None:
        pass
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    """Return a class in a file that is called as a default plugin is."""
    (tmp_path / "mine.py").write_text(MINE)
    return f"{tmp_path}/mine.py:Mine"


@pytest.fixture
def run(tmp_path: Path) -> str:
    path = tmp_path / "run.yaml"
    path.write_text("data: {train: a}\nmodel: {name: m}\n")
    return str(path)


def test_a_class_in_a_file_does_not_displace_a_plugin_of_its_name(
    mine: str, run: str, tmp_path: Path
) -> None:
    words = r"it is called 'csv', as is csv \(a default of trainbus run\); .*: "
    with pytest.raises(PluginError, match=words + "-p no:csv$"):
        load_config(run, (), [mine])
    with pytest.raises(PluginError, match=words + "no:csv ahead of it$"):
        load_config(run, environment=mine)
    load_config(run, environment=f"no:csv,{mine}")
    (tmp_path / "other.py").write_text(MINE)
    with pytest.raises(PluginError, match=r"as is \S*mine.py:Mine \(-p "):
        load_config(run, (), ["no:csv", mine, f"{tmp_path}/other.py:Mine"])


def test_one_that_is_switched_off_before_gives_its_name_away(
    mine: str, run: str, tmp_path: Path
) -> None:
    again = f"{tmp_path}/../{tmp_path.name}/mine.py:Mine"
    config = load_config(run, (), ["no:csv", mine, again])
    assert config.plugins["csv"].use == again


def test_the_commands_say_whose_the_name_is(mine: str, command: Command) -> None:
    chosen = "-p", "no:csv", "-p", mine
    _, out, _ = command("plugins", "why", "csv", *chosen)
    assert out.startswith(f"csv, {mine}, is active\n")
    _, out, _ = command("plugins", "list", *chosen)
    assert f"its name is that of {mine}, on: -p {mine}" in out


def test_the_way_out_of_a_clash_with_a_file_is_in_the_file(
    tmp_path: Path, mine: str, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.setattr(installed, "_FOLDERS", [tmp_path])
    end = f"give {mine} another `name`"
    with pytest.raises(PluginError, match=rf"by {mine} and trainbus-logging .*; {end}"):
        installed.find("csv")
    assert end in command("plugins", "list")[1]
    (tmp_path / "mine.py").unlink()
    (tmp_path / "csv.py").write_text("class (")
    with pytest.raises(PluginError, match=f"; mend or rename {tmp_path}/csv.py"):
        installed.find("csv")


@pytest.mark.parametrize("name", ["lab.watch", "no:watch", "lab,watch"])
def test_a_name_that_no_command_line_can_say_is_broken(
    name: str,
    install: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Command,
) -> None:
    site = install("lab", "1.0", f"{name} = lab_named:Mine")
    (site / "lab_named.py").write_text(MINE)
    words = rf"its name '{name}' has a '.', which parts words on a command line; rename"
    with pytest.raises(PluginError, match=words):
        installed.find(name)
    assert "which parts words" in command("plugins", "list")[1]
    (tmp_path / "own").mkdir()
    own = MINE.replace('"csv"', f'"own {name}"')
    (tmp_path / "own" / "mine.py").write_text(own)
    monkeypatch.setattr(installed, "_FOLDERS", [tmp_path / "own"])
    with pytest.raises(PluginError, match="rename it where it is announced"):
        installed.find(f"own {name}")
