"""What each command of the command line does.

Every function takes the parsed arguments, prints its result, and imports what it needs.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any

import training
from training.app.cli.counted import Counted
from training.app.cli.launched import launcher, say
from training.app.cli.results import new_file
from training.app.config.from_arguments import load
from training.discovery.parts import named_part
from training.errors import ConfigError, MetricError
from training.messages.error_texts import text_of
from training.messages.tables import count
from training.signals.handlers import interruption
from training.signals.holding import held

if TYPE_CHECKING:
    from training.app.building.components import Parts
    from training.app.config.load import Config

__all__ = [
    "check",
    "convert_easy_vqa",
    "evaluate",
    "plan",
    "run",
]

#: Options of the plugin "evaluation" that decide how answers are generated.
ANSWER_OPTIONS = ("max_new_tokens", "num_beams")


def run(arguments: argparse.Namespace) -> None:
    """Train what a configuration describes, and say what came of it."""
    if arguments.allow_changes and arguments.resume is None:
        raise ConfigError(
            f"--allow-change {arguments.allow_changes[0]} is of no use without "
            "--resume; add --resume auto or --resume FILE"
        )
    if arguments.resume == "":
        raise ConfigError("--resume is empty; use --resume auto or --resume FILE")
    trace = new_file(arguments.profile_trace, "--profile-trace")
    with held() as sigusr1:
        config = load(arguments)
        if config.training.stop_on_sigusr1 and sigusr1.let_go():
            raise interruption(signal.SIGUSR1)
        task, _ = named_part(config.task, "task")
        # At once: torch takes seconds to load, and data may.
        say(f"trainbus {training.__version__}: {task}")
        from training.app.building.factory import build_trainer
        from training.app.cli import run_text
        from training.app.config.load import as_mapping
        from training.app.prove.profile import profiled
        from training.builtin.resume import started_at

        with _watchdog(arguments):
            trainer = build_trainer(config)
            file = shlex.quote(arguments.config)
            trainer.resume_command = f"{launcher()} run {file} --resume auto"
            record = trainer.plugins["run_record"]
            say(run_text.header(trainer, as_mapping(config), record.facts))
            if told := started_at(trainer, arguments.resume, arguments.allow_changes):
                say(told)
            trains = profiled(trainer, arguments.profile_plugins, trace)
            with trains, _placed(config):
                trainer.train()
        if trainer.is_main:
            said = record.summary, record.example, record.steps_before
            print(run_text.closing(*said))


@contextmanager
def _placed(config: Config) -> Iterator[None]:
    """Say of a metric that is watched in vain where the configuration names it."""
    try:
        yield
    except MetricError as error:
        owner, watches, more = text_of(error).partition(" watches ")
        name, _, option = owner.rpartition(".")
        if name in config.plugins:
            place = config.place(("plugins", name, option))
            error.args = (f"{place}{watches}{more}",)  # it keeps its notes
        raise


def plan(arguments: argparse.Namespace) -> None:
    """Say what a run would do, without training and without writing anything."""
    from training.app.plan.plan_report import describe_plan

    number = arguments.processes
    if number is not None and number < 1:
        raise ConfigError(f"--processes is {number}; use a whole number of at least 1")
    say("\n".join(describe_plan(load(arguments), number)))


def check(arguments: argparse.Namespace) -> None:
    """Compare the gradients of the first window in two splits."""
    from training.app.building.factory import build_trainer
    from training.app.prove.gradient_check import compare_splits, require_agreement

    config = load(arguments)
    comparison = compare_splits(build_trainer(config))
    print("\n".join(comparison.lines()), flush=True)
    require_agreement(comparison, config.model.type or "")
    print(f"{config.model.type}: both splits have the same gradient")


def evaluate(arguments: argparse.Namespace) -> None:
    """Measure a checkpoint on the rows of one split."""
    from training.app.building.components import build_parts, data_facts
    from training.app.building.saved_model import SavedModel, fill
    from training.app.cli.run_text import metric_table
    from training.discovery.parts import find_part
    from training.layout import read_state

    predictions = import_module("trainbus_data.predictions")
    target = new_file(arguments.predictions, "--predictions")
    config, split = load(arguments), arguments.split
    if target is not None:
        place = config.place(("task",))
        task = find_part("task", named_part(config.task, place)[0], place)
        predictions.require_form(target, "--predictions", task)
    judges = _judges(config)
    state = read_state(arguments.checkpoint)
    saved = SavedModel.of(state, arguments.checkpoint)
    if saved is not None and not saved.is_whole and config.model.name is None:
        saved = None  # built here as it was for the run, which fill() makes sure of
    parts = build_parts(config, saved, judges)
    fill(parts.model, state, arguments.checkpoint)
    if target is not None:  # of more rows, it is told when they are written
        list(
            predictions.require_ids(
                target, parts.pipeline.rows(split)[:2000], parts.recipe.task
            )
        )
    loader = Counted(_loader(config, parts.pipeline, split), "evaluating")
    # Before the minutes of measuring, which a task's mistake in them would throw away.
    floors = data_facts(parts.pipeline, parts.recipe.task, split).get("floors", {})
    results = _measure(config, parts, loader, judges, target is not None)
    records = results.get("records") or parts.pipeline.rows(split)
    if target is not None:
        predictions.write_records(target, records, parts.recipe.task)
    scores = {key: v for key, v in results.items() if isinstance(v, float)}
    if not loader.is_weighed:
        scores.pop("val_loss", None)  # of no row: nan
    print(f"{arguments.checkpoint}: {count(len(records), f'{split} row')}")
    told = [*_judged(records, parts.recipe.task.target, loader.is_weighed)]
    print("\n".join(told + (metric_table({"value": scores}, floors) if scores else [])))
    if target is not None:
        print(f"predictions: {target}")


def _judged(
    records: Sequence[Mapping[str, Any]], target: str, has_loss: bool
) -> Iterator[str]:
    """Yield lines on what is not measured, and on how many rows the rest is."""
    judged = sum(target in row for row in records)
    if not judged:
        yield f"no row has a value of {target!r}: nothing is measured"
    elif judged < len(records):
        yield f"measured: the {judged:,} of them with a value of {target!r}"
    if judged and not has_loss:
        yield "val_loss is left out: none of these rows is part of the model's loss"


def convert_easy_vqa(arguments: argparse.Namespace) -> None:
    """Turn a clone of easy-VQA's repository into JSON lines and images."""
    convert = import_module("trainbus_data.vqa.easy_vqa").convert_easy_vqa
    counts: Mapping[str, int] = convert(arguments.clone, arguments.out)
    rows = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    print(f"{arguments.out}: {rows} rows")
    print(f"next: trainbus run config/easy_vqa.yaml --set data.root={arguments.out}")


def _watchdog(arguments: argparse.Namespace) -> AbstractContextManager[object]:
    """Return the watchdog, or nothing if none is asked for."""
    from training.builtin.watchdog import Watchdog

    seconds = arguments.watchdog
    if seconds is None:
        return nullcontext()
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise ConfigError(f"--watchdog is {seconds:g}; use more than 0 seconds")
    return Watchdog(seconds, arguments.watchdog_abort)


def _judges(config: Config) -> list[tuple[str, Any]]:
    """Return the run's plugins that evaluate, by name; their options are checked."""
    from training.discovery.specs import build_plugins

    entries = [each for each in config.plugins.values() if each.use == "evaluation"]
    return build_plugins(entries, config.place)


def _loader(config: Config, pipeline: Any, split: str) -> Any:
    loaders = {
        "validation": pipeline.get_val_dataloader,
        "test": pipeline.get_test_dataloader,
    }
    loader = loaders[split]()
    if loader is None:
        raise ConfigError(
            f"{config.place(('data', split))} is missing; name the rows to evaluate, "
            f"as in --set data.{split}=FILE"
        )
    return loader


def _measure(
    config: Config,
    parts: Parts,
    loader: Any,
    judges: Sequence[tuple[str, Any]],
    answers: bool,
) -> dict[str, Any]:
    """Return what the evaluator finds, measured as in the run: metrics, precision.

    Args:
        config: of the run.
        parts: model and recipe.
        loader: of the rows.
        judges: the run's plugins that evaluate; the first one's options hold.
        answers: whether records are asked for where no metric needs them.
    """
    from training.errors import PluginError
    from training.hardware.device import choose_device
    from training.hardware.float32_precision import using_tf32
    from training.loop.precision import Precision

    try:
        from training.callbacks import TaskEvaluator
    except ImportError as error:
        raise PluginError(str(error)) from error
    device = choose_device(config.training.device, config.place(("training", "device")))
    options = {
        name: getattr(judge, name)
        for _, judge in judges[:1]
        for name in ("metrics", *ANSWER_OPTIONS)
    }
    evaluator = TaskEvaluator(parts.model, parts.recipe, device, **options)
    answers = answers or evaluator.metrics != ("loss",)
    autocast = Precision(config.training.precision, device).autocast()
    with using_tf32(config.training.tf32), autocast:
        return evaluator.evaluate(loader, return_predictions=answers)
