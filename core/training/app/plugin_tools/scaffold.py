"""Write the project of a new plugin or task: it installs, passes, and does a job."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template

from training.app.plugin_tools import scaffold_task_text, scaffold_text
from training.bus.registration import NOT_PLUGINS
from training.discovery import installed
from training.errors import ConfigError
from training.files.named_paths import named_path
from training.hookspecs import API_VERSION

__all__ = ["write_project"]


#: Kind -> how its class ends, the module that holds its files, and its own file there.
KINDS = {
    "callback": ("Callback", scaffold_text, "CALLBACK"),
    "task": ("", scaffold_task_text, "TASK"),
}


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
    ending, texts, own = KINDS[kind]
    values = {
        "name": name,
        "distribution": distribution,
        "package": package,
        "class_name": "".join(part.title() for part in name.split("_")) + ending,
        "api": f">={API_VERSION},<{int(API_VERSION.split('.')[0]) + 1}",
    }
    for path, template in {
        "pyproject.toml": scaffold_text.PYPROJECT,
        ".gitignore": scaffold_text.GITIGNORE,
        "src/$package/py.typed": "",
        "setup.cfg": texts.SETUP,
        "README.md": texts.README,
        ".github/workflows/test.yml": texts.WORKFLOW,
        "src/$package/__init__.py": texts.INIT,
        f"src/$package/{kind}.py": getattr(texts, own),
        "tests/test_$name.py": texts.TEST,
    }.items():
        file = folder / Template(path).substitute(values)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(Template(template).substitute(values), encoding="utf-8")
    return folder
