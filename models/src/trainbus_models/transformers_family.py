"""What families of the library's models have in common: how they are described."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from trainbus_models.pretrained import load_part
from trainbus_models.processor_files import described_processor, processor_of
from training.recipes.family import ModelFamily

__all__ = ["GENERATION", "TransformersFamily"]

#: The file of how a model generates.
GENERATION = "generation_config.json"


class TransformersFamily(ModelFamily):
    """Describes a model by its configuration, and a processor by its files.

    Attributes:
        auto_model: the library's class that makes the model of a configuration.
        auto_processor: the library's class that reads the processor's files.
    """

    auto_model: ClassVar[str]
    auto_processor: ClassVar[str] = "AutoProcessor"

    def describe(self, model: Any, processor: Any) -> dict[str, Any]:
        """Return the configuration, and the processor's files by name.

        Raises:
            ValueError: the processor writes a file that is no text.
        """
        config = _plain(model.config.to_dict())
        return {"config": config, **described_processor(processor)}

    def rebuild(self, description: Mapping[str, Any]) -> tuple[Any, Any]:
        """Return model and processor; nothing but configuration and texts is read."""
        import transformers

        options = dict(description["config"])
        kind = options.pop("model_type")
        config = transformers.AutoConfig.for_model(kind, **options)
        auto = getattr(transformers, self.auto_processor)
        processor = processor_of(description, auto)
        model = getattr(transformers, self.auto_model).from_config(config)
        return model.float().eval(), processor

    def rebuild_on(self, name: str, description: Mapping[str, Any]) -> tuple[Any, Any]:
        """Return the same with the weights that a folder or a hub name has for it.

        Args:
            name: of the model that a run began with.
            description: of the model that came out; a new head of it stays random.
        """
        import torch

        model, processor = self.rebuild(description)
        base = load_part(
            type(model),
            name,
            config=model.config,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
        )
        return base.eval(), processor

    def export(self, model: Any, processor: Any, folder: Path) -> None:
        """Write both, and how the model generates as it stands.

        The library refuses to write what many a published model has, a temperature that
        goes unused: one release always, another once the configuration was changed.
        """
        own = getattr(model, "generation_config", None)
        if own is None:
            super().export(model, processor, folder)
            return
        model.generation_config = type(own)()
        try:
            super().export(model, processor, folder)
        finally:
            model.generation_config = own
        own.to_json_file(folder / GENERATION, keys_to_pop=["compile_config"])


def _plain(value: Any) -> Any:
    """Return what JSON gives back as it is: names for numbers that are keys."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
