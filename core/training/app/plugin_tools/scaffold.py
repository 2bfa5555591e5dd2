"""Write the project of a new plugin: it installs, its tests pass, and it does a job."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template

from training.app.plugin_tools import scaffold_text
from training.discovery import installed
from training.errors import ConfigError
from training.files.named_paths import named_path
from training.hookspecs import API_VERSION

__all__ = ["write_project"]


def write_project(name: str, into: str | Path = ".") -> Path:
    """Write a plugin project and return its folder, ``trainbus-NAME`` below ``into``.

    Args:
        name: what a configuration will call the plugin, in ``snake_case``.
        into: the folder to make the project's folder in.
    Raises:
        ConfigError: the name cannot be used, or the folder is there already.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(
        name
    ):
        raise ConfigError(
            f"plugin name {name!r} cannot be used; write small letters and digits, "
            "with single underscores between them, as in grad_watch"
        )
    taken = {info.name for info in installed.installed()} | set(installed.SHIPPED)
    if name in taken:
        raise ConfigError(f"a plugin {name!r} exists; choose a name that is not taken")
    distribution = f"trainbus-{name.replace('_', '-')}"
    folder = named_path(into) / distribution
    if folder.exists() or folder.is_symlink():
        raise ConfigError(f"{str(folder)!r} exists; choose another name or place")
    package = f"trainbus_{name}"
    values = {
        "name": name,
        "distribution": distribution,
        "package": package,
        "class_name": "".join(part.title() for part in name.split("_")) + "Callback",
        "api": f">={API_VERSION},<{int(API_VERSION.split('.')[0]) + 1}",
    }
    for path, template in {
        "setup.cfg": scaffold_text.SETUP,
        "pyproject.toml": scaffold_text.PYPROJECT,
        "README.md": scaffold_text.README,
        ".gitignore": scaffold_text.GITIGNORE,
        ".github/workflows/test.yml": scaffold_text.WORKFLOW,
        f"src/{package}/__init__.py": scaffold_text.INIT,
        f"src/{package}/callback.py": scaffold_text.CALLBACK,
        f"src/{package}/py.typed": "",
        f"tests/test_{name}.py": scaffold_text.TEST,
    }.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(Template(template).substitute(values), encoding="utf-8")
    return folder
