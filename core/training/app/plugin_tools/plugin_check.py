"""Import plugins where it cannot hurt: in a process that may crash, exit or hang.

It works in a folder that is removed afterwards, whatever a plugin writes there.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from inspect import Parameter
from pathlib import Path
from typing import Any, NamedTuple

from training.app.plugin_tools.plugin_facts import Named
from training.discovery import installed
from training.discovery.installed import CALLBACK, PluginInfo
from training.discovery.signature import parameters_of, signature_mistakes
from training.errors import TrainbusError
from training.messages.error_texts import error_text, text_of

__all__ = ["Finding", "check"]

#: Seconds for the imports of all plugins, torch alone takes some; and for each that is
#: tried, on rows or in runs. Who hangs on two processes is ended by who tries it.
TIMEOUT, TRIAL = 240.0, 120.0


#: Of a callback that was only looked at.
UNTRIED = "imported, not tried"


class Finding(NamedTuple):
    """What is wrong with a plugin, what else to say, and a word if all is well."""

    trouble: str = ""
    remark: str = ""
    verdict: str = "good"


def check(
    names: Sequence[Named],
    folders: Sequence[str] = (),
    timeout: float = TIMEOUT,
    is_tried: bool = False,
) -> dict[Named, Finding]:
    """Return (kind, name) -> what was found of that plugin.

    A plugin that ends the process is found out; the others are checked in a new one.

    Args:
        names: kinds and names of the plugins to check.
        folders: further places to find them in.
        timeout: seconds after which the plugin at hand counts as hanging, if no model
            family is among them.
        is_tried: whether callbacks that are good go through the kit's runs, too.
    """
    results: dict[Named, Finding] = {}
    while left := [name for name in names if name not in results]:
        # Who is left of a process that was ended may still write there.
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            report = Path(folder) / "report"
            report.touch()
            num_trials = sum(is_tried or kind == "model" for kind, _ in left)
            seconds = timeout + TRIAL * num_trials
            ending = _call(report, left, folders, seconds, is_tried)
            lines = report.read_text(encoding="utf-8").splitlines()
        begun, under_way = left[0], "importing it"
        for line in lines:
            kind, name, found = json.loads(line)
            begun = kind, name
            if isinstance(found, str):
                under_way = found
            else:
                results[begun] = Finding(*found)
        if begun not in results:
            results[begun] = Finding(f"{under_way} {ending}")
    return {name: results[name] for name in names}


def _call(
    report: Path,
    names: Sequence[Named],
    folders: Sequence[str],
    timeout: float,
    is_tried: bool,
) -> str:
    """Run the other process; return how it ended, in words."""
    order = json.dumps([str(report), is_tried, list(folders), list(names)])
    module = "training.app.plugin_tools.plugin_check"
    try:
        ended = subprocess.run(
            [sys.executable, "-m", module, order],
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


def _found(kind: str, name: str) -> PluginInfo | Finding:
    """Return what is installed as ``name``, or what keeps it from being found."""
    try:
        return installed.find(name, "plugins check", kind)
    except Exception as error:
        return _trouble(error)


def _trouble(error: Exception) -> Finding:
    say = text_of if isinstance(error, TrainbusError) else error_text
    return Finding(say(error))


def _checked(info: PluginInfo) -> Finding:
    """Return what is wrong with an installed plugin, and what else is to be said.

    Nothing is constructed yet but a model family that brings rows to try it on.
    """
    from training.app.plugin_tools.family_trial import REMARKS, tried
    from training.bus.bus import Bus
    from training.recipes.class_checks import class_mistakes

    try:
        cls = installed.load(info)
        if info.kind == CALLBACK:
            Bus().register(object.__new__(cls), info.name)
            mistakes = signature_mistakes(cls)
        else:
            mistakes = class_mistakes(info.kind, cls)
        if info.kind == "model" and not mistakes:
            return Finding(*tried(cls))
    except Exception as error:
        return _trouble(error)
    if mistakes:
        return Finding("; ".join(mistakes))
    return Finding("", REMARKS.get(info.kind, "") or _other_name(info, cls))


def _other_name(info: PluginInfo, cls: type[Any]) -> str:
    """Return what to say of a plugin whose state has two names, ``""`` of others."""
    from training.bus.registration import checked_name

    # A name may be given in the constructor.
    if info.kind != CALLBACK or not hasattr(cls, "state_dict") or _unmade(cls):
        return ""
    chosen, own = info.name, checked_name(cls(), None)
    if chosen == own:
        return ""
    return (
        f"chosen by name it is {chosen!r} in a run, and as an instance in Python "
        f"{own!r}: neither finds its state in a checkpoint of the other; say "
        f"name = {chosen!r} in {cls.__name__}, or announce it as {own!r}"
    )


def _tried(info: PluginInfo) -> Finding:
    """Return what the kit says of a plugin, and where a GPU would wait for it.

    It is made without options; who cannot be made so is not tried.
    """
    from training.app.plugin_tools.callback_trial import (
        accepted,
        conforms,
        waits_remark,
    )

    cls = installed.load(info)
    if why := _unmade(cls):
        given = ", ".join(f"{name}=..." for name in _needed(cls)) or "..."
        way = f"assert_plugin_conforms(lambda: {cls.__name__}({given}))"
        return Finding("", f"give options in a test, as in {way}", f"{UNTRIED}: {why}")
    with tempfile.TemporaryDirectory() as folder:
        options, refusal = accepted(cls, Path(folder))
        if refusal:
            return Finding("", "", f"{UNTRIED}: it refuses the kit's runs: {refusal}")
        mistakes, remarks = conforms(cls, Path(folder), options)
    if not mistakes and (waits := waits_remark(cls, options)):
        remarks = [*remarks, waits]
    return Finding("\n  ".join(mistakes), "\n  ".join(remarks))


def _unmade(cls: type[Any]) -> str:
    """Return why no instance is made without options, ``""`` if one is."""
    needed = _needed(cls)
    try:
        cls()
    except Exception as error:
        if not needed:
            return error_text(error)
        return f"needs option {' and '.join(needed)}"
    return ""


def _needed(cls: type[Any]) -> list[str]:
    """Return the options that have no default."""
    return [
        name
        for name, parameter in parameters_of(cls).items()
        if parameter.default is Parameter.empty
    ]


def _main(order: str) -> None:
    report, is_tried, folders, names = json.loads(order)
    for folder in folders:
        installed.use_folder(folder)
    # What the user named is looked for where the user is; nothing is run there.
    everything = [(kind, name, _found(kind, name)) for kind, name in names]
    work = Path(report).with_name("work")
    work.mkdir()
    os.chdir(work)
    with open(report, "a", encoding="utf-8", buffering=1) as file:

        def write(kind: str, name: str, found: Finding | str) -> None:
            file.write(json.dumps([kind, name, found]) + "\n")

        for kind, name, info in everything:
            if isinstance(info, Finding):
                write(kind, name, info)
                continue
            write(kind, name, "importing it")
            with contextlib.redirect_stdout(sys.stderr):
                found = _checked(info)
                if kind == CALLBACK and not found.trouble:
                    found = found._replace(verdict=UNTRIED)
                    if is_tried:
                        write(kind, name, "a small run with it")
                        tried = _tried(info)
                        remarks = filter(None, (found.remark, tried.remark))
                        found = tried._replace(remark="\n  ".join(remarks))
            write(kind, name, found)


if __name__ == "__main__":
    _main(sys.argv[1])
