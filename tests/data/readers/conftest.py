"""A cache folder of each test's own, so that no reader finds another test's rows."""

from pathlib import Path

import pytest

from trainbus_data.rows.cache import cache_folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of kept rows."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder("rows")
