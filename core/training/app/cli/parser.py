"""How arguments are parsed, and what is said of those that cannot be."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from training.errors import did_you_mean
from training.messages.error_texts import printable

__all__ = ["Commands", "Parser"]

#: What commands are added to.
Commands = argparse._SubParsersAction  # the one name argparse has for it


class Parser(argparse.ArgumentParser):
    """Takes no option by half its name, and says in printable words what was meant.

    So do those of the commands.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        # Else an option that is added later could change what a script means.
        super().__init__(*arguments, **{"allow_abbrev": False, **options})

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse all arguments, or name the option nearest to one that there is not.

        What is found has ``options``, too: name of an argument -> the option it is of.
        """
        found, others = self.parse_known_args(args, namespace)
        called = _called(self, sys.argv[1:] if args is None else args)
        optional = [each for each in called._actions if each.option_strings]
        found.options = {each.dest: each.option_strings[-1] for each in optional}
        lists = [each.dest for each in called._actions if each.nargs in ("*", "+")]
        if lists and not any(each.startswith("-") for each in others):
            # To argparse a list ends at an option; words behind it are of it, too.
            setattr(found, lists[-1], [*getattr(found, lists[-1]), *others])
            others = []
        if others:
            option = next((o.partition("=")[0] for o in others if o[:1] == "-"), "")
            options = [each for a in optional for each in a.option_strings]
            hint = did_you_mean(option, options)
            called.error(f"unrecognized arguments: {' '.join(others)}{hint}")
        return found

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Name the nearest of the commands, or of the values that an option has."""
        if action.choices is not None and value not in action.choices:
            names = [str(each) for each in action.choices]
            told = f"invalid choice: {value!r}{did_you_mean(str(value), names)}"
            raise argparse.ArgumentError(
                action, f"{told}, choose from: {', '.join(names)}"
            )

    def error(self, message: str) -> NoReturn:
        """Tell it, and leave."""
        super().error(printable(message))


def _called(
    parser: argparse.ArgumentParser, words: Sequence[str]
) -> argparse.ArgumentParser:
    """Return the parser of the command that ``words`` call."""
    for action in parser._actions:
        if isinstance(action, Commands):
            for word in words:
                if word in action.choices:
                    return _called(action.choices[word], words)
    return parser
