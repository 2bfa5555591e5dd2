"""A progress bar, a CSV file and TensorBoard for trainbus runs."""

from trainbus_logging.csv_logger import CSVLoggerCallback
from trainbus_logging.progress_bar import ProgressBarCallback
from trainbus_logging.tensorboard import TensorBoardCallback

__all__ = ["CSVLoggerCallback", "ProgressBarCallback", "TensorBoardCallback"]
