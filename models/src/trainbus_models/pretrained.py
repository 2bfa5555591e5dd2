"""Load parts of models from the hub's cache or a folder; say what stands in the way."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from trainbus_models.from_files import or_config_error
from training.errors import ConfigError

__all__ = ["load_model", "load_part"]


def load_part(auto: Any, name: str, **options: Any) -> Any:
    """Return what ``auto.from_pretrained(name)`` does; no code of the model is run.

    Args:
        auto: such as ``AutoProcessor``.
        name: a folder written by ``save_pretrained``, or a hub name.
        **options: further arguments of ``from_pretrained``.
    Raises:
        ConfigError: there is no such model, it is damaged, or a package is missing.
    """
    return or_config_error(
        name, lambda: auto.from_pretrained(name, trust_remote_code=False, **options)
    )


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
    import torch

    if fresh:
        options["ignore_mismatched_sizes"] = True
    model, info = load_part(
        auto, name, dtype=torch.float32, output_loading_info=True, **options
    )
    lacking = {*info["missing_keys"], *(k[0] for k in info.get("mismatched_keys", ()))}
    if lacking := lacking - {*fresh}:
        raise ConfigError(
            f"{name!r} does not fit {type(model).__name__}: {len(lacking)} weights are "
            f"missing or of another shape, such as {min(lacking)}; use a checkpoint of "
            "that class"
        )
    for owner in {each.rpartition(".")[0] for each in fresh}:
        # Where sizes are the same, the library took those of other labels.
        model.get_submodule(owner).reset_parameters()
    return model.eval()
