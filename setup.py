"""Put all source roots on the path of an editable install; the rest is in setup.cfg.

By default setuptools would map ``data`` and ``models`` through an import hook that a
bare ``data/`` folder in the working directory hides. A plain path entry is not hidden,
and type checkers and editors can follow it.
"""

from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command import editable_wheel as editable


class EditableWheel(editable.editable_wheel):
    def _select_strategy(self, name: str, tag: str, build_lib: Any) -> Any:
        static_pth = getattr(editable, "_StaticPth", None)
        if static_pth is None or self.mode:  # another setuptools, or the user's choice
            return super()._select_strategy(name, tag, build_lib)
        root = Path(self.project_dir)
        sources = ("core", "data/src", "models/src", "report/src")
        roots = [*(root / each for each in sources), root]
        return static_pth(self.distribution, name, roots)


setup(cmdclass={"editable_wheel": EditableWheel})
