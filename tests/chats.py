"""The family of chat models, ready for a task."""

from __future__ import annotations

from typing import Any

from trainbus_data.vqa.task import VQA
from trainbus_models.chat.family import Chat

__all__ = ["chat"]


def chat(task: Any = None, **options: Any) -> Chat:
    """Return the family with its options; without a task it answers questions."""
    family = Chat(**options)
    family.task = VQA() if task is None else task
    return family
