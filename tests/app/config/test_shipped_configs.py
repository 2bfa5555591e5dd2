"""Configurations that come with the package are found by name, anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.app.config.shipped_configs import find_config, shipped_configs
from training.errors import ConfigError


def test_every_file_in_config_is_shipped(repository: Path) -> None:
    files = {path.stem for path in (repository / "config").glob("*.yaml")}
    assert set(shipped_configs()) == files
    assert "demo" in files


def test_a_bare_name_means_the_shipped_file_in_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config("demo").read_text(encoding="utf-8").startswith("#")


def test_a_file_of_that_name_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").write_text("task: vqa")
    assert find_config("demo") == Path("demo")


@pytest.mark.parametrize("name", ["my/demo", "demo.yaml", "a/b.yml"])
def test_a_path_stays_a_path(name: str) -> None:
    assert find_config(name) == Path(name)


def test_an_unknown_name_lists_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'demo'.*demo, easy_vqa"):
        find_config("demmo")
