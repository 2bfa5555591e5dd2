"""The part of the command line that helps to begin: its arguments."""

from __future__ import annotations

import argparse

from training.app.cli.parser import Commands

__all__ = ["add_completion", "add_init"]

SHELLS = ("bash", "zsh", "fish")


def add_completion(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add ``completion``."""
    completion = commands.add_parser(
        "completion", help="print a script that lets a shell complete these commands"
    )
    completion.set_defaults(module="cli.completion", command="completion")
    completion.add_argument(
        "shell", metavar="SHELL", choices=SHELLS, help="which shell"
    )


def add_init(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add ``init``."""
    init = commands.add_parser(
        "init", help="look at rows, and write a configuration that trains on them"
    )
    init.set_defaults(module="cli.init", command="init")
    told = "a file of rows, a folder, or a reader with options, in braces"
    init.add_argument("rows", metavar="ROWS", help=told)
    init.add_argument(
        "--out",
        default="config.yaml",
        metavar="FILE",
        help="the configuration to write, a new file (config.yaml)",
    )
    init.add_argument("--task", metavar="NAME", help="what to train; default: guessed")
    init.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="FIELD=COLUMN",
        dest="fields",
        help="which column is that field of the task; may be given several times",
    )
