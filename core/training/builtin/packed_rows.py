"""Tell of rows that hold several texts, where a model does not keep these apart."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from training.loop.window import Window

log = logging.getLogger(__name__)


class PackedRows:
    """Looks at the first batch, and has taken itself off the window by its end.

    A language model of transformers goes by ``position_ids`` that begin anew inside a
    row: what follows does not attend to what was before. It does so silently, and only
    where it keeps no cache and is given no 2-D mask (``masking_utils`` there), and a
    cache is what it has by default.

    Args:
        window: has no batch yet; it calls the model with the batch's entries.
        model: the bare module.
    """

    def __init__(self, window: Window, model: nn.Module) -> None:
        self._window, self._model = window, model
        # Those that generate: an encoder's rows may begin anew, as of pairs, and its
        # configuration speaks of a cache that it has not.
        generates = getattr(model, "can_generate", None)
        has_switch = isinstance(getattr(_text_config(model), "use_cache", None), bool)
        if has_switch and callable(generates) and generates():
            window.backward = self._go_back  # type: ignore[method-assign]

    def _go_back(self, batch: Any, weight: float) -> Tensor:
        del self._window.backward
        if isinstance(batch, Mapping):
            self._look(batch)
        return self._window.backward(batch, weight)

    def _look(self, batch: Mapping[str, Any]) -> None:
        """Warn of texts that see those before them; on CUDA it waits for the batch."""
        config = _text_config(self._model)
        mask, ways = batch.get("attention_mask"), []
        # A flash attention goes by the positions itself, with a cache, too.
        is_flash = "flash" in str(getattr(config, "_attn_implementation", ""))
        if batch.get("use_cache", config.use_cache) and not is_flash:
            part = "" if config is self._model.config else ".text_config"
            ways.append(f"set model.config{part}.use_cache = False")
        if isinstance(mask, Tensor) and mask.dim() == 2:
            ways.append("leave attention_mask out of the batch")
        if ways and (place := _beginning(batch.get("position_ids"), mask)):
            log.warning(
                "position_ids begin anew inside a row (row %d, at %d), and yet what "
                "follows attends to what was before: transformers parts them only "
                "without a cache and without a 2-D attention_mask; %s",
                *(*place, " and ".join(ways)),
            )


def _text_config(model: nn.Module) -> Any:
    """Return the configuration of a model, or of the text part of several; or None."""
    config = getattr(model, "config", None)
    return getattr(config, "text_config", config)


def _beginning(positions: Any, mask: Any) -> tuple[int, int] | None:
    """Return row and place of the first text behind another one, if there is one.

    Args:
        positions: (B, T) integers, or something else, which tells nothing.
        mask: (B, T), 0 where nothing stands, or something else.
    """
    if not isinstance(positions, Tensor) or positions.dim() != 2 or positions.is_meta:
        return None
    # Padding has positions, too; none of them counts up from 0 behind a text.
    before, here, behind = positions[:, :-2], positions[:, 1:-1], positions[:, 2:]
    begins = (before > 0) & (here == 0) & (behind == 1)
    if isinstance(mask, Tensor) and mask.shape == positions.shape:
        begins &= (mask[:, :-2] != 0) & (mask[:, 1:-1] != 0)
    found: list[list[int]] = torch.nonzero(begins).tolist()
    return (found[0][0], found[0][1] + 1) if found else None
