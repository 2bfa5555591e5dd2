"""Freeze parts of a model by name, and let them train again."""

from trainbus_models.model_utils import freeze_model, unfreeze_model

__all__ = ["freeze_model", "unfreeze_model"]
