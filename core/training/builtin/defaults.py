"""Which plugins a trainer starts with: what was passed, and what that implies."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from training import callbacks as plugin_names
from training.arguments.checks import check_scheduler
from training.builtin.compiling import Compile, has_recorder
from training.builtin.memory_advice import MemoryAdvice
from training.builtin.tf32 import TF32
from training.builtin.unmeasured import Unmeasured, declares_validation, may_measure
from training.bus.bus import Bus
from training.bus.callback import BuiltIn, Callback
from training.errors import ConfigError, PluginError, did_you_mean

log = logging.getLogger(__name__)

#: What a trainer has that Python builds, unless one of the name is passed, as a
#: configuration without a list of plugins has it; and what switches that off.
DEFAULTS = ("progress", "run_record")
SILENT = tuple(f"no:{name}" for name in DEFAULTS)
#: What validation data imply; it can be switched off, too.
IMPLIED = "evaluation"
#: ``off`` leaves the defaults out everywhere, such as in a suite of tests.
ENVIRONMENT = "TRAINBUS_DEFAULTS"


def built_in(
    tf32: bool | None, compile_options: Mapping[str, Any] | None
) -> list[BuiltIn]:
    """Return what the trainer's own arguments enable, and what always is on.

    Args:
        tf32: None leaves the process's switches alone.
        compile_options: of ``torch.compile``; None: do not compile.
    """
    plugins: list[BuiltIn] = [MemoryAdvice()]
    if tf32 is not None:
        plugins.append(TF32(tf32))
    if compile_options is not None:
        plugins.append(Compile(compile_options))
    return plugins


def register_plugins(
    bus: Bus,
    callbacks: Sequence[Any],
    plugins: Sequence[str | Mapping[str, Any]],
    scheduler: Any,
    validation: Any,
    evaluator: Any,
    cuda_graphs: bool,
) -> None:
    """Register callbacks and named plugins, and what the trainer's arguments imply.

    A ``scheduler`` is stepped by the LR plugin, unless one of ``callbacks`` holds that
    very object. ``validation`` data are measured by the evaluation plugin, unless
    somebody listens to ``evaluate`` who may read them. ``cuda_graphs`` is what the
    plugin of that name does. Progress is shown and a record of the run kept, unless
    something else is said.

    Raises:
        ConfigError: a scheduler that is none, an evaluator without data, or
            ``cuda_graphs`` without its plugin installed.
        ImportError: an implied plugin is not installed; says what to install.
    """
    named: list[tuple[str | None, Any]] = [(None, each) for each in callbacks]
    wanted, plugins = chosen_defaults(plugins)
    if plugins:
        from training.discovery.specs import build_plugins

        named += build_plugins(plugins)
    bus.register_all(named)
    if scheduler is not None and not any(
        getattr(plugin, "scheduler", None) is scheduler
        for plugin in bus.plugins.values()
    ):
        check_scheduler(scheduler)
        bus.register(plugin_names.LearningRateSchedulerCallback(scheduler))
    if evaluator is not None:
        if validation is None:
            raise ConfigError("evaluator is given without val_dataloader; pass both")
        if "evaluation" in bus.plugins:
            raise PluginError(
                "evaluator is given, and so is the plugin 'evaluation'; pass "
                "EvaluationCallback(evaluator) alone"
            )
        bus.register(plugin_names.EvaluationCallback(evaluator))
    elif validation is not None and IMPLIED in wanted:
        _imply_evaluation(bus)
    if cuda_graphs and not has_recorder(bus.plugins):
        bus.register(recorder())
    taken = {getattr(plugin, "name", None) for plugin in bus.plugins.values()}
    names = [each for each in wanted if each not in taken and each not in bus.plugins]
    bus.register_all((None, plugin) for plugin in made_defaults(names))


def _imply_evaluation(bus: Bus) -> None:
    """Enable the evaluation plugin, unless a listener may measure in its stead.

    Beside it, two could deliver ``val_loss``, and batches may be such as it alone can
    read. Unless one of them declares a ``val_...``, they are watched.
    """
    known = {name: each for name, each in bus.plugins.items() if may_measure(each)}
    if not known:
        bus.register(plugin_names.EvaluationCallback())
    elif not any(map(declares_validation, known.values())):
        bus.register(Unmeasured(known))


def chosen_defaults(plugins: Any) -> tuple[list[str], Any]:
    """Return which defaults are wanted, and ``plugins`` without ``no:NAME``.

    Raises:
        PluginError: something is switched off that is on by no default.
    """
    is_off = os.environ.get(ENVIRONMENT) == "off"
    names = [IMPLIED] if is_off else [*DEFAULTS, IMPLIED]
    if not isinstance(plugins, (list, tuple)):
        return names, plugins
    off = [e[3:] for e in plugins if isinstance(e, str) and e.startswith("no:")]
    choices = (*DEFAULTS, IMPLIED)
    for name in off:
        if name not in choices:
            raise PluginError(
                f"plugins has 'no:{name}', but {name!r} is not on by default"
                f"{did_you_mean(name, choices)}; these are: {', '.join(choices)}"
            )
    wanted = [name for name in names if name not in off]
    others = [e for e in plugins if not isinstance(e, str) or not e.startswith("no:")]
    return wanted, others


def made_defaults(names: Iterable[str]) -> list[Callback]:
    """Return the defaults of these names that are of use here."""
    made: list[Callback] = []
    if "progress" in names and sys.stderr is not None:
        try:
            made.append(plugin_names.ProgressBarCallback())
        except ImportError as error:  # the kernel alone says nothing
            log.info("no progress is shown: %s", error)
    if "run_record" in names:
        from training.builtin.default_record import DefaultRunRecord

        made.append(DefaultRunRecord())
    return made


def recorder() -> Callback:
    """Return the plugin that ``cuda_graphs`` stands for.

    Raises:
        PluginError: it is not installed; says what to install.
    """
    try:
        return plugin_names.CUDAGraphsCallback()
    except ImportError as error:
        raise PluginError(f"cuda_graphs is on, but {error}") from error
