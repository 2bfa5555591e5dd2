"""The part of the command line that is about plugins: its arguments."""

from __future__ import annotations

import argparse

__all__ = ["add_choice", "add_config", "add_plugins"]

Parsers = argparse._SubParsersAction  # the one name argparse has for it
MODULE = "plugin_tools.plugin_commands"


def add_plugins(commands: Parsers[argparse.ArgumentParser]) -> None:
    """Add ``plugins`` with its actions."""
    plugins = commands.add_parser("plugins", help="see, check and write plugins")
    actions = plugins.add_subparsers(metavar="ACTION", required=True)
    listing = _action(actions, "list", "list installed plugins, importing none")
    _add_source(listing)
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.add_argument(
        "--order",
        action="store_true",
        help="print who hears each event, in order, and why in that order",
    )
    show = _action(actions, "show", "describe one plugin, from its source code")
    show.add_argument("name", metavar="PLUGIN", help="its name, or ./file.py:Class")
    _add_kind(show)
    _add_folder(show)
    check = _action(actions, "check", "import and validate plugins in another process")
    check.add_argument("names", metavar="PLUGIN", nargs="*", help="default: all")
    _add_kind(check)
    _add_folder(check)
    why = _action(actions, "why", "say what switched a plugin on or off")
    why.add_argument("name", metavar="PLUGIN", help="its name, or ./file.py:Class")
    _add_kind(why)
    _add_source(why)
    new = _action(actions, "new", "write the project of a new plugin")
    new.add_argument("name", metavar="NAME", help="as in: grad_watch")
    new.add_argument(
        "--kind",
        choices=("callback", "task"),
        default="callback",
        help="a task comes with a model family",
    )
    new.add_argument(
        "--into", default=".", metavar="DIR", help="where to make its folder"
    )


def add_config(commands: Parsers[argparse.ArgumentParser]) -> None:
    """Add ``config`` with its actions."""
    config = commands.add_parser("config", help="what a configuration may say")
    actions = config.add_subparsers(metavar="ACTION", required=True)
    schema = actions.add_parser(
        "schema", help="print a JSON schema with the options of installed plugins"
    )
    schema.set_defaults(command="config_schema", module=MODULE)
    _add_folder(schema)


def add_choice(parser: argparse.ArgumentParser) -> None:
    """Add ``-p`` and ``--plugins-dir``."""
    parser.add_argument(
        "-p",
        "--plugin",
        action="append",
        default=[],
        metavar="NAME",
        dest="plugins",
        help="enable a plugin or ./file.py:Class; no:NAME switches one off; so does "
        "the variable TRAINBUS_PLUGINS, separated by commas",
    )
    _add_folder(parser)


def _action(
    actions: Parsers[argparse.ArgumentParser], name: str, words: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=words)
    parser.set_defaults(command=f"{name}_plugins", module=MODULE)
    return parser


def _add_kind(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--kind",
        choices=("callback", "task", "model", "reader"),
        help="which one, where a name is that of several kinds",
    )


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", metavar="CONFIG", nargs="?", help="whose plugins; default: none's"
    )
    add_choice(parser)


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plugins-dir",
        action="append",
        default=[],
        metavar="DIR",
        dest="folders",
        help="offer the plugins in the files of DIR, too",
    )
