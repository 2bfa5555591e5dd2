"""Processes that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ranks import Ranks


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Two processes, joined by gloo."""
    ranks = Ranks(2, tmp_path_factory.mktemp("two"))
    yield ranks
    ranks.close()


@pytest.fixture
def parted(two: Ranks) -> Iterator[Ranks]:
    """Two processes that can do nothing together any more, once the test is over."""
    yield two
    two.close()


@pytest.fixture(scope="session", params=[3, 4])
def many(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Ranks]:
    """Three processes, and four."""
    ranks = Ranks(request.param, tmp_path_factory.mktemp("many"))
    yield ranks
    ranks.close()
