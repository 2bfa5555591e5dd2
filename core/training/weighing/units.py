"""The units that a mean loss may be a mean over, by name. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from training.errors import CheckpointError, ConfigError, did_you_mean
from training.messages.error_texts import add_note
from training.recipes.weight import checked_weight

#: Name -> words for a sentence, those that are preferred first where several fit.
UNITS = {
    "shifted_labels": "label tokens after the shift",
    "labels": "labels",
    "class_weights": "the class weights of the labels",
    "samples": "samples",
    "elements": "elements of the labels",
    "sum": "nothing: it is a sum",
}
#: Those that only labels have: a batch with none of one may be a mean over nothing.
OF_LABELS = ("shifted_labels", "labels", "class_weights")
#: Before the name of an entry of zeros and ones: ``mask:attention_mask``.
MASK, SHIFTED_MASK = "mask:", "shifted_mask:"
#: Before the name of an entry all of whose elements count, where there are no labels.
ELEMENTS, SHIFTED_ELEMENTS = "elements:", "shifted_elements:"


def in_words(unit: str) -> str:
    """Return what a person calls ``unit``."""
    kind, of_entry, name = unit.partition(":")
    if not of_entry:
        return UNITS.get(unit, unit)  # batches, where nothing tells one
    what = "ones" if unit.startswith((MASK, SHIFTED_MASK)) else "elements"
    after = " after the shift" if kind.startswith("shifted") else ""
    return f"the {what} of {repr(name) if name else 'a batch'}{after}"


def is_unit(name: str) -> bool:
    """Whether it is the name of a unit."""
    prefixes = (MASK, SHIFTED_MASK, ELEMENTS, SHIFTED_ELEMENTS)
    return name in UNITS or name.startswith(prefixes)


def is_known(saved: str | None, allows_change: bool) -> bool:
    """Whether a checkpoint says a unit by name, or none; else it says a function's.

    Raises:
        CheckpointError: it does, and the run goes on without the function.
    """
    if saved is None or is_unit(saved):
        return True
    if not allows_change:
        raise CheckpointError(
            f"the checkpoint is of another run: loss_per was the function {saved!r}, "
            "is not given: pass it again, or let the loss be measured with "
            "allow_changes=['loss_per'] (--allow-change loss_per)"
        )
    return False


def check_loss_per(given: Any) -> None:
    """Raise ``ConfigError`` unless it names a unit, can be called, or is None."""
    if isinstance(given, str):
        check_unit(given, otherwise=", or pass a function batch -> float")
    elif given is not None and not callable(given):
        raise ConfigError(
            f"loss_per is {given!r}; pass the name of a unit, such as 'samples', or a "
            "function batch -> float"
        )


def check_unit(name: str, setting: str = "loss_per", otherwise: str = "") -> str:
    """Return ``name`` if it is that of a unit.

    Raises:
        ConfigError: it is not.
    """
    if is_unit(name):
        return name
    raise ConfigError(
        f"{setting} is {name!r}{did_you_mean(name, UNITS)}; choose one of: "
        f"{', '.join(UNITS)}, {MASK}NAME, {SHIFTED_MASK}NAME, {ELEMENTS}NAME, "
        f"{SHIFTED_ELEMENTS}NAME{otherwise}"
    )


def naming_loss_per(function: Callable[[Any], float]) -> Callable[[Any], float]:
    """Return ``function``, checked; its errors say that they come from ``loss_per``."""

    def weigh(batch: Any) -> float:
        try:
            given = function(batch)
        except Exception as error:
            add_note(error, f"raised by loss_per, given a {type(batch).__name__}")
            raise
        return checked_weight(given, "loss_per returned the weight", ConfigError)

    return weigh
