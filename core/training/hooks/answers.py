"""What a plugin may answer where it is asked, and what is said of another answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from training.errors import PluginError

#: What a row of the history holds beside metrics.
COLUMNS: Final = ("epoch", "step", "update", "lr", "seconds")


class _Odd(Exception):
    """Another answer; with a complaint of its own where its kind is right."""


def checked_answer(hook: str, plugin: str, answer: Any) -> Any:
    """Return what ``plugin`` answered to ``hook``, as whoever asked takes it.

    Raises:
        PluginError: it is nothing that the hook may return.
    """
    if answer is None or hook not in ANSWERS:
        return answer
    take, shown, wanted = ANSWERS[hook]
    try:
        return take(answer)
    except _Odd as odd:
        told = str(odd) or f"{shown(answer)} from {hook}; return {wanted}"
        raise PluginError(f"plugin {plugin!r} returned {told}") from None


def _require(is_right: bool, complaint: str = "") -> None:
    if not is_right:
        raise _Odd(complaint)


def _listed(answer: Any, kind: type) -> list[Any]:
    """Return items of that kind as a list: they may come once only."""
    _require(isinstance(answer, Iterable) and not isinstance(answer, str))
    items = list(answer)
    _require(all(isinstance(item, kind) for item in items))
    return items


def _steps(answer: Any) -> list[int]:
    """Return step numbers as Python's own, whichever library's they are."""
    from training.plain import plain  # for plans, and before files are deleted

    _require(not isinstance(answer, (bytes, Mapping)))
    steps: list[int] = plain(_listed(answer, object))
    _require(all(type(step) is int and step >= 0 for step in steps))
    return steps


def _names(answer: Any) -> list[str]:
    names = _listed(answer, str)
    for name in names:
        _require_metric_name(name)
    return names


def _candidates(answer: Any) -> list[tuple[Path, Any]]:
    pairs = _listed(answer, tuple)
    _require(all(len(pair) == 2 for pair in pairs))
    return [(_path(path), problem) for path, problem in pairs]


def _path(answer: Any) -> Path:
    _require(isinstance(answer, (str, Path)))
    return Path(answer)


def _module(answer: Any) -> Any:
    from torch import nn  # loaded by then; commands that only list need none of it

    _require(isinstance(answer, nn.Module))
    return answer


def _loader(answer: Any) -> Any:
    """Return what can be iterated once an epoch, and not by letters or names."""
    odd = (Iterator, Mapping, str, bytes)
    _require(isinstance(answer, Iterable) and not isinstance(answer, odd))
    return answer


def _maker(answer: Any) -> Any:
    _require(callable(answer))  # that it makes a window is seen when it does
    return answer


def _strategy(answer: Any) -> Any:
    from training.hardware.strategy import Strategy  # late, since it loads torch

    _require(isinstance(answer, Strategy))
    return answer


def _plan(answer: Any) -> Any:
    from training.planned.planned_run import Plan  # for `trainbus plan` alone

    _require(isinstance(answer, Plan))
    return answer


def _metrics(answer: Any) -> dict[str, float]:
    _require(isinstance(answer, Mapping))
    for name in answer:
        _require_metric_name(name)
    return {name: _number(name, value) for name, value in answer.items()}


def _require_metric_name(name: Any) -> None:
    told = f"a metric named {name!r}; use a text other than {', '.join(COLUMNS)}"
    _require(isinstance(name, str) and name not in COLUMNS, told)


def _number(name: str, value: Any) -> float:
    """Return the metric as a float; text, True and tensors of several are none."""
    is_single = getattr(value, "numel", lambda: 1)() == 1
    # float() would take "1.0" and True, and hide the mistake; so would those of numpy
    # and torch.
    is_truth = isinstance(value, bool) or "bool" in str(getattr(value, "dtype", ""))
    if is_single and not is_truth and not isinstance(value, (str, bytes)):
        try:
            # A sync for a CUDA tensor; after an evaluation it costs little.
            return float(value)
        except (TypeError, ValueError, OverflowError):
            pass
    raise _Odd(f"{value!r} as metric {name!r}; return a number")


def _summary(answer: Any) -> Any:
    try:
        json.dumps(answer)
        best, paths = (answer.get(each, {}).items() for each in ("best", "paths"))
    except (TypeError, ValueError, AttributeError):
        raise _Odd from None
    for name, value in best:
        is_number = isinstance(name, str) and isinstance(value, (int, float))
        _require(is_number, f"{value!r} from summary as the best {name!r}")
    for label, path in paths:
        told = f"{path!r} from summary as the path {label!r}"
        _require(isinstance(path, str), told)
    return answer


def _kind_of(answer: Any) -> str:
    return type(answer).__name__


def _short(answer: Any) -> str:
    return f"{answer!r:.60}"


_SUBCLASS = "an object of a subclass of training.plugin."
_PAIRS = "pairs of a file and None or what is wrong with it"
_METRICS = "a mapping of metric names to numbers, or None"
#: Hook -> how its answer is taken, how another one is shown, and what is asked for.
ANSWERS: Final[Mapping[str, tuple[Callable[..., Any], Callable[..., str], str]]] = {
    "make_strategy": (_strategy, repr, f"{_SUBCLASS}Strategy, or None"),
    "make_window": (_maker, repr, "a subclass of the default it is given, or None"),
    "wrap_dataloader": (_loader, _short, "a re-iterable of batches, or None"),
    "wrap_model": (_module, _kind_of, "a torch module, or None"),
    "metric_names": (_names, repr, "a list of names, or None"),
    "evaluate": (_metrics, _kind_of, _METRICS),
    "plan_evaluations": (_steps, repr, "step numbers, or None"),
    "plan": (_plan, repr, "a training.plugin.Plan, or None"),
    "resume_candidates": (_candidates, repr, _PAIRS),
    "needed_checkpoints": (_steps, repr, "step numbers, or None"),
    "find_checkpoint": (_path, repr, "a path, or None"),
    "summary": (_summary, repr, "JSON values by name"),
}
