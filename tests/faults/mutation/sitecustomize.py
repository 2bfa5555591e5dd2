"""Break one place of the code while it is imported, in this process and its children.

Python imports this file by itself when its folder is on PYTHONPATH. MUTANT is a JSON
list: module, the text to replace, the text that takes its place.
"""

import json
import os
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from typing import Any

MODULE, OLD, NEW = json.loads(os.environ["MUTANT"])


class Mutated(SourceFileLoader):
    """Loads a file with one place changed, and neither reads nor writes its cache."""

    def get_code(self, fullname: str) -> Any:
        source = self.get_source(fullname)
        assert source.count(OLD) == 1, (fullname, OLD)
        return compile(source.replace(OLD, NEW), self.path, "exec")


class Finder:
    """Finds the module to break, where everybody else finds it."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name != MODULE:
            return None
        for finder in sys.meta_path:
            found = None if finder is self else finder.find_spec(name, path, target)
            if found is not None:
                found.loader = Mutated(name, found.origin)
                return found
        return None


sys.meta_path.insert(0, Finder())
