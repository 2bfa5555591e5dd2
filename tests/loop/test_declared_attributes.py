"""Nobody asks a plugin for an attribute that no hook and not ``Callback`` declares."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from training import Callback
from training.hookspecs import HOOKS

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path
    for pattern in ("core/**/*.py", "plugins/*/src/**/*.py")
    for path in ROOT.glob(pattern)
)
DECLARED = {*HOOKS, *vars(Callback), "__class__"}
#: What holds plugins, and what one of them is called.
MANY = {"plugins", "callbacks", "instances", "everybody"}
ONE = {"plugin", "callback"}
#: Places that go through whatever a plugin has, to find its hooks or its relations.
READERS = {
    "core/training/bus/registration.py": {"attribute"},
    "core/training/bus/declared.py": {"hook"},
    "core/training/bus/order.py": {"key"},
    "core/training/bus/unmet.py": {"key"},
    # Attributes that ``Callback`` declares, and options that a class declares there.
    "core/training/bus/ranks.py": {"what"},
    "core/training/app/plan/planning.py": {"option"},
    "plugins/logging/src/trainbus_logging/standing.py": {"option"},
}


def words(node: ast.AST) -> set[str]:
    """Return the names in ``node``, of variables and of attributes."""
    found = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return found | {e.attr for e in ast.walk(node) if isinstance(e, ast.Attribute)}


def plugins_in(tree: ast.AST) -> set[str]:
    """Return the variables that hold a plugin: named so, or taken out of many."""
    names = set(ONE)
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.comprehension):
            source, target = node.iter, node.target
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript):
            source, target = node.value.value, node.targets[0]
        else:
            continue
        if words(source) & MANY:
            pair = isinstance(target, ast.Tuple) and target.elts
            names |= words(pair[-1] if pair else target)
    return names


def asked(text: str) -> list[str]:
    """Return what ``text`` asks of plugins and nobody declares."""
    tree = ast.parse(text)
    names = plugins_in(tree)
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or len(node.args) < 2:
            continue
        is_question = ast.unparse(node.func) in ("getattr", "hasattr")
        who, what = node.args[:2]
        if isinstance(who, ast.Call):  # type(plugin)
            who = who.args[0] if who.args else who
        of_many = isinstance(who, ast.Subscript) and words(who) & MANY
        is_one = isinstance(who, ast.Name) and who.id in names
        if is_question and (is_one or of_many):
            name = what.value if isinstance(what, ast.Constant) else ast.unparse(what)
            found.append(str(name))
    return [name for name in found if name not in DECLARED]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: "/".join(path.parts[-2:]))
def test_a_plugin_is_asked_only_for_what_is_declared(path: Path) -> None:
    allowed = READERS.get(str(path.relative_to(ROOT)), set())
    assert set(asked(path.read_text(encoding="utf-8"))) <= allowed


@pytest.mark.parametrize(
    "text",
    [
        "getattr(plugin, 'checkpoint_of', None)",
        "hasattr(callback, 'rehearse')",
        "for each in trainer.plugins.values(): getattr(each, 'best_path', None)",
        "for name, it in run.plugins.items(): hasattr(it, 'schedule')",
        "[getattr(each, 'produce', ()) for each in callbacks]",
        "found = trainer.plugins['csv']\nhasattr(found, 'path')",
        "getattr(run.plugins[name], 'cadence')",
        "getattr(type(plugin), 'planned_files')",
        "for key in KEYS: getattr(plugin, key)",
    ],
)
def test_a_guess_is_found(text: str) -> None:
    assert len(asked(text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "getattr(plugin, 'failure', 'fatal')",
        "hasattr(plugin, 'evaluate')",
        "getattr(loader, 'batch_size', None)",
        "for name, loader in loaders.items(): getattr(loader, 'sampler')",
    ],
)
def test_what_is_declared_or_no_plugin_is_let_be(text: str) -> None:
    assert asked(text) == []
