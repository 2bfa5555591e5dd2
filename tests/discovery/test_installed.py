"""What is installed is known without importing it; what is loaded is guarded."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from training.discovery import installed
from training.discovery.installed import BrokenPluginError
from training.errors import PluginError

Install = Callable[..., Path]


def by_name(name: str) -> list[installed.PluginInfo]:
    return [info for info in installed.installed() if info.name == name]


def test_a_listed_plugin_is_not_imported(install: Install) -> None:
    site = install("lab-plugin", "1.2", "lab = lab_one:Lab")
    (site / "lab_one.py").write_text("raise RuntimeError('imported')\n")
    (info,) = by_name("lab")
    assert (info.distribution, info.version) == ("lab-plugin", "1.2")
    assert info.path == str(site / "lab_one.py")
    assert "lab_one" not in sys.modules


def test_a_module_that_is_missing_is_listed_without_a_path(install: Install) -> None:
    install("lab-plugin", "1.2", "lab = no_such_module:Lab")
    assert by_name("lab")[0].path == ""


def test_the_list_is_sorted_by_name_and_distribution(install: Install) -> None:
    install("b-dist", "1", "zeta = m:B\nalpha = m:B")
    install("a-dist", "1", "zeta = m:A")
    found = [
        (i.name, i.distribution) for i in installed.installed() if i.value[0] == "m"
    ]
    assert found == [("alpha", "b-dist"), ("zeta", "a-dist"), ("zeta", "b-dist")]


def test_a_distribution_found_twice_counts_once(install: Install) -> None:
    install("lab-plugin", "1.2", "lab = lab_one:Lab", "one")
    install("Lab_Plugin", "1.2", "lab = lab_one:Lab", "two")
    assert len(by_name("lab")) == 1


def test_another_version_behind_the_used_one_is_named(install: Install) -> None:
    hidden = install("lab-plugin", "1.2", "lab = lab_one:Lab", "behind")
    install("lab-plugin", "1.3", "lab = lab_one:Lab", "used")
    (info,) = by_name("lab")
    assert info.version == "1.3"
    assert info.shadowed == (f"1.2 ({hidden})",)


def test_a_name_of_two_distributions_is_refused_when_chosen(install: Install) -> None:
    install("lab-plugin", "1", "lab = lab_one:Lab")
    install("rival", "2", "lab = rival:Lab")
    with pytest.raises(
        PluginError, match=r"by lab-plugin 1 and rival 2; uninstall one"
    ):
        installed.find("lab")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("labb", "did you mean 'lab'", id="a near name is suggested"),
        pytest.param("zzz", "installed are: .*lab", id="the choices are listed"),
    ],
)
def test_an_unknown_plugin_is_refused(name: str, words: str, install: Install) -> None:
    install("lab-plugin", "1", "lab = lab_one:Lab")
    with pytest.raises(PluginError, match=words):
        installed.find(name, "plugins[0]")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        pytest.param("csv", "run: pip install trainbus-logging", id="its name"),
        pytest.param(
            "checkpointin", "pip install trainbus-checkpointing", id="near it"
        ),
    ],
)
def test_a_shipped_plugin_that_is_absent_comes_with_its_install_line(
    name: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(PluginError, match=line):
        installed.find(name)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        pytest.param("1 / 0", "ZeroDivisionError: division", id="it raises"),
        pytest.param("raise SystemExit(3)", "SystemExit: 3", id="it exits"),
        pytest.param("", "AttributeError: .*'Lab'", id="it lacks the class"),
        pytest.param("def", "SyntaxError", id="it does not parse"),
    ],
)
def test_a_chosen_plugin_that_breaks_is_named_with_its_cause(
    source: str, words: str, install: Install, request: pytest.FixtureRequest
) -> None:
    module = f"broken_{abs(hash(request.node.name))}"
    site = install("lab-plugin", "1.2", f"lab = {module}:Lab")
    (site / f"{module}.py").write_text(source)
    with pytest.raises(BrokenPluginError, match=words) as caught:
        installed.load(by_name("lab")[0])
    assert "'lab' of lab-plugin 1.2" in str(caught.value)
    assert caught.value.__cause__ is not None


def test_an_entry_point_that_is_no_class_is_refused(install: Install) -> None:
    site = install("lab-plugin", "1", "lab = lab_function:make")
    (site / "lab_function.py").write_text("def make(): pass\n")
    with pytest.raises(PluginError, match="is function, not a class"):
        installed.load(by_name("lab")[0])


def test_a_class_is_loaded_from_a_file_that_runs_once(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("class Mine: pass\nclass Other: pass\n")
    first = installed.load_file(f"{file}:Mine")
    assert first.__name__ == "Mine"
    assert first.__module__ == installed.load_file(f"{file}:Other").__module__


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("absent.py:Mine", "'absent.py' does not exist", id="no file"),
        pytest.param("mine.py:Mime", "did you mean 'Mine'.*: Mine, Two", id="no class"),
        pytest.param("mine.py:value", "is int, not a class", id="a value"),
        pytest.param(
            "bad.py:Mine", "bad.py' cannot be imported: NameError", id="broken"
        ),
    ],
)
def test_a_file_that_does_not_deliver_is_refused(
    name: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = "from pathlib import Path\nvalue = 1\nclass Mine: ...\nclass Two: ...\n"
    (tmp_path / "mine.py").write_text(source)
    (tmp_path / "bad.py").write_text("nonsense\n")
    with pytest.raises(PluginError, match=words):
        installed.load_file(name)


def test_a_file_that_misses_its_neighbour_is_told_where_python_has_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "my files"
    folder.mkdir()
    (folder / "lying_beside.py").write_text("class Base: ...\n")
    file = folder / "mine.py"
    file.write_text("from lying_beside import Base\nclass Mine(Base): ...\n")
    with pytest.raises(PluginError) as caught:
        installed.load_file(f"{file}:Mine")
    way = f"No module named 'lying_beside'; it lies .* PYTHONPATH='{folder}'$"
    assert re.search(way, str(caught.value))
    monkeypatch.syspath_prepend(folder)
    assert installed.load_file(f"{file}:Mine").__name__ == "Mine"


def test_a_module_that_is_nowhere_gets_no_way(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import lying_nowhere\n")
    with pytest.raises(PluginError, match=r"No module named 'lying_nowhere'$"):
        installed.load_file(f"{tmp_path}/mine.py:Mine")


@pytest.mark.parametrize(
    ("kind", "name", "says"),
    [
        (
            "task",
            "blip",
            "; a model family of that name is, which stands under model.t",
        ),
        ("model", "vqa", "; a task of that name is, which stands under task; inst"),
        ("model", "image_classification", " (did you mean 'image_classifier'?); a tas"),
        ("task", "nothing", "'nothing' is not installed; installed are: "),
    ],
)
def test_a_name_of_another_kind_is_told_where_it_belongs(kind, name, says):
    with pytest.raises(PluginError, match=re.escape(says)):
        installed.find(name, kind=kind)
