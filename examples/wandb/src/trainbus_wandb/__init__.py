"""The curves of a run in Weights & Biases."""

from trainbus_wandb.callback import WandbCallback

__all__ = ["WandbCallback"]
