"""Drive a torch scheduler, or one of the user's own, and carry its state on."""

from __future__ import annotations

import functools
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, MultiplicativeLR, ReduceLROnPlateau

from trainbus_lr_scheduling.drivers import COURSE, full_rate, set_lr
from trainbus_lr_scheduling.groups import check_groups, parts_of
from trainbus_lr_scheduling.saved import check_kept, require
from trainbus_lr_scheduling.schedule_functions import MOST_VALUES, bound_values
from training import CheckpointError, ConfigError
from training.plugin import foreign_value, has_names, is_finite, plain

#: Options of a parameter group that schedulers move, or read their course from.
MOVED = ("lr", "initial_lr", "momentum", "betas", *COURSE)


class TorchDriver:
    """Steps a scheduler object.

    Args:
        scheduler: an object with ``step()``; its state now counts as the beginning, and
            as what was configured. Without ``state_dict`` its attributes are its state.
        optimizer: the one whose rates it moves; a group that joins later has the rate
            that it joins with as its full one.
        floor: lowest rate by full rate, for a plateau whose groups have each their own.
    Attributes:
        settings: the scheduler's state at its beginning, what it reads from the groups,
            and arguments of its functions.
    """

    def __init__(
        self,
        scheduler: Any,
        optimizer: Optimizer,
        floor: Callable[[float], float] | None = None,
    ) -> None:
        self._scheduler, self._floor = scheduler, floor
        self.optimizer = optimizer
        self._fresh = self._state()
        self._groups = [
            {name: copied(group[name]) for name in MOVED if name in group}
            for group in optimizer.param_groups
        ]
        if hasattr(scheduler, "get_last_lr"):
            # Its own rates: those of the groups may have been restored since.
            for options, rate in zip(
                self._groups, scheduler.get_last_lr(), strict=False
            ):
                options["lr"] = copied(rate)
        for options in self._groups:
            options.setdefault("initial_lr", copied(options["lr"]))
        self._arguments = arguments_of(scheduler)
        self.settings = self._configured()
        self._advances = 0
        self._place = self._places()

    def as_saved(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Add what the loaded groups hold: earlier releases saved it there alone."""
        return {**self._course(self.optimizer.param_groups), **settings}

    def start(self) -> None:
        """Put scheduler, rates and momentum back to the beginning."""
        self.settings, self._advances = self._configured(), 0
        self._note_joined()
        self._load(self._fresh)
        for group, options in zip(
            self.optimizer.param_groups, self._groups, strict=False
        ):
            group.update({n: copied(v) for n, v in options.items() if n != "lr"})
            set_lr(group, float(options["lr"]))

    def advance(self, value: float | None = None) -> None:
        """Step the scheduler, with ``value`` if it follows a metric.

        Raises:
            ConfigError: somebody else has stepped it since, or a group has joined that
                it cannot follow.
        """
        self._require_untouched()
        self._note_joined()
        self._advances += 1
        if value is None:
            self._scheduler.step()
        else:
            self._scheduler.step(value)
        for group in self.optimizer.param_groups:  # a function may count with numpy
            if type(group["lr"]) is not float:
                group["lr"] = plain(group["lr"])
        self._place = self._places()

    def progress(self) -> dict[str, Any]:
        """Return the scheduler's state, the rates, and how often it was stepped."""
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        return {"advances": self._advances, "state": self._state(), "rates": rates}

    def check(self, settings: Mapping[str, Any], progress: Mapping[str, Any]) -> None:
        """Compare kinds with what torch's scheduler keeps; one's own may keep any."""
        state, rates = progress.get("state"), progress.get("rates", [])
        require(has_names(state), "progress.state", state, "a mapping of names")
        is_right = isinstance(rates, list) and all(map(is_finite, rates))
        require(is_right, "progress.rates", rates, "a list of rates")
        if type(self._scheduler).__module__.startswith("torch."):
            check_kept(state, self._fresh, "progress.state")
            check_kept(settings, self._fresh, "settings")

    def resume(self, settings: Mapping[str, Any], progress: Mapping[str, Any]) -> None:
        """Load the saved state; torch lets it replace the configured settings.

        Raises:
            CheckpointError: the settings were arguments of functions, which no
                checkpoint holds.
        """
        if settings.get("arguments", self._arguments) != self._arguments:
            raise CheckpointError(
                "lr_scheduling: on_schedule_change is 'keep', but no checkpoint holds "
                f"the functions of a {type(self._scheduler).__name__}; build it as it "
                "was, or use 'new' or 'rescale'"
            )
        self.settings = self.as_saved(settings)
        self._advances = progress["advances"]
        state = progress["state"]
        self._load(state)
        groups = self.optimizer.param_groups
        rates = progress.get("rates") or state.get("_last_lr", ())
        for group, rate in zip(groups, rates, strict=False):
            set_lr(group, float(rate))
        for group, base in zip(groups, state.get("base_lrs", ()), strict=False):
            group["initial_lr"] = copied(base)

    def restart(self, place: int, warmup: int) -> None:
        """Begin the configured schedule here; its length stays as it was built."""
        self.start()

    def rescale(self, progress: Mapping[str, Any], place: int) -> None:
        """Replay the configured scheduler; a plateau keeps what it has seen."""
        if isinstance(self._scheduler, ReduceLROnPlateau):
            learnt = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")
            seen = {name: progress["state"][name] for name in learnt}
            self._load({**self._fresh, **seen})
            self._advances = progress["advances"]
        else:
            self.start()
            with warnings.catch_warnings():  # "before optimizer.step()": a replay
                warnings.simplefilter("ignore")
                for _ in range(place):
                    self.advance()

    def _note_joined(self) -> None:
        """Note the full rates of groups that have joined since the last look."""
        for group in self.optimizer.param_groups[len(self._groups) :]:
            if self._floor is None:
                check_groups(self._scheduler, self.optimizer)
            rate = full_rate(group, self.optimizer)
            self._groups.append({"lr": rate, "initial_lr": rate})
        if self._floor is not None:
            floors = self._scheduler.min_lrs
            late = self._groups[len(floors) :]
            floors += [self._floor(float(options["initial_lr"])) for options in late]

    def _configured(self) -> dict[str, Any]:
        arguments = {"arguments": self._arguments} if self._arguments else {}
        return {**self._course(self._groups), **self._fresh, **arguments}

    def _course(self, groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return what schedulers have written into groups, a list for each name."""
        # An option of the optimizer itself is compared with the others of it.
        own = getattr(self.optimizer, "defaults", {})
        held = {name: [g[name] for g in groups if name in g] for name in COURSE}
        return {n: copied(v) for n, v in held.items() if v and n not in own}

    def _state(self) -> dict[str, Any]:
        return dict(copied(self._kept()))

    def _kept(self) -> Mapping[str, Any]:
        """Return what the scheduler keeps, by name, as it keeps it."""
        if hasattr(self._scheduler, "state_dict"):
            kept: Mapping[str, Any] = self._scheduler.state_dict()
            return kept
        return {
            name: value
            for name, value in vars(self._scheduler).items()
            if value is not self.optimizer
        }

    def _load(self, state: Mapping[str, Any]) -> None:
        loaded = as_kept(state, self._kept())
        if hasattr(self._scheduler, "load_state_dict"):
            self._scheduler.load_state_dict(loaded)
        else:
            vars(self._scheduler).update(loaded)
        self._place = self._places()

    def _places(self) -> list[Any]:
        """Return how far the scheduler and its parts say that they are."""
        return [getattr(part, "last_epoch", None) for part in parts_of(self._scheduler)]

    def _require_untouched(self) -> None:
        place = self._places()
        if place != self._place:
            raise ConfigError(
                f"lr_scheduling: the {type(self._scheduler).__name__} was left at "
                f"{self._place[0]} and is at {place[0]} now, so somebody else steps "
                "it, too; take its step() out of your hooks and functions, or do not "
                "pass it to the Trainer"
            )


def arguments_of(scheduler: Any) -> list[Any]:
    """Return what was bound to the functions of a scheduler, which is in no state.

    transformers' ``get_..._schedule_with_warmup`` binds warmup and length in a partial,
    others have them in a closure or as defaults.
    """
    bound = [
        copied(each)
        for part in parts_of(scheduler)
        if isinstance(part, (LambdaLR, MultiplicativeLR))
        for function in part.lr_lambdas
        for each in _bound_to(function)
    ]
    return [each for each in bound if foreign_value(each) is None]


def _bound_to(function: Any) -> Iterator[Any]:
    """Yield arguments of partials, and constants of closure and defaults by name."""
    if isinstance(function, functools.partial):
        yield [function.args, function.keywords]
        function = function.func
    constants = {n: v for n, v in bound_values(function) if _is_constant(v)}
    if constants:
        yield constants


def _is_constant(value: Any) -> bool:
    if type(value) in (list, tuple) and len(value) <= MOST_VALUES:
        return all(map(_is_constant, value))
    return type(plain(value)) in (bool, int, float, str)


def copied(value: Any) -> Any:
    """Return a copy of ``value`` made of dicts, lists, tensors and JSON values."""
    if isinstance(value, Mapping):
        return {plain(key): copied(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [copied(item) for item in value]
    return value.clone() if isinstance(value, Tensor) else plain(value)


def as_kept(saved: Any, current: Any) -> Any:
    """Return a copy of ``saved`` in the types that a scheduler keeps: ``current``.

    A checkpoint has dicts and lists for the milestones of ``MultiStepLR`` and for
    tuples, at whatever depth of schedulers inside one another.
    """
    if isinstance(saved, Mapping):
        known = current if isinstance(current, Mapping) else {}
        items = {key: as_kept(item, known.get(key)) for key, item in saved.items()}
        return Counter(items) if isinstance(current, Counter) else items
    if isinstance(saved, list):
        is_alike = isinstance(current, (list, tuple)) and len(current) == len(saved)
        known_items = current if is_alike else [None] * len(saved)
        values = [as_kept(*pair) for pair in zip(saved, known_items, strict=True)]
        return tuple(values) if type(current) is tuple else values
    return saved.clone() if isinstance(saved, Tensor) else saved
