"""The configuration that the arguments of a command describe."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from training.app.config.sources import environment
from training.discovery import installed
from training.errors import ConfigError

if TYPE_CHECKING:
    from training.app.config.schema import Config

__all__ = ["load"]


def load(arguments: argparse.Namespace) -> Config:
    """Return the configuration with all that the command line and environment add."""
    from training.app.config.load import as_mapping, load_config

    if not arguments.config:
        raise ConfigError("CONFIG is empty; name the file of the configuration")
    for folder in arguments.folders:
        installed.use_folder(folder)
    config = load_config(
        arguments.config, arguments.overrides, arguments.plugins, environment()
    )
    arguments.settings = as_mapping(config)  # what an error may be about
    return config
