"""The optimizer's part of a run's settings: its class, groups by name, and options."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from training.checkpoint.optimizer_state import (
    SavedGroup,
    counterparts,
    known_names,
    names_of,
)
from training.hardware.optimizer_kernels import WAYS
from training.modules.plain_names import some

if TYPE_CHECKING:
    from training.checkpoint.checkpointable import Checkpointable

log = logging.getLogger(__name__)

#: Options that are not compared, or as names.
HOW = ("params", "param_names", "initial_lr", *WAYS)
#: Options that plugins move; others an optimizer may move itself, as counters are.
MOVED = ("lr", "weight_decay", "momentum", "betas")
GROUPS = "optimizer.groups"


def optimizer_settings(
    optimizer: torch.optim.Optimizer,
    configured: list[dict[str, Any]] | None,
    names: Mapping[Tensor, str],
) -> dict[str, Any]:
    """Return class, names in each group, and each option with one value for each group.

    Args:
        optimizer: its groups tell whether a schedule moves the rates: then the schedule
            compares them, and ``optimizer.lr`` is None.
        configured: the groups before training changed any; None: those of now. A group
            that joined since, or lost parameters, is progress and no setting.
        names: of the parameters.
    """
    live = optimizer.param_groups
    groups = live if configured is None else configured
    settings: dict[str, Any] = {
        "optimizer": type(optimizer).__name__,
        GROUPS: known_names(groups, names),
    }
    for name in dict.fromkeys(name for group in groups for name in group):
        if name not in HOW:
            values = [_plain(group.get(name)) for group in groups]
            settings[f"optimizer.{name}"] = values
    if is_scheduled(optimizer):
        settings["optimizer.lr"] = None
    return settings


def is_scheduled(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a scheduler was ever built for it: torch leaves a key then."""
    return any("initial_lr" in group for group in optimizer.param_groups)


def name_by_position(run: Checkpointable, state: Mapping[str, Any]) -> None:
    """Name the parameters in a file of an earlier release, which knew sizes alone.

    Groups of as many parameters have the names of those that stand in their place here.
    Others have names of nobody's: they are other groups.
    """
    optimizer, settings = state["optimizer"], state["settings"]
    if "names" in optimizer:
        return
    names = known_names(run.configured_groups or [], names_of(run))
    sizes = [len(group["params"]) for group in optimizer["param_groups"]]
    if sizes != [len(each) for each in names]:
        names = [
            [f"parameter {at} of group {index}" for at in range(size)]
            for index, size in enumerate(sizes)
        ]
    optimizer["names"] = settings[GROUPS] = names


def origins(state: Mapping[str, Any]) -> list[list[str]]:
    """Return names in each group of a checkpoint, of configured ones as configured."""
    names = state["optimizer"]["names"]
    configured = state["settings"].get(GROUPS, [])[: len(names)]
    return [*configured, *names[len(configured) :]]


def adapt_to_absent(
    trainer: Checkpointable, state: Mapping[str, Any], source: str
) -> dict[str, str]:
    """Let options that a plugin moved which is gone be settings; return notes of them.

    Where another one moves options here, it may be that one's to have moved them, or to
    move them again: then they stay as they are, and are told of.
    """
    was, here = state.get("distributions", {}), trainer.plugins
    gone = [
        name
        for name, entry in was.items()
        if name not in here and "optimizer" in (entry.get("mutates") or "")
    ]
    if not gone:
        return {}
    # One that builds its schedule in ``on_setup`` has left no trace by now.
    if is_scheduled(trainer.optimizer) or any(
        "optimizer" in getattr(each, "mutates", ()) for each in here.values()
    ):
        _tell_as_left(state, source, gone)
        return {}
    return _set_as_left(state)


def _tell_as_left(state: Mapping[str, Any], source: str, gone: Sequence[str]) -> None:
    settings = state["settings"]
    for name, values in _moved(settings, state["optimizer"]["param_groups"]).items():
        if settings[name] is not None:  # else a schedule compares them
            log.warning(
                "checkpoint %r: %s stays %s, as %s may have left it, not active now; "
                "configured it was %s",
                *(source, name, values, some(gone), settings[name]),
            )


def _set_as_left(state: Mapping[str, Any]) -> dict[str, str]:
    settings, groups = state["settings"], state["optimizer"]["param_groups"]
    left = _moved(settings, groups)
    by = "schedule" if settings.get("optimizer.lr", ()) is None else "plugin"
    for group in groups:
        group.pop("initial_lr", None)
    settings.update(left)
    return dict.fromkeys(left, f"as a {by} left it")


def _moved(
    settings: Mapping[str, Any], groups: Sequence[Mapping[str, Any]]
) -> dict[str, list[Any]]:
    """Return, by names of settings, options that are not as they were configured.

    Args:
        settings: of a checkpoint; of a run with a schedule they have no rates.
        groups: its optimizer's; those that joined stand last.
    """
    configured = groups[: len(settings.get(GROUPS, groups))]
    now = {f"optimizer.{n}": [_plain(g.get(n)) for g in configured] for n in MOVED}
    return {n: v for n, v in now.items() if n in settings and settings[n] != v}


def aligned(
    saved: Mapping[str, Any], own: Mapping[str, Any], joined: Sequence[SavedGroup]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return both settings as they are to be compared: groups matched by their names.

    Args:
        saved: of a checkpoint.
        own: of this run.
        joined: groups that joined the saved run; this run may have them from its
            beginning, or let them join again.
    """
    names, own_names = saved.get(GROUPS, []), own[GROUPS]
    places = counterparts(own_names, [*names, *(group.names for group in joined)])
    # Empty groups have nothing to be told apart by, and nothing to lose.
    lost = [each for at, each in enumerate(names) if each and at not in places]
    new = [n for n, place in zip(own_names, places, strict=True) if n and place is None]
    was, now = _apart(lost, new)
    saved, own = {**saved, GROUPS: was}, {**own, GROUPS: now}
    for key in saved.keys() & own.keys():
        if not key.startswith("optimizer.") or key == GROUPS:
            continue
        # A schedule compares the rates itself.
        if saved[key] is None or own[key] is None:
            continue
        values = [*saved[key], *(_configured(group, key) for group in joined)]
        both = [(at, place) for at, place in enumerate(places) if place is not None]
        saved[key] = [values[place] for _, place in both]
        own[key] = [own[key][at] for at, _ in both]
    return saved, own


def without_scheduled_options(
    saved: Mapping[str, Any], own: Mapping[str, Any], course: Collection[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return both settings without options that a schedule writes and compares."""
    course = {f"optimizer.{name}" for name in course}
    both = [
        {name: value for name, value in each.items() if name not in course}
        for each in (saved, own)
    ]
    if "optimizer.base_momentum" in course & saved.keys() & own.keys():
        for settings in both:  # then the momentum is the schedule's, too
            settings.pop("optimizer.momentum", None)
            if "optimizer.betas" in settings:
                settings["optimizer.betas"] = [
                    betas and betas[1:] for betas in settings["optimizer.betas"]
                ]
    return both[0], both[1]


def _apart(lost: list[list[str]], new: list[list[str]]) -> tuple[Any, Any]:
    """Return what tells groups without a counterpart from each other, for a sentence.

    Args:
        lost: names in groups that only the checkpoint has.
        new: the same of this run.
    """
    before, after = ({n for names in each for n in names} for each in (lost, new))
    # The same names in other groups need another sentence than other names.
    if before != after:
        return sorted(before - after), sorted(after - before)
    if not lost:
        return [], []
    one = min(lost[0])
    here = next(set(names) for names in new if one in names)
    other = min(here ^ set(lost[0]))
    told = [f"{one} and {other} in {n}" for n in ("one group", "two groups")]
    return tuple(told if other in lost[0] else reversed(told))  # type: ignore[return-value]


def _configured(group: SavedGroup, key: str) -> Any:
    """Return an option of a group that joined; a rate before a schedule moved it."""
    name = key.partition(".")[2]
    if name == "lr" and "initial_lr" in group.options:
        name = "initial_lr"
    return _plain(group.options.get(name))


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.item() if value.numel() == 1 else value.tolist()
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    is_json = value is None or isinstance(value, (bool, int, float, str))
    # By its class: what no JSON holds could not be compared with a file.
    return value if is_json else type(value).__name__
