"""The optimizer's state by the names of its parameters, not by their positions.

Layers and groups may stand in another order when a run is resumed, and a group may have
joined since training began. A parameter's name begins with the part of a checkpoint
that holds its value: ``"model.layers.0.weight"``, ``"loss.scale"``.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from training.checkpoint.compare import first_difference
from training.errors import CheckpointError, ConfigError
from training.loop.criterion import Criterion
from training.messages.tables import count
from training.modules.optimizer_checks import PARAMETERS
from training.modules.plain_names import plain_name

if TYPE_CHECKING:
    from training.checkpoint.checkpointable import Checkpointable

log = logging.getLogger(__name__)

Names = Mapping[Tensor, str]


@dataclass(frozen=True, slots=True)
class SavedGroup:
    """A parameter group of a checkpoint.

    Attributes:
        names: of its parameters.
        options: all else that it holds.
        state: name -> state, for the parameters that have any.
    """

    names: list[str]
    options: dict[str, Any]
    state: dict[str, Any]


def names_of(run: Checkpointable) -> dict[Tensor, str]:
    """Return the names of the parameters of a run's model and loss."""
    return parameter_names(run.model, run.criterion)


def parameter_names(model: nn.Module, criterion: Criterion) -> dict[Tensor, str]:
    """Return parameter -> name; one with several names has the first by alphabet."""
    named: dict[Tensor, str] = {}
    # All of its names: which one comes first depends on the order of layers.
    for name, parameter in model.named_parameters(remove_duplicate=False):
        full = f"model.{plain_name(model, name)}"
        named[parameter] = min(named.get(parameter, full), full)
    for name, value in criterion.tensors().items():
        if isinstance(value, Tensor):
            named.setdefault(value, f"loss.{name}")
    return named


def group_names(groups: Sequence[Mapping[str, Any]], names: Names) -> list[list[str]]:
    """Return for each group the names of its parameters, in order.

    Raises:
        ConfigError: a parameter belongs neither to the model nor to the loss.
    """
    return [
        [_named(p, names, at, index) for at, p in enumerate(group["params"])]
        for index, group in enumerate(groups)
    ]


def configured_names(run: Checkpointable) -> list[list[str]]:
    """Return the names in each group: configured ones have all they were built with."""
    names, configured = names_of(run), run.configured_groups or []
    late = run.optimizer.param_groups[len(configured) :]
    return [*known_names(configured, names), *group_names(late, names)]


def known_names(groups: Sequence[Mapping[str, Any]], names: Names) -> list[list[str]]:
    """Return ``group_names`` without parameters that are not in the model any more."""
    return [[names[p] for p in group["params"] if p in names] for group in groups]


def options_of(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Return for each group all that it holds but its parameters, as it is now."""
    return [kept_options(group) for group in optimizer.param_groups]


def kept_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options without parameters, in copies that nobody changes in place."""
    return {
        name: value.clone() if isinstance(value, Tensor) else copy.deepcopy(value)
        for name, value in options.items()
        if name != "params"
    }


#: Groups of each optimizer as a run, of whichever trainer, or loading has left them.
LEFT: WeakKeyDictionary[Any, list[dict[str, Any]]] = WeakKeyDictionary()


class ConfiguredOptions:
    """The optimizer's groups as a person has set them, whatever training has moved.

    Attributes:
        groups: options and parameters of each; None before they were looked at.
    """

    def __init__(self) -> None:
        self.groups: list[dict[str, Any]] | None = None
        self._of: torch.optim.Optimizer | None = None

    def adopt_changes(self, optimizer: torch.optim.Optimizer) -> None:
        """Take over what was set since training or loading has left the optimizer."""
        now = _as_they_are(optimizer)
        if self.groups is None or self._of is not optimizer:
            self.groups, self._of = now, optimizer
        else:
            # Not strict: a group that has joined since is progress and no setting.
            every = zip(self.groups, LEFT[optimizer], now, strict=False)
            for own, left, group in every:
                own |= {
                    name: value
                    for name, value in group.items()
                    if _is_another(left.get(name), value)
                }
        LEFT[optimizer] = now

    def leave(self, optimizer: torch.optim.Optimizer) -> None:
        """Note the options as training or loading leaves them."""
        LEFT[optimizer] = _as_they_are(optimizer)

    @contextmanager
    def moved(self, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """Look at what was set before the block, and note what is left after it."""
        self.adopt_changes(optimizer)
        try:
            yield
        finally:
            self.leave(optimizer)


def _as_they_are(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    pairs = zip(options_of(optimizer), optimizer.param_groups, strict=True)
    return [{**options, "params": Members(group["params"])} for options, group in pairs]


class Members(tuple[Tensor, ...]):
    """Parameters, of which it matters which they are, not what numbers they hold."""

    __slots__ = ()


def _is_another(was: Any, value: Any) -> bool:
    if isinstance(value, Members):
        return list(map(id, was)) != list(map(id, value))
    return first_difference(was, value) is not None


def check_parameters(run: Checkpointable) -> None:
    """Refuse an optimizer that steps what no checkpoint of this run would hold.

    Args:
        run: its model, loss and optimizer are looked at.
    Raises:
        ConfigError: says which parameter.
    """
    names, groups = names_of(run), run.optimizer.param_groups
    steps = {parameter for group in groups for parameter in group["params"]}
    # Said as a whole: group_names would speak of the first parameter only.
    if steps and steps.isdisjoint(names):
        raise ConfigError(
            f"the optimizer steps {count(len(steps), 'parameter')}, none of this "
            f"{type(run.model).__name__}; build it with this model's parameters()"
        )
    group_names(groups, names)


@contextmanager
def set_aside(optimizer: torch.optim.Optimizer) -> Iterator[dict[Tensor, Any]]:
    """Keep states whose parameter is in no group away: torch's state_dict() fails."""
    own = {p for group in optimizer.param_groups for p in group["params"]}
    state = getattr(optimizer, "state", {})  # a wrapper may have none
    apart = {
        p: state.pop(p) for p in [*state] if isinstance(p, Tensor) and p not in own
    }
    try:
        yield apart
    finally:
        if apart:  # asked for anew: loading has put another mapping in its place
            optimizer.state.update(apart)


def state_dict_of(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the optimizer's ``state_dict``: of the parameters in its groups."""
    with set_aside(optimizer):
        # A new mapping around the same tensors: nothing is copied here.
        return dict(optimizer.state_dict())


def named_state(
    optimizer: torch.optim.Optimizer, names: Names, joining: Sequence[SavedGroup] = ()
) -> dict[str, Any]:
    """Return the optimizer's ``state_dict`` with ``names``, a list for each group.

    States of parameters that are in no group any more are in a last one, without
    options: they may join again.

    Args:
        optimizer: its tensors are not copied.
        names: of the parameters.
        joining: groups of a checkpoint that are yet to join; they are in it, too.
    """
    state = state_dict_of(optimizer)
    with set_aside(optimizer) as apart:
        left = {names[p]: each for p, each in apart.items() if p in names}
    state["names"] = group_names(optimizer.param_groups, names)
    moved = {name for group in joining for name in group.names}
    left = {name: each for name, each in left.items() if name not in moved}
    if not joining and not left:
        return state
    own = [
        replace(group, names=[name for name in group.names if name not in moved])
        for group in saved_groups(state)
    ]
    late = [*joining, *([SavedGroup(list(left), {}, left)] if left else [])]
    return _regrouped(state, [*own, *late])


def saved_groups(saved: Mapping[str, Any]) -> list[SavedGroup]:
    """Return the groups of a saved state."""
    groups = []
    for group, names in zip(saved["param_groups"], saved["names"], strict=True):
        named = zip(group["params"], names, strict=True)
        state = {n: saved["state"][i] for i, n in named if i in saved["state"]}
        options = {name: value for name, value in group.items() if name != "params"}
        groups.append(SavedGroup(list(names), options, state))
    return groups


def counterparts(
    own: Sequence[Collection[str]], saved: Sequence[Collection[str]]
) -> list[int | None]:
    """Return for each own group the index of the saved one with the same names."""
    # Each once, since two groups may both be empty.
    left: dict[Collection[str], list[int]] = {}
    for place in reversed(range(len(saved))):
        left.setdefault(frozenset(saved[place]), []).append(place)
    free = [left.get(frozenset(names)) for names in own]
    return [places.pop() if places else None for places in free]


def fitted(
    saved: Mapping[str, Any],
    optimizer: torch.optim.Optimizer,
    names: Names,
    places: Sequence[int],
) -> tuple[dict[str, Any], list[SavedGroup]]:
    """Return a saved state in the order of ``optimizer``, and the groups left over.

    A group has the states of all its parameters, whichever they were in.

    Args:
        saved: of a checkpoint.
        optimizer: its groups are as configured.
        names: of its parameters.
        places: for each of its groups the index of the saved one.
    Raises:
        CheckpointError: a state belongs to several parameters, whose order is another.
    """
    groups, own = saved_groups(saved), group_names(optimizer.param_groups, names)
    states = {name: each for group in groups for name, each in group.state.items()}
    here = []
    for names_here, place, live in zip(
        own, places, optimizer.param_groups, strict=True
    ):
        state = {name: states[name] for name in names_here if name in states}
        if groups[place].names != names_here:
            _check_separate(state, names_here, live["params"])
        # Whether there are names is up to how this optimizer was built.
        saved_options = groups[place].options.items()
        options = {k: v for k, v in saved_options if k not in PARAMETERS}
        if "param_names" in live:
            options["param_names"] = live["param_names"]
        here.append(SavedGroup(names_here, options, state))
    whole = _regrouped(saved, here)
    del whole["names"]
    # Groups without a counterpart had joined the saved run: they are to join again.
    return whole, [g for i, g in enumerate(groups) if g.names and i not in places]


def _regrouped(
    state: Mapping[str, Any], groups: Sequence[SavedGroup]
) -> dict[str, Any]:
    """Return ``state`` with ``groups`` in place of its own, in torch's numbering."""
    # Keys that are text are no parameter's: an optimizer may keep more of its own.
    states = {k: v for k, v in state["state"].items() if not isinstance(k, int)}
    listed, number = [], 0  # torch numbers parameters through all groups, in order
    for group in groups:
        listed.append({**group.options, "params": []})
        for name in group.names:
            listed[-1]["params"].append(number)
            if name in group.state:
                states[number] = group.state[name]
            number += 1
    names = [list(group.names) for group in groups]
    return {**state, "state": states, "param_groups": listed, "names": names}


def _named(parameter: Tensor, names: Names, at: int, index: int) -> str:
    if parameter not in names:
        raise ConfigError(
            f"parameter {at} of group {index}, shape {tuple(parameter.shape)}, belongs "
            "neither to the model nor to loss_fn, so no checkpoint would hold it: make "
            "it part of either, or, where a layer was replaced, build the optimizer "
            "after that"
        )
    return names[parameter]


def _check_separate(
    states: Mapping[str, Any], names: Sequence[str], parameters: Sequence[Tensor]
) -> None:
    """Refuse another order where a state is larger than its parameter (LBFGS)."""
    sizes = {n: p.numel() for n, p in zip(names, parameters, strict=True)}
    for name, state in states.items():
        for value in state.values() if isinstance(state, Mapping) else ():
            # LBFGS: flat rows of all parameters, cut at places that nobody notes.
            if isinstance(value, Tensor) and value.numel() > max(1, sizes[name]):
                raise CheckpointError(
                    f"the optimizer's state of {name} is of more than this parameter, "
                    "and the parameters stand in another order now; build the model "
                    "and the optimizer in the saved order"
                )
