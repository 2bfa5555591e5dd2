"""Early stopping for trainbus."""

from trainbus_early_stopping.early_stopping import EarlyStoppingCallback
from trainbus_early_stopping.progress import improved

__all__ = ["EarlyStoppingCallback", "improved"]
