"""The official VQA accuracy, which the task has: a door to it."""

from trainbus_data.vqa.accuracy import (
    VQA_EVAL_REVISION,
    answer_scores,
    normalise,
    vqa_accuracy,
)

__all__ = ["VQA_EVAL_REVISION", "answer_scores", "normalise", "vqa_accuracy"]
