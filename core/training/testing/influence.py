"""Checks of what a plugin does to a run: changes, waiting, time."""

from __future__ import annotations

from typing import Any, TypeVar

from training.testing.case import Case
from training.testing.equality import difference
from training.testing.probes import CostProbe, MutationProbe, Probe, ReadProbe
from training.trainer import Trainer

P = TypeVar("P", bound=Probe)

__all__ = ["check_cost", "check_mutation", "check_reads"]

#: Steps of a run long enough to tell "now and then" from "always".
NUM_BATCHES = 30
#: Share of a hook's calls that may read the device without saying so.
SELDOM = 0.2


def check_mutation(case: Case) -> list[str]:
    """Whether hooks change only what ``mutates`` declares."""
    plugin = case.make()
    probe, trainer = _probed(case, plugin, MutationProbe())
    allowed = set(getattr(plugin, "mutates", ()))
    problems = [
        f"{hook} changes the {what}; declare it in `mutates`, or leave it alone"
        for hook, what in probe.changes
        if what not in allowed
    ]
    if not allowed and not problems and not trainer.requests:
        without = case.trainer("without", num_batches=NUM_BATCHES)
        without.train()
        found = difference(_outcome(trainer), _outcome(without))
        if found:
            problems.append(f"a run without the plugin ends differently: {found}")
    return problems


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
    probe, _ = _probed(case, case.make(), CostProbe(), num_epochs=1)
    return [
        f"{hook} takes {seconds * 1e6:.0f} us a call, more than "
        f"{case.max_seconds * 1e6:.0f} us"
        for hook, seconds in probe.typical().items()
        if seconds > case.max_seconds
    ]


def _probed(case: Case, plugin: Any, probe: P, **changes: Any) -> tuple[P, Trainer]:
    """Train with ``plugin`` watched by ``probe``; return (probe, trainer)."""
    changes = {"num_batches": NUM_BATCHES, **changes}
    trainer = case.trainer("probed", plugin, **changes)
    probe.name, probe.trainer = case.name_of(plugin), trainer
    trainer.bus.meter = probe
    trainer.train()
    return probe, trainer


def _outcome(trainer: Trainer) -> dict[str, Any]:
    """Return what no observer may change."""
    return {
        "weights": trainer.model.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "train_loss": [row["train_loss"] for row in trainer.history],
    }
