"""A processor as the texts of its files, which is how a checkpoint holds it."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["described_processor", "files_of", "processor_from", "processor_of"]

logger = logging.getLogger(__name__)

#: Files of a processor that are texts.
TEXTS = frozenset({".json", ".txt", ".jinja"})


def described_processor(processor: Any) -> dict[str, Any]:
    """Return what ``processor_of`` needs, in JSON values.

    Raises:
        ValueError: the processor writes a file that is no text.
    """
    name = _image_processor_of(processor)
    return {"processor_files": files_of(processor), "image_processor": name}


def processor_of(description: Mapping[str, Any], auto: Any) -> Any:
    """Return the processor that was described; say so if it reads pictures otherwise.

    Left alone the library chooses the class by what is installed, not by what trained:
    with torchvision another one resizes, whose bytes differ in a few places by 1. So it
    is asked for the one that was described; what needs torchvision needs it again.

    Args:
        description: of ``described_processor``; older ones do not name the class.
        auto: reads the files, such as ``AutoProcessor``.
    """
    files, saved = description["processor_files"], description.get("image_processor")
    processor = processor_from(files, auto)
    here = _image_processor_of(processor)
    if here is not None and isinstance(saved, str) and saved == f"{here}Pil":
        processor, here = _by_pillow(processor, files), saved
    if isinstance(saved, str) and saved != here:
        logger.warning(
            "the pictures of this model were prepared by %.60s in training and are by "
            "%s here, which may round some bytes otherwise: for the same numbers, %s",
            saved,
            here,
            "leave torchvision out" if saved.endswith("Pil") else "install torchvision",
        )
    return processor


def _by_pillow(processor: Any, files: Mapping[str, str]) -> Any:
    """Return ``processor`` with Pillow, in place of torchvision, for the pictures."""
    from transformers import AutoImageProcessor

    # Apart: a processor hands such an option on to its tokenizer, which keeps it.
    pictures = processor_from(files, AutoImageProcessor, backend="pil")
    if not hasattr(processor, "image_processor"):
        return pictures
    processor.image_processor = pictures
    return processor


def _image_processor_of(processor: Any) -> str | None:
    """Return the class of what prepares pictures; None if nothing does."""
    found = getattr(processor, "image_processor", None)
    if found is None and hasattr(processor, "image_mean"):
        found = processor  # it is one itself
    return None if found is None else type(found).__name__


def files_of(processor: Any) -> dict[str, str]:
    """Return the files that ``save_pretrained`` writes, by name.

    About 1 MB for a vocabulary of the hub.

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
        return {
            path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
            for path in paths
        }


def processor_from(files: Mapping[str, str], auto: Any, **options: str) -> Any:
    """Return the processor that such files make; nothing in them is run.

    Args:
        files: of ``files_of``.
        auto: reads them, such as ``AutoProcessor``.
        options: for its ``from_pretrained``.
    Raises:
        Exception: whatever the library makes of damaged files.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            # Below the folder: a foreign checkpoint must not write elsewhere.
            path = Path(folder, *(p for p in Path(name).parts if p.strip("./\\")))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return auto.from_pretrained(folder, trust_remote_code=False, **options)
