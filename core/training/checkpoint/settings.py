"""The settings that a resumed run shares with the run it goes on from.

A change that would make the rest of the run another one is refused with both values,
unless the caller consents to it by name; cadence, retention, device, the name of the
loss, validation rows and the numbers of workers and processes may change freely.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader, IterableDataset

from training.checkpoint.optimizer_settings import optimizer_settings
from training.checkpoint.optimizer_state import names_of
from training.errors import CheckpointError, ConfigError, did_you_mean
from training.feed.validation_loaders import loaders_by_name
from training.modules.train_mode import frozen_modules
from training.plain import plain
from training.planned.length import num_batches

if TYPE_CHECKING:
    from training.checkpoint.checkpointable import Checkpointable

#: May change without consent; a receipt lists them.
FREE = ("num_epochs", "max_steps", "device", "world_size", "loss", "validation")
#: None where a loader does not tell; then there is nothing to compare.
MAY_BE_UNKNOWN = (
    *("dataset", "dataset_source", "dataset_length", "sampler", "batch_size"),
    *("drop_last", "loss_per", "validation"),
)
#: Setting -> others that follow from it, which are not worth a line of their own.
IMPLIES = {
    "dataset": ("dataset_source",),
    "dataset_length": ("batches_per_epoch", "dataset", "dataset_source"),
    "batch_size": ("batches_per_epoch",),
    "drop_last": ("batches_per_epoch",),
    "frozen": ("optimizer.groups",),
    "optimizer": ("optimizer.",),
}
#: What a family says of the model that it has made, such as its labels and words.
DESCRIPTION = "model.description"
#: What its change costs, and the way to train on that does not.
RENUMBERED = (
    "; if the model's words or labels are others, the saved weights know the old ones "
    "by these numbers, and answer with the wrong ones at first: to train on with more "
    "rows, export the checkpoint and name that folder in model.name"
)
#: Of the library's models: where they were read, and by which release.
ORIGIN = frozenset({"_name_or_path", "transformers_version"})


@dataclass(frozen=True, slots=True)
class Change:
    """One setting that differs between a checkpoint and this run.

    Attributes:
        name: its dotted name, as ``allow_changes`` takes it.
        was: its value in the checkpoint.
        now: its value in this run.
        note: of the former value, for the sentence; "" for none.
    """

    name: str
    was: Any
    now: Any
    note: str = ""

    def __str__(self) -> str:
        was, now = _short(self.was), _short(self.now)
        if was == now:  # what was left out is what differs
            was, now = repr(self.was), repr(self.now)
        note = f" ({self.note})" if self.note else ""
        return f"{self.name} was {was}{note}, is {now}"


#: Settings as they were before the run was set up, where they are others now.
BEGUN_WITH = "begun_with"
#: Settings that hooks may change until ``on_setup`` is over.
SET_UP = ("max_grad_norm",)
#: Settings that are read off the loaders.
OF_LOADER = (
    *("dataset", "dataset_length", "sampler", "batch_size", "drop_last"),
    "validation",
)


def settings_of(trainer: Checkpointable) -> dict[str, Any]:
    """Return by dotted name, as JSON values, what decides the course of a run."""
    loader: Any = trainer.train_dataloader
    sampler = getattr(loader, "batch_sampler", None)
    batch_size = getattr(loader, "batch_size", None)
    dataset = getattr(loader, "dataset", None)
    lengths, set_up = lengths_of(trainer), setup_settings(trainer)
    settings = {
        "seed": trainer.order_seed,
        "precision": trainer.precision,
        "tf32": trainer.tf32,
        "gradient_accumulation_steps": trainer.gradient_accumulation_steps,
        **set_up,
        # A name only: a function may change under it, and keep it under another.
        "loss": trainer.criterion.name,
        "loss_per": trainer.state.weigher.settings(),
        "dataset": getattr(dataset, "fingerprint", None),
        "dataset_source": getattr(dataset, "source_fingerprint", None),
        "dataset_length": lengths.get("dataset_length"),
        "sampler": _sampler(loader),
        "batch_size": batch_size or getattr(sampler, "batch_size", None),
        "drop_last": getattr(sampler, "drop_last", None),
        "batches_per_epoch": lengths["batches_per_epoch"],
        "validation": validation_data(trainer.val_dataloader),
        "world_size": trainer.world_size,
        # Sorted: the order of layers is no setting.
        "frozen": sorted(frozen_modules(trainer.model)),
        **optimizer_settings(
            trainer.optimizer, trainer.configured_groups, names_of(trainer)
        ),
        **(trainer.recipe.settings if trainer.recipe else {}),
        "num_epochs": trainer.num_epochs,
        "max_steps": trainer.max_steps,
        "device": trainer.device.type,
    }
    strategy = trainer.strategy
    if strategy.is_divided and strategy.data == "own":
        # Of this process's part; the file is that of all.
        for name in OF_LOADER:
            del settings[name]
        settings["batches_per_epoch"] = lengths["batches_per_epoch"]
    begun = trainer.state.begun_with
    # What a set-up decides is told where there was one.
    others = {n: v for n, v in begun.items() if n in set_up or v != settings.get(n)}
    if others:
        settings[BEGUN_WITH] = others
    # As JSON has them: reading a file calls no class of numpy.
    return {name: plain(value) for name, value in settings.items()}


def set_before_hooks(trainer: Checkpointable) -> dict[str, Any]:
    """Return settings that hooks may change, by name: called before they do."""
    return {**lengths_of(trainer), **setup_settings(trainer)}


def setup_settings(trainer: Checkpointable) -> dict[str, Any]:
    """Return settings that hooks may change until ``on_setup`` is over, and none later.

    None where they are off: 0 clips nothing, either.
    """
    return {name: getattr(trainer, name) or None for name in SET_UP}


def decided_at_setup(
    saved: Mapping[str, Any], allowed: Collection[str]
) -> dict[str, Any]:
    """Return of saved settings those that the set-up of that run had decided.

    Not those in ``allowed``, which may be others in the run that goes on.
    """
    begun = saved.get(BEGUN_WITH, {})
    names = [name for name in SET_UP if name in begun and name in saved]
    names = [name for name in names if not is_allowed(name, allowed)]
    if not names:
        return {}
    decided = {name: saved[name] for name in names}
    return {**decided, BEGUN_WITH: {name: begun[name] for name in names}}


def lengths_of(trainer: Checkpointable) -> dict[str, int | None]:
    """Return how long the training data are now, by names of settings."""
    loader: Any = trainer.train_dataloader
    strategy = trainer.strategy
    if strategy.is_divided and strategy.data == "own":  # of one process's part
        return {"batches_per_epoch": trainer.batches_per_epoch}
    rows = _length(getattr(loader, "dataset", None))
    return {"dataset_length": rows, "batches_per_epoch": num_batches(loader)}


def validation_data(loaders: Any) -> Any:
    """Return the fingerprint of the validation data; of several loaders, by name.

    None where no loader tells one.
    """
    named = loaders_by_name(loaders).items()
    prints = {name: _fingerprint_of(loader) for name, loader in named}
    if all(each is None for each in prints.values()):
        return None
    return prints.get("", prints)


def _fingerprint_of(loader: Any) -> str | int | None:
    data = getattr(loader, "dataset", None)
    # What a foreign class calls so may be anything: a method, say.
    value = plain(getattr(data, "fingerprint", None))
    return value if isinstance(value, (str, int)) else None


def differences(saved: Mapping[str, Any], own: Mapping[str, Any]) -> list[Change]:
    """Return what differs; names that either side does not know are left out.

    What a hook or an epoch has changed since may be as it was before: data as long.
    """
    begun = saved.get(BEGUN_WITH, {})
    as_begun = {name: each for name, each in begun.items() if own.get(name) == each}
    saved, own = _comparable({**saved, **as_begun}), _comparable(own)
    changes = [
        Change(name, saved[name], own[name])
        for name in saved
        if name in own
        and saved[name] != own[name]
        and not (name in MAY_BE_UNKNOWN and None in (saved[name], own[name]))
    ]
    if saved.get("optimizer.lr") is None:  # a schedule moved it, and compares it
        changes = [change for change in changes if change.name != "optimizer.lr"]
    # One cause, one line, and one name to allow.
    implied = {each for change in changes for each in IMPLIES.get(change.name, ())}
    return [
        change
        for change in changes
        if change.name not in implied
        and not ("optimizer." in implied and change.name.startswith("optimizer."))
    ]


def described_otherwise(
    saved: Mapping[str, Any], own: Mapping[str, Any], changes: Collection[Change]
) -> list[Change]:
    """Return the first difference between how two models are described, if any.

    Labels or words that were learnt anew from other rows stand at other numbers, and
    the old weights would be asked for those.

    Args:
        saved: the metadata of the checkpoint.
        own: that of the run.
        changes: of the settings; of the same rows another option explains the rest.
    """
    names = [change.name for change in changes]
    if any(each.startswith("model.") for each in names) and not any(
        each.startswith("dataset") for each in names
    ):
        return []
    told = [each.get("model") for each in (saved, own)]
    was, now = (each.get("model") if isinstance(each, dict) else None for each in told)
    found = _first_told(was, now, "")
    return [found] if found else []


def _first_told(was: Any, now: Any, at: str) -> Change | None:
    was, now = _in_parts(was), _in_parts(now)
    pairs: list[tuple[str, Any, Any]] = []
    if isinstance(was, dict) and isinstance(now, dict):
        inner = f"{at}." if at else ""
        pairs = [
            (f"{inner}{n}", was[n], now[n]) for n in was if n in now.keys() - ORIGIN
        ]
        # One in the place of another: a release may tell more than one before it did.
        sides = (was, now), (now, was)
        was, now = (next((n for n in a if n not in b), None) for a, b in sides)
    elif isinstance(was, list) and isinstance(now, list):
        both = enumerate(zip(was, now, strict=False))
        pairs = [(f"{at}[{number}]", *pair) for number, pair in both]
        was, now, at = len(was), len(now), f"items of {at}"
    for path, one, other in pairs:
        if found := _first_told(one, other, path):
            return found
    is_same = was is None or now is None or was == now
    return None if is_same else Change(DESCRIPTION, was, now, at)


def _in_parts(value: Any) -> Any:
    """Return the text of a file as what JSON makes of it, or as its lines."""
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):
            read = json.loads(value)
            value = read if isinstance(read, (dict, list)) else value
    if isinstance(value, str) and "\n" in value:
        return value.splitlines()
    if isinstance(value, dict):
        return {str(name): each for name, each in value.items()}
    return list(value) if isinstance(value, tuple) else value


def require_same(trainer: Checkpointable, validation: Mapping[str, Any]) -> None:
    """Refuse processes of one run whose settings differ; each calls it.

    They would wait for one another for ever, or train models that part without a word.

    Raises:
        ConfigError: on all of them; the first setting that differs, and its values.
    """
    own = settings_of(trainer)
    # Measured later; one may be wrapped, to log; compared below, of the whole loaders.
    for name in ("loss_per", "loss", "validation"):
        own.pop(name, None)
    bus = trainer.bus
    own["plugins"] = [name for name in trainer.plugins if name not in bus.main_only]
    own["learning rates"] = [plain(g["lr"]) for g in trainer.optimizer.param_groups]
    # Who exchanges gradients fails in other words where they are not the same ones.
    weights = trainer.model.named_parameters()
    own["frozen weights"] = [name for name, w in weights if not w.requires_grad]
    sets = {n: getattr(v, "dataset", None) for n, v in validation.items()}
    own["validation rows"] = {n: _length(each) for n, each in sets.items()}
    own["validation data"] = validation_data(validation)
    own["validation batches"] = {n: num_batches(v) for n, v in validation.items()}
    found = trainer.strategy.gather(own)
    for name in own:
        if any(each[name] != found[0][name] for each in found):
            said = (f"{_short(v[name])} on rank {r}" for r, v in enumerate(found))
            raise ConfigError(
                f"{name} is {', '.join(said)}, but all processes of a run must have "
                "the same: let nothing in the script depend on the rank"
            )


def _comparable(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return ``settings`` without what only notes how the run came along."""
    settings = {name: each for name, each in settings.items() if name != BEGUN_WITH}
    weighing = settings.get("loss_per")
    # How far a measurement had come is progress.
    return {**settings, "loss_per": weighing["unit"]} if weighing else settings


def require_consent(
    changes: Collection[Change], allowed: Collection[str], source: str
) -> None:
    """Raise unless every change that matters is allowed by name.

    Args:
        changes: what differs.
        allowed: names of settings; ``optimizer`` includes all that begin so.
        source: the checkpoint, for the message.
    Raises:
        CheckpointError: lists each other change with both values, and how to allow it.
    """
    refused = [
        change
        for change in changes
        if change.name not in FREE and not is_allowed(change.name, allowed)
    ]
    if refused:
        names = ", ".join(repr(change.name) for change in refused)
        flags = " ".join(f"--allow-change {change.name}" for change in refused)
        raise CheckpointError(
            f"checkpoint {source!r} is of another run: "
            f"{'; '.join(map(str, refused))}: use the old values, or accept the new "
            f"ones with allow_changes=[{names}] ({flags})"
            + RENUMBERED
            * any(change.name == DESCRIPTION for change in refused)
        )


def is_allowed(name: str, allowed: Collection[str]) -> bool:
    """Whether ``allowed`` names the setting, or the part before one of its dots."""
    return any(name == each or name.startswith(f"{each}.") for each in allowed)


def check_names(allowed: Collection[str], known: Collection[str]) -> None:
    """Raise ``ConfigError`` for a name in ``allowed`` that no setting has."""
    if isinstance(allowed, str):
        raise ConfigError(f"allow_changes is {allowed!r}; use a list of names")
    for name in allowed:
        # A misspelt consent would be found out only by the refusal it was to avert.
        if not any(is_allowed(each, [name]) for each in known):
            raise ConfigError(
                f"allow_changes names {name!r}, which is no setting"
                f"{did_you_mean(name, known)}; choose from: "
                f"{', '.join(sorted(set(known)))}"
            )


def _short(value: Any) -> str:
    """Return ``value`` for a sentence: one value for all groups is said once."""
    if isinstance(value, list) and value and all(each == value[0] for each in value):
        value = value[0]
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:110]}..."


def _sampler(loader: Any) -> str | None:
    """Return what decides the order of the rows, None where no sampler does."""
    if not isinstance(loader, DataLoader) or isinstance(
        loader.dataset, IterableDataset
    ):
        return None
    sampler = getattr(loader.batch_sampler, "sampler", loader.sampler)
    known = getattr(sampler, "fingerprint", None)  # of one that draws by settings
    name = type(sampler).__name__
    return f"{name} {known}" if isinstance(known, str) else name


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):
        return None
