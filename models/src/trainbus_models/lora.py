"""Low-rank adapters: train a few weights beside a model whose own stay as they are.

The model's class, its ``generate`` and the names of its other parameters stay. An
adapter is exported merged, as a model like the one that was adapted, or by itself.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt

from training.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Lora", "has_lora", "merged", "save_adapter"]

ADAPTER = "default"
#: What the library's loader puts before each name.
PREFIX = "base_model.model."


class Lora:
    """Adapters beside some linear layers of a model.

    Args:
        target_modules: last parts of the names of layers, such as ``["q_proj"]``, or a
            regular expression that matches whole names.
        r: rank: an adapter of a layer from N to M numbers has r * (N + M) weights.
        alpha: the adapter's share is ``alpha / r``; None: 2 r.
        dropout: of what an adapter reads.
        modules_to_save: parts that are trained whole, beside the adapters, such as a
            new head: last parts of their names.
    """

    def __init__(
        self,
        target_modules: str | Sequence[str],
        r: PositiveInt = 8,
        alpha: PositiveFloat | None = None,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        modules_to_save: Sequence[str] = (),
    ) -> None:
        self.targets = target_modules
        self.r = r
        self.alpha = 2 * r if alpha is None else alpha
        self.dropout = dropout
        self.whole = list(modules_to_save)

    def add_to(self, model: nn.Module) -> list[str]:
        """Put adapters into ``model``, freeze all else, and return what trains.

        Parts that are frozen already get none.

        Returns:
            The names of the parameters that train, in order.
        Raises:
            ConfigError: the package peft is missing, or a name matches no layer.
        """
        peft = _peft()
        frozen = {name for name, part in model.named_modules() if _is_frozen(part)}
        whole = set[str]()
        for name in self.whole:
            whole |= _matches(model, "modules_to_save", name, frozen)
        if isinstance(self.targets, str):
            targets = _matching(model, self.targets, frozen)
        else:
            found = (_matches(model, "target_modules", n, frozen) for n in self.targets)
            targets = set[str]().union(*found)
        config = peft.LoraConfig(
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=sorted(targets),
        )
        trained = [p for n in whole for p in model.get_submodule(n).parameters()]
        try:
            peft.inject_adapter_in_model(config, model, ADAPTER)
        except ValueError as error:  # a layer of a kind that it has no adapter for
            reason = str(error).splitlines()[0]
            raise ConfigError(f"model.lora does not fit the model: {reason}") from error
        for value in trained:
            value.requires_grad_(True)
        model._trained_whole = sorted(whole)  # type: ignore[assignment]
        return [name for name, value in model.named_parameters() if value.requires_grad]


def has_lora(model: nn.Module) -> bool:
    """Whether adapters are in it."""
    return bool(getattr(model, "peft_config", None))


def merged(model: nn.Module) -> nn.Module:
    """Return a copy without adapters whose own weights hold what these add.

    Its names and its class are those of the model before adapters came.
    """
    copied = copy.deepcopy(model)
    layers = import_module("peft.tuners.tuners_utils").BaseTunerLayer
    for name, part in list(copied.named_modules()):
        if isinstance(part, layers):
            part.merge(safe_merge=True)
            copied.set_submodule(name, part.get_base_layer())
    del copied.peft_config
    for value in copied.parameters():
        value.requires_grad_(True)
    return copied


def save_adapter(model: Any, folder: str | Path, base: str | None = None) -> None:
    """Write the adapters alone, as ``PeftModel.from_pretrained`` reads them.

    Args:
        model: has adapters, maybe trained.
        folder: receives ``adapter_model.safetensors`` and ``adapter_config.json``.
        base: name or folder of the model that they belong to.
    """
    from safetensors.torch import save_file

    weights = dict(_peft().get_peft_model_state_dict(model, adapter_name=ADAPTER))
    for whole in model._trained_whole:
        part = model.get_submodule(whole)
        weights |= {f"{whole}.{name}": v for name, v in part.state_dict().items()}
    named = {f"{PREFIX}{k}": v.detach().cpu().contiguous() for k, v in weights.items()}
    place = Path(folder)
    save_file(named, place / "adapter_model.safetensors", metadata={"format": "pt"})
    config = copy.deepcopy(model.peft_config[ADAPTER])
    config.modules_to_save = model._trained_whole or None
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


def _matching(model: nn.Module, text: str, frozen: Collection[str]) -> set[str]:
    """Return the linear layers whose whole name matches a regular expression."""
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ConfigError(
            f"model.lora.target_modules is {text!r}, which is no regular expression "
            f"({error}); write names in a list, or correct it"
        ) from error
    found = {path for path in _linear(model) if pattern.fullmatch(path)}
    return _found(model, "target_modules", text, found, frozen)


def _matches(
    model: nn.Module, key: str, name: str, frozen: Collection[str]
) -> set[str]:
    """Return the parts of the model whose name ends in ``name``."""
    paths = (path for path, _ in model.named_modules() if path)
    found = {path for path in paths if f".{path}".endswith(f".{name}")}
    return _found(model, key, name, found, frozen)


def _found(
    model: nn.Module, key: str, name: str, found: set[str], frozen: Collection[str]
) -> set[str]:
    """Return what was found and is not frozen; refuse to go on with nothing."""
    if left := found - set(frozen):
        return left
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
    from torch import nn

    return (n for n, part in model.named_modules() if isinstance(part, nn.Linear))
