"""Modules of torch as a run finds them: named, frozen, resting, spoilt."""
