"""The command ``init``: look at rows, write a configuration, say what it would do."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from training.app.cli.argument_checks import values_by_field
from training.app.cli.results import new_file
from training.discovery.parts import find_part
from training.errors import ConfigError, DataError, did_you_mean
from training.messages.error_texts import add_note
from training.messages.tables import count
from training.recipes.task import Task

__all__ = ["init"]

TEMPLATE = """\
# Train on {source}: {told}.
#   trainbus plan {name}    # says what a run would do
#   trainbus run {name}
task: {task}{others}
seed: 0

data:
{data}  batch_size: 32
  num_workers: 0                # processes that read rows; more for large files

model:
{model}
training:
  num_epochs: 10
  max_grad_norm: 1.0
  save_dir: {save_dir}
  # precision: bf16             # on a GPU that has it
  optimizer:
    type: adamw
    lr: 1e-3                    # for fresh weights; 5e-5 or less for `name:`
    weight_decay: 0.05
    no_decay_on_vectors: true   # biases and norms keep their size

plugins:
  - progress
  - csv
  # - tensorboard
{plugins}"""

MODEL = """\
{kind}  build: {{}}                     # a small one with fresh weights
  # name: FOLDER                # in place of `build`: of the hub, or in a folder
"""
MEASURED = """\
  - evaluation                  # {metrics}
  - lr_scheduling: {{type: cosine, warmup: 0.05}}  # a fraction of the run
  - checkpointing: {{monitor: val_loss, mode: min}}  # or accuracy and the like, and max
  # - early_stopping: {{monitor: val_loss, patience: 5}}
"""
BLIND = """\
  # Without validation rows nothing is measured: the last checkpoint is kept.
  # - evaluation                # {metrics}; with validation rows
  - lr_scheduling: {{type: cosine, warmup: 0.05}}  # a fraction of the run
  - checkpointing: {{monitor: null}}  # with them {{monitor: val_loss, mode: min}}
"""
NOTHING_WRITTEN = (
    "init sets nothing and has written nothing: mend the rows and call it again, or "
    "write a configuration that sets it"
)


def init(arguments: argparse.Namespace) -> None:
    """Write a configuration for rows that nobody has described yet.

    Raises:
        TrainbusError: the rows cannot be read, fit no task, or would be refused by a
            run; nothing is written then. Nor is a file that is there.
    """
    out = new_file(arguments.out, "--out")
    assert out is not None
    fields = values_by_field(arguments.fields)
    rows = import_module("trainbus_data.recognise").recognise(arguments.rows, fields)
    task = _chosen(list(rows.tasks), arguments.task)
    text = _configuration(arguments, rows, task)
    try:
        lines = _planned(text)
    except DataError as error:  # which may speak of settings that could mend it
        add_note(error, NOTHING_WRITTEN)
        raise
    with out.open("x", encoding="utf-8") as file:  # whoever wrote it meanwhile keeps it
        file.write(text)
    told = f"{rows.reader}, {count(rows.num_rows, 'row')} of: {', '.join(rows.columns)}"
    print(f"{arguments.rows} ({told})")
    print(f"{arguments.out}: a configuration for the task {task}\n")
    print("\n".join(lines))
    print(f"\nnext\n  trainbus run {shlex.quote(arguments.out)}", flush=True)


def _chosen(tasks: list[str], wanted: str | None) -> str:
    """Return the task: the one that is wanted, or the likeliest; ask if somebody sits
    there and several fit.

    Raises:
        ConfigError: the rows do not fit the one that is wanted.
    """
    if wanted is None and len(tasks) > 1 and sys.stdin and sys.stdin.isatty():
        print(f"The rows fit the tasks {', '.join(tasks)}.", file=sys.stderr)
        wanted = input(f"Which one? [{tasks[0]}] ").strip() or None
    if wanted is None:
        return tasks[0]
    if wanted not in tasks:
        raise ConfigError(
            f"the rows do not fit the task {wanted!r}{did_you_mean(wanted, tasks)}; "
            f"they fit: {', '.join(tasks)}"
        )
    return wanted


def _configuration(arguments: argparse.Namespace, rows: Any, task: str) -> str:
    """Return the text of the file, with what may be chosen otherwise as comments."""
    cls: type[Task] = find_part("task", task, "task")
    kinds = {each: cls.fields[field] for field, each in rows.tasks[task].items()}
    data = _sources(arguments.rows, rows.splits, kinds)
    if "validation" not in rows.splits:
        data += "  # validation: FILE          # rows that a run is judged by\n"
    renamed = {k: v for k, v in rows.tasks[task].items() if k != v}
    if renamed:
        data += f"  fields: {_value(renamed)}  # our name: the name in the file\n"
    kind = "  type: chat\n  max_answer_length: 64         # tokens\n"
    others = [name for name in rows.tasks if name != task]
    plugins = MEASURED if "validation" in rows.splits else BLIND
    return TEMPLATE.format(
        source=arguments.rows,
        told=f"{count(rows.num_rows, 'row')}, read by {rows.reader}",
        name=shlex.quote(arguments.out),
        task=task,
        others=f"  # these rows also fit: {', '.join(others)}" if others else "",
        data=data,
        model=MODEL.format(kind=kind if rows.is_chat else ""),
        save_dir=_value(f"runs/{Path(arguments.out).stem}"),
        plugins=plugins.format(metrics=", ".join(cls.metrics)),
    )


def _sources(given: str, splits: Mapping[str, Any], kinds: Mapping[str, str]) -> str:
    """Return the lines that name the rows, and the folder of all, if that is needed."""
    module = import_module("trainbus_data.common_root")
    root, lines = module.common_root(splits, kinds), ""
    if root is not None:
        splits = {split: module.below(each, root) for split, each in splits.items()}
        here = Path.cwd()
        is_moved_along = not Path(given).is_absolute() and root.is_relative_to(here)
        told = root.relative_to(here) if is_moved_along else root
        lines = f"  root: {_value(str(told))}  # what the paths below start from\n"
    for split, source in splits.items():
        text = _value(source if isinstance(source, dict) else str(source))
        lines += f"  {split}: {text}\n"
    return lines


def _value(value: Any) -> str:
    """Return a value as YAML has it on one line."""
    text = yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, width=1 << 30
    )
    return text.removesuffix("...\n").strip()


def _planned(text: str) -> list[str]:
    """Return the plan of a run with that configuration, which no folder holds yet."""
    from training.app.config.load import load_config
    from training.app.plan.plan_report import describe_plan

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(text, encoding="utf-8")
        return describe_plan(load_config(file))
