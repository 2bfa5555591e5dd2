"""Which metrics were chosen: by name, as functions, or as objects that are updated."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from annotated_types import Predicate

from training import ConfigError
from training.plugin import Strategy, did_you_mean

#: What ``Evaluator`` measures by name.
METRICS = ("loss", "accuracy", "f1", "mae", "mse")
#: What a run calls its losses.
LOSSES = ("train_loss", "val_loss")
#: What functions that take the truth first, as scikit-learn's do, call it.
TRUTHS = {
    *("y_true", "labels_true", "true", "truth", "ground_truth", "gold", "expected"),
    *("target", "targets", "label", "labels", "reference", "references"),
}


def is_updated(metric: Any) -> bool:
    """Whether it takes batch after batch, as metrics of torchmetrics do."""
    methods = (getattr(metric, name, None) for name in ("update", "compute", "reset"))
    return not isinstance(metric, type) and all(map(callable, methods))


def is_own(metric: Any) -> bool:
    """Whether it may be a function, or an object that is updated."""
    return callable(metric) or is_updated(metric)


#: A name, ``(outputs, targets) -> number``, or an object with ``update(outputs,
#: targets)``, ``compute()`` and ``reset()``.
Metric = str | Annotated[Any, Predicate(is_own)]


def named(metrics: Iterable[Metric]) -> dict[str, Any]:
    """Return each name once, with its function or object; None: the name is all.

    Raises:
        ConfigError: one is of no use, or two have one name.
    """
    found: dict[str, Any] = {}
    for metric in metrics:
        is_name = isinstance(metric, str)
        name, own = (metric, None) if is_name else (_name_of(metric), metric)
        if name in LOSSES or (name == "loss" and not is_name):
            raise ConfigError(
                f"metrics has {'' if is_name else 'one of your own named '}{name!r}, "
                "but so the run calls a loss of its own; list 'loss' for that of "
                "validation, and name another metric otherwise"
            )
        if not _is_same(found.setdefault(name, own), own):
            raise ConfigError(
                f"metrics has two named {name!r}; name one of them otherwise: a "
                "function by its def, an object by its attribute name"
            )
    return found


def checked_metrics(
    metrics: Sequence[Metric], choices: Sequence[str], takes_own: bool = False
) -> dict[str, Any]:
    """Return ``named(metrics)``.

    Args:
        metrics: what was chosen.
        choices: names.
        takes_own: whether functions and objects may be among them.
    Raises:
        ConfigError: one does not fit, or there is none.
    """
    known = ", ".join(choices)
    if isinstance(metrics, str) or not isinstance(metrics, Iterable) or not metrics:
        raise ConfigError(f"metrics is {metrics!r}; pass a list of: {known}")
    found = named(metrics)
    for name, own in found.items():
        if own is None and name not in choices:
            raise ConfigError(
                f"metrics has {name!r}{did_you_mean(name, choices)}; choose from: "
                f"{known}{', or pass a function (outputs, targets)' * takes_own}"
            )
        if own is not None and not takes_own:
            raise ConfigError(
                f"metrics has {name!r} of your own, which is of a model's outputs and "
                f"targets, but here predictions are scored; choose from: {known}, or "
                "let a task of your own return it from score or summarise"
            )
    return found


def known_now(metrics: Sequence[Metric]) -> dict[str, Any]:
    """Return ``named(metrics)`` of a run whose evaluator is not built yet.

    A name alone may be that of the run's task, which is known with the run. Beside a
    function or an object, which ``Evaluator`` alone takes, it is one of that.
    """
    found = named(metrics)
    if any(own is not None for own in found.values()):
        checked_metrics(metrics, METRICS, takes_own=True)
    return found


def refuse_divided(metrics: Mapping[str, Any], strategy: Strategy) -> None:
    """Raise ``ConfigError`` for objects of which each process would have a part."""
    updated = [name for name, own in metrics.items() if is_updated(own)]
    if updated and strategy.is_divided:
        raise ConfigError(
            f"the metric {updated[0]!r} is an object that is updated batch by batch, "
            f"and what {strategy.size} processes have told theirs cannot be united; "
            "pass a function (outputs, targets) instead, which is given all of them"
        )


def _is_same(one: Any, other: Any) -> bool:
    # A method is another object each time; == of torchmetrics' is one more metric.
    are_methods = inspect.ismethod(one) and inspect.ismethod(other)
    return one is other or (are_methods and one == other)


def _name_of(metric: Any) -> str:
    if isinstance(metric, type):
        raise ConfigError(
            f"metrics has the class {metric.__name__}; pass an object of it, such as "
            f"{metric.__name__}()"
        )
    if is_updated(metric):
        name = getattr(metric, "name", None)
        _check_takes_two(metric.update, f"update of {type(metric).__name__}")
        return name if name and isinstance(name, str) else type(metric).__name__
    name = getattr(metric, "__name__", None)
    if not callable(metric) or not isinstance(name, str) or not name.isidentifier():
        raise ConfigError(
            f"metrics has {metric!r}, which has no name to be delivered under; pass "
            "a function that is written as `def name(outputs, targets): ...`, such as "
            "one that calls it"
        )
    _check_takes_two(metric, f"the metric {name!r}")
    return name


def _check_takes_two(function: Any, what: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # one of C tells nothing
        return
    try:
        signature.bind(None, None)
    except TypeError:
        raise ConfigError(
            f"{what} takes {signature}, but is called with (outputs, targets); let it "
            "take these two"
        ) from None
    first = next(iter(signature.parameters))
    if first.lower() in TRUTHS:
        name = getattr(function, "__name__", "it")
        way = "let its update take (outputs, targets)"
        if name != "update":
            way = "pass one that turns them, as `def turned(outputs, targets): return "
            way += f"{name}(targets, outputs)`"
        raise ConfigError(
            f"{what} takes {first!r} first, but is called with (outputs, targets), and "
            f"would take one for the other; {way}"
        )
