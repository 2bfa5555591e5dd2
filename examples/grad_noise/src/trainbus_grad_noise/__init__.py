"""How noisy the gradients of a run are."""

from trainbus_grad_noise.callback import GradientNoiseCallback

__all__ = ["GradientNoiseCallback"]
