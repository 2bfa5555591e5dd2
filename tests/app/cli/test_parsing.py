"""Arguments say what is meant, or what was probably meant; shells complete them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from training.app.cli.command_line import build_parser

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["rnu"], "'rnu' (did you mean 'run'?), choose from", id="command"),
        pytest.param(["plugins", "lst"], "(did you mean 'list'?)", id="an action"),
        pytest.param(
            ["run", "a", "--resum", "auto"], "(did you mean '--resume'?)", id="half"
        ),
        pytest.param(
            ["plugins", "list", "--jsn"], "(did you mean '--json'?)", id="an option"
        ),
        pytest.param(["run", "a", "--xyz"], "arguments: --xyz\n", id="nothing near"),
        pytest.param(
            ["evaluate", "a", "--checkpoint", "b", "--split", "tset"],
            "(did you mean 'test'?)",
            id="a value",
        ),
    ],
)
def test_the_nearest_is_named_and_nothing_is_taken_by_half_its_name(
    arguments: list[str],
    words: str,
    command: Command,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        command(*arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["--json", "diff", "a", "b"], id="ahead"),
        pytest.param(["diff", "--json", "a", "b"], id="between"),
        pytest.param(["diff", "a", "--json", "b"], id="between the runs"),
        pytest.param(["diff", "a", "b", "--json"], id="behind"),
    ],
)
def test_options_stand_anywhere_among_the_words_of_a_list(words: list[str]) -> None:
    found = build_parser().parse_args(["runs", *words])
    assert (found.what, found.json) == (["diff", "a", "b"], True)


def test_a_file_without_a_class_is_told_how_to_name_one(
    workplace: Path, command: Command
) -> None:
    (workplace / "mine.py").write_text("class Mine: ...\nclass Yours: ...\n")
    code, _, err = command("run", "run.yaml", "-p", "mine.py")
    assert code == 2
    assert "as in ./mine.py:Mine or ./mine.py:Yours" in err
    code, _, err = command("run", "run.yaml", "-p", "no/such.py")
    assert code == 2
    assert "as in no/such.py:Class" in err


def test_a_new_plugin_may_be_named_with_hyphens(
    tmp_path: Path, command: Command
) -> None:
    code, _, err = command("plugins", "new", "my-thing", "--into", str(tmp_path))
    assert code == 0, err
    assert (tmp_path / "trainbus-my-thing/src/trainbus_my_thing").is_dir()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell_is_one(
    shell: str, command: Command, tmp_path: Path
) -> None:
    code, script, err = command("completion", shell)
    assert code == 0, err
    assert "verify-resume" in script
    if (path := shutil.which(shell)) is None:
        pytest.skip(f"{shell} is not there to read it")
    file = tmp_path / "script"
    file.write_text(script)
    subprocess.run([path, "-n", str(file)], check=True)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        pytest.param(["ver"], {"verify-resume"}, id="a command"),
        pytest.param(["plugins", "li"], {"list"}, id="an action"),
        pytest.param(
            ["run", "demo.yaml", "--profile"],
            {"--profile-plugins", "--profile-trace"},
            id="options",
        ),
        pytest.param(["run", "a", "-p", "no:pro"], {"no:progress"}, id="a plugin"),
        pytest.param(["run", "run.y"], {"run.yaml"}, id="a file"),
        pytest.param(["run", "dem"], {"demo"}, id="a configuration that is shipped"),
        pytest.param(["plugins", "show", "progr"], {"progress"}, id="one to show"),
        pytest.param(
            ["plugins", "check", "early_stopping", "progr"],
            {"progress"},
            id="one more to check",
        ),
    ],
)
@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not there")
def test_bash_completes(
    line: list[str], found: set[str], workplace: Path, command: Command
) -> None:
    (workplace / "script").write_text(command("completion", "bash")[1])
    words = " ".join(["trainbus", *line])
    ask = (
        "source ./script\n"
        f"COMP_WORDS=({words}); COMP_CWORD={len(line)}\n"
        "_shtab_trainbus\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "-c", ask], check=True, capture_output=True, text=True
    )
    assert set(done.stdout.split()) == found, done.stderr


def test_without_shtab_completion_says_what_to_install(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    code, _, err = command("completion", "bash")
    assert code == 2
    assert "pip install 'trainbus[completion]'" in err
