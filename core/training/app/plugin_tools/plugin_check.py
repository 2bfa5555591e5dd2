"""Import plugins where it cannot hurt: in a process that may crash, exit or hang."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from training.app.plugin_tools.plugin_facts import Named
from training.discovery import installed
from training.discovery.installed import CALLBACK, BrokenPluginError
from training.errors import TrainbusError
from training.messages.error_texts import error_text, text_of

__all__ = ["check"]

#: Seconds for the imports of all plugins; torch alone takes some.
TIMEOUT = 120.0


def check(
    names: Sequence[Named], folders: Sequence[str] = (), timeout: float = TIMEOUT
) -> dict[Named, str]:
    """Return (kind, name) -> what is wrong with that plugin, ``""`` if nothing.

    A plugin that ends the process is found out; the others are checked in a new one.

    Args:
        names: kinds and names of the plugins to check.
        folders: further places to find them in.
        timeout: seconds after which the plugin at hand counts as hanging.
    """
    results: dict[Named, str] = {}
    while left := [name for name in names if name not in results]:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report"
            report.touch()
            ending = _call(report, left, folders, timeout)
            lines = report.read_text(encoding="utf-8").splitlines()
        begun = left[0]
        for line in lines:
            kind, name, trouble = json.loads(line)
            begun = kind, name
            if trouble is not None:
                results[begun] = trouble
        if begun not in results:
            results[begun] = f"importing it {ending}"
    return {name: results[name] for name in names}


def _call(
    report: Path, names: Sequence[Named], folders: Sequence[str], timeout: float
) -> str:
    """Run the other process; return how it ended, in words."""
    flat = [word for named in names for word in named]
    arguments = [str(report), str(len(folders)), *folders, *flat]
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
        )
    except subprocess.TimeoutExpired:
        return f"hangs: no end after {timeout:g} s"
    last = (ended.stderr.strip().splitlines() or ["without a word"])[-1]
    return f"ends the process with exit code {ended.returncode}: {last}"


def _trouble(kind: str, name: str) -> str:
    """Return what is wrong with an installed plugin; nothing is constructed."""
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
    except BrokenPluginError as error:
        return text_of(error)
    except TrainbusError as error:
        return text_of(error)
    except Exception as error:
        return error_text(error)
    return "; ".join(mistakes)


def _main(arguments: Sequence[str]) -> None:
    report, count, *rest = arguments
    folders, names = rest[: int(count)], rest[int(count) :]
    for folder in folders:
        installed.use_folder(folder)
    with open(report, "a", encoding="utf-8", buffering=1) as file:
        for kind, name in zip(names[::2], names[1::2], strict=True):
            file.write(json.dumps([kind, name, None]) + "\n")
            with contextlib.redirect_stdout(sys.stderr):
                trouble = _trouble(kind, name)
            file.write(json.dumps([kind, name, trouble]) + "\n")


if __name__ == "__main__":
    _main(sys.argv[1:])
