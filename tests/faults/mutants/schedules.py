"""S: schedules move in the unit they were made for, and resume."""

from __future__ import annotations

from faults.mutants.mutant import Mutant

MUTANTS = [
    Mutant(
        "S1",
        "nobody is asked whether updates or epochs are counted",
        "trainbus_lr_scheduling.checks",
        'if not is_said and interval == "epoch":',
        "if False:",
        "faults/resuming/test_schedule_units.py",
        "test_s1",
    ),
    Mutant(
        "S1",
        "a function without a length is taken at its word",
        "trainbus_lr_scheduling.units",
        "    return _hardly_begins(by_epochs, by_updates, run)",
        "    return None",
        "faults/resuming/test_schedule_units.py",
        "test_s1",
    ),
    Mutant(
        "S2",
        "milestones inside other schedulers stay a plain dict",
        "trainbus_lr_scheduling.torch_driver",
        "as_kept(item, known.get(key)) for",
        "as_kept(item, None) for",
        "faults/resuming/test_schedules.py",
        "test_s2_any and MultiStepLR",
    ),
    Mutant(
        "S2",
        "the momentum of a cycle is not put back",
        "trainbus_lr_scheduling.torch_driver",
        'for n, v in options.items() if n != "lr"',
        'for n, v in options.items() if n == "initial_lr"',
        "faults/resuming/test_schedules.py",
        "test_s2_any and OneCycleLR",
    ),
]
