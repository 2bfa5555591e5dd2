"""Import plugins where it cannot hurt: in a process that may crash, exit or hang."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from training.app.plugin_tools.plugin_facts import Named
from training.discovery import installed
from training.discovery.installed import CALLBACK
from training.errors import TrainbusError
from training.messages.error_texts import error_text, text_of

__all__ = ["check"]

#: Seconds for the imports of all plugins, torch alone takes some; and for each family,
#: which may be tried on rows. Who hangs on two processes is ended by who tries it.
TIMEOUT, TRIAL = 240.0, 120.0


def check(
    names: Sequence[Named],
    folders: Sequence[str] = (),
    timeout: float = TIMEOUT,
    is_tried: bool = False,
) -> dict[Named, tuple[str, str]]:
    """Return (kind, name) -> what is wrong with that plugin, ``""`` if nothing.

    And what else is to be said of it. A plugin that ends the process is found out; the
    others are checked in a new one.

    Args:
        names: kinds and names of the plugins to check.
        folders: further places to find them in.
        timeout: seconds after which the plugin at hand counts as hanging, if no model
            family is among them.
        is_tried: whether callbacks that are good take part in small runs, too.
    """
    results: dict[Named, tuple[str, str]] = {}
    while left := [name for name in names if name not in results]:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report"
            report.touch()
            num_families = sum(kind == "model" for kind, _ in left)
            seconds = timeout + TRIAL * num_families
            ending = _call(report, left, folders, seconds, is_tried)
            lines = report.read_text(encoding="utf-8").splitlines()
        begun = left[0]
        for line in lines:
            kind, name, found = json.loads(line)
            begun = kind, name
            if found is not None:
                results[begun] = found[0], found[1]
        if begun not in results:
            results[begun] = f"importing it {ending}", ""
    return {name: results[name] for name in names}


def _call(
    report: Path,
    names: Sequence[Named],
    folders: Sequence[str],
    timeout: float,
    is_tried: bool,
) -> str:
    """Run the other process; return how it ended, in words."""
    flat = [word for named in names for word in named]
    tried = str(int(is_tried))
    arguments = [str(report), tried, str(len(folders)), *folders, *flat]
    module = "training.app.plugin_tools.plugin_check"
    command = [sys.executable, "-m", module, *arguments]
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            # What is tried is tried on a CPU; where torch sees a GPU it cannot fork.
            env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        )
    except subprocess.TimeoutExpired:
        return f"hangs: no end after {timeout:g} s"
    last = (ended.stderr.strip().splitlines() or ["without a word"])[-1]
    return f"ends the process with exit code {ended.returncode}: {last}"


def _checked(kind: str, name: str) -> tuple[str, str]:
    """Return what is wrong with an installed plugin, and what else is to be said.

    Nothing is constructed yet but a model family that brings rows to try it on.
    """
    from training.app.plugin_tools.family_trial import REMARKS, tried
    from training.bus.bus import Bus
    from training.discovery.signature import signature_mistakes
    from training.recipes.class_checks import class_mistakes

    try:
        cls = installed.load(installed.find(name, "plugins check", kind))
        if kind == CALLBACK:
            Bus().register(object.__new__(cls), name)
            mistakes = signature_mistakes(cls)
        else:
            mistakes = class_mistakes(kind, cls)
        if kind == "model" and not mistakes:
            return tried(cls)
    except TrainbusError as error:
        return text_of(error), ""
    except Exception as error:
        return error_text(error), ""
    return "; ".join(mistakes), "" if mistakes else REMARKS.get(kind, "")


def _tried(name: str) -> tuple[str, str]:
    """Return what is wrong with a plugin on two processes, or where a GPU waits."""
    from training.app.plugin_tools.wait_trial import waits_remark

    cls = installed.load(installed.find(name, "plugins check", CALLBACK))
    trial = import_module("training.testing.many_processes").trial
    with tempfile.TemporaryDirectory() as folder:
        mistakes: list[str] = trial(cls, Path(folder))
    return "; ".join(mistakes), "" if mistakes else waits_remark(cls)


def _main(arguments: Sequence[str]) -> None:
    report, is_tried, count, *rest = arguments
    folders, names = rest[: int(count)], rest[int(count) :]
    for folder in folders:
        installed.use_folder(folder)
    with open(report, "a", encoding="utf-8", buffering=1) as file:

        def write(kind: str, name: str, found: tuple[str, str] | None) -> None:
            file.write(json.dumps([kind, name, found]) + "\n")

        for kind, name in zip(names[::2], names[1::2], strict=True):
            write(kind, name, None)
            with contextlib.redirect_stdout(sys.stderr):
                found = _checked(kind, name)
                write(kind, name, found)
                # Behind its result, which stands even where the run never ends.
                if int(is_tried) and kind == CALLBACK and not found[0]:
                    write(kind, name, _tried(name))


if __name__ == "__main__":
    _main(sys.argv[1:])
