"""The door for authors of plugins: tools of the kernel that plugins may build on.

``Callback``, ``hookimpl``, ``checked_options`` and the errors come from ``training``,
and are all that most plugins need. Whatever else one needs of the kernel comes from
here, wherever the kernel keeps it, and stands below what it is for: ``PURPOSES``. Every
name resolves on first use, so that importing this module costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.archive.shards import STATE, digest_of
    from training.bus.conditions import heard_if
    from training.checkpoint.checks.parts import has_names, is_count, is_finite
    from training.checkpoint.plugin_states import require_state, require_version
    from training.checkpoint.state import capture, check_weights
    from training.checkpoint.storable import SEQUENCES, foreign_value
    from training.checkpoint_io import (
        complete_folder,
        peek_state,
        position_of,
        read_checkpoint,
        write_checkpoint,
        writing,
    )
    from training.discovery.installed import named_object
    from training.errors import did_you_mean
    from training.feed.batches import batch_to_device, tensors_of
    from training.feed.lost_workers import reading_validation
    from training.feed.share import StandIn
    from training.feed.structure import attribute_of
    from training.feed.validation_loaders import loaders_by_name
    from training.feed.validation_share import (
        batches_of,
        portions,
        rng_of_main,
        share_of,
        strategy_of,
    )
    from training.feed.workers import draw_as_if_new
    from training.files.claim import Claim
    from training.files.durable import (
        rename_durably,
        temporary_beside,
        write_durably,
        write_json,
    )
    from training.files.leftovers import sweep_leftovers
    from training.files.lock import FolderLostError, RunLock
    from training.files.named_paths import barrier, named_path, open_file
    from training.hardware.device import choose_device
    from training.hardware.launch import number_started
    from training.hardware.readback import Readback
    from training.hardware.rng import load_rng_state, rng_state
    from training.hardware.strategy import BegunSave, Strategy, record_failure
    from training.hooks.answers import checked_answer
    from training.logs import LazyLogs
    from training.loop.deferred_window import NotedWindow, UnreadWindow
    from training.loop.forward import (
        LossFn,
        Parts,
        StepFn,
        call_model,
        loss_in,
        make_forward,
    )
    from training.loop.gradients import GradientCheck
    from training.loop.make_window import why_not_deferred
    from training.loop.metrics import merge_metrics
    from training.loop.single_window import SingleWindow
    from training.loop.window import Window
    from training.loop.window_result import WindowResult
    from training.messages.guarded_streams import Guarded, guarded
    from training.messages.tables import count, table
    from training.modules.frozen_weights import FrozenWeights, complete, is_whole
    from training.modules.plain_names import as_plain, load_weights, some, weights_of
    from training.modules.train_mode import evaluating, lacks_gradients
    from training.plain import plain
    from training.planned.length import epochs_begun, num_batches, num_windows
    from training.planned.planned_run import Plan, PlannedRun
    from training.recipes.answer_texts import echo_of, texts_of
    from training.recipes.better import gain
    from training.recipes.family import USUAL_GENERATION, followed_options
    from training.recipes.kinds import slug
    from training.recipes.likeliest import likeliest
    from training.signals.handlers import is_second_signal
    from training.signals.shield import shielded
    from training.view import MetricValue, TrainerView
    from training.weighing.counts import LabelUse
    from training.weighing.untouched import is_same_tensor, untouched
    from training.weighing.weigher import LossPer, Weigher

#: Who needs them -> name -> the module that defines it; what most need comes first.
PURPOSES = {
    "any plugin": {
        "TrainerView": "training.view",
        "MetricValue": "training.view",
        "Strategy": "training.hardware.strategy",
        "Plan": "training.planned.planned_run",
        "PlannedRun": "training.planned.planned_run",
        "heard_if": "training.bus.conditions",
        "require_state": "training.checkpoint.plugin_states",
        "require_version": "training.checkpoint.plugin_states",
        "did_you_mean": "training.errors",
        "count": "training.messages.tables",
    },
    "a logger": {
        "LazyLogs": "training.logs",
        "Readback": "training.hardware.readback",
        "Claim": "training.files.claim",
        "barrier": "training.files.named_paths",
        "named_path": "training.files.named_paths",
        "open_file": "training.files.named_paths",
        "write_durably": "training.files.durable",
        "write_json": "training.files.durable",
        "sweep_leftovers": "training.files.leftovers",
        "table": "training.messages.tables",
        "guarded": "training.messages.guarded_streams",
        "Guarded": "training.messages.guarded_streams",
    },
    "a keeper of checkpoints": {
        "read_checkpoint": "training.checkpoint_io",
        "write_checkpoint": "training.checkpoint_io",
        "peek_state": "training.checkpoint_io",
        "position_of": "training.checkpoint_io",
        "capture": "training.checkpoint.state",
        "RunLock": "training.files.lock",
        "FolderLostError": "training.files.lock",
        "rename_durably": "training.files.durable",
        "temporary_beside": "training.files.durable",
        "has_names": "training.checkpoint.checks.parts",
        "is_count": "training.checkpoint.checks.parts",
        "is_finite": "training.checkpoint.checks.parts",
        "foreign_value": "training.checkpoint.storable",
        "SEQUENCES": "training.checkpoint.storable",
        "gain": "training.recipes.better",
        "BegunSave": "training.hardware.strategy",
        "writing": "training.checkpoint_io",
        "complete_folder": "training.checkpoint_io",
        "digest_of": "training.archive.shards",
        "STATE": "training.archive.shards",
        "is_second_signal": "training.signals.handlers",
    },
    "whoever keeps or swaps weights": {
        "weights_of": "training.modules.plain_names",
        "load_weights": "training.modules.plain_names",
        "as_plain": "training.modules.plain_names",
        "check_weights": "training.checkpoint.state",
        "FrozenWeights": "training.modules.frozen_weights",
        "complete": "training.modules.frozen_weights",
        "is_whole": "training.modules.frozen_weights",
    },
    "a schedule": {
        "num_batches": "training.planned.length",
        "num_windows": "training.planned.length",
        "epochs_begun": "training.planned.length",
        "rng_state": "training.hardware.rng",
        "load_rng_state": "training.hardware.rng",
        "plain": "training.plain",
    },
    "an evaluator": {
        "evaluating": "training.modules.train_mode",
        "lacks_gradients": "training.modules.train_mode",
        "batch_to_device": "training.feed.batches",
        "choose_device": "training.hardware.device",
        "call_model": "training.loop.forward",
        "loss_in": "training.loop.forward",
        "make_forward": "training.loop.forward",
        "LossFn": "training.loop.forward",
        "StepFn": "training.loop.forward",
        "Parts": "training.loop.forward",
        "LossPer": "training.weighing.weigher",
        "Weigher": "training.weighing.weigher",
        "LabelUse": "training.weighing.counts",
        "attribute_of": "training.feed.structure",
        "loaders_by_name": "training.feed.validation_loaders",
        "share_of": "training.feed.validation_share",
        "portions": "training.feed.validation_share",
        "batches_of": "training.feed.validation_share",
        "reading_validation": "training.feed.lost_workers",
        "strategy_of": "training.feed.validation_share",
        "merge_metrics": "training.loop.metrics",
        "checked_answer": "training.hooks.answers",
        "named_object": "training.discovery.installed",
        "texts_of": "training.recipes.answer_texts",
        "echo_of": "training.recipes.answer_texts",
        "likeliest": "training.recipes.likeliest",
        "followed_options": "training.recipes.family",
        "USUAL_GENERATION": "training.recipes.family",
        "slug": "training.recipes.kinds",
        "some": "training.modules.plain_names",
        "draw_as_if_new": "training.feed.workers",
        "rng_of_main": "training.feed.validation_share",
        "shielded": "training.signals.shield",
        "untouched": "training.weighing.untouched",
        "is_same_tensor": "training.weighing.untouched",
    },
    "a strategy, or a window of its own": {
        "number_started": "training.hardware.launch",
        "record_failure": "training.hardware.strategy",
        "StandIn": "training.feed.share",
        "Window": "training.loop.window",
        "SingleWindow": "training.loop.single_window",
        "NotedWindow": "training.loop.deferred_window",
        "UnreadWindow": "training.loop.deferred_window",
        "WindowResult": "training.loop.window_result",
        "GradientCheck": "training.loop.gradients",
        "tensors_of": "training.feed.batches",
        "why_not_deferred": "training.loop.make_window",
    },
}

_MODULES = {n: module for names in PURPOSES.values() for n, module in names.items()}

__all__ = [
    # for any plugin
    "TrainerView",
    "MetricValue",
    "Strategy",
    "Plan",
    "PlannedRun",
    "heard_if",
    "require_state",
    "require_version",
    "did_you_mean",
    "count",
    # for a logger
    "LazyLogs",
    "Readback",
    "Claim",
    "barrier",
    "named_path",
    "open_file",
    "write_durably",
    "write_json",
    "sweep_leftovers",
    "table",
    "guarded",
    "Guarded",
    # for a keeper of checkpoints
    "read_checkpoint",
    "write_checkpoint",
    "peek_state",
    "position_of",
    "capture",
    "RunLock",
    "FolderLostError",
    "rename_durably",
    "temporary_beside",
    "has_names",
    "is_count",
    "is_finite",
    "foreign_value",
    "SEQUENCES",
    "gain",
    "BegunSave",
    "writing",
    "complete_folder",
    "digest_of",
    "STATE",
    "is_second_signal",
    # for whoever keeps or swaps weights
    "weights_of",
    "load_weights",
    "as_plain",
    "check_weights",
    "FrozenWeights",
    "complete",
    "is_whole",
    # for a schedule
    "num_batches",
    "num_windows",
    "epochs_begun",
    "rng_state",
    "load_rng_state",
    "plain",
    # for an evaluator
    "evaluating",
    "lacks_gradients",
    "batch_to_device",
    "choose_device",
    "call_model",
    "loss_in",
    "make_forward",
    "LossFn",
    "StepFn",
    "Parts",
    "LossPer",
    "Weigher",
    "LabelUse",
    "attribute_of",
    "loaders_by_name",
    "share_of",
    "portions",
    "batches_of",
    "reading_validation",
    "strategy_of",
    "merge_metrics",
    "checked_answer",
    "named_object",
    "texts_of",
    "echo_of",
    "likeliest",
    "followed_options",
    "USUAL_GENERATION",
    "slug",
    "some",
    "draw_as_if_new",
    "rng_of_main",
    "shielded",
    "untouched",
    "is_same_tensor",
    # for a strategy, or a window of its own
    "number_started",
    "record_failure",
    "StandIn",
    "Window",
    "SingleWindow",
    "NotedWindow",
    "UnreadWindow",
    "WindowResult",
    "GradientCheck",
    "tensors_of",
    "why_not_deferred",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value  # next time without this function
    return value
