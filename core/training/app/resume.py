"""Where ``resume`` was before trainers in Python could be told to resume, too."""

from training.builtin.resume import AUTO, resume, started_at

__all__ = ["AUTO", "resume", "started_at"]
