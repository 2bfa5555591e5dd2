"""The door for authors of plugins: tools of the kernel that plugins may build on.

``Callback``, ``hookimpl``, ``checked_options`` and the errors come from ``training``;
whatever else a plugin needs of the kernel comes from here, wherever the kernel keeps
it. Every name resolves on first use, so that importing this module costs nothing.
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
        glimpse,
        position_of,
        read_checkpoint,
        write_checkpoint,
        writing,
    )
    from training.discovery.installed import named_object
    from training.errors import did_you_mean
    from training.feed.batches import batch_to_device, tensors_of
    from training.feed.share import StandIn
    from training.feed.structure import attribute_of
    from training.feed.validation_loaders import loaders_by_name
    from training.feed.validation_share import (
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
    from training.files.named_paths import named_path, open_file
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
    from training.modules.train_mode import (
        evaluating,
        way_to_gradients,
        without_gradients,
    )
    from training.plain import plain
    from training.planned.length import epochs_begun, num_batches, num_windows
    from training.planned.planned_run import Plan, PlannedRun
    from training.recipes.answer_texts import echo_of, texts_of
    from training.recipes.better import gain
    from training.recipes.family import USUAL_GENERATION, followed_options
    from training.recipes.kinds import slug
    from training.recipes.likeliest import likeliest
    from training.signals.handlers import is_insistent
    from training.signals.shield import iterate_shielded, shielded
    from training.view import MetricValue, TrainerView
    from training.weighing.candidates import LabelUse
    from training.weighing.untouched import is_same_tensor, undrawn, untouched
    from training.weighing.weigher import LossPer, Weigher

# Name -> module that defines it.
_MODULES = {
    "BegunSave": "training.hardware.strategy",
    "Claim": "training.files.claim",
    "FolderLostError": "training.files.lock",
    "FrozenWeights": "training.modules.frozen_weights",
    "GradientCheck": "training.loop.gradients",
    "Guarded": "training.messages.guarded_streams",
    "LabelUse": "training.weighing.candidates",
    "LazyLogs": "training.logs",
    "LossFn": "training.loop.forward",
    "LossPer": "training.weighing.weigher",
    "MetricValue": "training.view",
    "NotedWindow": "training.loop.deferred_window",
    "Parts": "training.loop.forward",
    "Plan": "training.planned.planned_run",
    "PlannedRun": "training.planned.planned_run",
    "Readback": "training.hardware.readback",
    "RunLock": "training.files.lock",
    "SEQUENCES": "training.checkpoint.storable",
    "STATE": "training.archive.shards",
    "SingleWindow": "training.loop.single_window",
    "StandIn": "training.feed.share",
    "StepFn": "training.loop.forward",
    "Strategy": "training.hardware.strategy",
    "USUAL_GENERATION": "training.recipes.family",
    "UnreadWindow": "training.loop.deferred_window",
    "Weigher": "training.weighing.weigher",
    "TrainerView": "training.view",
    "Window": "training.loop.window",
    "WindowResult": "training.loop.window_result",
    "as_plain": "training.modules.plain_names",
    "attribute_of": "training.feed.structure",
    "batch_to_device": "training.feed.batches",
    "call_model": "training.loop.forward",
    "capture": "training.checkpoint.state",
    "check_weights": "training.checkpoint.state",
    "checked_answer": "training.hooks.answers",
    "choose_device": "training.hardware.device",
    "complete": "training.modules.frozen_weights",
    "complete_folder": "training.checkpoint_io",
    "count": "training.messages.tables",
    "did_you_mean": "training.errors",
    "draw_as_if_new": "training.feed.workers",
    "digest_of": "training.archive.shards",
    "echo_of": "training.recipes.answer_texts",
    "epochs_begun": "training.planned.length",
    "evaluating": "training.modules.train_mode",
    "followed_options": "training.recipes.family",
    "foreign_value": "training.checkpoint.storable",
    "gain": "training.recipes.better",
    "glimpse": "training.checkpoint_io",
    "guarded": "training.messages.guarded_streams",
    "has_names": "training.checkpoint.checks.parts",
    "heard_if": "training.bus.conditions",
    "is_count": "training.checkpoint.checks.parts",
    "is_finite": "training.checkpoint.checks.parts",
    "is_insistent": "training.signals.handlers",
    "is_same_tensor": "training.weighing.untouched",
    "is_whole": "training.modules.frozen_weights",
    "iterate_shielded": "training.signals.shield",
    "likeliest": "training.recipes.likeliest",
    "load_rng_state": "training.hardware.rng",
    "load_weights": "training.modules.plain_names",
    "loaders_by_name": "training.feed.validation_loaders",
    "loss_in": "training.loop.forward",
    "make_forward": "training.loop.forward",
    "merge_metrics": "training.loop.metrics",
    "named_object": "training.discovery.installed",
    "named_path": "training.files.named_paths",
    "number_started": "training.hardware.launch",
    "num_batches": "training.planned.length",
    "num_windows": "training.planned.length",
    "open_file": "training.files.named_paths",
    "plain": "training.plain",
    "portions": "training.feed.validation_share",
    "position_of": "training.checkpoint_io",
    "read_checkpoint": "training.checkpoint_io",
    "record_failure": "training.hardware.strategy",
    "rename_durably": "training.files.durable",
    "require_state": "training.checkpoint.plugin_states",
    "require_version": "training.checkpoint.plugin_states",
    "rng_of_main": "training.feed.validation_share",
    "rng_state": "training.hardware.rng",
    "share_of": "training.feed.validation_share",
    "shielded": "training.signals.shield",
    "slug": "training.recipes.kinds",
    "some": "training.modules.plain_names",
    "strategy_of": "training.feed.validation_share",
    "sweep_leftovers": "training.files.leftovers",
    "table": "training.messages.tables",
    "texts_of": "training.recipes.answer_texts",
    "temporary_beside": "training.files.durable",
    "tensors_of": "training.feed.batches",
    "undrawn": "training.weighing.untouched",
    "untouched": "training.weighing.untouched",
    "way_to_gradients": "training.modules.train_mode",
    "weights_of": "training.modules.plain_names",
    "why_not_deferred": "training.loop.make_window",
    "without_gradients": "training.modules.train_mode",
    "write_checkpoint": "training.checkpoint_io",
    "write_durably": "training.files.durable",
    "write_json": "training.files.durable",
    "writing": "training.checkpoint_io",
}

__all__ = [
    "BegunSave",
    "Claim",
    "FolderLostError",
    "FrozenWeights",
    "GradientCheck",
    "Guarded",
    "LabelUse",
    "LazyLogs",
    "LossFn",
    "LossPer",
    "MetricValue",
    "NotedWindow",
    "Parts",
    "Plan",
    "PlannedRun",
    "Readback",
    "RunLock",
    "SEQUENCES",
    "STATE",
    "SingleWindow",
    "StandIn",
    "StepFn",
    "Strategy",
    "USUAL_GENERATION",
    "UnreadWindow",
    "Weigher",
    "TrainerView",
    "Window",
    "WindowResult",
    "as_plain",
    "attribute_of",
    "batch_to_device",
    "call_model",
    "capture",
    "check_weights",
    "checked_answer",
    "choose_device",
    "complete",
    "complete_folder",
    "count",
    "did_you_mean",
    "draw_as_if_new",
    "digest_of",
    "echo_of",
    "epochs_begun",
    "evaluating",
    "followed_options",
    "foreign_value",
    "gain",
    "glimpse",
    "guarded",
    "has_names",
    "heard_if",
    "is_count",
    "is_finite",
    "is_insistent",
    "is_same_tensor",
    "is_whole",
    "iterate_shielded",
    "likeliest",
    "load_rng_state",
    "load_weights",
    "loaders_by_name",
    "loss_in",
    "make_forward",
    "merge_metrics",
    "named_object",
    "named_path",
    "num_batches",
    "num_windows",
    "number_started",
    "open_file",
    "plain",
    "portions",
    "position_of",
    "read_checkpoint",
    "record_failure",
    "rename_durably",
    "require_state",
    "require_version",
    "rng_of_main",
    "rng_state",
    "share_of",
    "shielded",
    "slug",
    "some",
    "strategy_of",
    "sweep_leftovers",
    "table",
    "temporary_beside",
    "tensors_of",
    "texts_of",
    "undrawn",
    "untouched",
    "way_to_gradients",
    "weights_of",
    "why_not_deferred",
    "without_gradients",
    "write_checkpoint",
    "write_durably",
    "write_json",
    "writing",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value  # next time without this function
    return value
