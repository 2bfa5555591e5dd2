"""What is opened runs no code that came with it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path
    for folder in ("core", "data", "models", "plugins/*/src", "examples/*/src")
    for path in ROOT.glob(f"{folder}/**/*.py")
)
#: Function -> the argument without which it may run what it reads.
GUARDED = {"from_pretrained": "trust_remote_code", "load": "weights_only"}
SAFE = {"trust_remote_code": False, "weights_only": True}


def unguarded_calls(source: str) -> Iterator[str]:
    """Yield each call of a loading function without the safe value written in it."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        argument = GUARDED.get(node.func.attr)
        owner = ast.unparse(node.func.value)
        if argument is None or (argument == "weights_only" and owner != "torch"):
            continue
        given = {word.arg: word.value for word in node.keywords}
        value = given.get(argument)
        if not (isinstance(value, ast.Constant) and value.value is SAFE[argument]):
            yield ast.unparse(node)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_loading_call_says_that_nothing_is_run(path: Path) -> None:
    assert list(unguarded_calls(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "AutoModel.from_pretrained(name)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=asked)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
    ],
)
def test_a_call_without_it_is_found(source: str) -> None:
    assert list(unguarded_calls(source)) == [source]


def test_a_call_that_says_it_is_let_through() -> None:
    assert not list(unguarded_calls("torch.load(path, weights_only=True)"))
    assert not list(unguarded_calls("json.load(file)"))


def test_the_page_says_what_is_safe_what_runs_code_and_where_to_report() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for heading in ("## Safe to open", "## What runs code", "## Reporting"):
        assert heading in text
