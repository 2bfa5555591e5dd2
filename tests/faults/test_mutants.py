"""Each promise can be broken, and its test finds that: the negative controls."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from faults.mutants import MUTANTS, Mutant

TESTS = Path(__file__).parents[1]
HOOK = Path(__file__).parent / "mutation"
#: Needs CUDA; what it checks there is what R1 and R4 check here.
WITHOUT = {"r7"}


def run_under(mutant: Mutant) -> subprocess.CompletedProcess[str]:
    """Run the tests of a mutant in a process in which that place is broken."""
    path = os.pathsep.join([str(HOOK), os.environ.get("PYTHONPATH", "")])
    broken = json.dumps([mutant.module, mutant.old, mutant.new])
    # Plain: pytest would load the modules itself, to rewrite what they assert.
    options = ["-q", "-x", "--assert=plain", "-p", "no:cacheprovider", "-m", ""]
    # Of installed plugins the one that the options ask for: to load them takes time.
    options += ["-p", "pytest_timeout"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, mutant.file, "-k", mutant.tests],
        cwd=TESTS,
        env={
            **os.environ,
            "PYTHONPATH": path,
            "MUTANT": broken,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )


def cases() -> Iterator[Any]:
    """Yield all; the first of each number is not exhaustive, unless it takes long."""
    begun = set()
    for each in MUTANTS:
        is_first = each.number not in begun and not each.is_long
        marks = [] if is_first else [pytest.mark.exhaustive]
        begun.add(each.number)
        yield pytest.param(each, id=f"{each.number} {each.what}", marks=marks)


@pytest.mark.parametrize("mutant", list(cases()))
@pytest.mark.slow
def test_a_test_fails_in_a_code_in_which(
    mutant: Mutant, record_property: Callable[[str, object], None]
) -> None:
    done = run_under(mutant)
    failed = re.findall(r"^FAILED \S+::(\w+)", done.stdout, re.MULTILINE)
    assert done.returncode == 1, done.stdout[-2000:]
    assert f"_{mutant.number.lower()}_" in failed[0]
    record_property("mutants found", 1)


def test_without_a_mutant_the_same_process_passes() -> None:
    """The control of the controls: it is the broken place that fails."""
    (kept,) = (each for each in MUTANTS if each.number == "P8")
    done = run_under(kept._replace(new=kept.old))
    assert done.returncode == 0, done.stdout[-2000:]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.what)
def test_the_place_to_break_stands_once_in_its_module(mutant: Mutant) -> None:
    spec = find_spec(mutant.module)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).read_text(encoding="utf-8")
    assert source.count(mutant.old) == 1
    assert compile(source.replace(mutant.old, mutant.new), spec.origin, "exec")


def test_every_numbered_promise_has_one() -> None:
    names = " ".join(
        name
        for folder in ("faults", "weighing")
        for file in (TESTS / folder).rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text("utf-8"), re.M)
    )
    numbers = set(re.findall(r"(?<=_)[cprsw]\d+(?=_)", names)) - WITHOUT
    assert len(numbers) > 25
    # Those of several processes (D) have one where a fault would not hang them.
    others = {each.number.lower() for each in MUTANTS if each.number[0] != "D"}
    assert numbers == others
