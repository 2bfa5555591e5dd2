"""Faults in our own code, each with the tests that must find it.

A test that nothing can make fail proves nothing. ``test_mutants`` breaks one place at
a time and runs the named tests: they must fail. A file for each family of promises.
"""

from faults.mutants import (
    agreeing,
    dividing,
    leaving,
    owning,
    parting,
    resuming,
    saving,
    schedules,
    weighing,
)
from faults.mutants.mutant import Mutant

__all__ = ["MUTANTS", "Mutant"]

MUTANTS = [
    *saving.MUTANTS,
    *resuming.MUTANTS,
    *leaving.MUTANTS,
    *owning.MUTANTS,
    *schedules.MUTANTS,
    *weighing.MUTANTS,
    *agreeing.MUTANTS,
    *dividing.MUTANTS,
    *parting.MUTANTS,
]
