"""Learning-rate schedules for trainbus runs."""

from trainbus_lr_scheduling.lr_scheduling import LearningRateSchedulerCallback
from trainbus_lr_scheduling.schedules import Schedule

__all__ = ["LearningRateSchedulerCallback", "Schedule"]
