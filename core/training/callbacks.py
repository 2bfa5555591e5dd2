"""The door to ``Callback`` and to the names that live in plugins."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from training.bus.callback import Callback
from training.discovery.shipped import PLUGIN_NAMES

if TYPE_CHECKING:
    from trainbus_checkpointing import ModelCheckpointCallback
    from trainbus_cuda_graphs import CUDAGraphsCallback
    from trainbus_distributed import DistributedCallback
    from trainbus_early_stopping import EarlyStoppingCallback
    from trainbus_evaluation import (
        EvaluationCallback,
        Evaluator,
        TaskEvaluator,
        VQAEvaluator,
    )
    from trainbus_logging import (
        CSVLoggerCallback,
        ProgressBarCallback,
        TensorBoardCallback,
    )
    from trainbus_lr_scheduling import LearningRateSchedulerCallback

__all__ = [
    "CUDAGraphsCallback",
    "Callback",
    "CSVLoggerCallback",
    "DistributedCallback",
    "EarlyStoppingCallback",
    "EvaluationCallback",
    "Evaluator",
    "LearningRateSchedulerCallback",
    "ModelCheckpointCallback",
    "ProgressBarCallback",
    "TaskEvaluator",
    "TensorBoardCallback",
    "VQAEvaluator",
]


def __getattr__(name: str) -> Any:
    module = PLUGIN_NAMES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise  # the plugin is there; something that it needs is not
        distribution = module.replace("_", "-")
        # ImportError, not AttributeError: Python would replace the latter's message.
        raise ImportError(
            f"{name} is provided by the plugin {distribution!r}, which is not "
            f"installed; run: pip install {distribution}"
        ) from None
