"""Which metrics were chosen: by name, as functions, or as objects that are updated.

What is somebody's own is passed, or named as ``./file.py:NAME``.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from annotated_types import Predicate

from trainbus_evaluation.numbers import number_of
from training import ConfigError
from training.plugin import Strategy, did_you_mean, named_object

logger = logging.getLogger(__name__)

#: What ``Evaluator`` measures by name.
METRICS = ("loss", "accuracy", "f1", "mae", "mse")
#: What a run calls its losses.
LOSSES = ("train_loss", "val_loss")
#: Of a metric that is updated.
METHODS = ("update", "compute", "reset")
#: What functions that take the truth first, as scikit-learn's do, call it.
TRUTHS = {
    *("y_true", "labels_true", "true", "truth", "ground_truth", "gold", "expected"),
    *("target", "targets", "label", "labels", "reference", "references"),
}


def is_updated(metric: Any) -> bool:
    """Whether it takes batch after batch, as metrics of torchmetrics do."""
    return not isinstance(metric, type) and _has_methods(metric)


def is_own(metric: Any) -> bool:
    """Whether it may be a function, or an object that is updated."""
    return callable(metric) or is_updated(metric)


#: A name, ``(outputs, targets) -> number``, an object with ``update(outputs,
#: targets)``, ``compute()`` and ``reset()``; or where one of these two is written:
#: ``./file.py:NAME``, which may be a class of such objects.
Metric = str | Annotated[Any, Predicate(is_own)]


def named(metrics: Iterable[Metric]) -> dict[str, Any]:
    """Return each name once, with its function or object; None: the name is all.

    Raises:
        ConfigError: one is of no use, not where it is said to be, or two have one name.
    """
    found: dict[str, Any] = {}
    listed = list(metrics)
    # What is listed twice is one object.
    loaded = {text: _loaded(text) for text in listed if isinstance(text, str)}
    for each in listed:
        metric = loaded[each] if isinstance(each, str) else each
        is_name = isinstance(metric, str)
        name, own = (metric, None) if is_name else (_name_of(metric, each), metric)
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


def as_listed(metrics: Mapping[str, Any]) -> list[Metric]:
    """Return what ``named`` returned as a list of metrics, which loads no file."""
    return [name if own is None else own for name, own in metrics.items()]


def checked_metrics(
    metrics: Sequence[Metric], choices: Sequence[str]
) -> dict[str, Any]:
    """Return ``named(metrics)``; warn of each of one's own that hides a choice.

    Args:
        metrics: what was chosen.
        choices: names.
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
                f"{known}, or have one of your own: a function (outputs, targets)"
            )
        if own is not None and name in choices:
            logger.warning(
                "metrics has one of your own named %r, which is measured in place of "
                "that of the run; name it otherwise to tell them apart",
                name,
            )
    return found


def own_results(
    metrics: Mapping[str, Any], predictions: Sequence[Any], targets: Sequence[Any]
) -> dict[str, float]:
    """Return what functions and objects make of predictions and what is right.

    Args:
        metrics: name -> function, or object that is updated once with all.
        predictions: of all rows, in their order.
        targets: of the same rows.
    Raises:
        ConfigError: one returned no number.
    """
    found = {}
    for name, metric in metrics.items():
        given = list(predictions), list(targets)  # its own: it may work in place
        with naming(name):
            if is_updated(metric):
                metric.reset()
                metric.update(*given)
                value = metric.compute()
            else:
                value = metric(*given)
        found[name] = checked_number(name, value)
    return found


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Tell with an error in which metric it came up."""
    try:
        yield
    except Exception as error:
        error.add_note(f"in the metric {name!r} of your own")
        raise


def checked_number(name: str, value: Any) -> float:
    """Return what a metric of somebody's own returned as a number.

    Raises:
        ConfigError: it is none.
    """
    number = number_of(value)
    if number is None:
        raise ConfigError(
            f"the metric {name!r} returned {value!r:.60}; return a number, or a tensor "
            "of one without dimensions"
        )
    return number


def refuse_divided(metrics: Mapping[str, Any], strategy: Strategy) -> None:
    """Raise ``ConfigError`` for objects of which each process would have a part."""
    updated = [name for name, own in metrics.items() if is_updated(own)]
    if updated and strategy.is_divided:
        raise ConfigError(
            f"the metric {updated[0]!r} is an object that is updated batch by batch, "
            f"and what {strategy.size} processes have told theirs cannot be united; "
            "pass a function (outputs, targets) instead, which is given all of them"
        )


def _loaded(text: str) -> Metric:
    """Return what ``./file.py:NAME`` names, of a class an object; or the name itself.

    Raises:
        ConfigError: it names nothing that can measure.
    """
    if text.endswith(".py"):
        raise ConfigError(
            f"metrics has {text!r}, which is a file; name a function or a class in it, "
            f"as in {text}:NAME"
        )
    own = named_object(text, "metrics")
    if own is text:
        return text
    is_class = isinstance(own, type)
    if not (_has_methods(own) if is_class else is_own(own)):
        lacking = ", ".join(name for name in METHODS if not _has_methods(own, name))
        kind = f"a class without {lacking}" if is_class else type(own).__name__
        raise ConfigError(
            f"metrics has {text!r}, but that is {kind}; name a function (outputs, "
            "targets), or a class with update(outputs, targets), compute() and reset()"
        )
    return _object_of(own, text) if is_class else own


def _object_of(cls: type[Any], text: str) -> Any:
    try:
        inspect.signature(cls).bind()
    except TypeError:
        raise ConfigError(
            f"metrics has the class {text!r}, whose constructor needs arguments; let "
            "it do without, or name a function"
        ) from None
    with naming(text):
        return cls()


def _has_methods(metric: Any, *names: str) -> bool:
    return all(callable(getattr(metric, name, None)) for name in names or METHODS)


def _is_same(one: Any, other: Any) -> bool:
    # A method is another object each time; == of torchmetrics' is one more metric.
    are_methods = inspect.ismethod(one) and inspect.ismethod(other)
    return one is other or (are_methods and one == other)


def _name_of(metric: Any, listed: Any) -> str:
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
            f"metrics has {listed!r}, which has no name to be delivered under; pass "
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
