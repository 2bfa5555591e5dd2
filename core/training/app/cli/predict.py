"""The command ``predict``: what the model of a checkpoint makes of rows."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.app.cli.argument_checks import values_by_field
from training.app.cli.commands import ANSWER_OPTIONS
from training.app.cli.counted import Counted
from training.app.cli.results import new_file
from training.discovery.specs import parse_specs
from training.documents.yaml_file import parse_yaml_value
from training.errors import CheckpointError, ConfigError, DataError, PluginError
from training.files.named_paths import named_path
from training.messages.error_texts import add_note
from training.messages.tables import count
from training.recipes.family import followed_options
from training.recipes.recipe import Recipe

if TYPE_CHECKING:
    from training.app.building.saved_model import SavedModel
    from training.recipes.task import Task

__all__ = ["predict"]


def predict(arguments: argparse.Namespace) -> None:
    """Say what the model of a checkpoint makes of one row, or write it of many."""
    from training.app.building.saved_model import SavedModel, fill
    from training.hardware.device import choose_device
    from training.layout import read_state

    fields = _fields(arguments)
    target = _target(arguments, fields)
    device = choose_device(arguments.device, "--device")
    source = arguments.checkpoint
    state = read_state(source)
    saved = SavedModel.of(state, source)
    if saved is None:
        raise CheckpointError(
            f"{source!r} does not say how its model was made, as those of `trainbus "
            "run` do; if it is of a run in Python, make the model there and fill it: "
            f"model.load_state_dict(training.plugin.read_checkpoint({source!r})"
            "['model'])"
        )
    settings = SavedSettings(saved)
    task, family = saved.parts()
    options = settings.answers()
    # Rows before weights: a mistake in them shows in a moment, not after minutes.
    if target is None:
        asked = import_module("trainbus_data.asked")
        most, names = settings.of_data("max_image_pixels"), settings.of_data("fields")
        row = asked.asked_row(task, fields, most, names)
    else:
        predictions = import_module("trainbus_data.predictions")
        predictions.require_form(target, "--out", task)
        size = settings.of_data("eval_batch_size") or settings.of_data("batch_size")
        rows = _rows(arguments.rows, task, settings)
    model, recipe = saved.rebuilt((task, family))
    fill(model, state, source)
    answer = partial(_predictions, model.to(device).eval(), recipe, options)
    if target is None:
        batch = asked.batch_of(recipe.family, recipe.processor, row)
        _show(answer(batch, 1)[0])
    else:
        batches = rows.batches(recipe.family, recipe.processor, size)
        batches = Counted(batches, "answering", -(-len(rows) // size))
        records = _records(answer, rows, batches)
        predictions.write_records(target, records, task)
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


def _rows(given: str, task: Task, settings: SavedSettings) -> Any:
    """Return the rows of a file, or of a reader with options, as in a configuration.

    Raises:
        TrainbusError: they cannot be read or used.
    """
    rows: Any = named_path(given)
    if given.lstrip().startswith("{"):
        rows = parse_yaml_value(given, "--rows")
    asked = import_module("trainbus_data.asked_rows")
    return asked.AskedRows(rows, task, *map(settings.of_data, OF_ROWS))


def _say_written(target: Path, rows: Any) -> None:
    """Say how many rows were answered, and which could not be.

    Raises:
        DataError: some could not, and the run's data bear none.
    """
    number = len(rows) - rows.num_bad
    part_of = f"{number:,} of " if rows.num_bad else ""
    print(f"{target}: {part_of}{count(len(rows), 'row')}", flush=True)
    try:
        rows.settle()
    except DataError as error:
        error.add_note(f"{str(target)!r} holds the predictions of the others")
        raise


def _records(
    answer: Callable[[Any, int], list[dict[str, Any]]],
    asked: Any,
    batches: Iterable[tuple[list[dict[str, Any]], Any]],
) -> Iterator[dict[str, Any]]:
    """Yield each row with its prediction, and how sure the family is of it."""
    for rows, batch in batches:
        try:
            said = answer(batch, len(rows))
        except Exception as error:
            add_note(error, f"while {asked.under_way} were answered")
            raise
        for row, own in zip(rows, said, strict=True):
            yield {**row, **own}


def _show(answer: Mapping[str, Any]) -> None:
    """Print a prediction alone, for programs that read it; how sure it is beside it."""
    said = answer["prediction"]
    text = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
    print(text, flush=True)
    for name, value in answer.items():
        if name != "prediction":
            print(f"trainbus: {name} {value:.4g}", file=sys.stderr)


def _fields(arguments: argparse.Namespace) -> dict[str, str]:
    """Return the row that is asked about, by field."""
    given = [
        f"{name}={value}"
        for name in ("image", "question")
        if (value := getattr(arguments, name)) is not None
    ]
    return values_by_field([*given, *arguments.fields])


def _predictions(
    model: Any, recipe: Recipe, options: Mapping[str, int], batch: Any, number: int
) -> list[dict[str, Any]]:
    """Return what the model says of each of the rows of a batch, as a recipe does.

    Its answers are generated as those of the run's evaluations were.

    Raises:
        PluginError: the family does not answer each.
    """
    import torch

    from training.feed.batches import batch_to_device

    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with torch.inference_mode():
        given = model, batch_to_device(batch, device), number
        return recipe.answer(*given, **followed_options(recipe.family, options))


class SavedSettings:
    """How the run of a checkpoint read its rows and had answers generated.

    Raises:
        CheckpointError: here and by each method, of what no run can have had.
    """

    def __init__(self, saved: SavedModel) -> None:
        self._source = saved.source
        values: Any = {"config": saved.config}
        for name in ("config", "config.data"):
            values = values.get(name.rpartition(".")[2], {})
            if not isinstance(values, Mapping):
                raise self._unreadable("rows were read", name, values, "a mapping")
        self._data = values
        self._plugins = saved.config.get("plugins", [])

    def of_data(self, name: str) -> Any:
        """Return a setting of the section ``data``; its default where it has none."""
        from training.app.config.schema import DataConfig

        default = DataConfig.model_fields[name].get_default(call_default_factory=True)
        value = self._data.get(name, default)
        is_right, wanted = RULES[name]
        if name in self._data and not is_right(value):
            raise self._unreadable(
                "rows were read", f"config.data.{name}", value, wanted
            )
        return value

    def answers(self) -> dict[str, int]:
        """Return the options of the run's evaluations that say how, where they do."""
        how = "answers were generated"
        if not isinstance(self._plugins, list):
            raise self._unreadable(how, "config.plugins", self._plugins, "a list")
        try:
            specs = parse_specs(self._plugins)
        except PluginError as error:
            raise CheckpointError(
                f"{self._source!r} does not say how its {how}: metadata.config.{error}"
            ) from error
        options = next((s.options for s in specs if s.use == "evaluation"), {})
        known = {name: options.get(name) for name in ANSWER_OPTIONS}
        given = {name: value for name, value in known.items() if value is not None}
        for name, value in given.items():
            if not _is_number(value):
                at = f"config.plugins.evaluation.{name}"
                raise self._unreadable(how, at, value, NUMBER)
        return given

    def _unreadable(
        self, how: str, at: str, value: Any, wanted: str
    ) -> CheckpointError:
        from training.checkpoint.checks.parts import shown

        return CheckpointError(
            f"{self._source!r} does not say how its {how}: metadata.{at} is "
            f"{shown(value)}, not {wanted}"
        )


def _is_number(value: Any) -> bool:
    return type(value) is int and 1 <= value <= sys.maxsize


def _is_share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _are_names(value: Any) -> bool:
    is_mapping = isinstance(value, Mapping)
    return is_mapping and all(isinstance(n, str) for n in (*value, *value.values()))


NUMBER = f"a whole number from 1 to {sys.maxsize:,}"
#: Settings of rows that ``AskedRows`` takes, in its order.
OF_ROWS = ("fields", "max_image_pixels", "on_bad_row", "max_bad_fraction")
#: Setting of the section ``data`` -> whether a value is one, and what one is.
RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "batch_size": (_is_number, NUMBER),
    "eval_batch_size": (lambda value: value is None or _is_number(value), NUMBER),
    "max_image_pixels": (_is_number, NUMBER),
    "fields": (_are_names, "a mapping of names to names"),
    "on_bad_row": (lambda value: value in ("error", "skip"), "'error' or 'skip'"),
    "max_bad_fraction": (_is_share, "a number from 0 to 1"),
}
