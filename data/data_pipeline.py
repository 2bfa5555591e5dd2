"""From a configuration to the loaders of a data set."""

from trainbus_data.data_pipeline import DataPipeline

__all__ = ["DataPipeline"]
