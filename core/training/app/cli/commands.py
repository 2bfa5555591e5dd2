"""What each command of the command line does.

Every function takes the parsed arguments, prints its result, and imports what it needs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.app.config.from_arguments import load
from training.errors import CheckpointError, ConfigError
from training.files.named_paths import named_path

if TYPE_CHECKING:
    from training.app.config.load import Config

__all__ = [
    "check",
    "convert_easy_vqa",
    "description",
    "evaluate",
    "fill",
    "plan",
    "predict",
    "run",
]

#: Options of the plugin "evaluation" that decide how answers are generated.
ANSWER_OPTIONS = ("max_new_tokens", "num_beams")


def run(arguments: argparse.Namespace) -> None:
    """Train what a configuration describes, and say what came of it."""
    from training.app.building.factory import build_trainer
    from training.app.cli import report
    from training.app.config.load import as_mapping
    from training.app.prove.profile import profiled

    if arguments.allow_changes and arguments.resume is None:
        raise ConfigError(
            f"--allow-change {arguments.allow_changes[0]} is of no use without "
            "--resume; add --resume auto or --resume FILE"
        )
    if arguments.resume == "":
        raise ConfigError("--resume is empty; use --resume auto or --resume FILE")
    trace = _new_file(arguments.profile_trace, "--profile-trace")
    with _watchdog(arguments):
        config = load(arguments)
        trainer = build_trainer(config)
        record = trainer.plugins["run_record"]
        print(report.header(trainer, as_mapping(config), record.facts), flush=True)
        if arguments.resume is not None:
            from training.app.resume import resume

            told = resume(trainer, arguments.resume, arguments.allow_changes)
            print(told, flush=True)
        try:
            with profiled(trainer, arguments.profile_plugins, trace):
                trainer.train()
        except (KeyboardInterrupt, SystemExit):
            if trainer.stop_owner == "signal":
                print(report.interrupted(trainer, arguments.config), file=sys.stderr)
            raise
    print(report.closing(record.summary, record.example))


def plan(arguments: argparse.Namespace) -> None:
    """Say what a run would do, without training and without writing anything."""
    from training.app.plan.plan_report import describe_plan

    print("\n".join(describe_plan(load(arguments))))


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
    from training.app.cli.report import metric_table
    from training.layout import read_state
    from training.modules.frozen_weights import LEFT_OUT

    target = _new_file(arguments.predictions, "--predictions")
    config, split = load(arguments), arguments.split
    state = read_state(arguments.checkpoint)
    described = description(state, arguments.checkpoint)
    source, is_whole = arguments.checkpoint, LEFT_OUT not in state
    if not is_whole and config.model.name is None:
        described = None  # built here as it was for the run, which fill() makes sure of
    parts = build_parts(config, described, state["model"], source, is_whole)
    fill(parts.model, state, arguments.checkpoint)
    loaders = {
        "validation": parts.pipeline.get_val_dataloader,
        "test": parts.pipeline.get_test_dataloader,
    }
    loader = loaders[split]()
    if loader is None:
        raise ConfigError(
            f"{config.place(('data', split))} is missing; name the rows to evaluate, "
            f"as in --set data.{split}=FILE"
        )
    results = _measure(config, parts.model, parts.recipe, loader)
    records = results["records"]
    scores = {key: v for key, v in results.items() if isinstance(v, float)}
    floors = data_facts(parts.pipeline, parts.recipe.task, split).get("floors", {})
    print(f"{arguments.checkpoint}: {len(records):,} {split} rows")
    print("\n".join(metric_table({"value": scores}, floors)))
    if target is not None:
        _write_lines(target, records)
        print(f"predictions: {target}")


def predict(arguments: argparse.Namespace) -> None:
    """Say what the model of a checkpoint makes of one row."""
    from training.app.building.recipe import rebuild
    from training.hardware.device import choose_device
    from training.layout import read_state
    from training.modules.frozen_weights import LEFT_OUT

    device = choose_device(arguments.device)
    state = read_state(arguments.checkpoint)
    described = description(state, arguments.checkpoint)
    if described is None:
        raise CheckpointError(
            f"{arguments.checkpoint!r} does not say how its model was made; only runs "
            "of `trainbus run` or create_trainer_from_config write that"
        )
    saved = _saved_config(state, arguments.checkpoint)
    most = _max_pixels(saved, arguments.checkpoint)
    source, is_whole = arguments.checkpoint, LEFT_OUT not in state
    made = rebuild(described, source, state["model"], saved, None, is_whole)
    fill(made.model, state, arguments.checkpoint)
    made.model.to(device).eval()
    said = _predict(made, _fields(arguments), most)
    print(said if isinstance(said, str) else json.dumps(said))


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


def description(state: Mapping[str, Any], source: str) -> Mapping[str, Any] | None:
    """Return how to rebuild the model of a checkpoint, if it says so.

    Raises:
        CheckpointError: something else is there.
    """
    from training.checkpoint.part_checks import shown

    found = state.get("metadata", {}).get("model")
    if found is not None and not isinstance(found, Mapping):
        raise CheckpointError(
            f"{source!r} does not say how its model was made: metadata.model is "
            f"{shown(found)}, not the mapping that `trainbus run` writes"
        )
    return found


def _saved_config(state: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """Return the configuration that a checkpoint carries, its section of data checked.

    Raises:
        CheckpointError: it is nothing that a run can have had.
    """
    from training.checkpoint.part_checks import shown

    values: Any = state.get("metadata", {})
    found: list[Mapping[str, Any]] = []
    for at in ("config", "config.data"):
        values = values.get(at.rpartition(".")[2], {})
        if not isinstance(values, Mapping):
            raise CheckpointError(
                f"{source!r} does not say how its rows were read: metadata.{at} "
                f"is {shown(values)}, not a mapping"
            )
        found.append(values)
    return found[0]


def _max_pixels(config: Mapping[str, Any], source: str) -> int:
    from training.app.config.schema import DataConfig
    from training.checkpoint.part_checks import shown

    name = "max_image_pixels"
    value = config.get("data", {}).get(name, DataConfig.model_fields[name].default)
    if type(value) is not int or not 1 <= value <= sys.maxsize:
        raise CheckpointError(
            f"{source!r} does not say how its rows were read: metadata.config.data."
            f"{name} is {shown(value)}, not a whole number from 1 to {sys.maxsize:,}"
        )
    return value


def fill(model: Any, state: Mapping[str, Any], source: str) -> None:
    """Give the model the weights of a checkpoint, all of them, as a resume would.

    Raises:
        CheckpointError: names, shapes or kinds of numbers differ; says which.
    """
    from training.checkpoint.state import check_weights
    from training.modules.frozen_weights import complete
    from training.modules.plain_names import load_weights, weights_of

    whole = dict(state)
    complete(model, whole, source)
    check_weights(whole["model"], weights_of(model), "model", source)
    load_weights(model, whole["model"])


def _measure(config: Config, model: Any, recipe: Any, loader: Any) -> dict[str, Any]:
    """Return what the evaluator finds, measured as in the run: precision, answers."""
    from training.errors import PluginError
    from training.hardware.device import choose_device
    from training.hardware.float32_precision import using_tf32
    from training.loop.precision import Precision

    try:
        from training.callbacks import TaskEvaluator
    except ImportError as error:
        raise PluginError(str(error)) from error
    device = choose_device(config.training.device)
    entries = [each for each in config.plugins.values() if each.use == "evaluation"]
    options = entries[0].options if entries else {}
    answers = {name: options[name] for name in ANSWER_OPTIONS if name in options}
    evaluator = TaskEvaluator(model, recipe, device, **answers)
    autocast = Precision(config.training.precision, device).autocast()
    with using_tf32(config.training.tf32), autocast:
        return evaluator.evaluate(loader, return_predictions=True)


def _fields(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the row that is asked about, by field.

    Raises:
        ConfigError: one is no ``NAME=VALUE``, or given twice.
    """
    given = [
        f"{name}={value}"
        for name in ("image", "question")
        if (value := getattr(arguments, name)) is not None
    ]
    fields: dict[str, str] = {}
    for text in [*given, *arguments.fields]:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(
                f"--field {text!r} has no value; write --field NAME=VALUE"
            )
        if name in fields:
            raise ConfigError(f"--field {name} is given twice; keep one")
        fields[name] = value
    return fields


def _predict(made: Any, fields: Mapping[str, str], max_pixels: int) -> Any:
    """Return what the model says of one row."""
    import torch

    from training.feed.batches import batch_to_device

    asked = import_module("trainbus_data.asked")
    row = asked.asked_row(made.task, fields, max_pixels)
    batch = asked.batch_of(made.family, made.processor, row)
    device = next((p.device for p in made.model.parameters()), torch.device("cpu"))
    with torch.inference_mode():
        moved = batch_to_device(batch, device)
        return made.family.predict(made.model, made.processor, moved)[0]


def _new_file(name: str | None, option: str) -> Path | None:
    """Return a path that can be written and holds nothing yet."""
    if name is None:
        return None
    path = named_path(name)
    folder = str(path.parent)
    if path.exists():
        raise ConfigError(f"{option} {name!r} exists; name a new file")
    if not path.parent.is_dir():
        raise ConfigError(f"{option} {name!r}: the folder {folder!r} does not exist")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{option} {name!r}: the folder {folder!r} cannot be written; name another"
        )
    return path


def _write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    from training.checkpoint_io import write_durably

    text = "".join(json.dumps(record) + "\n" for record in records)
    write_durably(path, lambda file: file.write(text.encode()) and None)
