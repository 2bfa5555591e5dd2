"""Write the project of a new plugin or task: it installs, passes, and does a job."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template

from training.bus.registration import NOT_PLUGINS
from training.discovery import installed
from training.errors import ConfigError
from training.files.named_paths import named_path
from training.hookspecs import API_VERSION

__all__ = ["write_project"]

TEMPLATES = Path(__file__).with_name("templates")
#: Kind -> how the name of its class ends.
ENDINGS = {"callback": "Callback", "task": ""}


def write_project(name: str, into: str | Path = ".", kind: str = "callback") -> Path:
    """Write a plugin project and return its folder, ``trainbus-NAME`` below ``into``.

    Args:
        name: what a configuration will call the plugin, in ``snake_case``, or the same
            with hyphens.
        into: the folder to make the project's folder in.
        kind: ``callback``, or ``task``: a task with its model family.
    Raises:
        ConfigError: the name cannot be used, or the folder is there already.
    """
    name = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(
        name
    ):
        raise ConfigError(
            f"plugin name {name!r} cannot be used; write small letters and digits, "
            "with single underscores between them, as in grad_watch"
        )
    if kind == "callback" and name in NOT_PLUGINS:
        raise ConfigError(
            f"plugin name {name!r} stands in records where no plugin asked; use "
            f"another than: {', '.join(NOT_PLUGINS)}"
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
        "class_name": "".join(part.title() for part in name.split("_")) + ENDINGS[kind],
        "api": f">={API_VERSION},<{int(API_VERSION.split('.')[0]) + 1}",
    }
    for path, template in {
        "pyproject.toml": "both/pyproject.toml",
        ".gitignore": "both/gitignore",
        "src/$package/py.typed": None,
        "setup.cfg": f"{kind}/setup.cfg",
        "README.md": f"{kind}/README.md",
        ".github/workflows/test.yml": f"{kind}/workflow.yml",
        "src/$package/__init__.py": f"{kind}/__init__.py",
        f"src/$package/{kind}.py": f"{kind}/{kind}.py",
        "tests/test_$name.py": f"{kind}/test.py",
    }.items():
        file = folder / Template(path).substitute(values)
        file.parent.mkdir(parents=True, exist_ok=True)
        text = "" if template is None else _template(template).substitute(values)
        file.write_text(text, encoding="utf-8")
    return folder


def _template(name: str) -> Template:
    return Template((TEMPLATES / f"{name}.template").read_text(encoding="utf-8"))
