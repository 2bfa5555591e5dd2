"""An exponential moving average (EMA) of the weights, used for evaluation."""

from trainbus_ema.callback import EmaCallback

__all__ = ["EmaCallback"]
