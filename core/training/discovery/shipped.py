"""What this project publishes: its version, and the names that live in its plugins."""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.1.0"

#: Public name -> the module that defines it; the distribution is that name with dashes.
PLUGIN_NAMES: Final = {
    "CSVLoggerCallback": "trainbus_logging",
    "CUDAGraphsCallback": "trainbus_cuda_graphs",
    "DistributedCallback": "trainbus_distributed",
    "EarlyStoppingCallback": "trainbus_early_stopping",
    "EvaluationCallback": "trainbus_evaluation",
    "Evaluator": "trainbus_evaluation",
    "LearningRateSchedulerCallback": "trainbus_lr_scheduling",
    "ModelCheckpointCallback": "trainbus_checkpointing",
    "ProgressBarCallback": "trainbus_logging",
    "TaskEvaluator": "trainbus_evaluation",
    "TensorBoardCallback": "trainbus_logging",
    "VQAEvaluator": "trainbus_evaluation",
}
#: Plugins that this project publishes, and the distribution that holds each.
SHIPPED: Final = {
    "checkpointing": "trainbus-checkpointing",
    "csv": "trainbus-logging",
    "cuda_graphs": "trainbus-cuda-graphs",
    "distributed": "trainbus-distributed",
    "early_stopping": "trainbus-early-stopping",
    "evaluation": "trainbus-evaluation",
    "lr_scheduling": "trainbus-lr-scheduling",
    "progress": "trainbus-logging",
    "tensorboard": "trainbus-logging",
}
