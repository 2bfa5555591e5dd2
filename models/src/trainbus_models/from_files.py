"""Models and processors as transformers keeps them: in folders, the hub, text."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from training.errors import ConfigError

__all__ = [
    "check_folder",
    "files_of",
    "load_processor",
    "or_config_error",
    "processor_from",
]

#: How the library names a package that it lacks.
LACKING = re.compile(
    r"requires the (\S+) library|[Pp]ackage `(\w+)` is required|No module named '(\w+)"
)
#: What is to be said of a package, beside its name.
REMARKS = {
    "torchvision": ", built for the same device as torch: on a machine without CUDA "
    "from https://download.pytorch.org/whl/cpu"
}
#: Either holds the vocabulary, as tokenizers are saved now and were before.
VOCABULARIES = frozenset({"tokenizer.json", "vocab.txt"})


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


def load_processor(name: str, key: str = "") -> Any:
    """Return the processor of a folder or hub name.

    Args:
        name: that.
        key: the setting that names it, where that is not the model's name.
    Raises:
        ConfigError: there is none.
    """
    from transformers import AutoProcessor

    def load() -> Any:
        return AutoProcessor.from_pretrained(name, trust_remote_code=False)

    if not key:
        return or_config_error(name, load)
    try:
        return load()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{key} is {name!r}, which is neither a folder with a processor "
            "nor a name in the hub's cache, and the hub did not give it; check the "
            f"name, or fetch it once with network access: hf download {name}"
        ) from error


def or_config_error(name: str, load: Callable[[], Any]) -> Any:
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


def files_of(processor: Any) -> dict[str, str]:
    """Return the text files that ``save_pretrained`` writes, by name.

    About 1 MB for the hub's vocabulary.
    """
    with tempfile.TemporaryDirectory() as folder:
        processor.save_pretrained(folder)
        return {
            path.name: path.read_text(encoding="utf-8")
            for path in sorted(Path(folder).iterdir())
            if path.suffix in {".json", ".txt"}
        }


def processor_from(files: Mapping[str, str], kind: type[Any]) -> Any:
    """Return the processor that such files make.

    Raises:
        Exception: whatever the library makes of damaged files.
    """
    from transformers import AutoProcessor

    if VOCABULARIES.isdisjoint(files):  # the library would make up an empty one
        raise ValueError(f"its files lack {' or '.join(sorted(VOCABULARIES))}")
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            # The name alone: a foreign checkpoint must not write elsewhere.
            (Path(folder) / Path(name).name).write_text(text, encoding="utf-8")
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    if not isinstance(processor, kind):
        raise TypeError(f"its files make a {type(processor).__name__}")
    return processor
