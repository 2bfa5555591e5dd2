"""Checks of what a plugin does to a run: changes, waiting, time."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from training.bus.callback import Callback
from training.bus.declared import alters_training
from training.bus.meter import Meter
from training.checkpoint.optimizer_state import state_dict_of
from training.testing.case import Case
from training.testing.equality import difference
from training.testing.probes import BATCH_HOOKS, MutationProbe, Probe, ReadProbe
from training.trainer import Trainer

P = TypeVar("P", bound=Probe)

#: Steps of a run long enough to tell "now and then" from "always".
NUM_BATCHES = 30
#: Share of a hook's calls that may read the device without saying so.
SELDOM = 0.2
#: What there is to say of a change that ``mutates`` has no word for.
WAYS_OUT = {
    "batch": "say `alters_training = True`, or leave it alone",
    "history": "it is the run's own",
    "requests": "ask for more, and take nothing back",
}


def check_mutation(case: Case) -> list[str]:
    """Whether hooks change only what is declared, and the run nothing but that.

    Also of a run that reads a ``DataLoader``: a plugin may put another in its place.
    """
    return _changed(case) or _changed(case.shuffled(NUM_BATCHES))


def _changed(case: Case) -> list[str]:
    plugin = case.make()
    probe, trainer = _probed(case, plugin, MutationProbe())
    allowed = set(getattr(plugin, "mutates", ()))
    # What it gives the run in place of the model or the batches shows in weights alone.
    alters = alters_training(plugin)
    declare = "declare it in `mutates`, or leave it alone"
    problems = [
        f"{hook} changes the {what}; {WAYS_OUT.get(what, declare)}"
        for hook, what in probe.changes
        if what not in allowed and not (alters and what == "batch")
    ]
    if not alters and not problems:
        asks = _asking_like(probe)
        alike = [asks] if probe.asked else []  # else it would be told to hear nothing
        without = case.trainer("without", *alike, num_batches=NUM_BATCHES)
        asks.trainer = without
        without.train()
        # What is changed around an evaluation, or at the end, is not trained on.
        found = difference(*(_outcome(t, bool(allowed)) for t in (trainer, without)))
        if found and allowed:
            problems.append(
                "without the plugin, with the same asked for, training goes otherwise: "
                f"{found}; say `alters_training = True`, so that nobody resumes such a "
                "run without it unawares"
            )
        elif found:
            problems.append(
                "a run without the plugin, in which the same is asked for, ends "
                f"differently: {found}; declare what hooks change in `mutates`, and "
                "what it answers or does otherwise by `alters_training = True`"
            )
    return problems


def _asking_like(probe: MutationProbe) -> Any:
    """Return a plugin that asks for what another one did, at the same calls."""
    calls: Counter[str] = Counter()

    def asking(hook: str) -> Callable[[Any], None]:
        def ask(self: Any) -> None:
            calls[hook] += 1
            for kind in probe.asked.get((hook, calls[hook]), ()):
                getattr(self.trainer, f"request_{kind}")("as the plugin did")

        return ask

    hooks = {hook: asking(hook) for hook, _ in probe.asked}
    return type("AsksAlike", (Callback,), {"name": "kit_asks", **hooks})()


def check_reads(case: Case) -> list[str]:
    """Whether per-batch hooks leave the device alone, or declare that they do not."""
    plugin = case.make()
    probe, _ = _probed(case, plugin, ReadProbe(), num_epochs=1)
    declared = getattr(plugin, "reads_device", ())
    return [
        f"{hook} reads the device in {count} of {probe.calls[hook]} calls "
        f"({probe.examples[hook]}), which makes a GPU wait; do it every n steps, or "
        "declare the hook in `reads_device`"
        for hook, count in probe.reads.items()
        if count > SELDOM * probe.calls[hook] and hook not in declared
    ]


def check_cost(case: Case) -> list[str]:
    """Whether a call of a per-batch hook is cheap."""
    plugin, meter = case.make(), Meter(keep_events=True)
    trainer = case.trainer("probed", plugin, num_batches=NUM_BATCHES, num_epochs=1)
    trainer.bus.meter = meter
    trainer.train()
    problems, name = [], case.name_of(plugin)
    for hook in BATCH_HOOKS:
        taken = [each[3] for each in meter.events if each[:2] == (name, hook)]
        if taken and (seconds := statistics.median(taken)) > case.max_seconds:
            problems.append(
                f"{hook} takes {seconds * 1e6:.0f} us a call, more than "
                f"{case.max_seconds * 1e6:.0f} us"
            )
    return problems


def _probed(case: Case, plugin: Any, probe: P, **changes: Any) -> tuple[P, Trainer]:
    """Train with ``plugin`` watched by ``probe``; return (probe, trainer)."""
    changes = {"num_batches": NUM_BATCHES, **changes}
    trainer = case.trainer("probed", plugin, **changes)
    probe.name = case.name_of(plugin)
    probe.watch_run(trainer)
    trainer.train()
    return probe, trainer


def _outcome(trainer: Trainer, losses_alone: bool) -> dict[str, Any]:
    """Return what no observer may change."""
    losses = {"train_loss": [row["train_loss"] for row in trainer.history]}
    if losses_alone:
        return losses
    weights, optimizer = trainer.model.state_dict(), state_dict_of(trainer.optimizer)
    return {"weights": weights, "optimizer": optimizer, **losses}
