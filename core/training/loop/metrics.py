"""Metrics with their origin: who measured a value, and when."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import astuple
from typing import Any

from training.errors import MetricError, PluginError
from training.view import MetricValue


class Metrics(Mapping[str, MetricValue]):
    """The latest value of every metric, and which names a run will produce.

    Args:
        has_parts: whether ``train_<name>`` may come of any name: of what a ``step_fn``
            returns beside the loss.
    """

    def __init__(self, has_parts: bool = False) -> None:
        self._has_parts = has_parts
        self._latest: dict[str, MetricValue] = {}
        #: Names that the run will produce; None when a producer does not say.
        self.known_names: frozenset[str] | None = None  # nobody was asked yet
        #: Watched name -> who watches it.
        self._required: dict[str, str] = {}

    def __getitem__(self, name: str) -> MetricValue:
        return self._latest[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._latest)

    def __len__(self) -> int:
        return len(self._latest)

    def __repr__(self) -> str:
        return repr(self._latest)

    def record_all(
        self, merged: Mapping[str, tuple[float, str]], step: int, epoch: int
    ) -> dict[str, float]:
        """Keep what ``merged`` returned as the latest; return the values by name."""
        for name, (value, producer) in merged.items():
            self._latest[name] = MetricValue(value, step, epoch, producer)
        return {name: value for name, (value, _) in merged.items()}

    def require(self, name: str, owner: str, mode: str | None) -> None:
        """Raise ``MetricError`` if it is known that nobody will produce ``name``.

        Where a producer does not say its names, ``merged`` decides. No mode is guessed
        from a name: one that keeps the worst value is warned of, and holds.
        """
        # Before the first step: a misspelt name would watch nothing for days.
        may_be_part = self._has_parts and name.startswith("train_")
        names = self.known_names
        if names is not None and name not in names and not may_be_part:
            raise _unknown(name, owner, names)
        self._required[name] = owner
        if mode == "min":
            from training.messages.watched_metric import warn_of_smallest

            warn_of_smallest(name, owner)

    def merged(
        self,
        results: Collection[tuple[str, Mapping[str, float] | None]],
        num_producers: int | None,
    ) -> dict[str, tuple[float, str]]:
        """Merge what was delivered into name -> (value, producer).

        Args:
            results: of each producer; one that failed in isolation has none, or None.
            num_producers: how many were to deliver all that is watched; None: nobody.
        Raises:
            PluginError: a name came twice.
            MetricError: all have delivered, and what is watched is not among it.
        """
        merged = merge_metrics(results)
        if sum(result is not None for _, result in results) == num_producers:
            for name, owner in self._required.items():
                if name not in merged:
                    raise _unknown(name, owner, merged)
        return merged

    def state_dict(self) -> dict[str, list[Any]]:
        """Return every latest value as a list of its fields."""
        return {name: list(astuple(value)) for name, value in self._latest.items()}

    def load_state_dict(self, state: Mapping[str, list[Any]]) -> None:
        """Replace all values by those that ``state_dict`` returned."""
        self._latest = {name: MetricValue(*value) for name, value in state.items()}


def _unknown(name: str, owner: str, known: Iterable[str]) -> MetricError:
    from training.messages.watched_metric import way_to  # late: it is seldom needed

    names = sorted(known)
    return MetricError(
        f"{owner} watches {name!r}, but this run reports: {', '.join(names)}"
        f"{way_to(name, names, owner)}"
    )


def merge_metrics(
    results: Iterable[tuple[str, Mapping[str, float] | None]],
) -> dict[str, tuple[float, str]]:
    """Merge what ``evaluate`` listeners returned into name -> (value, producer).

    Raises:
        PluginError: a name came twice.
    """
    merged: dict[str, tuple[float, str]] = {}
    for producer, result in results:
        for name, value in (result or {}).items():
            # Which of two values decides must not be a matter of order.
            if name in merged:
                raise delivered_twice(name, merged[name][1], producer)
            merged[name] = value, producer
    return merged


def owners_of(declared: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return metric -> who delivers it, of plugins and the metrics that they declare.

    Raises:
        PluginError: two declare one name.
    """
    # The kernel's own: a plugin that delivers it, too, is a second one.
    owners = {"train_loss": "trainer"}
    for plugin, own in declared.items():
        for name in own:
            if owners.setdefault(name, plugin) != plugin:
                raise delivered_twice(name, owners[name], plugin)
    return owners


def delivered_twice(name: str, one: str, other: str) -> PluginError:
    """Return the error of a metric that two producers have."""
    return PluginError(
        f"metric {name!r} comes from both {one!r} and {other!r}; rename or switch off "
        "one of them"
    )
