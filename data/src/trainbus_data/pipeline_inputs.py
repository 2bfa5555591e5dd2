"""What a pipeline starts from: its configuration, its processor, its files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.errors import ConfigError

if TYPE_CHECKING:
    from trainbus_data.config import DataConfig

__all__ = ["how_to_get", "load_config", "load_processor", "start_token_of"]


def load_config(
    config: str | os.PathLike[str] | Mapping[str, Any] | DataConfig,
) -> DataConfig:
    """Return the DataConfig in any of the forms that a pipeline takes."""
    from trainbus_data.config import (
        DataConfig,
        from_guide,
        parse_data_config,
    )
    from training.documents.document import Document

    if isinstance(config, DataConfig):
        return config
    document = Document()
    if isinstance(config, Mapping):
        document.origins[()] = "data"
    else:
        document = Document.read(config)
        document.origins[()] = os.fspath(config)
        config = document.tree
    if isinstance(config.get("data"), Mapping):
        return parse_data_config(config["data"], document.origin, ("data",))
    if "task_type" in config or "data_paths" in config:
        return from_guide(config, document.origin)
    return parse_data_config(config, document.origin)


def how_to_get(split: str, path: Path) -> str:
    """Return the error for a missing file, with the way to it."""
    problem = f"data.{split} is {str(path)!r}, which is not a file here ({Path.cwd()})"
    if "easy_vqa" in str(path).lower().replace("-", "_"):
        return (
            f"{problem}; get the set with: git clone "
            "https://github.com/vzhou842/easy-VQA CLONE, then: trainbus data convert "
            f"easy-vqa CLONE {path.parent}"
        )
    return f"{problem}; correct the path, or data.root above it"


def load_processor(name: str) -> Any:
    """Return the processor of a folder or hub name, or raise ConfigError."""
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(
            os.path.expanduser(name), trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"data.processor is {name!r}, which is neither a folder with a processor "
            "nor a name in the hub's cache, and the hub did not give it; check the "
            f"name, or fetch it once with network access: hf download {name}"
        ) from error


def start_token_of(name: str, processor: Any) -> int:
    """Return the id that the model named like the processor starts answers from."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(
            os.path.expanduser(name), trust_remote_code=False
        )
    except (OSError, ValueError):
        config = None  # a folder with a processor and no model
    token = getattr(getattr(config, "text_config", None), "bos_token_id", None)
    if token is None:
        token = processor.tokenizer.bos_token_id
    if token is None:
        raise ConfigError(
            f"neither the model {name!r} nor the tokenizer says which token starts an "
            "answer; pass bos_token_id=model.config.text_config.bos_token_id"
        )
    return int(token)
