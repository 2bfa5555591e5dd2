"""What holds the house up: documented hooks, walls between parts, public names."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import tokenize
from pathlib import Path
from types import ModuleType

import pytest

import training
from training import callbacks, hookspecs, plugin
from training.hookspecs import HOOKS

ROOT = Path(__file__).resolve().parents[1]
KERNEL = ROOT / "core" / "training"
PLUGINS = ("early_stopping", "checkpointing", "logging", "lr_scheduling", "evaluation")
#: What plugins may import of ours.
PLUGIN_DOORS = ("training", "training.plugin", "training.callbacks")
ANSWERS = ("State:", "Args:", "Returns:", "Order:", "Errors:")
# File of the kernel -> its floor; a file imports from lower floors only, or from its
# own floor without a circle.
FLOORS = {
    1: "view hookspecs hooks logs errors plain files hardware messages modules planned",
    2: "bus plugin callbacks discovery documents feed signals",
    3: "loop arguments checkpoint checkpoint_io layout weighing builtin",
    4: "teardown run trainer",
}
#: Folders with a floor, as if each were one file.
FOLDERS = (
    *("files", "hardware", "modules", "messages", "signals", "weighing", "checkpoint"),
    *("hooks", "planned", "feed"),
    *("bus", "discovery", "documents", "loop", "builtin"),
)
# Files -> lines of code that they may have with all that they import, and so on. The
# order of a step, and then with the parts that are handed to it.
LIMITS = {
    ("loop/loop",): 700,
    ("loop/loop", "loop/window", "loop/run_state", "feed/feed", "bus/bus"): 2_750,
}

# Room of the app -> the rooms it may use; all may use what lies flat.
APP = {
    "config": (),
    "building": ("config",),
    "plugin_tools": ("config",),
    "plan": ("config", "building"),
    "prove": ("config", "building"),
    "cli": ("config", "building", "plugin_tools", "plan", "prove"),
}


def imports_of(path: Path, top_level_only: bool = False) -> set[str]:
    """Return dotted names that ``path`` imports, those for type checking left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    nodes = tree.body if top_level_only else ast.walk(tree)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_answers_the_six_questions_in_order(hook: str) -> None:
    text = inspect.getdoc(getattr(hookspecs, hook)) or ""
    positions = [text.find(answer) for answer in ANSWERS]
    assert text.split("\n")[0].endswith("."), "the first line says when"
    assert -1 not in positions
    assert positions == sorted(positions)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_argument_of_a_hook_is_documented(hook: str) -> None:
    function = getattr(hookspecs, hook)
    text = inspect.getdoc(function) or ""
    arguments = text[text.find("Args:") : text.find("Returns:")]
    documented = re.findall(r"^    (\w+):", arguments, re.MULTILINE)
    assert documented == list(inspect.signature(function).parameters)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_stands_in_the_order_of_the_module_docstring(hook: str) -> None:
    assert re.search(rf"\b{hook}\b", hookspecs.__doc__ or "")


def test_the_kernel_imports_no_plugin_and_neither_data_nor_models() -> None:
    foreign = {
        f"{path.relative_to(KERNEL)} imports {name}"
        for path in KERNEL.rglob("*.py")
        if KERNEL / "app" not in path.parents
        for name in imports_of(path)
        if name.split(".")[0].startswith("trainbus_")
        or name.split(".")[0] in ("data", "models")
    }
    assert foreign == set()


def foreign_imports(text: str, own: str) -> list[str]:
    """Return the modules of ours that ``text`` of the plugin ``own`` may not import.

    Names for type checkers count too: they break as others do when a file moves.
    """
    modules = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
            if node.module == "training":
                names = {alias.name for alias in node.names} - set(training.__all__)
                modules.update(f"training.{name}" for name in names)
    ours = re.compile(r"(training|data|models|trainbus_\w+)(\.|$)")
    return sorted(
        module
        for module in modules
        if ours.match(module)
        and module.split(".")[0] != own
        and module not in PLUGIN_DOORS
    )


SOURCES = sorted(
    path
    for folder in ("plugins", "examples")
    for path in ROOT.glob(f"{folder}/*/src/*/**/*.py")
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: "/".join(path.parts[-2:]))
def test_a_plugin_imports_of_ours_only_the_doors_for_authors(path: Path) -> None:
    (own,) = (part for part in path.parts if part.startswith("trainbus_"))
    assert foreign_imports(path.read_text(encoding="utf-8"), own) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("from training.errors import ConfigError", "training.errors"),
        ("import training.trainer", "training.trainer"),
        ("from training import hookspecs", "training.hookspecs"),
        ("def f():\n    from training.app import cli", "training.app"),
        ("if TYPE_CHECKING:\n    from training.logs import LazyLogs", "training.logs"),
        ("from data.vqa import x", "data.vqa"),
        ("from trainbus_logging import CSVLoggerCallback", "trainbus_logging"),
    ],
)
def test_what_a_plugin_may_not_import_is_found(text: str, found: str) -> None:
    assert foreign_imports(text, "trainbus_mine") == [found]


def test_a_kernel_file_imports_no_higher_floor() -> None:
    floor_of = {name: f for f, names in FLOORS.items() for name in names.split()}
    places = [*KERNEL.glob("*.py"), *(KERNEL / folder for folder in FOLDERS)]
    assert {path.stem for path in places} - {"__init__"} == set(floor_of), (
        "every file has a floor"
    )
    for place in places:
        if place.stem == "__init__":
            continue
        floor = floor_of[place.stem]
        for path in place.glob("*.py") if place.is_dir() else [place]:
            for name in imports_of(path, top_level_only=True):
                parts = name.split(".")
                if parts[0] == "training" and len(parts) > 1:
                    assert floor_of.get(parts[1], 0) <= floor, f"{path} imports {name}"
                    assert parts[1] != "app", f"{path} imports {name}"


def test_at_most_14_files_of_the_kernel_lie_flat() -> None:
    assert len(list(KERNEL.glob("*.py"))) <= 14


def test_every_folder_of_the_app_is_a_room() -> None:
    folders = {path.parent.name for path in (KERNEL / "app").glob("*/__init__.py")}
    assert folders == set(APP)


@pytest.mark.parametrize("room", APP)
def test_a_room_of_the_app_uses_only_rooms_to_its_left(room: str) -> None:
    used = {
        name.split(".")[2]
        for path in (KERNEL / "app" / room).rglob("*.py")
        for name in imports_of(path)
        if name.startswith("training.app.")
    }
    assert used - {room, "tables", "resume"} <= set(APP[room])


@pytest.mark.parametrize(
    "path",
    sorted(ROOT.glob("core/**/*.py")) + sorted(ROOT.glob("plugins/*/src/**/*.py")),
)
def test_no_file_is_longer_than_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").split("\n")) <= 400


def lines_of_code(path: Path) -> int:
    """Count the lines of ``path`` that hold code: no comment, docstring or blank."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    prose = {
        line
        for node in ast.walk(tree)
        if isinstance(node, documented) and ast.get_docstring(node) is not None
        for line in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)
    }
    quiet = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE)
    quiet += (tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    with path.open("rb") as file:
        lines = {
            line
            for token in tokenize.tokenize(file.readline)
            if token.type not in quiet and token.type != tokenize.ENCODING
            for line in range(token.start[0], token.end[0] + 1)
        }
    return len(lines - prose)


def closure(*paths: Path) -> set[Path]:
    """Return the kernel's files that are imported with ``paths``, by way of others."""
    found: set[Path] = set()
    left = list(paths)
    while left:
        path = left.pop()
        if path not in found:
            found.add(path)
            names = imports_of(path, top_level_only=True)
            places = [KERNEL.parent / name.replace(".", "/") for name in names]
            left += [f for p in places if (f := p.with_suffix(".py")).is_file()]
    return found


@pytest.mark.parametrize(("names", "limit"), LIMITS.items())
def test_the_loop_stays_small_with_all_that_it_imports(
    names: tuple[str, ...], limit: int
) -> None:
    files = closure(*(KERNEL / f"{name}.py" for name in names))
    assert sum(map(lines_of_code, files)) < limit


def test_what_is_imported_by_way_of_others_is_counted() -> None:
    names = {path.name for path in closure(KERNEL / "loop" / "window.py")}
    assert {"window.py", "gradients.py", "readback.py"} <= names


def test_the_loop_imports_neither_checkpoints_nor_builtins() -> None:
    files = closure(KERNEL / "loop" / "loop.py", KERNEL / "loop" / "run_state.py")
    rooms = {path.parent.name for path in files}
    assert rooms <= {"training", "loop", "hardware", "modules", "planned"}


@pytest.mark.parametrize("room", ["checkpoint", "builtin", "trainer", "run", "app"])
def test_no_file_of_the_loop_imports_what_lies_above_it(room: str) -> None:
    above = re.compile(rf"training\.{room}(\.|$)")
    found = {
        f"{path.name} imports {name}"
        for path in (KERNEL / "loop").glob("*.py")
        for name in imports_of(path)
        if above.match(name)
    }
    assert found == set()


@pytest.mark.parametrize("door", [training, callbacks, plugin])
def test_every_public_name_resolves(door: ModuleType) -> None:
    for name in door.__all__:
        assert getattr(door, name) is not None


@pytest.mark.parametrize("door", [training, plugin])
def test_the_names_for_type_checkers_are_the_public_names(door: ModuleType) -> None:
    tree = ast.parse(Path(str(door.__file__)).read_text(encoding="utf-8"))
    checked = {
        alias.name
        for node in tree.body
        if isinstance(node, ast.If)
        for statement in node.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert checked == set(door.__all__)


def test_the_same_object_comes_from_both_doors() -> None:
    from training import EarlyStoppingCallback
    from training.callbacks import EarlyStoppingCallback as second

    assert EarlyStoppingCallback is second


def test_a_missing_plugin_is_named_with_its_install_line() -> None:
    code = (
        "import sys; sys.modules['trainbus_logging'] = None\n"
        "from training import CSVLoggerCallback"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert "pip install trainbus-logging" in run.stderr


def test_importing_the_doors_imports_nothing_heavy() -> None:
    code = (
        "import sys, training, training.plugin\n"
        "heavy = {'torch', 'transformers', 'yaml', 'pydantic', 'tqdm', 'pluggy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_the_kernel_alone_imports_neither_loggers_nor_transformers() -> None:
    code = (
        "import sys\nfrom training import Trainer\n"
        "heavy = {'transformers', 'yaml', 'pydantic', 'tensorboard'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
