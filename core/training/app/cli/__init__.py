"""The command line; ``main`` is what the command ``trainbus`` calls."""

from training.app.cli.command_line import main

__all__ = ["main"]
