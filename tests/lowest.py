"""Print the oldest version of every dependency that the projects here allow.

As constraints of pip, a line each: ``torch==2.10``. What has no lower bound is left
out, such as the stubs of a type checker.
"""

import configparser
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def lowest_versions() -> dict[str, str]:
    """Return name -> the highest of the lower bounds that are declared for it."""
    found: dict[str, str] = {}
    for path in (ROOT / "setup.cfg", *sorted(ROOT.glob("plugins/*/setup.cfg"))):
        setup = configparser.ConfigParser()
        setup.read(path)
        extras = "options.extras_require"
        optional = setup[extras].values() if extras in setup else ()
        for text in (setup["options"]["install_requires"], *optional):
            for name, bound in re.findall(r"^([\w-]+) *>=([\d.]+)", text, re.MULTILINE):
                if not name.startswith("trainbus"):
                    found[name] = max(bound, found.get(name, bound), key=_numbers)
    return found


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


if __name__ == "__main__":
    for name, version in lowest_versions().items():
        print(f"{name}=={version}")
