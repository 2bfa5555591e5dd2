"""Freeze parts of a model by name, and let them train again."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from torch import nn

from training.errors import ConfigError
from training.modules.train_mode import frozen_modules, frozen_parameters

__all__ = ["freeze_model", "unfreeze_model"]


def freeze_model(model: nn.Module, freeze_layers: Iterable[str]) -> list[str]:
    """Freeze what is named; return the names of the frozen parameters, in order.

    A name is the dotted path of a module or parameter, such as ``vision_model`` or
    ``text_encoder.encoder.layer.0``. Where there is no such path it means every module
    whose path ends with it: ``embeddings`` freezes all of them. Frozen modules go to
    eval mode and carry ``_is_frozen = True``, so that a trainer leaves them there.

    Args:
        model: changed in place.
        freeze_layers: names; a parameter shared with a part that is not named (BLIP's
            decoder embedding is also its output layer) is frozen there too.
    Raises:
        ConfigError: a name matches nothing; the message lists the nearest ones, and
            nothing has been frozen.
    """
    if isinstance(freeze_layers, str):
        freeze_layers = [freeze_layers]
    modules = dict(model.named_modules())
    parameters = dict(model.named_parameters())
    targets = [_resolve(name, modules, parameters) for name in freeze_layers]
    for found in targets:
        for name in found:
            if name in modules:
                _freeze_module(modules[name])
            else:
                _freeze_parameter(model, name)
    return [name for name, value in parameters.items() if not value.requires_grad]


def unfreeze_model(
    model: nn.Module, unfreeze_layers: Iterable[str] | None = None
) -> list[str]:
    """Let what is named train again; return the names of its parameters, in order.

    Its parameters require gradients, and its modules are in train mode where the model
    is. Build the optimizer after that, since a trainer has taken frozen parameters out
    of the one before. ``requires_grad_(True)`` alone would not do: what is marked as
    frozen is frozen again as a run begins.

    Args:
        model: changed in place.
        unfreeze_layers: names as those of ``freeze_model``; None: all that
            ``freeze_model`` has frozen.
    Raises:
        ConfigError: a name matches nothing; nothing has been changed.
    """
    if isinstance(unfreeze_layers, str):
        unfreeze_layers = [unfreeze_layers]
    modules = dict(model.named_modules())
    parameters = dict(model.named_parameters())
    if unfreeze_layers is None:
        was_frozen = frozen_parameters(model)
        found = [name for name, value in parameters.items() if value in was_frozen]
        found += frozen_modules(model)  # those without parameters, too
    else:
        resolved = [_resolve(n, modules, parameters, "un") for n in unfreeze_layers]
        found = [name for names in resolved for name in names]
    chosen: set[nn.Parameter] = set()
    for name in found:
        if name in modules:
            chosen.update(modules[name].parameters())
            for part in modules[name].modules():
                _unmark(part, model.training)
        else:
            chosen.add(parameters[name])
        _unmark_around(model, name)
    # One that is shared with what stays frozen is frozen there, and so here.
    chosen -= frozen_parameters(model)
    for parameter in chosen:
        if parameter.is_floating_point() or parameter.is_complex():
            parameter.requires_grad_(True)
    return [n for n, each in parameters.items() if each in chosen]


def _unmark(module: nn.Module, training: bool) -> None:
    module._is_frozen = False  # type: ignore[assignment]
    module._frozen_parameters = frozenset()  # type: ignore[assignment]
    module.training = training


def _unmark_around(model: nn.Module, path: str) -> None:
    """Take the mark off the modules around; what else they hold stays frozen."""
    while path:
        path, _, name = path.rpartition(".")
        around = model.get_submodule(path)
        own: frozenset[str] = getattr(around, "_frozen_parameters", frozenset())
        if getattr(around, "_is_frozen", False):
            parameters = around._parameters.items()
            own = frozenset(n for n, each in parameters if each is not None)
            _unmark(around, model.training)
        if own:
            around._frozen_parameters = own - {name}  # type: ignore[assignment]


def _resolve(
    name: str,
    modules: dict[str, nn.Module],
    parameters: dict[str, nn.Parameter],
    way: str = "",
) -> list[str]:
    """Return the paths that a name means."""
    if name and (name in modules or name in parameters):
        return [name]
    if name:
        found = [path for path in modules if path.endswith(f".{name}")]
        found = found or [path for path in parameters if path.endswith(f".{name}")]
        if found:
            return found
    choices = [path for path in modules if path]
    near = difflib.get_close_matches(name, choices, n=5, cutoff=0.5)
    top = [path for path in choices if "." not in path]
    listed = f"near names: {', '.join(near)}; " if near else ""
    raise ConfigError(
        f"{way}freeze names {name!r}, which matches no part of the model; {listed}"
        f"top-level names: {', '.join(top)}"
    )


def _freeze_parameter(model: nn.Module, path: str) -> None:
    """Freeze one parameter; its module is trained as before."""
    place, _, name = path.rpartition(".")
    owner = model.get_submodule(place)
    names: frozenset[str] = getattr(owner, "_frozen_parameters", frozenset())
    # Read by training.modules.train_mode.
    owner._frozen_parameters = names | {name}  # type: ignore[assignment]
    getattr(owner, name).requires_grad_(False)


def _freeze_module(module: nn.Module) -> None:
    for part in module.modules():
        part._is_frozen = True  # type: ignore[assignment]  # for train_mode
    module.eval()
    module.requires_grad_(False)
