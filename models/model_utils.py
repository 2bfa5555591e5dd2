"""Freeze parts of a model by name."""

from trainbus_models.model_utils import freeze_model

__all__ = ["freeze_model"]
