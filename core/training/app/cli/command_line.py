"""The command line: parse, call one command, turn errors into exit codes.

``--help`` and ``plugins list`` import neither torch nor pydantic; a command imports
what it needs when it is called.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import training
from training.app.cli.argument_checks import on_one_line, refusal_of, require_arguments
from training.app.cli.begin_arguments import add_completion, add_init
from training.app.cli.launched import (
    is_alone,
    is_said_alone,
    is_told_by_main,
    mark,
    record,
    speaks_for_all,
)
from training.app.cli.parser import Commands, Parser
from training.app.cli.record_arguments import add_report, add_runs
from training.app.cli.standard_streams import standard_streams
from training.app.plugin_tools.plugin_cli import add_choice, add_config, add_plugins
from training.discovery.installed import BrokenPluginError
from training.errors import (
    EXIT_DONE,
    EXIT_SIGINT,
    EXIT_USER_CODE,
    TrainbusError,
)
from training.messages.error_texts import error_text, notes_of, printable, text_of
from training.signals.handlers import Terminated

__all__ = ["main"]

#: Commands that clear up what they write, where a signal ends them: temporary folders
#: and files half written. None of them trains in this process.
WRITING = {
    *("check", "check_plugins", "convert_easy_vqa", "evaluate", "export", "init"),
    *("plan", "predict", "verify_resume", "write_report"),
}

EPILOG = """\
examples:
  trainbus run config/demo.yaml
  trainbus init rows.jsonl
  trainbus run config/demo.yaml --set training.num_epochs=5 -p tensorboard -p no:csv
  trainbus plugins list

exit codes:
  0 done, 1 a plugin or your own code raised, or what was printed is lost,
  2 configuration or plugins, 3 data, 4 no usable checkpoint, 5 non-finite loss,
  129 the terminal was closed, 130 interrupted, 143 terminated, 138 SIGUSR1, where
  training.stop_on_sigusr1 is set
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: arguments without the program's name; None: those of the process.
    """
    with standard_streams() as output:
        code = _ended(build_parser().parse_args(argv))
        output.flush()
        if output.error is None or isinstance(output.error, BrokenPipeError):
            return code  # the reader, such as `head`, has seen enough
        _tell(f"error: standard output could not be written: {output.error}")
        return code or EXIT_USER_CODE


def _ended(arguments: argparse.Namespace) -> int:
    """Call the chosen command; say what it raised, and return the exit code."""
    _prepare_surroundings()
    try:
        with _clearing_up(arguments):
            _call(arguments)
    except BrokenPluginError as error:
        if error.__cause__ is not None:
            _trace(error.__cause__)
        return _refuse(error, arguments)
    except TrainbusError as error:
        return _refuse(error, arguments)
    except KeyboardInterrupt as error:
        _tell("interrupted")
        _tell_notes(error)
        return EXIT_SIGINT
    except Terminated as error:
        _tell_notes(error)
        return error.exit_code
    except BaseException as error:  # also SystemExit, which no called code may decide
        refusal = refusal_of(error, arguments)
        if refusal is not None:
            code = _refuse(refusal, arguments)
            _tell_notes(error)
            return code
        _trace(error)
        return EXIT_USER_CODE
    return EXIT_DONE


def _clearing_up(arguments: argparse.Namespace) -> AbstractContextManager[object]:
    """Let a signal raise where the command has a file to clear up, and only there.

    A run hears signals by itself. And one of several processes may wait below Python
    for the others, where nothing raises: there the system shall end it at once.
    """
    if arguments.command not in WRITING or not is_alone():
        return nullcontext()
    # Late: it loads ctypes, which a command that only looks around need not pay.
    from training.signals.leaving import leaving

    return leaving()


def _refuse(error: TrainbusError, arguments: argparse.Namespace) -> int:
    """Tell each mistake on a line of its own, and return the exit code."""
    record(error)
    if is_told_by_main(error):
        return error.exit_code
    for line in on_one_line(text_of(error), arguments).split("\n"):
        _tell(f"error: {line}")
    _tell_notes(error)
    return error.exit_code


def _trace(error: BaseException) -> None:
    record(error)
    try:
        traceback.print_exception(error)
    except Exception:  # parts of it cannot be had
        _tell(f"error: {error_text(error)}")


def _tell_notes(error: BaseException) -> None:
    """Say who raised it, where a plugin did."""
    for note in notes_of(error):
        for line in note.split("\n"):
            _tell(f"note: {line}")


def _tell(sentence: str) -> None:
    print(printable(f"trainbus: {mark()}{sentence}"), file=sys.stderr)


def _call(arguments: argparse.Namespace) -> None:
    """Import the module of the chosen command and call its function.

    Raises:
        ConfigError: an argument that no command could make sense of.
    """
    require_arguments(arguments)
    module = importlib.import_module(f"training.app.{arguments.module}")
    getattr(module, arguments.command)(arguments)


class _AsOurs(logging.Formatter):
    """Writes a record as the command line's own sentences are written.

    By a formatter, since names of levels are the whole process's.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        return f"trainbus: {mark()}{record.levelname.lower()}: {record.message}"


def _prepare_surroundings() -> None:
    """Let warnings read like the rest, and keep libraries from talking over a run."""
    handler = logging.StreamHandler()
    handler.setFormatter(_AsOurs())
    if not speaks_for_all():  # what all are warned of is read once
        handler.addFilter(is_said_alone)
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def build_parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = Parser(
        prog="trainbus",
        description="Train models; every feature around the loop is a plugin.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"trainbus {training.__version__}"
    )
    parser.set_defaults(module="cli.commands")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_run(commands)
    _add_plan(commands)
    _add_check(commands)
    _add_verify_resume(commands)
    _add_evaluate(commands)
    _add_predict(commands)
    _add_export(commands)
    add_runs(commands)
    add_report(commands)
    _add_data(commands)
    add_plugins(commands)
    add_config(commands)
    add_init(commands)
    add_completion(commands)
    return parser


def _add_run(commands: Commands[argparse.ArgumentParser]) -> None:
    run = commands.add_parser("run", help="train what a configuration describes")
    run.set_defaults(command="run")
    _add_config(run)
    run.add_argument(
        "--profile-plugins", action="store_true", help="print what each plugin cost"
    )
    run.add_argument(
        "--profile-trace", metavar="FILE", help="write it for ui.perfetto.dev, too"
    )
    run.add_argument(
        "--watchdog",
        type=float,
        metavar="SECONDS",
        help="show where a plugin is whose one call takes longer",
    )
    run.add_argument(
        "--watchdog-abort", action="store_true", help="and end the process then"
    )
    run.add_argument(
        "--resume",
        metavar="auto|FILE",
        help="go on from FILE, or from the newest valid checkpoint of this run; "
        "with auto and no checkpoint, start",
    )
    run.add_argument(
        "--allow-change",
        action="append",
        default=[],
        metavar="SETTING",
        dest="allow_changes",
        help="let a setting differ from the checkpoint's: seed, optimizer.lr, ...",
    )


def _add_verify_resume(commands: Commands[argparse.ArgumentParser]) -> None:
    verify = commands.add_parser(
        "verify-resume", help="prove that a killed run resumes bit-identically"
    )
    verify.set_defaults(module="prove.verify_resume", command="verify_resume")
    _add_config(verify)
    for name, what in (("--before", "until it is killed"), ("--after", "after that")):
        verify.add_argument(
            name, type=int, default=5, metavar="STEPS", help=f"steps {what} (5)"
        )


def _add_plan(commands: Commands[argparse.ArgumentParser]) -> None:
    plan = commands.add_parser(
        "plan", help="say what a run would do and what contradicts, training nothing"
    )
    plan.set_defaults(command="plan")
    _add_config(plan)
    plan.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="say who would compute what (default: as many as were started)",
    )


def _add_check(commands: Commands[argparse.ArgumentParser]) -> None:
    check = commands.add_parser(
        "check", help="compare the first window's gradients in two splits"
    )
    check.set_defaults(command="check")
    _add_config(check)


def _add_evaluate(commands: Commands[argparse.ArgumentParser]) -> None:
    evaluate = commands.add_parser("evaluate", help="measure a checkpoint")
    evaluate.set_defaults(command="evaluate")
    _add_config(evaluate)
    evaluate.add_argument(
        "--checkpoint", required=True, metavar="FILE", help="a file that a run wrote"
    )
    evaluate.add_argument(
        "--split",
        default="validation",
        choices=("validation", "test"),
        help="which rows to answer (default: validation)",
    )
    evaluate.add_argument(
        "--predictions",
        metavar="FILE",
        help="write each row with its prediction and scores as a JSON line; if FILE "
        "ends in .json, the list that the task's servers take; FILE must be new",
    )


def _add_predict(commands: Commands[argparse.ArgumentParser]) -> None:
    predict = commands.add_parser("predict", help="say what a model makes of rows")
    predict.set_defaults(module="cli.predict", command="predict")
    predict.add_argument(
        "--checkpoint", required=True, metavar="FILE", help="a file that a run wrote"
    )
    predict.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="fields",
        help="what the row holds; the task says which fields there are",
    )
    predict.add_argument("--image", metavar="FILE", help="as --field image=FILE")
    predict.add_argument("--question", metavar="TEXT", help="as --field question=TEXT")
    predict.add_argument(
        "--rows",
        metavar="FILE",
        help="answer all rows of FILE, read as in a configuration, into --out",
    )
    predict.add_argument(
        "--out",
        metavar="FILE",
        help="a new file: .jsonl for each row with its prediction on a line, .json for "
        "the list that the task's servers take",
    )
    predict.add_argument(
        "--device", metavar="NAME", help="cpu, cuda, cuda:N (default: CUDA if there)"
    )


def _add_export(commands: Commands[argparse.ArgumentParser]) -> None:
    export = commands.add_parser(
        "export", help="write a checkpoint's weights for other programs"
    )
    export.set_defaults(module="cli.export", command="export")
    export.add_argument("checkpoint", metavar="FILE", help="a file that a run wrote")
    export.add_argument(
        "out",
        metavar="OUT",
        help="a new file NAME.safetensors, or a new folder for from_pretrained; of a "
        "sharded checkpoint also NAME.pt, from which a run goes on",
    )
    export.add_argument(
        "--adapter",
        action="store_true",
        help="write low-rank adapters alone, as PeftModel.from_pretrained reads them; "
        "else they are merged into the model",
    )


def _add_data(commands: Commands[argparse.ArgumentParser]) -> None:
    data = commands.add_parser("data", help="prepare data sets")
    actions = data.add_subparsers(metavar="ACTION", required=True)
    convert = actions.add_parser("convert", help="turn a public set into JSON lines")
    sets = convert.add_subparsers(metavar="SET", required=True)
    easy = sets.add_parser("easy-vqa", help="from a clone of its repository")
    easy.set_defaults(command="convert_easy_vqa")
    easy.add_argument("clone", metavar="CLONE", help="folder of the clone")
    easy.add_argument("out", metavar="OUT", help="folder to make")


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", metavar="CONFIG", help="a YAML file, or a shipped one by name: demo"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change a value: training.num_epochs=5, plugins.csv.filename=a.csv",
    )
    add_choice(parser)
