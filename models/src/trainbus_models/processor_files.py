"""A processor as the texts of its files, which is how a checkpoint holds it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["files_of", "processor_from"]

#: Files of a processor that are texts.
TEXTS = frozenset({".json", ".txt", ".jinja"})


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


def processor_from(files: Mapping[str, str], auto: Any) -> Any:
    """Return the processor that such files make; nothing in them is run.

    Args:
        files: of ``files_of``.
        auto: reads them, such as ``AutoProcessor``.
    Raises:
        Exception: whatever the library makes of damaged files.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            # Below the folder: a foreign checkpoint must not write elsewhere.
            path = Path(folder, *(p for p in Path(name).parts if p.strip("./\\")))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return auto.from_pretrained(folder, trust_remote_code=False)
