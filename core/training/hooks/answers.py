"""What a plugin may answer to hooks that no event of a run fires."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def summary_mistake(answer: Any) -> str:
    """Return what is wrong with an answer to ``summary``, ``""`` if nothing."""
    try:
        if not isinstance(answer or {}, Mapping):
            raise TypeError
        json.dumps(answer)
        for metric, value in (answer or {}).get("best", {}).items():
            if not isinstance(metric, str) or not isinstance(value, (int, float)):
                return f"returned {value!r} from summary as the best {metric!r}"
        for label, path in (answer or {}).get("paths", {}).items():
            if not isinstance(path, str):
                return f"returned {path!r} from summary as the path {label!r}"
    except (TypeError, ValueError, AttributeError):
        return f"returned {answer!r} from summary; return JSON values by name"
    return ""
