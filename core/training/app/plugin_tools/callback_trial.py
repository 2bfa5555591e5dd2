"""Let a plugin take part in small runs: the kit's, and one that tells of waits."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from training.messages.error_texts import error_text

__all__ = ["accepted", "conforms", "waits_remark"]

#: Checks of the kit that are left out: of reads ``waits_remark`` says more, with their
#: lines; and what a call costs is told by a clock, which is another while a machine is
#: busy. Any other is one or two seconds on a core, all together three to six.
LEFT_OUT = ("device reads", "cost")


def conforms(
    cls: type[Any], folder: Path, options: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """Run a plugin through the checks of the kit.

    Args:
        cls: whose instances need no options.
        folder: where the runs write.
        options: of the runs.
    Returns: what is wrong, and what else to say.
    """
    kit = import_module("training.testing")
    case, checking = (
        import_module(f"training.testing.{name}") for name in ("case", "checking")
    )
    remarks: list[str] = []

    def case_of(name: str) -> Any:
        own = folder / name.replace(" ", "_")
        return case.Case(cls, own, options, 0.0, remarks)

    problems, _ = checking.findings_of(kit.CHECKS, case_of, LEFT_OUT, "signatures")
    return problems, remarks


def accepted(cls: type[Any], folder: Path) -> tuple[dict[str, Any], str]:
    """Return options of the kit's runs that a plugin takes, or why it takes none.

    A plugin may say, before the first step, that it cannot be in a run without
    validation data, as a user's may. What else goes wrong is for the checks to tell.
    """
    kit = import_module("training.testing")
    many = import_module("training.testing.many_processes")
    refusal = ""
    for options in ({}, {"val_dataloader": kit.tiny_batches(2, seed=2)}):
        trainer = None
        try:
            trainer = kit.tiny_trainer(cls(), save_dir=folder / "first", **options)
            trainer.train()
        except Exception as error:
            if many.is_refusal(error, trainer):
                refusal = refusal or error_text(error)
                continue
        return options, ""
    return {}, refusal


def waits_remark(cls: type[Any], options: Mapping[str, Any]) -> str:
    """Return what there is to say of a plugin's waits, ``""`` if it makes none.

    Built with its default options. That it waits is no mistake: it may have to, and a
    run on a CPU does not suffer.
    """
    waits = import_module("training.testing.waits")
    try:
        plugin = cls()
        found = waits.waits_with(plugin, **options)
    except Exception as error:
        return f"whether a GPU would wait for it is unknown: {error_text(error)}"
    reasons = getattr(cls, "reads_device", ())
    lines = waits.told([wait for wait in found if not waits.is_declared(plugin, wait)])
    declared = sorted({w.hook for w in found if waits.is_declared(plugin, w)})
    for hook in declared:
        why = reasons[hook] if isinstance(reasons, Mapping) else "as it declares"
        lines.append(f"waits for the device in {hook}: {why}")
    return "\n  ".join(lines)
