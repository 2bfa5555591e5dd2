"""Who imports whom: the contracts in pyproject.toml hold, and each can be broken."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WALLS = SETTINGS["tool"]["importlinter"]
CONTRACTS = {contract["id"]: contract for contract in WALLS["contracts"]}
PACKAGES = sorted(
    path.parent
    for folder in ("plugins", "examples")
    for path in ROOT.glob(f"{folder}/*/src/*/__init__.py")
)
NAMES = {path.name for path in PACKAGES}
#: What the distribution itself ships, the two doors at its end.
OURS = [
    ROOT / "core/training",
    ROOT / "data/src/trainbus_data",
    ROOT / "models/src/trainbus_models",
    ROOT / "report/src/trainbus_report",
    ROOT / "data",
    ROOT / "models",
]

# Contract -> a module, and what it may not import.
BREAKS = {
    "rooms": ("training.loop.loop", "training.checkpoint.state"),
    "app": ("training.app.config.load", "training.app.plan.planning"),
    "circles": ("training.weighing.counts", "training.weighing.weigher"),
    "policy": ("training.app.cli.export", "trainbus_data.folders"),
    "doors": ("trainbus_logging.csv_logger", "training.bus.bus"),
    "plugins": ("trainbus_ema.callback", "trainbus_evaluation"),
    "models": ("trainbus_models.pretrained", "training.app.config.requirements"),
    "data": ("trainbus_data.folders", "training.app.building.factory"),
    "report": ("trainbus_report.charts", "training.trainer"),
    "names": ("trainbus_grad_noise.callback", "models.model_utils"),
}


def lint(*paths: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts on what is found in ``paths`` before anywhere else."""
    return subprocess.run(
        [
            Path(sys.executable).with_name("lint-imports"),
            *("--no-cache", "--no-logo", ROOT / "pyproject.toml"),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
        cwd=paths[0],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What is said of a copy in which every contract is broken, for types alone."""
    copy = tmp_path_factory.mktemp("copy")
    for source in (*OURS, *PACKAGES):
        shutil.copytree(source, copy / source.name, dirs_exist_ok=True)
    for module, imported in BREAKS.values():
        path = copy.joinpath(*module.split(".")).with_suffix(".py")
        text = path.read_text(encoding="utf-8")
        line = f"if TYPE_CHECKING: import {imported}\n"
        path.write_text(line + text, encoding="utf-8")
    run = lint(copy)
    assert run.returncode == 1, run.stderr
    return run.stdout


def test_no_contract_is_broken() -> None:
    run = lint(ROOT, *(path.parent for path in [*OURS, *PACKAGES]))
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{len(CONTRACTS)} kept, 0 broken" in run.stdout


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_contract_is_broken_by_an_import_for_types_alone(
    contract: str, broken: str
) -> None:
    name = CONTRACTS[contract]["name"]
    assert f"{name} BROKEN" in broken
    module, imported = BREAKS[contract]
    told = f"{module} -> {imported} (l.1)"
    if contract == "circles":  # it tells packages
        told = f"No cycles are allowed in {module.rpartition('.')[0]}.\n"
    section = broken.rpartition(f"{name}\n---")[2].partition("\n\n\n")[0]
    assert told in section


def test_every_plugin_and_example_of_ours_is_held_by_the_contracts() -> None:
    assert set(WALLS["root_packages"]) == {path.name for path in OURS} | NAMES
    ours = {"trainbus_data", "trainbus_models", "trainbus_report"}
    assert set(CONTRACTS["policy"]["forbidden_modules"]) == ours | NAMES
    assert set(CONTRACTS["names"]["source_modules"]) == {"training"} | ours | NAMES
    assert set(CONTRACTS["doors"]["source_modules"]) == NAMES
    assert set(CONTRACTS["plugins"]["modules"]) == NAMES


def test_the_doors_are_the_only_exceptions() -> None:
    doors = {"** -> training.plugin", "** -> training.callbacks"}
    doors.add("training.callbacks -> *")
    doors.add("training.app.config.* -> trainbus_data.config")
    doors.add("trainbus_evaluation.vqa_accuracy -> trainbus_data.vqa.accuracy")
    assert {e for c in CONTRACTS.values() for e in c.get("ignore_imports", ())} == doors


def reached_into(text: str, own: str) -> set[str]:
    """Return the modules that a test of the plugin ``own`` should not import."""
    nodes = list(ast.walk(ast.parse(text)))
    found = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names}
    found |= {str(n.module) for n in nodes if isinstance(n, ast.ImportFrom)}
    doors = {"training", "training.plugin", "training.callbacks", "training.testing"}
    ours = {*WALLS["root_packages"]} - {own}
    return {name for name in found - doors if name.split(".")[0] in ours}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_tests_of_a_plugin_come_in_by_its_doors_too(package: Path) -> None:
    paths = list(package.parents[1].glob("tests/**/*.py"))
    assert paths != []
    for path in paths:
        assert reached_into(path.read_text(encoding="utf-8"), package.name) == set()


def test_a_test_of_a_plugin_that_reaches_into_the_kernel_is_found() -> None:
    text = "import training.loop.loop\nfrom data.folders import new_folder\n"
    text += "from training.testing import run_events\nfrom trainbus_ema import state\n"
    text += "def test_late():\n    from trainbus_logging import display"
    expected = {"training.loop.loop", "data.folders", "trainbus_logging"}
    assert reached_into(text, "trainbus_ema") == expected
