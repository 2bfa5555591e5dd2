"""What the methods of other trainers' callbacks are called here, for messages."""

from __future__ import annotations

from training.errors import did_you_mean
from training.hookspecs import HOOKS

#: Our hook -> what Lightning, transformers, Keras and Composer call it.
_ELSEWHERE = {
    "on_setup": "setup on_fit_start on_init_end fit_start",
    "on_train_begin": "on_train_start",
    "on_epoch_begin": "on_epoch_start on_train_epoch_start epoch_start",
    "on_batch_begin": "on_batch_start on_train_batch_start on_train_batch_begin "
    "on_step_begin batch_start",
    "on_batch_end": "on_train_batch_end on_substep_end on_after_backward batch_end",
    "on_before_step": "on_before_optimizer_step on_pre_optimizer_step",
    "on_step_end": "on_optimizer_step on_log",
    "evaluate": "on_evaluate_begin on_test_begin on_validation_start "
    "on_validation_begin on_validation_epoch_start validation_step eval_start",
    "on_metrics": "on_evaluate on_test_end on_validation_end on_validation_epoch_end "
    "eval_end",
    "on_epoch_end": "on_train_epoch_end epoch_end",
    "on_checkpoint": "on_save on_save_checkpoint epoch_checkpoint batch_checkpoint",
    "on_close": "on_fit_end teardown fit_end",
    "step_fn": "training_step",
    "state_dict": "on_save_state",
    "load_state_dict": "on_load_checkpoint on_load_state",
}

#: A method of another trainer's callback -> what does its work here.
FOREIGN = {name: own for own, names in _ELSEWHERE.items() for name in names.split()}


def hint_for(name: str) -> str:
    """Return ``" (...)"``: what is called ``name`` elsewhere, or is spelt like it."""
    own = FOREIGN.get(name)
    if own is None:
        return did_you_mean(name, HOOKS)
    where = "an argument of Trainer" if own == "step_fn" else "here"
    return f" (another trainer's word; {where} it is {own!r})"
