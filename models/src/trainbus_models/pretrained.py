"""Load models and their parts from a folder or the hub; say what stands in the way."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from training.errors import ConfigError
from training.messages.tables import count

__all__ = ["check_folder", "load_model", "load_part", "load_processor", "load_weights"]

#: How the library names a package that it lacks.
LACKING = re.compile(
    r"requires the (\S+) library|[Pp]ackage `(\w+)` is required|No module named '(\w+)"
)
#: What is to be said of a package, beside its name.
REMARKS = {
    "torchvision": ", built for the same device as torch: on a machine without CUDA "
    "from https://download.pytorch.org/whl/cpu"
}


def check_folder(name: str, model_type: str) -> None:
    """Refuse a path that is no folder, and a folder of another family."""
    path = Path(name)
    if not path.is_dir():
        # A hub name is "name" or "owner/name"; anything else was meant as a path.
        if name.count("/") > 1 or name[:1] in {".", "/", "~"} or path.exists():
            raise ConfigError(
                f"model name is {name!r}, which is not a folder here ({Path.cwd()}); "
                "correct the path, or give a hub name such as Salesforce/blip-vqa-base"
            )
        return
    config = path / "config.json"
    try:
        found = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{config} is missing or not a model's configuration; name a folder that "
            "save_pretrained wrote"
        ) from error
    if found != model_type:
        raise ConfigError(
            f"{config} says model_type {found!r}, but {model_type!r} was asked for"
        )


def load_part(auto: Any, name: str, **options: Any) -> Any:
    """Return what ``auto.from_pretrained(name)`` does; no code of the model is run.

    Args:
        auto: such as ``AutoProcessor``.
        name: a folder written by ``save_pretrained``, or a hub name.
        **options: further arguments of ``from_pretrained``.
    Raises:
        ConfigError: there is no such model, it is damaged, or a package is missing.
    """
    return _or_config_error(
        name, lambda: auto.from_pretrained(name, trust_remote_code=False, **options)
    )


def load_processor(name: str, key: str = "") -> Any:
    """Return the processor of a folder or hub name.

    Args:
        name: that.
        key: the setting that names it, where that is not the model's name.
    Raises:
        ConfigError: there is none.
    """
    from transformers import AutoProcessor

    if not key:
        return load_part(AutoProcessor, name)
    try:
        return AutoProcessor.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{key} is {name!r}, which is neither a folder with a processor "
            "nor a name in the hub's cache, and the hub did not give it; check the "
            f"name, or fetch it once with network access: hf download {name}"
        ) from error


def load_weights(auto: Any, name: str, **options: Any) -> tuple[Any, list[str]]:
    """Return a model, its weights float32 whatever the file holds, and what it lacks.

    Args:
        auto: such as ``AutoModelForImageClassification``.
        name: a folder written by ``save_pretrained``, or a hub name.
        **options: further arguments of ``from_pretrained``.
    Returns: the model, and the names of weights that are missing or of another shape.
    Raises:
        ConfigError: as ``load_part``.
    """
    import torch

    model, info = load_part(
        auto, name, dtype=torch.float32, output_loading_info=True, **options
    )
    mismatched = [
        key if isinstance(key, str) else key[0]
        for key in info.get("mismatched_keys", ())
    ]
    return model, [*sorted(info["missing_keys"]), *sorted(mismatched)]


def load_model(
    auto: Any, name: str, fresh: Collection[str] = (), **options: Any
) -> Any:
    """Return a model in eval mode, its weights float32 whatever the file holds.

    Args:
        auto: such as ``AutoModelForImageClassification``.
        name: a folder written by ``save_pretrained``, or a hub name.
        fresh: names of weights that are made anew, whatever the file has for them.
        **options: further arguments of ``from_pretrained``.
    Raises:
        ConfigError: as ``load_part``; or weights are missing that must not be.
    """
    if fresh:
        options["ignore_mismatched_sizes"] = True
    model, found = load_weights(auto, name, **options)
    if lacking := {*found} - {*fresh}:
        raise ConfigError(
            f"{name!r} does not fit {type(model).__name__}; missing or of another "
            f"shape: {count(len(lacking), 'weight')}, such as {min(lacking)}; use a "
            "checkpoint of that class"
        )
    for owner in {each.rpartition(".")[0] for each in fresh}:
        # Where sizes are the same, the library took those of other labels.
        model.get_submodule(owner).reset_parameters()
    return model.eval()


def _or_config_error(name: str, load: Callable[[], Any]) -> Any:
    """Call ``load``; turn what a missing or broken model raises into one sentence."""
    from safetensors import SafetensorError

    try:
        return load()
    except ImportError as error:
        found = LACKING.search(str(error))
        if found is None:
            raise
        package = next(filter(None, found.groups())).lower()
        raise ConfigError(
            f"{name!r} needs the package {package}, which is not installed; install it"
            f"{REMARKS.get(package, f': pip install {package}')}"
        ) from error
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if Path(name).is_dir():
            reason = str(error).strip().splitlines()[0]
            raise ConfigError(f"{name!r} cannot be loaded: {reason}") from error
        raise ConfigError(
            f"{name!r} is neither a folder here nor a model in the hub's cache, and "
            "the hub did not give it; check the name, or fetch it once with network "
            f"access: hf download {name}"
        ) from error
