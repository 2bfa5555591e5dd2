"""The pytest plugin: fixtures that import torch when a test asks for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def tiny_trainer(tmp_path: Path) -> Callable[..., Any]:
    """Return ``training.testing.tiny_trainer``, writing below the test's folder."""
    from training.testing import runs

    return partial(runs.tiny_trainer, save_dir=tmp_path / "run")


@pytest.fixture
def run_events(tmp_path: Path) -> Callable[..., Any]:
    """Return ``training.testing.run_events``, writing below the test's folder."""
    from training.testing import runs

    return partial(runs.run_events, save_dir=tmp_path / "run")


@pytest.fixture
def assert_plugin_conforms(tmp_path: Path) -> Callable[..., None]:
    """Return ``training.testing.assert_plugin_conforms``, with a scratch folder."""
    from training.testing import conformance

    return partial(conformance.assert_plugin_conforms, folder=tmp_path / "kit")
