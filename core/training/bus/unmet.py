"""Names in a ``before`` or ``after`` that look misspelt."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from training.bus.declared import MUTABLES
from training.bus.order import RELATIONS, meant_names
from training.discovery import installed
from training.errors import did_you_mean

log = logging.getLogger(__name__)

#: What may be said of all that change a part, whether one of them is there or not.
PARTS = tuple(f"mutates:{part}" for part in MUTABLES)


def unmet_relations(plugins: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each name in a relation that looks misspelt.

    A name of a plugin that is absent is allowed, and so is a part that nobody changes;
    one that is nearly that of another plugin that is there, or of a part, is probably
    wrong, unless an installed one has it.
    """
    known = meant_names(plugins)
    told = []
    for name, plugin in plugins.items():
        others = [each for each, by in known.items() if by != [name]]
        told += [
            f"plugin {name!r} declares {key} {said!r}, which is not there{hint}"
            for key in RELATIONS
            for said in getattr(plugin, key, ())
            if said not in known
            and said not in PARTS
            and (hint := did_you_mean(said, [*others, *(PARTS if ":" in said else ())]))
            and not installed.is_known(said)
        ]
    return told


def warn_of_unmet(plugins: Mapping[str, Any], told: set[str]) -> None:
    """Say the sentences of ``unmet_relations`` that are not among those ``told``."""
    for sentence in unmet_relations(plugins):
        if sentence not in told:
            log.warning("%s", sentence)
            told.add(sentence)
