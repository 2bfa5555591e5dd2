"""A small chat model on drawn pictures."""

from __future__ import annotations

from typing import Any

import pytest
from chats import chat
from drawn import questions


@pytest.fixture(scope="session")
def tiny() -> tuple[Any, Any]:
    """Return a small model in eval mode and its processor; do not change them."""
    return chat().build(questions(8), initializer_range=0.3)
