"""What families of the library's models have in common: how they are described."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from trainbus_models.pretrained import load_part
from training.recipes.family import ModelFamily

__all__ = ["TransformersFamily"]

#: Files of a processor that are texts.
TEXTS = frozenset({".json", ".txt", ".jinja"})


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
        with tempfile.TemporaryDirectory() as folder:
            processor.save_pretrained(folder)
            paths = sorted(p for p in Path(folder).rglob("*") if p.is_file())
            odd = [path.name for path in paths if path.suffix not in TEXTS]
            if odd:
                raise ValueError(
                    f"the processor {type(processor).__name__} writes {odd[0]!r}, "
                    "which a checkpoint cannot hold; use a fast tokenizer"
                )
            files = {
                path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
                for path in paths
            }
        return {"config": _plain(model.config.to_dict()), "processor_files": files}

    def rebuild(self, description: Mapping[str, Any]) -> tuple[Any, Any]:
        """Return model and processor; nothing but configuration and texts is read."""
        import transformers

        options = dict(description["config"])
        kind = options.pop("model_type")
        config = transformers.AutoConfig.for_model(kind, **options)
        with tempfile.TemporaryDirectory() as folder:
            for name, text in description["processor_files"].items():
                # Below the folder: a foreign checkpoint must not write elsewhere.
                path = Path(folder, *(p for p in Path(name).parts if p.strip("./\\")))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            auto = getattr(transformers, self.auto_processor)
            processor = auto.from_pretrained(folder, trust_remote_code=False)
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


def _plain(value: Any) -> Any:
    """Return what JSON gives back as it is: names for numbers that are keys."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
