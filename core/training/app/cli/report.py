"""The command ``report``: what became of runs, as one HTML file."""

from __future__ import annotations

import argparse
import os
from importlib import import_module
from pathlib import Path

from training.app.cli.results import new_file
from training.app.records.run_folder import read_run
from training.errors import ConfigError
from training.files.leftovers import sweep_drafts
from training.files.named_paths import named_path
from training.files.report_page import REPORT, is_report
from training.messages.error_texts import printable
from training.messages.tables import count

__all__ = ["write_report"]


def write_report(arguments: argparse.Namespace) -> None:
    """Write the report of some runs."""
    predictions = [named_path(each) for each in arguments.predictions]
    if predictions and len(predictions) != len(arguments.runs):
        raise ConfigError(
            f"--predictions is given {count(len(predictions), 'time')} for "
            f"{count(len(arguments.runs), 'run')}; name a file for each, in their order"
        )
    for given, path in zip(arguments.predictions, predictions, strict=True):
        if not path.is_file():
            raise ConfigError(
                f"--predictions {given!r} is no file; write one with: trainbus "
                "evaluate CONFIG --checkpoint FILE --predictions FILE"
            )
    target = _target(arguments)
    runs = [read_run(each) for each in arguments.runs]
    try:
        report = import_module("trainbus_report")
    except ImportError as error:
        raise ConfigError(
            f"`trainbus report` needs the packages jinja2 and matplotlib ({error}); "
            "run: pip install 'trainbus[report]'"
        ) from error
    for note in report.write_report(runs, predictions, target):
        print(f"note: {printable(note)}")
    print(f"report: {printable(str(target))}")


def _target(arguments: argparse.Namespace) -> Path:
    """Return the file to write: a new one, or the report of the run, written anew.

    Of several runs it stands in the folder that holds them all. There, as in a run's
    folder, a file of that name may be somebody's own.
    """
    given = new_file(arguments.out, "--out")
    if given is None:
        folders = [named_path(each) for each in arguments.runs]
        if len(folders) > 1:
            folders = [Path(os.path.commonpath([f.absolute() for f in folders]))]
        own = folders[0] / REPORT
        if os.path.lexists(own) and not is_report(own):
            raise ConfigError(
                f"{str(own)!r} exists and is no report of trainbus; name a new file "
                "with --out"
            )
        sweep_drafts(own)
        return own
    if given.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"--out {arguments.out!r} must end in .html")
    return given
