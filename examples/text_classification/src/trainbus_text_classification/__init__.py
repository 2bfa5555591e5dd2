"""Classify texts: a task and its model family in one class."""

from trainbus_text_classification.texts import TextClassification

__all__ = ["TextClassification"]
