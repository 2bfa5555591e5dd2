"""What a loader is made of: samplers and data sets stand inside of one another."""

from __future__ import annotations

from typing import Any

#: Attributes under which a loader, and a sampler, has the next one.
SAMPLERS = ("sampler", "batch_sampler")
#: Where a loader, also one of accelerate's, has what may draw, or choose rows by epoch.
INSIDE = ("dataset", "collate_fn", "base_dataloader", *SAMPLERS)


def parts_of(whole: Any, names: tuple[str, ...] = SAMPLERS) -> list[Any]:
    """Return ``whole`` and all that it has inside, outermost first, each once.

    Args:
        whole: a loader or sampler, or None, which has no parts.
        names: attributes that are followed, of each part found, too.
    """
    parts = [] if whole is None else [whole]
    for part in parts:  # grows
        for name in names:
            inner = getattr(part, name, None)
            # By identity: they may stand in a circle.
            if inner is not None and all(inner is not known for known in parts):
                parts.append(inner)
    return parts
