"""The page of what authors of plugins may use, those of an ordinary plugin first."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from training import plugin

HEAD = """\
# For plugins

{notice}

Most plugins need a few names of `training`, and no other module:

| name | what it is |
|---|---|
| `Callback` | the base of a plugin: its methods are named after [events](../hooks.md) |
| `hookimpl` | marks a method as a hook where the class is no `Callback` |
| `checked_options` | holds a constructor called from Python to the types of its options |
| `ConfigError` | what a user can mend: an option, a setting |
| `CheckpointError`, `DataError`, `MetricError`, `NonFiniteError`, `PluginError` | [what else may be raised](errors.md) |
| `Trainer` | the type of `trainer`, of which [TrainerView](#what-a-trainer-gives-a-plugin) is promised |

Whatever else one needs of the kernel comes from `training.plugin`, by what it is for.
Nothing else of the kernel is a plugin's to import.

"""

TAIL = """\
## What a trainer gives a plugin

::: training.view.TrainerView

::: training.modules.loss_state.LossState

## Base and marks

::: training.bus.callback.Callback

::: training.hooks.hook_api.hookimpl

::: training.discovery.signature.checked_options

## All of training.plugin

::: training.plugin
"""

#: What has no docstring of its own.
ALIASES = {
    "LossFn": "The type of a loss function: `(outputs, targets) -> loss`.",
    "LossPer": "The type of `loss_per`: a unit's name, or a function of a batch.",
    "Parts": "The type of what a step function returns beside the loss, by name.",
    "SEQUENCES": "The types of sequences that a state may hold.",
    "STATE": "The name of the file in a checkpoint of parts that has all but tensors.",
    "StepFn": "The type of a step function: `(model, batch) -> loss`, and what is more.",
    "USUAL_GENERATION": "How answers are generated unless a run says otherwise.",
}


def plugin_page(notice: str) -> str:
    """Return docs/api/plugins.md."""
    parts = [HEAD.format(notice=notice)]
    for purpose, names in plugin.PURPOSES.items():
        parts.append(f"## For {purpose}\n\n| name | what it is |\n|---|---|\n")
        parts += [f"| `{name}` | {_told(name, names[name])} |\n" for name in names]
        parts.append("\n")
    return "".join([*parts, TAIL])


def _told(name: str, module: str) -> str:
    """Return the first sentence of a docstring, as the cell of a table."""
    if name in ALIASES:
        return ALIASES[name]
    found: Any = getattr(importlib.import_module(module), name)
    paragraph = (inspect.getdoc(found) or "").partition("\n\n")[0]
    return " ".join(paragraph.split()).replace("``", "`").replace("|", "\\|")
