"""Low-rank adapters: train a few weights beside a model whose own stay as they are.

The model's class, its ``generate`` and the names of its other parameters stay. An
adapter is exported merged, as a model like the one that was adapted, or by itself.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt
from torch import nn

from training.errors import ConfigError, did_you_mean

__all__ = ["add_lora", "has_lora", "merged", "save_adapter"]

ADAPTER = "default"
#: What the library's loader puts before each name.
PREFIX = "base_model.model."


def add_lora(
    model: nn.Module,
    *,
    target_modules: str | Sequence[str],
    r: PositiveInt = 8,
    alpha: PositiveFloat | None = None,
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    modules_to_save: Sequence[str] = (),
) -> list[str]:
    """Put adapters beside some linear layers; freeze all else.

    Parts that are frozen already get none.

    Args:
        model: changed in place.
        target_modules: last parts of the names of layers, such as ``["q_proj"]``, or a
            regular expression that matches whole names.
        r: rank: an adapter of a layer from N to M numbers has r * (N + M) weights.
        alpha: the adapter's share is ``alpha / r``; None: 2 r.
        dropout: of what an adapter reads.
        modules_to_save: names of parts that are trained whole, beside the adapters,
            such as a new head.
    Returns:
        The names of the parameters that train, in order.
    Raises:
        ConfigError: the package peft is missing, or a name matches no layer.
    """
    peft = _peft()
    frozen = [name for name, part in model.named_modules() if _is_frozen(part)]
    is_pattern = isinstance(target_modules, str)
    for name in [target_modules] if is_pattern else target_modules:
        _require_match(model, "target_modules", name, is_pattern, frozen)
    for name in modules_to_save:
        _require_match(model, "modules_to_save", name, False, frozen)
    config = peft.LoraConfig(
        r=r,
        lora_alpha=2 * r if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules=target_modules if is_pattern else list(target_modules),
        exclude_modules=frozen or None,
        modules_to_save=list(modules_to_save) or None,
    )
    try:
        peft.inject_adapter_in_model(config, model, ADAPTER)
    except ValueError as error:  # a layer of a kind that it has no adapter for
        reason = str(error).splitlines()[0]
        raise ConfigError(f"model.lora does not fit the model: {reason}") from error
    return [name for name, value in model.named_parameters() if value.requires_grad]


def has_lora(model: nn.Module) -> bool:
    """Whether ``add_lora`` was called for it."""
    return bool(getattr(model, "peft_config", None))


def merged(model: nn.Module) -> nn.Module:
    """Return a copy without adapters whose own weights hold what these add.

    Its names and its class are those of the model before ``add_lora``.
    """
    copied = copy.deepcopy(model)
    layers = import_module("peft.tuners.tuners_utils").BaseTunerLayer
    wrappers = import_module("peft.utils.other").AuxiliaryTrainingWrapper
    for name, part in list(copied.named_modules()):
        if isinstance(part, layers):
            part.merge(safe_merge=True)
            copied.set_submodule(name, part.get_base_layer())
        elif isinstance(part, wrappers):
            copied.set_submodule(name, part.modules_to_save[ADAPTER])
    del copied.peft_config
    for value in copied.parameters():
        value.requires_grad_(True)
    return copied


def save_adapter(model: Any, folder: str | Path, base: str | None = None) -> None:
    """Write the adapters alone, as ``PeftModel.from_pretrained`` reads them.

    Args:
        model: as ``add_lora`` left it, maybe trained.
        folder: receives ``adapter_model.safetensors`` and ``adapter_config.json``.
        base: name or folder of the model that they belong to.
    """
    from safetensors.torch import save_file

    weights = _peft().get_peft_model_state_dict(model, adapter_name=ADAPTER)
    named = {f"{PREFIX}{k}": v.detach().cpu().contiguous() for k, v in weights.items()}
    place = Path(folder)
    save_file(named, place / "adapter_model.safetensors", metadata={"format": "pt"})
    config = copy.deepcopy(model.peft_config[ADAPTER])
    config.base_model_name_or_path = base
    config.inference_mode = True
    config.save_pretrained(place)


def _peft() -> Any:
    try:
        return import_module("peft")
    except ModuleNotFoundError as error:
        if error.name != "peft":
            raise
        raise ConfigError(
            "model.lora needs the package peft, which is not installed; install it: "
            "pip install 'trainbus[lora]'"
        ) from error


def _is_frozen(part: nn.Module) -> bool:
    return bool(getattr(part, "_is_frozen", False))


def _require_match(
    model: nn.Module, key: str, name: str, is_pattern: bool, frozen: Sequence[str]
) -> None:
    """Refuse a name that no trainable part of the model has."""
    paths = [path for path, _ in model.named_modules() if path]
    if is_pattern:
        try:
            pattern = re.compile(name)
        except re.error as error:
            raise ConfigError(
                f"model.lora.{key} is {name!r}, which is no regular expression "
                f"({error}); write names in a list, or correct it"
            ) from error
        found = [path for path in paths if pattern.fullmatch(path)]
    else:
        found = [path for path in paths if f".{path}".endswith(f".{name}")]
    if found and not set(found) <= set(frozen):
        return
    if found:
        raise ConfigError(
            f"model.lora.{key} names {name!r}, but model.freeze freezes all of it"
        )
    linear = sorted({path.rpartition(".")[2] for path in _linear(model)})
    raise ConfigError(
        f"model.lora.{key} names {name!r}, which matches no part of the model"
        f"{did_you_mean(name, linear)}; its linear layers are named: "
        f"{', '.join(linear)}"
    )


def _linear(model: nn.Module) -> Iterator[str]:
    return (n for n, part in model.named_modules() if isinstance(part, nn.Linear))
