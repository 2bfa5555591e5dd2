"""G7 to G9: a distribution that is put together badly hurts only who chooses it."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import python

from training import Callback
from training.app.config.json_schema import config_schema
from training.app.config.load import load_config
from training.discovery.provenance import describe_plugins
from training.discovery.specs import build_plugins
from training.errors import ConfigError

SOURCE = "from training import Callback\nclass Watch(Callback):\n    name = 'watch'\n"
BASE = "data: {train: a}\nmodel: {name: m}\nplugins: [csv]\n"
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(BASE)
    return path


def break_text(site: Path, text: bytes) -> None:
    (file,) = site.glob("*.dist-info/entry_points.txt")
    file.write_bytes(text)


@pytest.mark.parametrize(
    ("entries", "name", "why"),
    [
        pytest.param(
            b"[trainbus]\nwatch = lab_watch\n",
            "watch",
            "its entry point is 'lab_watch', but must be 'module:Class'",
            id="no object",
        ),
        pytest.param(
            b"[trainbus]\nwatch = lab watch!\n",
            "watch",
            "its entry point is 'lab watch!', but must be",
            id="no value that means anything",
        ),
        pytest.param(
            b"[trainbus]\nwatch\n",
            "lab",
            "its entry_points.txt cannot be read",
            id="no value",
        ),
        pytest.param(
            b"[trainbus]\nwatch = caf\xe9:Watch\n",
            "lab",
            "its entry_points.txt cannot be read",
            id="not in UTF-8",
        ),
    ],
)
def test_a_broken_announcement_is_listed_and_hurts_only_who_chooses_it(
    entries: bytes, name: str, why: str, path: Path, install: Any, command: Command
) -> None:
    break_text(install("lab", "watch = lab_watch:Watch", SOURCE), entries)
    code, out, err = command("plugins", "list", str(path), "--json")
    assert code == 0, err
    (entry,) = (each for each in json.loads(out) if each["distribution"] == "lab")
    assert (entry["name"], entry["state"]) == (name, "broken")
    assert why in entry["why"]
    assert load_config(path).plugins.keys() == {"csv"}
    assert "early_stopping" in str(config_schema())
    described = describe_plugins(dict(build_plugins(["csv"])))
    assert described["csv"]["distribution"] == "trainbus-logging"
    for line in (["run", str(path), "-p", name], ["plugins", "show", name]):
        code, _, err = command(*line)
        assert code == 2
        assert why in err
        assert "lab 1.0" in err


def test_a_distribution_that_cannot_be_read_is_no_copy_of_itself(
    install: Any, command: Command
) -> None:
    break_text(
        install("lab", "watch = lab_watch:Watch", SOURCE), b"[trainbus]\nwatch\n"
    )
    _, out, _ = command("plugins", "list")
    assert "its entry_points.txt cannot be read" in out
    assert "behind it on the path" not in out


def test_what_keeps_every_library_from_what_is_installed_is_named(
    path: Path, install: Any
) -> None:
    """In a process of its own: a library asks but once what is installed."""
    site = install("lab", "watch = lab_watch:Watch", SOURCE)
    break_text(site, b"[others]\nwatch = caf\xe9:Watch\n")
    done = python("-m", "training", "run", str(path))
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"trainbus: error: what is installed cannot be listed: lab 1.0 ({site}): its "
        "entry_points.txt cannot be read, 'utf-8' codec can't decode"
    )
    assert done.stderr.endswith("; reinstall lab\n")


def test_a_distribution_without_metadata_is_known_by_its_folder(
    install: Any, command: Command
) -> None:
    site = install("lab", "watch = lab_watch:Watch", SOURCE)
    (file,) = site.glob("*.dist-info/METADATA")
    file.unlink()
    code, out, _ = command("plugins", "show", "watch")
    assert code == 0
    assert "distribution  lab 1.0" in out


def test_extras_behind_a_class_are_none_of_its_name(
    install: Any, command: Command
) -> None:
    install("lab", "watch = lab_watch:Watch [fast]", SOURCE)
    code, out, err = command("plugins", "show", "watch")
    assert code == 0, err
    assert "class         lab_watch:Watch\n" in out


# Provenance.


def make(module: str, name: str, site: Path) -> Any:
    """Return an instance of ``module.name``, imported from ``site``."""
    assert str(site) in sys.path
    return getattr(importlib.import_module(module), name)()


def test_distributions_in_one_namespace_are_told_apart(install: Any) -> None:
    for number, part in enumerate(("one", "two"), start=1):
        entry = f"{part} = labspace.{part}:Watch"
        site = install(f"lab-{part}", entry, None, f"{number}.0")
        (site / "labspace").mkdir()
        (site / "labspace" / f"{part}.py").write_text(SOURCE)
    plugins = {
        part: make(f"labspace.{part}", "Watch", site.parent / f"lab-{part}-{n}.0")
        for n, part in ((1, "one"), (2, "two"))
    }
    described = describe_plugins(plugins)
    assert described["one"]["distribution"] == "lab-one"
    assert described["two"]["version"] == "2.0"


def test_a_class_of_a_file_beside_is_not_that_of_the_distribution() -> None:
    class CSVLoggerCallback(Callback): ...

    CSVLoggerCallback.__module__ = "trainbus_logging_of_mine"
    (facts,) = describe_plugins({"csv": CSVLoggerCallback()}).values()
    assert facts["distribution"] is None


def test_the_version_is_that_of_the_code_that_was_imported(install: Any) -> None:
    old = install("lab", "aged = lab_aged:Watch", SOURCE, "1.0")
    plugin = make("lab_aged", "Watch", old)
    install("lab", "aged = lab_aged:Watch", SOURCE, "2.0")  # now first on the path
    (facts,) = describe_plugins({"aged": plugin}).values()
    assert facts["version"] == "1.0"


def test_a_module_that_stands_before_that_of_the_distribution_is_warned_of(
    install: Any,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = install("lab", "hidden = lab_hidden:Watch", SOURCE)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "lab_hidden.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path / "here"))
    _, out, _ = command("plugins", "list")
    assert f"warning: a copy in version 1.0 ({site}) is behind it on the path" in out


def test_a_broken_plugin_that_is_chosen_names_its_distribution(
    path: Path, install: Any
) -> None:
    install("lab", "watch = lab_watch", SOURCE)
    with pytest.raises(ConfigError, match=r"'watch' of lab 1\.0 is broken"):
        load_config(path, plugins=["watch"])
