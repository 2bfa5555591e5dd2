"""The part of the command line that is about records of runs: its arguments."""

from __future__ import annotations

import argparse

from training.app.cli.parser import Commands

__all__ = ["add_report", "add_runs"]

#: What runs can be sorted by; ``cli.runs`` knows how.
SORTED_BY = ("name", "state", "best", "epochs", "time", "stopped")


def add_runs(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add ``runs``."""
    runs = commands.add_parser(
        "runs", help="list runs, or say what sets two apart: runs diff A B"
    )
    runs.set_defaults(module="cli.runs", command="runs")
    runs.add_argument(
        "what",
        metavar="FOLDER | diff A B",
        nargs="*",
        help="list the runs in and below FOLDER (default: runs, else here); or compare "
        "the settings and results of the runs in A and B",
    )
    runs.add_argument(
        "--sort",
        choices=SORTED_BY,
        help="by name (default), state, best value, epochs, time, or who stopped them",
    )
    runs.add_argument(
        "--settings",
        action="store_true",
        help="show the settings in which the runs differ, too",
    )
    runs.add_argument(
        "--json", action="store_true", help="print JSON, with the settings of each run"
    )


def add_report(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add ``report``."""
    report = commands.add_parser(
        "report", help="write what became of runs as one HTML file"
    )
    report.set_defaults(module="cli.report", command="write_report")
    report.add_argument("runs", metavar="RUN", nargs="+", help="the save_dir of a run")
    report.add_argument(
        "--out",
        metavar="FILE",
        help="a new .html file (default: report.html in RUN, of several in the folder "
        "that holds them all; a report that is there is written anew)",
    )
    report.add_argument(
        "--predictions",
        metavar="FILE",
        action="append",
        default=[],
        help="rows that `evaluate --predictions FILE` wrote, one FILE a RUN, in order "
        "(default: predictions.jsonl in RUN)",
    )
