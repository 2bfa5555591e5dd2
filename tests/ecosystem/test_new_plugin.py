"""`trainbus plugins new` writes a project that works as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.app.plugin_tools.scaffold import write_project
from training.bus.registration import NOT_PLUGINS
from training.errors import ConfigError


@pytest.mark.slow
def test_a_new_project_installs_and_its_tests_pass(environment, tmp_path: Path) -> None:
    made = environment.run("trainbus", "plugins", "new", "loss_watch", "--into", ".")
    assert made.returncode == 0, made.stderr
    project = environment.folder / "trainbus-loss-watch"
    environment.install("-e", project)
    tested = environment.run("pytest", "-q", "-W", "error", cwd=project)
    assert tested.returncode == 0, tested.stdout
    assert "5 passed" in tested.stdout
    checked = environment.run("trainbus", "plugins", "check", "loss_watch")
    assert checked.stdout == "loss_watch: good\n"


@pytest.mark.slow
def test_a_new_task_installs_and_keeps_the_rules_of_families(environment) -> None:
    made = environment.run("trainbus", "plugins", "new", "mood", "--kind", "task")
    assert made.returncode == 0, made.stderr
    project = environment.folder / "trainbus-mood"
    environment.install("-e", project)
    tested = environment.run("pytest", "-q", "-W", "error", cwd=project)
    assert tested.returncode == 0, tested.stdout
    assert "4 passed" in tested.stdout
    for kind, tried in (
        ("task", "tried on no rows; its"),
        ("model", "tried on 4 rows"),
    ):
        checked = environment.run(
            "trainbus", "plugins", "check", "mood", "--kind", kind
        )
        assert checked.stdout.startswith(f"mood ({kind}): good\n  {tried}")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["callback", "task"])
def test_a_new_project_is_typed_and_clean(
    kind: str, tmp_path: Path, repository: Path
) -> None:
    import subprocess
    import sys

    project = write_project("loss_watch", tmp_path, kind)
    for command in (
        ["ruff", "check", "--isolated", "--select", "E,F,I,B,UP", "."],
        ["ruff", "format", "--isolated", "--check", "."],
        ["mypy", "--strict", "src"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=project,
            env={"MYPYPATH": str(repository / "core"), "PATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("LossWatch", "cannot be used; write small letters", id="capitals"),
        pytest.param("../up", "cannot be used", id="a path"),
        pytest.param("class", "cannot be used", id="a keyword"),
        pytest.param("csv", "a plugin 'csv' exists", id="taken"),
        *(
            pytest.param(name, f"'{name}' stands in records where no plugin asked")
            for name in NOT_PLUGINS
        ),
    ],
)
def test_a_bad_name_is_refused(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        write_project(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    folder = write_project("loss_watch", tmp_path)
    with pytest.raises(ConfigError, match=r"trainbus-loss-watch' exists"):
        write_project("loss_watch", tmp_path)
    assert (folder / "setup.cfg").is_file()
