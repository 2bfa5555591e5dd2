"""Whether weights and optimizer states of a checkpoint fit a run; changes nothing."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from training.checkpoint.checks.parts import (
    WrongValue,
    is_dense,
    is_finite,
    is_json,
    require,
    same_numbers,
    shown,
)
from training.checkpoint.optimizer_settings import HOW, origins
from training.checkpoint.optimizer_state import (
    Names,
    configured_names,
    counterparts,
    names_of,
)
from training.errors import CheckpointError
from training.hardware.optimizer_kernels import WAYS
from training.modules.plain_names import plain_name, some
from training.modules.reachable import joined

if TYPE_CHECKING:
    from training.checkpoint.checkpointable import Checkpointable

#: A rehearsal of a step computes it in the plainest way.
PLAINLY = dict.fromkeys(WAYS, False)


def misfit(name: str, saved: Any, own: Any, whose: str) -> str | None:
    """Return how a saved weight differs from a part's own, None if it can be taken.

    What a module keeps as extra state is its own; whether there is any must agree.
    """
    are = isinstance(saved, Tensor), isinstance(own, Tensor)
    if name.endswith("_extra_state"):
        is_right = saved is None or own is None or isinstance(saved, type(own))
        return None if is_right else f"{name} is {shown(saved)}, the {whose}'s another"
    if not all(are):
        is_right = are == (False, False)
        return None if is_right else f"{name} is {shown(saved)}, no tensor"
    if saved.shape != own.shape:
        return f"{name} is {tuple(saved.shape)}, the {whose}'s {tuple(own.shape)}"
    # Loading would convert in silence, and drop what the kind has no room for.
    is_same = saved.layout == own.layout and saved.is_quantized == own.is_quantized
    if not is_same or not same_numbers(saved, own):
        return f"{name} is {shown(saved)}, the {whose}'s {shown(own)}"
    return None


def reshaped(model: nn.Module, saved: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the saved buffers that have another shape, and will be loaded so.

    One that is None takes any. An observer of ranges or a queue may grow with what it
    sees; its class then loads by itself, which a copy of it has to show.

    Args:
        model: wrapped or not; it is not changed.
        saved: plain name -> value.
    """
    found: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        others = {
            name: saved[full]
            for name, value in module._buffers.items()
            if (full := plain_name(model, joined(path, name))) in saved
            and getattr(saved[full], "shape", None) != getattr(value, "shape", None)
        }
        grown = {n: v for n, v in others.items() if module._buffers[n] is not None}
        is_taken = not grown or _loads(module, grown)
        taken = others if is_taken else others.keys() - grown.keys()
        found |= {plain_name(model, joined(path, n)): others[n] for n in taken}
    return found


def _loads(module: nn.Module, values: Mapping[str, Any]) -> bool:
    """Whether a module takes values of other shapes than it has; copies it."""
    if type(module)._load_from_state_dict is nn.Module._load_from_state_dict:
        return False
    trial, mistakes = copy.deepcopy(module), [[], [], []]  # type: ignore[var-annotated]
    state = {**module.state_dict(), **values}
    trial._load_from_state_dict(state, "", {}, False, *mistakes)
    return not mistakes[2]


def fitting_places(
    trainer: Checkpointable, state: Mapping[str, Any], source: str
) -> list[int]:
    """Return for each configured group the index of the saved one, which fits it.

    Groups, options and states are compared with what this optimizer keeps.

    Raises:
        CheckpointError: says which value does not fit.
    """
    optimizer, saved = trainer.optimizer, state["optimizer"]
    # Groups that joined since are no settings: they leave before the state goes in.
    live = optimizer.param_groups[: len(trainer.configured_groups or ())]
    names = names_of(trainer)
    known = {name: parameter for parameter, name in names.items()}
    types = _types_of(trainer, state, names)
    try:
        for name in state.get("trainable", ()):
            require(name in known, "trainable", name, "the name of a parameter")
        places = _places(trainer, state)
        for place, group in zip(places, live, strict=True):
            at = f"optimizer.param_groups[{place}]"
            listed = saved["param_groups"][place]
            _check_options(at, listed, group, state["settings"])
            # Keys in the file are numbers in the file's own order.
            own = _in_saved_order(known, saved["names"][place])
            _check_states(type(optimizer), listed, own, types, saved["state"], at)
    except WrongValue as wrong:
        raise CheckpointError(
            f"checkpoint {source!r} does not fit this optimizer: {wrong}; build it as "
            "it was, or load with weights_only=True"
        ) from wrong
    return places


def _types_of(
    trainer: Checkpointable, state: Mapping[str, Any], names: Names
) -> dict[Tensor, Collection[torch.dtype]]:
    """Return the types that a state as large as its parameter may have, if not all.

    Torch computes with the two at once. With a weight that changes its type all is cast
    along; what an optimizer made as it was built (Adagrad) may be of another one.
    """
    types: dict[Tensor, Collection[torch.dtype]] = {}
    for parameter, name in names.items():
        part, _, own = name.partition(".")
        weight = getattr(state.get(part, {}).get(own), "dtype", parameter.dtype)
        if weight == parameter.dtype:
            made = trainer.optimizer.state.get(parameter, {}).values()
            kinds = {each.dtype for each in made if isinstance(each, Tensor)}
            types[parameter] = {weight} | kinds
    return types


def _places(trainer: Checkpointable, state: Mapping[str, Any]) -> list[int]:
    """Return for each configured group the index of the saved one of its names."""
    own = configured_names(trainer)[: len(trainer.configured_groups or [])]
    places = counterparts(own, origins(state))
    for names, place in zip(own, places, strict=True):
        wanted = f"there with the group of {some(names)}"
        require(
            place is not None, "optimizer.names", state["optimizer"]["names"], wanted
        )
    return [place for place in places if place is not None]


def _in_saved_order(known: Mapping[str, Tensor], names: Sequence[str]) -> list[Tensor]:
    for name in names:
        require(name in known, "optimizer.names", name, "the name of a parameter")
    return [known[name] for name in names]


def _check_options(
    at: str,
    saved: Mapping[str, Any],
    own: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> None:
    """An option that the saved run had is there, and of the kind that it is here."""
    for name, value in own.items():
        if name in HOW:
            continue
        if name not in saved:
            require(f"optimizer.{name}" not in settings, at, [*saved], f"with {name}")
            continue
        is_right = _is_alike(saved[name], value)
        require(is_right, f"{at}.{name}", saved[name], f"alike to {value!r}")
    # What a schedule left there is what the next one begins with.
    rate = saved.get("initial_lr", 0.0)
    is_right = _is_alike(rate, 0.0)
    require(is_right, f"{at}.initial_lr", rate, "a finite number")
    for name in saved.keys() - own.keys() - set(HOW):
        require(_is_option(saved[name]), f"{at}.{name}", saved[name], "an option")


def _is_option(value: Any) -> bool:
    return is_json(value) or isinstance(value, Tensor)


def _is_alike(saved: Any, own: Any) -> bool:
    """Whether an option can stand where ``own`` does."""
    if isinstance(saved, Tensor) and isinstance(own, (int, float, Tensor)):
        return is_dense(saved) and saved.numel() == 1 and is_finite(saved.item())
    if isinstance(own, Tensor):
        return is_finite(saved)
    if isinstance(own, (tuple, list)):
        # Betas are a tuple, or a list once they were staged for a thread.
        is_row = isinstance(saved, (tuple, list))
        if is_row and isinstance(own, list) and len(saved) != len(own):
            return all(map(_is_option, saved))  # one that steps extend
        return is_row and len(saved) == len(own) and all(map(_is_alike, saved, own))
    if own is None or saved is None or isinstance(own, bool):
        return saved is None or isinstance(saved, (bool, int, float, str)) == (
            own is None or isinstance(saved, bool)
        )
    if isinstance(own, (int, float)):
        return is_finite(saved) or saved == own
    return isinstance(saved, type(own))


def _check_states(
    kind: type[torch.optim.Optimizer],
    group: Mapping[str, Any],
    parameters: Sequence[Tensor],
    types: Mapping[Tensor, Collection[torch.dtype]],
    states: Mapping[Any, Any],
    at: str,
) -> None:
    """What is kept for a parameter is what a step of this optimizer makes."""
    known: dict[int, dict[str, Any] | None] = {}
    for key, parameter in zip(group["params"], parameters, strict=True):
        if key not in states:
            continue  # it never had a gradient
        dims = parameter.dim()
        # A state differs by the number of dimensions only (Adafactor): one step each.
        if dims not in known:
            known[dims] = _made_by_a_step(kind, group, dims, at)
        kept, wanted = states[key], known[dims]
        here = f"optimizer.state[{key!r}]"
        for name, value in kept.items():
            is_right = not isinstance(value, Tensor) or value.device.type != "meta"
            require(is_right, f"{here}[{name!r}]", value, "a tensor with data")
        for name, sample in (wanted or {}).items():
            require(name in kept, here, [*kept], f"with {name}")
            # Its momentum is sparse where gradients are, as an embedding's can be.
            layouts = {torch.strided, parameter.layout}
            layouts |= {torch.sparse_coo} if kind is torch.optim.SGD else set()
            like = sample, parameter, types.get(parameter, ()), layouts
            _check_alike(kept[name], *like, f"{here}[{name!r}]")


def _made_by_a_step(
    kind: type[torch.optim.Optimizer], group: Mapping[str, Any], dims: int, at: str
) -> dict[str, Any] | None:
    """Return what torch's optimizer keeps for a parameter; None for anybody else's.

    A step on a parameter of a few numbers tells it, with the saved options.
    """
    # A step of somebody else may do anything; LBFGS keeps one state for all.
    if kind.__module__.partition(".")[0] != "torch" or kind is torch.optim.LBFGS:
        return None
    taken = inspect.signature(kind).parameters
    options = {name: value for name, value in group.items() if name in taken}
    # A kernel of the saved device may not be here.
    options.update({name: no for name, no in PLAINLY.items() if name in taken})
    options = {
        name: value.item() if isinstance(value, Tensor) else value
        for name, value in options.items()
        if name != "params"
    }
    # Asked of torch by a step on a few numbers: tables of states would age.
    sample = nn.Parameter(torch.zeros(_sample_shape(dims)))
    sample.grad = torch.zeros_like(sample)
    try:
        optimizer = kind([sample], **options)
    except (ValueError, TypeError) as error:
        wanted = f"what {kind.__name__} takes ({error})"
        raise WrongValue(at, options, wanted) from error
    try:
        optimizer.step()
    except (RuntimeError, ValueError):  # one that takes sparse gradients only
        return None
    return dict(optimizer.state.get(sample, {}))


def _sample_shape(dims: int) -> tuple[int, ...]:
    # Sizes that differ tell which of them a state has.
    return tuple(range(2, 2 + dims))


def _check_alike(
    value: Any,
    sample: Any,
    parameter: Tensor,
    types: Collection[torch.dtype],
    layouts: set[torch.layout],
    at: str,
) -> None:
    """A tensor is as ``sample`` is, in terms of its parameter, of one of ``types``."""
    if not isinstance(sample, Tensor):
        return
    if sample.dim() == 0 and parameter.dim() > 0:
        # Such as the count of steps: a number, or a 0-d tensor.
        number = value.item() if _is_single(value) else value
        is_right = is_finite(number) and number >= 0
        require(is_right, at, value, "a finite number of at least 0")
        return
    own = _sample_shape(parameter.dim())
    shape = tuple(sample.shape)
    if len(shape) == len(own):
        pairs = zip(shape, own, parameter.shape, strict=True)
        shape = tuple(theirs if size == of else size for size, of, theirs in pairs)
    # A number alone has a type of its own.
    is_free = not (own and sample.is_floating_point() and types)
    is_right = (
        isinstance(value, Tensor)
        and value.layout in layouts
        and tuple(value.shape) == shape
        and (not sample.is_floating_point() or same_numbers(value, parameter))
        and (is_free or value.dtype in types)
    )
    dtype = f"of {parameter.dtype} " if sample.is_floating_point() else ""
    own_layout = getattr(value, "layout", None)
    layout = own_layout if own_layout in layouts else parameter.layout
    require(is_right, at, value, f"a {layout} tensor {dtype}{shape}")


def _is_single(value: Any) -> bool:
    return is_dense(value) and value.numel() == 1 and not value.is_complex()
