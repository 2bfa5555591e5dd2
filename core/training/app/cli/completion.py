"""The command ``completion``: a script for a shell, made of the parser itself."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from training.app.cli.parser import Commands
from training.app.config.shipped_configs import shipped_configs
from training.discovery.installed import installed
from training.errors import PluginError

__all__ = ["completion"]

#: What stands for a file or a folder in the help.
FILES = ("FILE", "OUT", "ROWS", "auto|FILE")
FOLDERS = ("CLONE", "DIR")
#: Offers files, and configurations that come with the package: bash only, the others
#: offer files.
CONFIGS = """
_trainbus_configs() {{
  compgen -W "{names}" -- $1
  compgen -f -- $1
}}
"""


def completion(arguments: argparse.Namespace) -> None:
    """Print the script; a shell reads it once, when it starts.

    Raises:
        PluginError: the package that makes it is missing.
    """
    from training.app.cli.command_line import build_parser

    try:
        import shtab
    except ImportError as error:
        raise PluginError(
            "completion needs the package shtab; run: pip install "
            "'trainbus[completion]'"
        ) from error
    parser = build_parser()
    names = sorted({info.name for info in installed()})
    for action in _actions(parser):
        if action.metavar == "CONFIG":
            by_shell = {**shtab.FILE, "bash": "_trainbus_configs"}
            action.complete = by_shell  # type: ignore[attr-defined]
        elif action.metavar == "PLUGIN":
            action.choices = names
        elif action.metavar in FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar in FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.dest == "plugins":
            # This parser parses nothing: what it suggests may be incomplete.
            action.choices = [*names, *(f"no:{name}" for name in names)]
    own = CONFIGS.format(names=" ".join(shipped_configs()))
    preamble = own if arguments.shell == "bash" else ""
    print(shtab.complete(parser, arguments.shell, preamble=preamble), flush=True)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield every argument of every command."""
    for action in parser._actions:
        if isinstance(action, Commands):
            for each in action.choices.values():
                yield from _actions(each)
        yield action
