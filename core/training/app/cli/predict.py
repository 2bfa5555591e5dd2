"""The command ``predict``: what the model of a checkpoint makes of rows."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.app.cli.argument_checks import values_by_field
from training.app.cli.commands import answer_options, description, fill
from training.app.cli.counted import Counted
from training.app.cli.results import new_file
from training.discovery.specs import parse_specs
from training.documents.yaml_file import parse_yaml_value
from training.errors import CheckpointError, ConfigError, DataError, PluginError
from training.files.named_paths import named_path
from training.messages.error_texts import add_note
from training.recipes.family import followed_options
from training.recipes.recipe import Recipe

if TYPE_CHECKING:
    from training.app.building.saved_model import Rebuilt
    from training.recipes.task import Task

__all__ = ["predict"]


def predict(arguments: argparse.Namespace) -> None:
    """Say what the model of a checkpoint makes of one row, or write it of many."""
    from training.app.building.saved_model import named_parts, rebuild
    from training.hardware.device import choose_device
    from training.layout import read_state
    from training.modules.frozen_weights import is_whole

    fields = _fields(arguments)
    target = _target(arguments, fields)
    device = choose_device(arguments.device, "--device")
    source = arguments.checkpoint
    state = read_state(source)
    described = description(state, source)
    if described is None:
        raise CheckpointError(
            f"{source!r} does not say how its model was made, as those of `trainbus "
            "run` do; if it is of a run in Python, make the model there and fill it: "
            f"model.load_state_dict(training.plugin.read_checkpoint({source!r})"
            "['model'])"
        )
    saved = _saved_config(state, source)
    parts = named_parts(described, source, saved)
    options = _answer_options(saved, source)
    # Rows before weights: a mistake in them shows in a moment, not after minutes.
    if target is None:
        asked = import_module("trainbus_data.asked")
        most = _number(saved, "max_image_pixels", source)
        row = asked.asked_row(parts[0], fields, most, _names(saved, source))
    else:
        predictions = import_module("trainbus_data.predictions")
        predictions.require_form(target, "--out", parts[0])
        size = _batch_size(saved, source)
        rows = _rows(arguments.rows, parts[0], saved, source)
    made = rebuild(described, source, state["model"], saved, parts, is_whole(state))
    fill(made.model, state, source)
    made.model.to(device).eval()
    if target is None:
        batch = asked.batch_of(made.family, made.processor, row)
        _show(_predictions(made, batch, 1, options)[0])
    else:
        batches = rows.batches(made.family, made.processor, size)
        batches = Counted(batches, "answering", -(-len(rows) // size))
        records = _records(made, rows, batches, options)
        predictions.write_records(target, records, made.task)
        _say_written(target, rows)


def _target(arguments: argparse.Namespace, fields: Mapping[str, str]) -> Path | None:
    """Return the file for the predictions of many rows; None: one row is asked about.

    Raises:
        ConfigError: options contradict each other, or the file cannot be written.
    """
    rows = arguments.rows
    if rows is None:
        if arguments.out is not None:
            raise ConfigError(
                f"--out {arguments.out!r} is of no use without --rows; add --rows FILE"
            )
        return None
    if fields:
        raise ConfigError("--rows and --field both say what to answer; keep one")
    if not rows:
        raise ConfigError("--rows is empty; name a file of rows")
    target = new_file(arguments.out, "--out")
    if target is None:
        raise ConfigError("--rows needs a file for its predictions; add --out FILE")
    import_module("trainbus_data.predictions").require_suffix(target, "--out")
    return target


def _rows(given: str, task: Task, config: Mapping[str, Any], source: str) -> Any:
    """Return the rows of a file, or of a reader with options, as in a configuration.

    Raises:
        TrainbusError: they cannot be read or used.
    """
    rows: Any = named_path(given)
    if given.lstrip().startswith("{"):
        rows = parse_yaml_value(given, "--rows")
    most = _number(config, "max_image_pixels", source)
    bad = _on_bad_row(config, source)
    asked = import_module("trainbus_data.asked_rows")
    return asked.AskedRows(rows, task, _names(config, source), most, *bad)


def _names(config: Mapping[str, Any], source: str) -> Mapping[str, str]:
    """Return what the files of the run call the task's fields."""
    names = config.get("data", {}).get("fields", {})
    if not isinstance(names, Mapping) or not all(
        isinstance(each, str) for each in (*names, *names.values())
    ):
        raise _unreadable(source, "fields", names, "a mapping of names to names")
    return names


def _say_written(target: Path, rows: Any) -> None:
    """Say how many rows were answered, and which could not be.

    Raises:
        DataError: some could not, and the run's data bear none.
    """
    number = len(rows) - rows.num_bad
    of_all = f" of {len(rows):,}" if rows.num_bad else ""
    print(f"{target}: {number:,}{of_all} rows", flush=True)
    try:
        rows.settle()
    except DataError as error:
        error.add_note(f"{str(target)!r} holds the predictions of the others")
        raise


def _records(
    made: Rebuilt,
    asked: Any,
    batches: Iterable[tuple[list[dict[str, Any]], Any]],
    options: Mapping[str, int],
) -> Iterator[dict[str, Any]]:
    """Yield each row with its prediction, and how sure the family is of it."""
    for rows, batch in batches:
        try:
            said = _predictions(made, batch, len(rows), options)
        except Exception as error:
            add_note(error, f"while {asked.under_way} were answered")
            raise
        for row, answer in zip(rows, said, strict=True):
            yield {**row, **answer}


def _show(answer: Mapping[str, Any]) -> None:
    """Print a prediction alone, for programs that read it; how sure it is beside it."""
    said = answer["prediction"]
    text = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
    print(text, flush=True)
    for name, value in answer.items():
        if name != "prediction":
            print(f"trainbus: {name} {value:.4g}", file=sys.stderr)


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


def _batch_size(config: Mapping[str, Any], source: str) -> int:
    """Return the rows in a batch of the run's evaluations, whose memory was there."""
    own = config.get("data", {}).get("eval_batch_size") is not None
    return _number(config, "eval_batch_size" if own else "batch_size", source)


def _on_bad_row(config: Mapping[str, Any], source: str) -> tuple[str, float]:
    """Return what the run made of bad rows: the policy, and the share it bore."""
    data = config.get("data", {})
    policy, share = data.get("on_bad_row", "error"), data.get("max_bad_fraction", 0.01)
    if policy not in ("error", "skip"):
        raise _unreadable(source, "on_bad_row", policy, "'error' or 'skip'")
    if type(share) not in (int, float) or not 0 <= share <= 1:
        raise _unreadable(source, "max_bad_fraction", share, "a number from 0 to 1")
    return policy, share


def _answer_options(config: Mapping[str, Any], source: str) -> dict[str, int]:
    """Return how the run's evaluations had answers generated, where it says so."""
    from training.checkpoint.part_checks import shown

    told = f"{source!r} does not say how its answers were generated: metadata.config."
    listed = config.get("plugins", [])
    if not isinstance(listed, list):
        raise CheckpointError(f"{told}plugins is {shown(listed)}, not a list")
    try:
        options = answer_options(parse_specs(listed))
    except PluginError as error:
        raise CheckpointError(f"{told}{error}") from error
    given = {name: value for name, value in options.items() if value is not None}
    for name, value in given.items():
        if type(value) is not int or not 1 <= value <= sys.maxsize:
            raise CheckpointError(
                f"{told}plugins.evaluation.{name} is {shown(value)}, not a whole "
                f"number from 1 to {sys.maxsize:,}"
            )
    return given


def _number(config: Mapping[str, Any], name: str, source: str) -> int:
    from training.app.config.schema import DataConfig

    value = config.get("data", {}).get(name, DataConfig.model_fields[name].default)
    if type(value) is not int or not 1 <= value <= sys.maxsize:
        wanted = f"a whole number from 1 to {sys.maxsize:,}"
        raise _unreadable(source, name, value, wanted)
    return value


def _unreadable(source: str, name: str, value: Any, wanted: str) -> CheckpointError:
    from training.checkpoint.part_checks import shown

    return CheckpointError(
        f"{source!r} does not say how its rows were read: metadata.config.data."
        f"{name} is {shown(value)}, not {wanted}"
    )


def _fields(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the row that is asked about, by field."""
    given = [
        f"{name}={value}"
        for name in ("image", "question")
        if (value := getattr(arguments, name)) is not None
    ]
    return values_by_field([*given, *arguments.fields])


def _predictions(
    made: Rebuilt, batch: Any, number: int, options: Mapping[str, int]
) -> list[dict[str, Any]]:
    """Return what the model says of each of the rows of a batch, as a recipe does.

    Its answers are generated as those of the run's evaluations were.

    Raises:
        PluginError: the family does not answer each.
    """
    import torch

    from training.feed.batches import batch_to_device

    device = next((p.device for p in made.model.parameters()), torch.device("cpu"))
    recipe = Recipe(made.task, made.family, made.processor)
    with torch.inference_mode():
        given = made.model, batch_to_device(batch, device), number
        return recipe.answer(*given, **followed_options(made.family, options))
