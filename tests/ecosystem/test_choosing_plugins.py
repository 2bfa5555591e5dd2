"""Choice: what is listed, why it is active, and what happens to a wrong name."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import printed_by

from training.app.config.load import load_config
from training.app.plugin_tools.active import active
from training.discovery import installed
from training.errors import ConfigError

WATCH = '''
from training.callbacks import Callback

class Watch(Callback):
    """Watch.

    Args:
        every: steps between looks.
    """

    name = "watch"
    hook_api = ">=1.0,<2"
    after = ("csv",)

    def __init__(self, every: int = 5) -> None:
        self.every = every

    def on_epoch_end(self) -> None:
        """Look."""

    def load_state_dict(self, state):
        pass

    def state_dict(self):
        """Return what was seen."""
        return {}
'''
BASE = "data: {train: a}\nmodel: {name: m}\n"
Command = Callable[..., tuple[int, str, str]]


def config(tmp_path: Path, text: str = "") -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(BASE + text)
    return path


def listed(command: Command, *arguments: str) -> dict[str, dict[str, Any]]:
    code, out, err = command("plugins", "list", "--json", *arguments)
    assert code == 0, err
    found = json.loads(out)
    return {each["name"]: each for each in found if each["kind"] == "callback"}


# What is listed.


def test_a_list_imports_neither_torch_nor_a_plugin() -> None:
    """What it takes is measured in ``benchmarks/startup.py``."""
    code = (
        "import sys\nfrom training.app.cli import main\n"
        "main(['plugins', 'list'])\n"
        "heavy = {'torch', 'pydantic', 'transformers', 'trainbus_logging'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert printed_by(code).splitlines()[-1] == "[]"


def test_a_listed_plugin_says_all_of_itself(install: Any, command: Command) -> None:
    site = install("lab", "watch = lab_watch:Watch", WATCH)
    assert listed(command)["watch"] == {
        "kind": "callback",
        "name": "watch",
        "distribution": "lab",
        "version": "1.0",
        "value": "lab_watch:Watch",
        "path": str(site / "lab_watch.py"),
        "shadowed": [],
        "hook_api": ">=1.0,<2",
        "hooks": ["on_epoch_end"],
        "state": "off",
        "why": "nobody chose it",
    }
    assert "lab_watch" not in sys.modules


@pytest.mark.parametrize(
    ("source", "why"),
    [
        pytest.param(None, "module 'lab_watch' is not found", id="no module"),
        pytest.param("class Watch(", "cannot be read: '(' was never", id="a syntax"),
        pytest.param("class Other: ...", "has no class 'Watch'", id="no class"),
        pytest.param(
            WATCH.replace("on_epoch_end", "on_epoch_ended"),
            "'on_epoch_ended' is no hook (did you mean 'on_epoch_end'?)",
            id="a misspelt hook",
        ),
        pytest.param(
            WATCH.replace(">=1.0,<2", ">=2,<3"),
            "needs hook API >=2,<3, but this trainbus has 1.",
            id="another hook API",
        ),
    ],
)
def test_a_broken_plugin_is_listed_as_broken_with_the_reason(
    source: str | None, why: str, install: Any, command: Command
) -> None:
    install("lab", "watch = lab_watch:Watch", source)
    entry = listed(command)["watch"]
    assert entry["state"] == "broken"
    assert why in entry["why"]


def test_a_name_of_two_distributions_is_broken_and_names_both(
    install: Any, command: Command, tmp_path: Path
) -> None:
    install("lab", "watch = lab_watch:Watch", WATCH)
    install("rival", "watch = rival_watch:Watch", WATCH)
    _, out, _ = command("plugins", "list", "--json")
    mine = [each for each in json.loads(out) if each["name"] == "watch"]
    assert [each["state"] for each in mine] == ["broken", "broken"]
    with pytest.raises(ConfigError, match=r"by lab 1.0 and rival 1.0; uninstall one"):
        load_config(config(tmp_path), plugins=["watch"])


def test_the_used_one_of_two_versions_is_listed_and_choosing_it_warns(
    install: Any, command: Command, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    old = install("lab", "watch = lab_watch:Watch", WATCH, "1.0")
    new = install("lab", "watch = lab_watch:Watch", WATCH, "2.0")
    entry = listed(command)["watch"]
    assert (entry["version"], entry["path"]) == ("2.0", str(new / "lab_watch.py"))
    assert entry["shadowed"] == [f"1.0 ({old})"]
    load_config(config(tmp_path), plugins=["watch"])
    assert f"lab is used in version 2.0 ({new / 'lab_watch.py'})" in caplog.text


# What is active, and why.


@pytest.mark.parametrize(
    ("text", "variable", "plugins", "state", "why"),
    [
        pytest.param("", "", [], "active", "a default of trainbus run", id="default"),
        pytest.param("", "no:csv", [], "off", "TRAINBUS_PLUGINS=no:csv", id="variable"),
        pytest.param("", "", ["no:csv"], "off", "-p no:csv", id="an option"),
        pytest.param("", "no:csv", ["csv"], "active", "-p csv", id="option beats it"),
        pytest.param("plugins: [progress]", "", [], "off", "without it", id="a list"),
        pytest.param("plugins: [csv]", "", [], "active", "run.yaml:3", id="listed"),
        pytest.param(
            "plugins: [progress]", "csv", [], "active", "TRAINBUS", id="added to a list"
        ),
    ],
)
def test_the_strongest_source_decides_and_is_named(
    text: str,
    variable: str,
    plugins: list[str],
    state: str,
    why: str,
    tmp_path: Path,
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRAINBUS_PLUGINS", variable)
    path = str(config(tmp_path, text))
    options = [word for name in plugins for word in ("-p", name)]
    entry = listed(command, path, *options)["csv"]
    assert entry["state"] == state
    assert why in entry["why"]
    code, out, _ = command("plugins", "why", "csv", path, *options)
    assert code == 0
    assert out.startswith(f"csv is {state}\n")
    assert why in out.splitlines()[-1]
    is_enabled = "csv" in load_config(path, (), plugins, variable).plugins
    assert is_enabled == (state == "active")


def test_why_tells_the_whole_story(tmp_path: Path, command: Command) -> None:
    path = config(tmp_path, "plugins:\n  - csv\n")
    sets = ["--plugin", "no:csv"]
    _, out, _ = command("plugins", "why", "csv", str(path), *sets)
    assert out.splitlines() == [
        "csv is off",
        "  on: a default of trainbus run",
        f"  on: {path}:4",
        "  off: -p no:csv",
    ]


def test_a_plugin_that_nobody_chose_is_off_since_installed_is_not_active(
    install: Any, command: Command
) -> None:
    install("lab", "watch = lab_watch:Watch", WATCH)
    _, out, _ = command("plugins", "why", "watch")
    assert "installed is not active" in out


def test_why_says_that_a_plugin_that_nobody_chose_is_broken(
    install: Any, command: Command
) -> None:
    install("lab", "watch = lab_watch:Watch", None)
    why = listed(command)["watch"]["why"]
    _, out, _ = command("plugins", "why", "watch")
    assert out == f"watch is off, and broken: {why}\n"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("cvs", "did you mean 'csv'?", id="near an installed one"),
        pytest.param("watc", "did you mean 'watch'?", id="near a third party's"),
        pytest.param("zzz", "installed are: ", id="near nothing"),
    ],
)
def test_an_unknown_name_is_refused_with_the_near_one(
    name: str, words: str, install: Any, command: Command, tmp_path: Path
) -> None:
    install("lab", "watch = lab_watch:Watch", WATCH)
    for line in (
        ["plugins", "show", name],
        ["plugins", "why", name],
        ["run", str(config(tmp_path)), "-p", name],
    ):
        code, _, err = command(*line)
        assert code == 2
        assert words in err


def test_a_shipped_one_that_is_absent_comes_with_its_install_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ConfigError, match=r"run: pip install trainbus-logging"):
        load_config(config(tmp_path, "plugins: [csv]"))


def test_a_folder_of_files_offers_its_plugins(tmp_path: Path, command: Command) -> None:
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "mine.py").write_text(WATCH)
    (tmp_path / "lab" / "no_code.py").write_text("class (")
    folder = ["--plugins-dir", str(tmp_path / "lab")]
    assert "watch" not in listed(command)
    assert listed(command, *folder)["watch"]["state"] == "off"
    assert listed(command, *folder, "-p", "watch")["watch"]["state"] == "active"
    cls = installed.load(installed.find("watch"))
    assert cls.__name__ == "Watch"


def test_a_folder_that_is_not_there_is_refused(command: Command) -> None:
    code, _, err = command("plugins", "list", "--plugins-dir", "/no/such")
    assert (code, err) == (
        2,
        "trainbus: error: --plugins-dir '/no/such' is no folder; name a folder\n",
    )


def test_a_class_in_a_file_is_chosen_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(WATCH)
    use = f"{tmp_path}/mine.py:Watch"
    assert active(None, [use]).plugins["watch"].is_active
    assert load_config(config(tmp_path), (), [use]).plugins["watch"].use == use


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        pytest.param("1 / 0", "ZeroDivisionError: division by zero", id="it raises"),
        pytest.param("raise SystemExit(3)", "SystemExit: 3", id="it exits"),
        pytest.param("import no_such_module", "No module named", id="it lacks one"),
    ],
)
def test_a_broken_plugin_hurts_only_those_who_choose_it(
    source: str, cause: str, install: Any, command: Command, tmp_path: Path
) -> None:
    module = f"lab_{abs(hash(source))}"
    install("lab", f"watch = {module}:Watch", f"{WATCH}\n{source}\n")
    path = str(config(tmp_path, "plugins: [csv]\n"))
    assert listed(command, path)["csv"]["state"] == "active"
    assert module not in sys.modules
    code, _, err = command("run", path, "-p", "watch")
    assert code == 2
    assert "Traceback" in err
    assert cause in err
    assert "plugin 'watch' of lab 1.0" in err


# Required distributions.


@pytest.mark.parametrize(
    ("requires", "words"),
    [
        pytest.param("lab>=2", "'lab>=2', but 1.5 is installed", id="too old"),
        pytest.param("lap", "not installed (did you mean 'lab'?)", id="absent"),
        pytest.param("lab=1", "must be a name and versions", id="no requirement"),
    ],
)
def test_a_requirement_that_is_not_met_is_refused(
    requires: str, words: str, install: Any, tmp_path: Path
) -> None:
    install("lab", "watch = lab_watch:Watch", WATCH, "1.5")
    with pytest.raises(ConfigError) as caught:
        load_config(config(tmp_path, f"requires: ['{requires}']\n"))
    assert words in str(caught.value)
    assert "run.yaml:3: requires[0]" in str(caught.value)


def test_a_requirement_that_is_met_is_kept(install: Any, tmp_path: Path) -> None:
    install("lab", "watch = lab_watch:Watch", WATCH, "1.5")
    loaded = load_config(config(tmp_path, "requires: ['lab>=1,<2']\n"))
    assert loaded.requires == ["lab>=1,<2"]


# Show, check.


def test_show_tells_options_with_type_default_and_doc(
    install: Any, command: Command
) -> None:
    install("lab", "watch = lab_watch:Watch", WATCH)
    _, out, _ = command("plugins", "show", "watch")
    for words in (
        "every: int  = 5\n        steps between looks.",
        "hooks         on_epoch_end",
        "after         csv",
        "state         Return what was seen.",
        "on failure    fatal",
        "processes     all",
        "distribution  lab 1.0",
    ):
        assert words in out


#: For what is only importable where plugins are tried: beside no GPU.
SEES_NO_GPU = "\nimport os\nassert os.environ['CUDA_VISIBLE_DEVICES'] == ''\n"


@pytest.mark.slow
def test_check_finds_what_only_an_import_can_show_and_spares_the_others(
    install: Any, tmp_path: Path
) -> None:
    sites = [
        install("good", "good = lab_good:Watch", WATCH),
        install("cpu", "cpu = lab_cpu:Watch", WATCH + SEES_NO_GPU),
        install("raises", "raises = lab_raises:Watch", WATCH + "\n1 / 0\n"),
        install("exits", "exits = lab_exits:Watch", WATCH + "\nimport os; os._exit(7)"),
        install("odd", "odd = lab_odd:Watch", WATCH.replace("self, every", "self, id")),
        install(
            "hook", "hook = lab_hook:Watch", WATCH.replace("end(self)", "end(self, x)")
        ),
    ]
    names = ["good", "cpu", "raises", "exits", "odd", "hook"]
    env = {"CUDA_VISIBLE_DEVICES": "0", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import sys; from training.app.cli import main; sys.exit(main())",
            *("plugins", "check", *names),
        ],
        env={**env, "PYTHONPATH": ":".join(map(str, sites))},
        capture_output=True,
        text=True,
        check=False,
    )
    told = dict(line.split(": ", 1) for line in run.stdout.splitlines())
    assert run.returncode == 2
    assert told["good"] == told["cpu"] == "good"
    assert "ZeroDivisionError" in told["raises"]
    assert "ends the process with exit code 7" in told["exits"]
    assert "'id' is reserved" in told["odd"]
    assert "'x'" in told["hook"] or "x" in told["hook"]
    assert "4 of 6: raises, exits, odd, hook" in run.stderr
