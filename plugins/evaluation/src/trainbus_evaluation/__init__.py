"""Evaluators, and the callback that runs them during training."""

from trainbus_evaluation.callback import EvaluationCallback
from trainbus_evaluation.evaluator import Evaluator
from trainbus_evaluation.task_evaluator import TaskEvaluator
from trainbus_evaluation.vqa_accuracy import VQA_EVAL_REVISION, normalise, vqa_accuracy
from trainbus_evaluation.vqa_evaluator import VQAEvaluator

__all__ = [
    "EvaluationCallback",
    "Evaluator",
    "TaskEvaluator",
    "VQAEvaluator",
    "VQA_EVAL_REVISION",
    "normalise",
    "vqa_accuracy",
]
