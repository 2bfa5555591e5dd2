"""All kinds of losses, and which of them are means over a unit."""

from __future__ import annotations

from weighing import relations, zoo

#: Name -> (kind, its unit; None: no unit explains it).
KINDS = {**zoo.kinds(), **relations.kinds()}
FOUND = [name for name, (_, unit) in KINDS.items() if unit is not None]
NONE = [name for name, (_, unit) in KINDS.items() if unit is None]
