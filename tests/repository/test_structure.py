"""What holds the house up: documented hooks, walls between parts, public names."""

from __future__ import annotations

import ast
import inspect
import re
import tokenize
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
from processes import printed_by, python

import training
from training import callbacks, hookspecs, plugin, view
from training.hookspecs import HOOKS

ROOT = Path(__file__).resolve().parents[2]
KERNEL = ROOT / "core" / "training"
ANSWERS = ("State:", "Args:", "Returns:", "Order:", "Errors:")
# Files -> lines of code that they may have with all that they import, and so on. The
# order of a step, and then with the parts that are handed to it.
LIMITS = {
    ("loop/loop",): 700,
    ("loop/loop", "loop/window", "loop/run_state", "feed/feed", "bus/bus"): 3_050,
}


def imports_of(path: Path) -> set[str]:
    """Return dotted names that are imported with ``path``, not late nor for types."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in tree.body:
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


def test_at_most_14_files_of_the_kernel_lie_flat() -> None:
    names = {path.name for path in KERNEL.glob("*.py")}
    assert len(names - {"__main__.py"}) <= 14  # Python wants that one there


def crowded(root: Path) -> list[str]:
    """Return the folders of code and tests below ``root`` with more than 18 files."""
    places = ("core", "data", "models", "report", "plugins", "examples", "tests")
    paths = (path for place in places for path in (root / place).rglob("*.py"))
    counts = Counter(str(path.parent.relative_to(root)) for path in paths)
    return sorted(folder for folder, count in counts.items() if count > 18)


def test_no_room_holds_more_than_18_files() -> None:
    assert crowded(ROOT) == []


@pytest.mark.parametrize("folder", ["core/training/loop", "plugins/a/src/a", "tests"])
def test_a_room_with_more_files_is_found(folder: str, tmp_path: Path) -> None:
    (tmp_path / folder / "below").mkdir(parents=True)
    for number in range(18):
        (tmp_path / folder / f"f{number}.py").touch()
        (tmp_path / folder / "below" / f"f{number}.py").touch()
    assert crowded(tmp_path) == []
    (tmp_path / folder / "one_more.py").touch()
    assert crowded(tmp_path) == [folder]


def is_long(path: Path) -> bool:
    return len(path.read_text(encoding="utf-8").split("\n")) > 400


@pytest.mark.parametrize(
    "path",
    sorted(ROOT.glob("core/**/*.py"))
    + sorted(ROOT.glob("report/**/*.py"))
    + sorted(ROOT.glob("plugins/*/src/**/*.py")),
)
def test_no_file_is_longer_than_400_lines(path: Path) -> None:
    assert not is_long(path)


def long_tests(root: Path) -> list[str]:
    """Return the files of tests below ``root`` of more than 400 lines."""
    places = ("tests/**/*.py", "plugins/*/tests/**/*.py", "examples/*/tests/**/*.py")
    paths = (path for place in places for path in root.glob(place))
    return sorted(str(path.relative_to(root)) for path in paths if is_long(path))


def test_no_file_of_tests_is_longer_than_400_lines() -> None:
    assert long_tests(ROOT) == []


@pytest.mark.parametrize(
    "name",
    ["tests/test_a.py", "tests/bus/test_a.py", "plugins/a/tests/a.py"],
)
def test_a_longer_file_of_tests_is_found(name: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("\n" * 399)
    assert long_tests(tmp_path) == []
    (tmp_path / name).write_text("\n" * 400)
    assert long_tests(tmp_path) == [name]


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
            names = imports_of(path)
            places = [KERNEL.parent / name.replace(".", "/") for name in names]
            left += [f for p in places if (f := p.with_suffix(".py")).is_file()]
    return found


@pytest.mark.parametrize(("names", "limit"), LIMITS.items())
def test_the_loop_stays_small_with_all_that_it_imports(
    names: tuple[str, ...], limit: int
) -> None:
    files = closure(*(KERNEL / f"{name}.py" for name in names))
    assert sum(map(lines_of_code, files)) < limit


def names_processes(source: str) -> bool:
    """Whether code names torch's package for several processes, or what is of it."""
    words = ("distributed", "DistributedDataParallel")
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Attribute):
            names = [node.attr]
        if any(word in name.split(".") for name in names for word in words):
            return True
    return False


def test_only_the_strategy_knows_of_several_processes() -> None:
    files = KERNEL.rglob("*.py")
    named = {f.name for f in files if names_processes(f.read_text(encoding="utf-8"))}
    assert named == {"strategy.py"}


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import torch.distributed as dist", True),
        ("from torch import distributed", True),
        ("from torch.distributed import init_process_group", True),
        ("from torch.nn.parallel import DistributedDataParallel", True),
        ("import torch\ntorch.distributed.get_rank()", True),
        ("import torch\nx = torch.nn.parallel.DistributedDataParallel", True),
        ("distributed = 1  # torch.distributed", False),
        ("import torch\ntorch.nn.DataParallel", False),
    ],
)
def test_who_names_several_processes_is_found(source: str, names: bool) -> None:
    assert names_processes(source) is names


def test_one_step_is_read_in_three_files_of_at_most_900_lines() -> None:
    files = [KERNEL / f"{n}.py" for n in ("hookspecs", "loop/loop", "loop/window")]
    assert sum(len(f.read_text(encoding="utf-8").splitlines()) for f in files) <= 900


def test_what_is_imported_by_way_of_others_is_counted() -> None:
    names = {path.name for path in closure(KERNEL / "loop" / "window.py")}
    assert {"window.py", "gradients.py", "readback.py"} <= names


#: What a trainer has for a plugin of ours alone; ``view.py`` says so.
UNPROMISED = {"state"}


def read_of_a_trainer(*folders: str) -> set[str]:
    """Return what sources of plugins read of, or set on, ``trainer``."""
    paths = [path for each in folders for path in ROOT.glob(f"{each}/*/src/**/*.py")]
    texts = [path.read_text(encoding="utf-8") for path in paths]
    return {name for text in texts for name in re.findall(r"\btrainer\.(\w+)", text)}


def test_plugins_of_ours_read_what_is_promised_and_one_name_that_is_said() -> None:
    promised = {*view.TrainerView.__annotations__, *vars(view.TrainerView)}
    assert read_of_a_trainer("plugins") - promised == UNPROMISED
    assert read_of_a_trainer("examples") <= promised
    assert all(f"``{name}``" in str(view.__doc__) for name in UNPROMISED)


@pytest.mark.parametrize("door", [training, callbacks, plugin])
def test_every_public_name_resolves(door: ModuleType) -> None:
    for name in door.__all__:
        assert getattr(door, name) is not None


def test_the_door_for_plugins_lists_its_names_by_what_they_are_for() -> None:
    by_purpose = [name for names in plugin.PURPOSES.values() for name in names]
    assert plugin.__all__ == by_purpose


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
    assert "pip install trainbus-logging" in python("-c", code).stderr


def test_importing_the_doors_imports_nothing_heavy() -> None:
    code = (
        "import sys, training, training.plugin\n"
        "heavy = {'torch', 'transformers', 'yaml', 'pydantic', 'tqdm', 'pluggy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert printed_by(code) == "[]"


def test_the_kernel_alone_imports_neither_loggers_nor_transformers() -> None:
    code = (
        "import sys\nfrom training import Trainer\n"
        "heavy = {'transformers', 'yaml', 'pydantic', 'tensorboard'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert printed_by(code) == "[]"
