"""Signals, as requests that the next boundary grants."""
