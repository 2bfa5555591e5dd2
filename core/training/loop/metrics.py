"""Metrics with their origin: who measured a value, and when."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import astuple
from typing import Any

from training.errors import MetricError, PluginError, did_you_mean
from training.view import MetricValue

#: What a row of the history holds beside metrics.
COLUMNS = ("epoch", "step", "update", "lr", "seconds")


class Metrics(Mapping[str, MetricValue]):
    """The latest value of every metric, and which names a run will produce."""

    def __init__(self) -> None:
        self._latest: dict[str, MetricValue] = {}
        #: Names that the run will produce; None when a producer does not say.
        self.known_names: frozenset[str] | None = frozenset()
        #: Watched name -> who watches it.
        self._required: dict[str, str] = {}

    def __getitem__(self, name: str) -> MetricValue:
        return self._latest[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._latest)

    def __len__(self) -> int:
        return len(self._latest)

    def record(self, name: str, value: MetricValue) -> None:
        """Keep ``value`` as the latest of ``name``."""
        self._latest[name] = value

    def require(self, name: str, owner: str) -> None:
        """Raise ``MetricError`` if it is known that nobody will produce ``name``.

        Where a producer does not say its names, ``check_delivered`` decides.
        """
        if self.known_names is not None and name not in self.known_names:
            raise _unknown(name, owner, self.known_names)
        self._required[name] = owner

    def check_delivered(self, names: Collection[str]) -> None:
        """Raise ``MetricError`` if a required name is not in what was delivered.

        Args:
            names: all that was delivered at an epoch end, by every producer.
        """
        for name, owner in self._required.items():
            if name not in names:
                raise _unknown(name, owner, names)

    def state_dict(self) -> dict[str, list[Any]]:
        """Return every latest value as a list of its fields."""
        return {name: list(astuple(value)) for name, value in self._latest.items()}

    def load_state_dict(self, state: Mapping[str, list[Any]]) -> None:
        """Replace all values by those that ``state_dict`` returned."""
        self._latest = {name: MetricValue(*value) for name, value in state.items()}


def _unknown(name: str, owner: str, known: Iterable[str]) -> MetricError:
    names = sorted(known)
    return MetricError(
        f"{owner} watches {name!r}, but this run reports: {', '.join(names)}"
        f"{did_you_mean(name, names)}"
    )


def known_names(
    declared: Mapping[str, Iterable[str] | None], producers: Iterable[str]
) -> frozenset[str] | None:
    """Return the metrics a run will produce; None when a producer does not say.

    Raises:
        PluginError: a plugin declared something else than names, one of the history's
            own, or one that another declared, too.
    """
    owners = {"train_loss": "trainer"}
    names = {
        plugin: _checked_names(plugin, given) for plugin, given in declared.items()
    }
    for plugin, own in names.items():
        for name in dict.fromkeys(own or ()):
            _check_metric_name(plugin, name)
            if owners.setdefault(name, plugin) != plugin:
                raise _delivered_twice(name, owners[name], plugin)
    if any(names.get(producer) is None for producer in producers):
        return None
    return frozenset(owners)


def _checked_names(plugin: str, names: Any) -> list[str] | None:
    if names is None:
        return None
    listed = list(names) if isinstance(names, Iterable) else [names]
    if isinstance(names, str) or not all(isinstance(name, str) for name in listed):
        raise PluginError(
            f"plugin {plugin!r} returned {names!r} from metric_names; return a list "
            "of names, or None"
        )
    return listed


def merge_metrics(
    results: list[tuple[str, Mapping[str, Any] | None]],
) -> dict[str, tuple[float, str]]:
    """Merge what ``evaluate`` listeners returned into name -> (value, producer).

    Raises:
        PluginError: a result is no mapping, a name no text or one of the history's own,
            a value no number, or a name came twice.
    """
    merged: dict[str, tuple[float, str]] = {}
    for producer, result in results:
        if result is None:
            continue
        if not isinstance(result, Mapping):
            raise PluginError(
                f"plugin {producer!r} returned {type(result).__name__} from evaluate; "
                "return a mapping of metric names to numbers, or None"
            )
        for name, value in result.items():
            _check_metric_name(producer, name)
            if name in merged:
                raise _delivered_twice(name, merged[name][1], producer)
            merged[name] = _number(name, value, producer), producer
    return merged


def _check_metric_name(producer: str, name: Any) -> None:
    if not isinstance(name, str) or name in COLUMNS:
        raise PluginError(
            f"plugin {producer!r} returned a metric named {name!r}; use a text other "
            f"than {', '.join(COLUMNS)}"
        )


def _delivered_twice(name: str, one: str, other: str) -> PluginError:
    return PluginError(
        f"metric {name!r} comes from both {one!r} and {other!r}; rename or switch off "
        "one of them"
    )


def _number(name: str, value: Any, producer: str) -> float:
    """Return the metric as a float; text, True and tensors of several are none."""
    is_single = getattr(value, "numel", lambda: 1)() == 1
    if is_single and not isinstance(value, (bool, str, bytes)):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError):
            pass
    raise PluginError(
        f"plugin {producer!r} returned {value!r} as metric {name!r}; return a number"
    )
