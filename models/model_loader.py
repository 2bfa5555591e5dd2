"""Load a model by name, family and task."""

from trainbus_models.model_loader import load_model

__all__ = ["load_model"]
