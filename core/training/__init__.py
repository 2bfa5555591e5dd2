"""trainbus: a small training kernel that announces what it does to plugins.

Every public name resolves on first use, so that ``import training`` costs nothing and
a missing plugin is an error only for those who name it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from training.discovery.shipped import VERSION

if TYPE_CHECKING:
    from training.app.building.factory import create_trainer_from_config
    from training.bus.bus import Bus
    from training.callbacks import (
        Callback,
        CSVLoggerCallback,
        CUDAGraphsCallback,
        EarlyStoppingCallback,
        EvaluationCallback,
        Evaluator,
        LearningRateSchedulerCallback,
        ModelCheckpointCallback,
        ProgressBarCallback,
        TensorBoardCallback,
        VQAEvaluator,
    )
    from training.discovery.signature import checked_options
    from training.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        MetricError,
        NonFiniteError,
        PluginError,
        TrainbusError,
    )
    from training.hookspecs import API_VERSION, hookimpl
    from training.recipes.batch import Batch
    from training.recipes.family import ModelFamily
    from training.recipes.task import Task
    from training.trainer import Trainer

__version__ = VERSION

__all__ = [
    "API_VERSION",
    "Batch",
    "Bus",
    "CSVLoggerCallback",
    "CUDAGraphsCallback",
    "Callback",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "EarlyStoppingCallback",
    "EvaluationCallback",
    "Evaluator",
    "LearningRateSchedulerCallback",
    "MetricError",
    "ModelCheckpointCallback",
    "ModelFamily",
    "NonFiniteError",
    "PluginError",
    "ProgressBarCallback",
    "Task",
    "TensorBoardCallback",
    "TrainbusError",
    "Trainer",
    "VQAEvaluator",
    "checked_options",
    "create_trainer_from_config",
    "hookimpl",
]

# Public name -> module that defines it; every other name lives in `callbacks`.
_MODULES = {
    "API_VERSION": "training.hookspecs",
    "Batch": "training.recipes.batch",
    "Bus": "training.bus.bus",
    "CheckpointError": "training.errors",
    "ConfigError": "training.errors",
    "DataError": "training.errors",
    "MetricError": "training.errors",
    "ModelFamily": "training.recipes.family",
    "NonFiniteError": "training.errors",
    "PluginError": "training.errors",
    "Task": "training.recipes.task",
    "TrainbusError": "training.errors",
    "Trainer": "training.trainer",
    "checked_options": "training.discovery.signature",
    "create_trainer_from_config": "training.app.building.factory",
    "hookimpl": "training.hookspecs",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(_MODULES.get(name, "training.callbacks"))
    value = getattr(module, name)
    globals()[name] = value  # next time without this function
    return value
