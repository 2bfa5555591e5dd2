"""The configurations that come with the package, found by their bare names."""

from __future__ import annotations

from pathlib import Path

from training.errors import ConfigError, did_you_mean
from training.files.named_paths import named_path


def shipped_configs() -> dict[str, Path]:
    """Return name -> file of every configuration that comes with the package.

    A wheel holds them beside this package; a checkout has them in ``config/``.
    """
    here = Path(__file__).resolve()
    for folder in (here.parents[2] / "configs", here.parents[4] / "config"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def find_config(name: str | Path) -> Path:
    """Return the file that ``name`` means: a path, or a shipped configuration.

    Raises:
        ConfigError: there is neither.
    """
    path = named_path(name)
    if path.exists() or len(path.parts) > 1 or path.suffix:
        return path  # reading it says what is wrong with it
    shipped = shipped_configs()
    if str(name) in shipped:
        return shipped[str(name)]
    raise ConfigError(
        f"there is no configuration {str(name)!r}{did_you_mean(str(name), shipped)}; "
        f"give a YAML file, or one that comes with trainbus: {', '.join(shipped)}"
    )
