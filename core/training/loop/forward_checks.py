"""What a user's loss, step function or model got wrong, said by name.

Called where something is wrong or new, never for each batch.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor, nn

from training.errors import ConfigError, DataError, did_you_mean
from training.hardware.strategy import PARALLEL
from training.messages.error_texts import add_note, text_of

#: Which of them is spoken of.
Role = Literal["model", "loss_fn", "step_fn"]

#: What torch says of a label.
_OUT_OF_BOUNDS = re.compile(r"Target (-?\d+) is out of bounds")
#: What the names of means begin with.
_OF_MEANS = re.compile("^(train_|val_)+")
#: What ``on_step_end`` logs besides.
_TAKEN = ("lr", "grad_norm")
_WAYS_OUT: dict[Role, str] = {
    "model": "pass loss_fn=... or step_fn=... to the Trainer",
    "loss_fn": "return the mean loss of the batch, a 0-d tensor",
    "step_fn": "return the mean loss of the batch, a 0-d tensor, or a mapping with it "
    "as 'loss'",
}


def check_function(role: Role, function: Any, *arguments: str) -> None:
    """Raise ``ConfigError`` unless ``function`` can be called with ``arguments``."""
    call = f"{role}({', '.join(arguments)})"
    # First, since a class is callable: each batch would build one.
    if isinstance(function, type):
        raise ConfigError(
            f"{role} is the class {function.__name__}; pass an instance of it, such as "
            f"{function.__name__}()"
        )
    if not callable(function):
        raise ConfigError(f"{role} is {function!r}; pass a function, called as {call}")
    # The __call__ of a module takes anything.
    code = function.forward if isinstance(function, nn.Module) else function
    why = _misfit(code, arguments, {})
    if role == "step_fn":
        from training.messages.other_trainers import misfit_of_method  # once a run

        why = misfit_of_method(function, why)
    if why is not None:
        raise ConfigError(
            f"{role} is {name_of(function)!r}, which cannot be called as {call}: {why}"
        )


def check_labels(model: nn.Module, batch: Any) -> None:
    """Raise ``ConfigError`` if ``batch`` lacks the labels that ``model`` takes."""
    inner = _bare(model)
    takes = "labels" in inspect.signature(inner.forward).parameters
    if takes and isinstance(batch, Mapping) and "labels" not in batch:
        raise ConfigError(
            f"the model {name_of(inner)} takes 'labels' and returned no loss without "
            f"them, but a batch has only {_listed(batch)}; add 'labels' where batches "
            "are collated, or pass loss_fn=... or step_fn=... to the Trainer"
        )


def check_loss(
    loss: Any, weight: float, role: Role, source: Any, returned: Any
) -> None:
    """Raise ``ConfigError`` unless ``loss`` is one that a run can use.

    Args:
        loss: what was taken for the loss; 0-d of a float type, and with a gradient
            where gradients are recorded and the batch counts.
        weight: number of items behind it; 0: the batch does not count.
        role: who returned it.
        source: the user's function or model.
        returned: all that came back.
    """
    is_loss = isinstance(loss, Tensor) and not loss.dim() and loss.is_floating_point()
    must_have_graph = weight > 0 and torch.is_grad_enabled()
    if is_loss and (loss.requires_grad or not must_have_graph):
        return
    name = name_of(source)
    who = f"the model {name}" if role == "model" else f"{role} ({name})"
    way_out = _WAYS_OUT[role]
    # From the coarsest mistake to the finest: what came, its shape, type, graph.
    if not isinstance(loss, Tensor):
        if role == "model" and _begins_with_number(returned):
            raise ConfigError(
                f"{who} returned {_of_kind(returned)}, in which no loss is looked for; "
                "return a mapping or an object with it as 'loss' (transformers: "
                "return_dict=True), or take it out in a step_fn"
            )
        place = _place_of(loss, returned)
        given = loss if place else returned
        if _is_one_number(given):
            raise ConfigError(
                f"{who} returned {place}{_of_kind(given)} (a number, no tensor), "
                "which has no gradient; return the tensor itself, without .item(), "
                "float() or .numpy()"
            )
        if place:
            raise ConfigError(f"{who} returned {place}{_of_kind(given)}; {way_out}")
        found, way_out = _described(returned, role, way_out)
        raise ConfigError(f"{who} returned {found} without a scalar loss; {way_out}")
    if loss.dim():
        inside = "" if loss is returned else f"{type(returned).__name__} with "
        raise ConfigError(
            f"{who} returned {inside}a tensor of shape {tuple(loss.shape)} without a "
            f"scalar loss; {way_out}"
        )
    if loss.is_complex():
        way_out += ", of a real type such as float32"
    if not loss.is_floating_point():
        raise ConfigError(f"{who} returned a loss of {loss.dtype}; {way_out}")
    raise ConfigError(
        f"{who} returned a loss without a gradient: it depends on no weight that "
        "trains; do not detach it or what it is computed from, nor compute it under "
        "no_grad"
    )


def checked_part(
    name: Any, result: Mapping[Any, Any], known: set[str], step_fn: Any
) -> Tensor | float:
    """Return one further value of what ``step_fn`` returned, without its gradient.

    Args:
        name: its key in ``result``.
        result: what was returned.
        known: names that were accepted before; grows.
        step_fn: the user's.
    Raises:
        ConfigError: the name is no text, taken, or evidently meant for ``weight``; or
            the value is no number.
    """
    value = result[name]
    # Names are looked at once; values anew, each step.
    if name not in known:
        _check_name(name, result, step_fn)
        known.add(name)
    if isinstance(value, Tensor):
        # Detached, not read: no sync, and no graph that stays alive for a log.
        if value.dim() == 0 and not value.is_complex():
            return value.detach()
    elif _is_one_number(value):
        return float(value)
    raise ConfigError(
        f"step_fn ({name_of(step_fn)}) returned {_of_kind(value)} as {name!r}; what "
        "is returned beside the loss is logged: make it a 0-d tensor or a number, or "
        "leave it out"
    )


def explain_call(
    error: TypeError,
    model: nn.Module,
    arguments: tuple[Any, ...],
    entries: Mapping[str, Any],
    has_loss_fn: bool = False,
) -> None:
    """Raise ``ConfigError`` from ``error`` if ``model`` does not take this batch.

    An error from inside the model is none of that: nothing happens then.
    """
    inner = _bare(model)
    # Bound again, not read off the message: an error from inside looks alike.
    why = _misfit(inner.forward, arguments, entries)
    if why is None:
        return
    parameters = inspect.signature(inner.forward).parameters
    takes = f"the model {name_of(inner)} takes ({', '.join(parameters)})"
    if entries:
        unknown = [name for name in entries if name not in parameters]
        hint = did_you_mean(str(unknown[0]), parameters) if unknown else ""
        raise ConfigError(
            f"{takes}, but a batch has the entries {_listed(entries)}: {why}{hint}; "
            "rename them, or pass a step_fn"
        ) from error
    kinds = ", ".join(type(each).__name__ for each in arguments)
    way = "pass a loss_fn, for which the last element is the targets, or a step_fn"
    if has_loss_fn:
        way = "all but its last element, the targets, are inputs; pass a step_fn"
    raise ConfigError(f"{takes}, but a batch gives it ({kinds}): {why}; {way}") from (
        error
    )


def explain_outputs(error: Exception, loss_fn: Any, kind: type) -> None:
    """Note on ``error`` that a loss of torch takes no outputs of this kind."""
    own = getattr(loss_fn, "__module__", None) or ""
    if own.startswith("torch.") and not issubclass(kind, Tensor):
        add_note(
            error,
            f"loss_fn ({name_of(loss_fn)}) is given what the model returns, of type "
            f"{kind.__name__}; pass a function that takes its part out of it, as in "
            "lambda outputs, targets: loss(outputs.logits, targets)",
        )


def refuse_labels(error: IndexError, loss_fn: Any) -> None:
    """Raise ``DataError`` from ``error`` if a loss of torch says a label is no class.

    What a loss of one's own leaves out is not known: that keeps torch's words.
    """
    found = _OUT_OF_BOUNDS.search(text_of(error))
    inner = getattr(loss_fn, "func", loss_fn)  # of a functools.partial
    inner = getattr(inner, "__self__", inner)  # of a method
    inner = getattr(inner, "_orig_mod", inner)  # torch.compile's wrapper
    own = getattr(inner, "__module__", None) or ""
    if found is None or not own.startswith("torch."):
        return
    given = getattr(loss_fn, "keywords", {})
    ignored = given.get("ignore_index", getattr(inner, "ignore_index", -100))
    raise DataError(
        f"a batch has the label {found[1]}, which is no class of the outputs, and "
        f"loss_fn ({name_of(loss_fn)}) leaves out ignore_index {ignored} alone; set "
        "ignore_index to the label that shall not count, let the model tell as many "
        "classes as there are, counted from 0, or mend the rows"
    ) from error


def _bare(model: nn.Module) -> Any:
    inner: Any = getattr(model, "_orig_mod", model)  # torch.compile's wrapper
    return inner.module if isinstance(inner, PARALLEL) else inner


def _misfit(
    function: Any, arguments: tuple[Any, ...], entries: Mapping[str, Any]
) -> str | None:
    """Return why ``function`` cannot be called like that; None if it can."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # built in, without a signature
        return None
    try:
        signature.bind(*arguments, **entries)
    except TypeError as why:
        return str(why)
    return None


def _check_name(name: Any, result: Mapping[Any, Any], step_fn: Any) -> None:
    who = f"step_fn ({name_of(step_fn)}) returned"
    if not isinstance(name, str) or not name.isprintable() or not name.strip():
        raise ConfigError(f"{who} a value named {name!r}; use a text")
    if name in _TAKEN:
        raise ConfigError(
            f"{who} a value named {name!r}, which the logs hold already; rename it"
        )
    own = _OF_MEANS.sub("", name)
    if own != name:
        is_loss = own in ("loss", "loss_sum")
        way = f"name it {own!r}" if own else "rename it"
        way = "leave it out, the loss has its own" if is_loss else way
        raise ConfigError(
            f"{who} a value named {name!r}, but its means are named by the run, with "
            f"'train_' and 'val_' before it; {way}"
        )
    # Logged in silence, it would leave every gradient weighed wrongly.
    if "weight" not in result and _is_near_weight(name):
        raise ConfigError(
            f"{who} {name!r}, which is logged and weighs nothing (did you mean "
            "'weight'?); return 'weight' beside it, or rename it"
        )


def _is_near_weight(word: str) -> bool:
    """Whether ``word`` is ``weight`` with one letter or one pair of letters wrong."""
    word, right = word.lower(), "weight"
    if word == right or sorted(word) == sorted(right):
        return True
    longer, shorter = sorted((word, right), key=len, reverse=True)
    cut = {longer[:i] + longer[i + 1 :] for i in range(len(longer))}
    if len(longer) > len(shorter):
        return shorter in cut
    return any(shorter[:i] + shorter[i + 1 :] in cut for i in range(len(shorter)))


def _described(returned: Any, role: Role, way_out: str) -> tuple[str, str]:
    """Return what came back in words, and how to come to a loss."""
    if returned is None:
        return "None", f"{way_out} (is a return missing?)"
    if role == "loss_fn" and isinstance(returned, Mapping | tuple | list):
        way_out += ", alone; a step_fn may return more beside it"
    if isinstance(returned, Mapping):
        # No logits are a misspelt loss, near as the words are.
        names = [n for n in returned if isinstance(n, str) and n != "logits"]
        wanted = ("loss", "loss_sum")
        near = (did_you_mean(name, wanted) for name in names if name not in wanted)
        hint = next(filter(None, near), "")
        return f"a mapping of {_listed(returned)}{hint}", way_out
    return _of_kind(returned), way_out


def _is_one_number(value: Any) -> bool:
    """Whether it is a number of Python or numpy, in an array of no dimension or not."""
    return isinstance(value, Real) or getattr(value, "ndim", None) == 0


def _place_of(loss: Any, returned: Any) -> str:
    """Return ``"'loss' as "`` where what was taken for the loss has that name."""
    if loss is returned:
        return ""
    entries = returned if isinstance(returned, Mapping) else {}
    if loss is None:  # of one who has none, it is missing
        return "'loss' as " if "loss" in entries else ""
    names = (name for name in ("loss", "loss_sum") if entries.get(name) is loss)
    return f"{next(names, 'loss')!r} as "


def _begins_with_number(returned: Any) -> bool:
    first = returned[0] if isinstance(returned, tuple | list) and returned else None
    return isinstance(first, Tensor) and not first.dim()


def _of_kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        kinds = ", ".join(type(each).__name__ for each in value)
        return f"a {type(value).__name__} of {kinds}"
    return "None" if value is None else f"{type(value).__name__}"


def _listed(names: Mapping[Any, Any]) -> str:
    return ", ".join(repr(name) for name in names)


def name_of(source: Any) -> str:
    """Return what the user calls it: the name of a function, the class of an object."""
    source = getattr(source, "func", source)  # functools.partial
    name = None if isinstance(source, nn.Module) else getattr(source, "__name__", None)
    return name or type(source).__name__
