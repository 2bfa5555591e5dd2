"""What hosted machines run, and hooks before a commit, is what the Makefile runs."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# An action of its author's, at a major version.
PINNED = re.compile(r"[\w.-]+/[\w./-]+@v\d+")


def targets() -> set[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z-]+):.*## \S", text, re.MULTILINE))


def supported_pythons() -> set[str]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return set(re.findall(r":: (3\.\d+)$", setup["metadata"]["classifiers"], re.M))


def pythons_of(job: dict[str, Any]) -> list[Any]:
    """Return the versions that ``job`` runs on, as YAML read them: 3.10 is 3.1."""
    listed = job.get("strategy", {}).get("matrix", {}).get("python-version", [])
    said = [step.get("with", {}).get("python-version") for step in job["steps"]]
    return listed + [v for v in said if v is not None and "matrix." not in str(v)]


def mistakes(text: str) -> list[str]:
    """Return what is wrong with a workflow, a sentence each."""
    jobs = yaml.safe_load(text)["jobs"].values()
    steps = [step for job in jobs for step in job["steps"]]
    known = targets()
    found = []
    for step in steps:
        for line in step.get("run", "").splitlines():
            words = line.split()
            if words[:1] != ["make"] or not words[1:] or set(words[1:]) - known:
                found.append(f"{line!r} runs no target of the Makefile")
        if "uses" in step and not PINNED.fullmatch(step["uses"]):
            found.append(f"{step['uses']} is not pinned to a major version")
    ran = [version for job in jobs for version in pythons_of(job)]
    if set(ran) != supported_pythons():
        found.append(f"runs on {ran}, setup.cfg names {sorted(supported_pythons())}")
    return found


def check_text() -> str:
    return (ROOT / ".github" / "workflows" / "check.yml").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_the_makefile_on_every_supported_python(path: Path) -> None:
    assert mistakes(path.read_text(encoding="utf-8")) == []


def test_what_a_change_must_pass_runs_on_newest_and_oldest_versions() -> None:
    jobs = yaml.safe_load(check_text())["jobs"].values()
    ran = {s["run"]: set(pythons_of(job)) for job in jobs for s in job["steps"][2:]}
    oldest = min(supported_pythons(), key=lambda v: int(v.partition(".")[2]))
    assert ran.pop("make site") == {oldest}
    assert ran == {"make check": supported_pythons(), "make lowest": {oldest}}


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("make check", "make chekc", "'make chekc' runs no target"),
        ("make check", "pytest", "'pytest' runs no target"),
        ("make lowest", "make lowest; curl x", "runs no target"),
        ("checkout@v5", "checkout@main", "checkout@main is not pinned"),
        ("checkout@v5", "checkout", "checkout is not pinned"),
        (', "3.13"]', "]", "setup.cfg names ['3.11', '3.12', '3.13']"),
        ('"3.13"]', '"3.14"]', "3.14"),
        ('"3.12"', "3.12", "'3.11', 3.12, '3.13'"),
    ],
)
def test_a_workflow_that_differs_is_found(right: str, wrong: str, told: str) -> None:
    assert right in check_text()
    assert told in " ".join(mistakes(check_text().replace(right, wrong)))


def test_a_commit_is_looked_at_by_the_tools_of_make_lint_and_make_types() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    (repo,) = yaml.safe_load(text)["repos"]
    assert repo["repo"] == "local"
    assert {hook["language"] for hook in repo["hooks"]} == {"system"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipes = re.search(r"^lint:.*?^format:.*?(?=^check:)", makefile, re.M | re.S)
    assert recipes is not None
    wanted = {"ruff check", "ruff format", "mypy"}
    assert all(f"$(BIN)/{tool}" in recipes[0] for tool in wanted)
    assert re.search(r"^lint:.* walls ", makefile, re.M)
    entries = {hook["entry"].partition(" --")[0] for hook in repo["hooks"]}
    assert entries == {"make walls", *(f".venv/bin/{tool}" for tool in wanted)}
